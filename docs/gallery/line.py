"""The loss along a random direction, on the training and the test set."""

from trained import model, test, train

from losslandscape import plot_loss

plot_loss(
    model, (train, test), dataset_labels=("training set", "test set"), seed=0, path="line.png"
)
