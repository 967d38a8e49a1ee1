"""How sharp the loss becomes during training, and how sharp the learning rate lets it be."""

from trained import sgd, sgd_history, train

from losslandscape import plot_training_curvature, training_curvature

curvature = training_curvature(sgd, sgd_history, *train, ("largest_eigenvalue",), seed=0)
axes = plot_training_curvature(curvature)
axes["largest_eigenvalue"].get_figure().savefig("stability.png", dpi=200)
