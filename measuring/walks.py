"""Walks: how a point of a landscape becomes the weights of a model.

A walk is a function of a model. It returns the variables that move, each with a
function that computes its value from the value at the center, the steps in the
directions and the coordinates along them.
"""

import contextlib

import keras
import tensorflow as tf
from keras import ops


def along_directions(model):
    """The walk in the space of the trainable weights, `θ + α·d1 + β·d2 + …`."""
    return [(weight, straight) for weight in model.trainable_variables]


def straight(value, steps, coordinates):
    """Moves a weight along directions: returns `value + α·d1 + β·d2 + …`."""
    for coordinate, step in zip(coordinates, steps, strict=True):
        # Not `+=`: on Torch it would move the center itself.
        value = value + coordinate * step
    return value


def mover(state):
    """Makes the function that puts a model at a point, always from the same state.

    Nothing accumulates: neither where a point lies nor what is measured there
    depends on earlier points. The function holds no values, so a graph of it serves
    other states, too.

    Args:
        state: A `State`.

    Returns:
        A function of `state.values`, directions (a list of lists of tensors shaped like
        the variables that move) and a point (the coordinates along them).
    """
    locate, moved, others = locator(state), state.moved, state.others

    def move(values, directions, point):
        centers, rest = values
        for variable, value in zip(others, rest, strict=True):
            put_back(variable, value)
        for weight, value in zip(moved, locate(centers, directions, point), strict=True):
            weight.assign(value)

    return move


def put_back(variable, value):
    """Restores the saved value of a variable."""
    # On JAX, an evaluation reuses the memory of the model's values. What is not Keras' stays
    # out of it, and JAX would cut its 64-bit integers.
    is_reused = keras.backend.backend() == "jax" and not isinstance(variable, tf.Variable)
    variable.assign(ops.copy(value) if is_reused else value)


def locator(state):
    """Makes the function that computes the weights at a point.

    Args:
        state: A `State`.

    Returns:
        A function of the values at the center, the directions and a point; it yields
        the value of each variable that moves.
    """
    moved, moves, dtypes = state.moved, state.moves, precise_dtypes(state.moved)

    def locate(centers, directions, point):
        coordinates = {
            dtype: [_cast(point[index], _real(dtype)) for index in range(len(directions))]
            for dtype in set(dtypes)
        }
        value = point
        parts = zip(moved, moves, dtypes, centers, *directions, strict=True)
        for weight, move, dtype, center, *steps in parts:
            with _after(value):
                steps = [_cast(step, dtype) for step in steps]  # noqa: PLW2901
                value = move(_cast(center, dtype), steps, coordinates[dtype])
            yield _cast(value, weight.dtype)

    return locate


def precise_dtypes(weights):
    """The type to compute each weight in: half precision would round a step away."""
    return [
        _real(weight.dtype) if keras.backend.is_float_dtype(weight.dtype) else weight.dtype
        for weight in weights
    ]


def _real(dtype):
    return keras.backend.result_type(dtype, "float32")


def _cast(tensor, dtype):
    # Even a cast to the same type takes time, for each weight at each point.
    same = keras.backend.standardize_dtype(tensor.dtype) == dtype
    return tensor if same else ops.cast(tensor, dtype)


def _after(value):
    """One weight after the other: TensorFlow would compute and store them all at once."""
    if keras.backend.backend() == "tensorflow":
        return tf.control_dependencies([value])
    return contextlib.nullcontext()
