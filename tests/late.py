"""A model that says that it is built before all of its weights are there."""

import keras
from keras import layers


class LateModel(keras.Model):
    """Forgets to build its last layer, so that only the first call does."""

    def __init__(self):
        super().__init__()
        self.first, self.last = layers.Dense(5, activation="tanh"), layers.Dense(3)

    def build(self, shape):
        self.first.build(shape)

    def call(self, inputs):
        return self.last(self.first(inputs))


def late_model():
    model = LateModel()
    model.build((None, 4))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
