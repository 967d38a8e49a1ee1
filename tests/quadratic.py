"""A model whose loss is a quadratic function of its weights, known in closed form."""

import keras
import numpy as np
from keras import layers, ops


class Quadratic(layers.Layer):
    """Puts out q(w) = ½ wᵀAw + bᵀw of its weights w, whatever the input."""

    MATRIX = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 4.0]])
    SLOPE = np.array([1.0, -2.0, 0.5])

    def build(self, _):
        self.w = self.add_weight(shape=(3, 1), initializer="ones", name="w")

    def call(self, inputs):
        w = self.w[:, 0]
        value = ops.sum(w * ops.matmul(ops.convert_to_tensor(self.MATRIX, "float32"), w)) / 2
        value += ops.sum(ops.convert_to_tensor(self.SLOPE, "float32") * w)
        return value + 0 * inputs[:, :1]


def quadratic_model():
    model = keras.Sequential([keras.Input((1,)), Quadratic()])
    model.compile(keras.optimizers.SGD(0.1), loss=lambda _, output: ops.mean(output))
    return model
