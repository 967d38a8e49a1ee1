"""The loss over a random plane, as contours and as a surface, from one computation."""

from trained import model, test

from losslandscape import plot_loss_3D

plot_loss_3D(model, ("levels", "3d"), *test, seed=0, path="plane.png")
