"""How sharp the loss becomes in the course of training, and how sharp it may be."""

from trained import sgd, sgd_history, train

from losslandscape import plot_training_curvature, training_curvature

curvature = training_curvature(sgd, sgd_history, *train, ("largest_eigenvalue",), seed=0)
axes = plot_training_curvature(curvature)
axes["largest_eigenvalue"].get_figure().savefig("stability.png", dpi=200)
