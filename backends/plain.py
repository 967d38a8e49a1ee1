"""Plain: what this library asks of a backend of Keras, and what any backend can do.

A backend that measures many points at a time, or differentiates, overrides methods in its own
file, such as `on_jax.py`.
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
            The names of the measured values, and a function. It takes directions, an array
            of `length` points and how many of these to measure, and returns a tensor of
            shape `(points, 1, names)` or, of a dataset in blocks, `(points, batches, names)`:
            the values of all samples up to the end of each batch.
        """
        raise NotImplementedError

    def differentiator(self, model, batches):
        """Makes the function that differentiates the loss of a batch twice.

        Args:
            model: A compiled and built `keras.Model`.
            batches: The batches, as a test step gets them.

        Returns:
            A function that takes a batch and a direction, and returns `Derivatives`. It
            changes the state that the model's own test step would change, except the metrics.
        """
        raise NotImplementedError

    def generators(self):
        """Returns pairs of functions that read and set each random generator of the process."""
        return []

    def parts_of_batch(self):
        """Returns into how many equal parts Keras cuts each batch."""
        return 1

    def copies(self, variable):
        """Returns a list of the variable or, if replicas have copies of it, of these copies."""
        return [variable]

    def put_back(self, variable, value):
        """Restores the saved value of a variable."""
        variable.assign(value)

    def to_tensor(self, array, variable):  # noqa: ARG002
        """Puts an array on the device, or the devices that a variable of its shape lies on.

        Args:
            array: An array; if it has more axes than the variable, these come first. Or a
                number that stands for an array of it.
            variable: The `keras.Variable` that the array belongs to.
        """
        return array if ops.is_tensor(array) else ops.copy(array)

    def after(self, value):  # noqa: ARG002
        """Makes a context whose operations run only after a value has been computed."""
        return contextlib.nullcontext()


def obstacle_of_distribution():
    """Why `graph` does not apply to a model that Keras distributes; `None` if it does not."""
    if keras.distribution.distribution() is not None:
        return "the model is distributed by a strategy"
    return None
