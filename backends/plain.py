"""Plain: what this library asks of a backend of Keras, and what any backend can do.

A backend that measures many points at a time, or differentiates, adds to it in a file of its
own, such as `on_jax.py`.
"""

import contextlib

import keras
from keras import ops


class Plain:
    """A backend that does only what Keras itself offers."""

    def break_even(self, model):  # noqa: ARG002
        """Returns the number of points from which on a graph saves more time than it takes."""
        return 1

    def obstacle(self, model):  # noqa: ARG002
        """Returns why `graph` does not apply to a model, or `None`."""
        return f"the backend {keras.backend.backend()!r} has no such engine"

    def graph(self, state, dataset, length):
        """Makes the function that measures many points.

        Args:
            state: The `State` of a model at the weights to start from.
            dataset: A `Dataset` of dense tensors.
            length: The most points that the function takes at once.

        Returns:
            The names of what is measured, and a function of directions, an array of
            `length` points, and how many of these to measure; it returns a tensor with a
            row per point.
        """
        raise NotImplementedError

    def differentiator(self, model, batches):
        """Makes the function that differentiates the loss of a batch twice.

        Args:
            model: A compiled and built `keras.Model`.
            batches: The batches, as a test step gets them.

        Returns:
            A function of a batch and a direction that returns `Derivatives`. It changes what
            the model's own test step would change, except the metrics.
        """
        raise NotImplementedError

    def generators(self):
        """Returns pairs of functions that read and set each random generator of the process."""
        return []

    def copies(self, variable):
        """Returns the copies of a variable, if there is one on each replica; else itself."""
        return [variable]

    def put_back(self, variable, value):
        """Restores the saved value of a variable."""
        variable.assign(value)

    def to_tensor(self, array):
        """Puts an array on the device."""
        return ops.copy(array)

    def after(self, value):  # noqa: ARG002
        """Enters a block whose operations come after a value was computed."""
        return contextlib.nullcontext()


def obstacle_of_distribution():
    """Why a graph of this library does not apply where Keras distributes, or `None`."""
    if keras.distribution.distribution() is not None:
        return "the model is distributed by a strategy"
    return None
