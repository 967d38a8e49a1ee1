"""Two datasets side by side, with the same scale and colors."""

from trained import model, test, train

from losslandscape import plot_loss_3D

plot_loss_3D(
    model,
    "levels",
    (train, test),
    dataset_labels=("training set", "test set"),
    scale="log",
    seed=0,
    path="datasets.png",
)
