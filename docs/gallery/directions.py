"""The mean along ten random directions, with the standard deviation."""

from trained import model, test, train

from losslandscape import plot_loss

plot_loss(
    model,
    (train, test),
    dataset_labels=("training set", "test set"),
    number_of_directions=10,
    scale="log",
    seed=0,
    path="directions.png",
)
