"""The line from one network to another: loss and accuracy."""

from trained import model, other, test, train

from losslandscape import plot_interpolation

plot_interpolation(
    model, other, (train, test), ("training set", "test set"), path="interpolation.png"
)
