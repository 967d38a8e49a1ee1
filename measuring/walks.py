"""Walks: how a point of a landscape becomes the weights of a model.

A walk is a function of a model. It returns the variables that move, each with a
function that computes its value from the value at the center, the steps in the
directions and the coordinates along them.
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
        value = point
        parts = zip(moved, moves, dtypes, centers, *directions, strict=True)
        for weight, move, dtype, center, *steps in parts:
            with after(value):
                steps = [_cast(_tensor(step), dtype) for step in steps]  # noqa: PLW2901
                value = move(_cast(center, dtype), steps, coordinates[dtype])
            yield _cast(value, weight.dtype)

    return locate


def _tensor(array):
    # Even looking whether it has to be converted takes time, for each weight at each point.
    return ops.convert_to_tensor(array) if isinstance(array, np.ndarray) else array


def _cast(tensor, dtype):
    # Even a cast to the same type takes time, for each weight at each point.
    same = keras.backend.standardize_dtype(tensor.dtype) == dtype
    return tensor if same else ops.cast(tensor, dtype)
