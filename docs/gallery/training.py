"""The path of training on the plane that holds most of it, and how faithful that picture is."""

from trained import history, model, train

from losslandscape import plot_trajectory

plot_trajectory(model, history, *train, scale="log", path="training.png")
