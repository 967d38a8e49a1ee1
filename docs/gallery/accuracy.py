"""Another metric that the model was compiled with."""

from trained import model, test

from losslandscape import plot_loss_3D

plot_loss_3D(model, "levels", *test, metric="accuracy", seed=0, path="accuracy.png")
