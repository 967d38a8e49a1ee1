"""A small network on scikit-learn's digits, and variants of it, for all pictures."""

import tempfile

import keras
from sklearn.datasets import load_digits

from losslandscape import WeightHistory

x, y = load_digits(return_X_y=True)
train, test = (x[:1200] / 16, y[:1200]), (x[1200:] / 16, y[1200:])


def fit(name, *, seed=0, batch_size=32, optimizer="adam", epochs=10, callbacks=None):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(10, "softmax")]
    network = keras.Sequential([keras.Input((64,)), *layers], name=name)
    network.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(*train, batch_size, epochs=epochs, callbacks=callbacks, verbose=0)
    return network


history, sgd_history = WeightHistory(tempfile.mkdtemp()), WeightHistory(tempfile.mkdtemp())
model = fit("seed-0", callbacks=[history])
other, third = fit("seed-1", seed=1), fit("seed-2", seed=2)
large_batch = fit("large-batches", batch_size=300, epochs=50)
sgd = fit("SGD", optimizer=keras.optimizers.SGD(0.1), callbacks=[sgd_history])
