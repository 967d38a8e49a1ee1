"""The line from one network to another: loss and accuracy."""

from trained import model, other, test, train

from losslandscape import plot_interpolation

plot_interpolation(
    model,
    other,
    (train, test),
    dataset_labels=("training set", "test set"),
    path="interpolation.png",
)
