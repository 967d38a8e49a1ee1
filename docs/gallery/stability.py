"""Gradient descent becomes about as sharp as its learning rate allows."""

import tempfile

import keras
from trained import fit, train

from losslandscape import WeightHistory, plot_training_curvature, training_curvature

history = WeightHistory(tempfile.mkdtemp(), every=20)
optimizer = keras.optimizers.SGD(0.5)
network = fit("descent", batch_size=1200, optimizer=optimizer, epochs=200, callbacks=[history])
curvature = training_curvature(network, history, *train, ("largest_eigenvalue",), seed=0)
axes = plot_training_curvature(curvature)
axes["largest_eigenvalue"].get_figure().savefig("stability.png", dpi=200)
