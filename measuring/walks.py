"""Walks: how a point of a landscape becomes the weights of a model.

A walk is a function of a model. It returns the variables that move, each with a
function that computes its value from the value at the center, the steps in the
directions (an iterable that can be read once) and the coordinates along them.
"""

import keras
import numpy as np
from keras import ops

from losslandscape.backends.current import current
from losslandscape.backends.structures import precise_dtypes, real_dtype


def along_directions(model):
    """The walk in the space of the trainable weights, `θ + α·d1 + β·d2 + …`."""
    return [(weight, straight) for weight in model.trainable_variables]


def straight(value, steps, coordinates):
    """Moves a weight along directions: returns `value + α·d1 + β·d2 + …`."""
    for coordinate, step in zip(coordinates, steps, strict=True):
        # Not `+=`, which on Torch would move the center itself.
        value = value + coordinate * step
        # It may be large, and the next one is made before it is replaced.
        del step
    return value


def locator(moved, moves):
    """Makes the function that computes the weights at a point.

    Args:
        moved: List of the variables that move.
        moves: List of the functions that compute their values.

    Returns:
        A function of the values at the center, the directions (a list of sequences of
        tensors or arrays shaped like the variables that move) and a point (the coordinates
        along them); it yields the value of each variable.
    """
    dtypes, after = precise_dtypes(moved), current().after

    def locate(centers, directions, point):
        coordinates = {
            dtype: [_cast(point[index], real_dtype(dtype)) for index in range(len(directions))]
            for dtype in set(dtypes)
        }
        value, remaining = point, [iter(direction) for direction in directions]
        for weight, move, dtype, center in zip(moved, moves, dtypes, centers, strict=True):
            with after(value):
                # One after the other, since large ones are drawn or read only here.
                steps = (_cast(_tensor(next(each), weight), dtype) for each in remaining)
                value = move(_cast(center, dtype), steps, coordinates[dtype])
                for _ in steps:
                    # A weight may stay, but not put the next one into the place of its steps.
                    pass
            yield _cast(value, weight.dtype)

    return locate


def _tensor(array, weight):
    # Even looking whether it has to be moved takes time, for each weight at each point.
    return current().to_tensor(array, weight) if isinstance(array, np.ndarray) else array


def _cast(tensor, dtype):
    # Even a cast to the same type takes time, for each weight at each point.
    same = keras.backend.standardize_dtype(tensor.dtype) == dtype
    return tensor if same else ops.cast(tensor, dtype)
