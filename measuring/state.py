"""State: everything that an evaluation may change, saved and restored.

In addition to its weights, a model has the moving statistics of normalization layers,
seed generators, the memory of stateful layers, metrics and an optimizer; layers, losses
and steps may refer to variables that Keras does not track; and random numbers come from
generators of the process. Each point of a landscape has to start from exactly the same
state, and the user gets all of it back.
"""

__all__ = ["preserved"]

import contextlib
import random
from contextlib import AbstractContextManager

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from losslandscape.backends.current import current
from losslandscape.basics.checks import check_is_model
from losslandscape.basics.claims import claimed
from losslandscape.basics.internals import (
    flatten_layers,
    global_seed_generator,
    has_global_seed_generator,
    set_global_seed_generator,
)
from losslandscape.measuring.references import variables_of
from losslandscape.measuring.walks import along_directions, locator


@contextlib.contextmanager
def preserved(model: keras.Model) -> AbstractContextManager[None]:
    """Restores a model to the last bit, however the block ends.

    Saves the weights, the state of the layers, the optimizer, the metrics and the
    random generators, and restores them on return, exception and
    `KeyboardInterrupt`. Variables that Keras does not track are included if the
    model's layers, loss, metrics or steps refer to them. Meanwhile, other threads
    cannot measure the model (`RuntimeError`).

    Args:
        model: A built `keras.Model`.

    Example:

    >>> with preserved(model):
    ...     model.set_weights(others)
    ...     model.evaluate(x, y)
    """
    check_is_model(model)
    with claimed(model), _given_back(State(model, with_optimizer=True)):
        yield


@contextlib.contextmanager
def evaluated(model, walk=along_directions):
    """Restores a model as `preserved` does, with less memory, after a block that evaluates it.

    The optimizer, whose moments may take twice the memory of the weights, is saved
    only if the model has a custom test step: Keras' own does not touch it.

    Args:
        model: A built `keras.Model`.
        walk: Which variables move, and how; see `walks`. By default, the trainable
            ones along directions.

    Yields:
        The `State` at the beginning of the block.
    """
    check_copies("model", [weight for weight, _ in walk(model)])
    has_own_step = type(model).test_step is not keras.Model.test_step
    with claimed(model), _given_back(State(model, walk, with_optimizer=has_own_step)) as state:
        yield state


class State:
    """The state of a model at one moment.

    Attributes:
        model: The `keras.Model`.
        walk: How a point becomes weights.
        moved: List of the variables that a point sets.
        locate: The function that computes their values; see `locator`.
        others: List of all other variables that an evaluation may change, except
            those of metrics, which every evaluation resets anyway.
    """

    def __init__(self, model, walk=along_directions, *, with_optimizer):
        self.model, self.walk = model, walk
        pairs = walk(model)
        self.moved = [weight for weight, _ in pairs]
        self.locate = locator(self.moved, [move for _, move in pairs])
        self._backend = current()
        self._test_function = model.test_function
        metrics = model.metrics_variables
        self._generators = [(put, get()) for get, put in _process_generators()]
        # `load_weights` sets these, too, although Keras does not count them as weights.
        self._constants = [
            (layer, name, vars(layer)[name])
            for layer in flatten_layers(model)
            for name in ("mean", "variance")
            if isinstance(layer, layers.Normalization) and name in vars(layer)
        ]
        # If the first point made it, this point would differ from all others.
        self._made_generator = not has_global_seed_generator()
        self._seed = global_seed_generator().state
        found = [*model.variables, *metrics, self._seed, *variables_of(model)]
        optimizer = getattr(model, "optimizer", None)
        if with_optimizer and optimizer is not None:
            found += optimizer.variables
        found = list({id(variable): variable for variable in found}.values())
        moved = {id(variable) for variable in (*self.moved, *metrics)}
        rest = {
            id(copy) for one in found if id(one) not in moved for copy in self._backend.copies(one)
        }
        # After the variables themselves, so that each of their copies has the last word.
        kept = [*self.moved, *(copy for one in found for copy in self._backend.copies(one))]
        kept = list({id(variable): variable for variable in kept}.values())
        pairs = [(variable, _copy(variable)) for variable in kept]
        # A failed build leaves variables without a value behind.
        pairs = [pair for pair in pairs if _fits(*pair)]
        # Variables are kept too, so that they live as long as their ids are used.
        self._values = {id(variable): (variable, value) for variable, value in pairs}
        self.others = [variable for variable, _ in pairs if id(variable) in rest]

    def value(self, variable):
        """Returns the saved value of a variable."""
        return self._values[id(variable)][1]

    @property
    def values(self):
        """The saved values of the variables that move, and those of all others."""
        return [[self.value(one) for one in each] for each in (self.moved, self.others)]

    def move(self, values, directions, point):
        """Puts the model at a point, always from the same state.

        Nothing accumulates: neither where a point lies nor what is measured there depends
        on earlier points.

        Args:
            values: Those of this state; in a graph they are arguments, or it would keep them.
            directions: A list of lists of tensors shaped like the variables that move.
            point: The coordinates along them.
        """
        centers, rest = values
        for variable, value in zip(self.others, rest, strict=True):
            self._backend.put_back(variable, value)
        there = self.locate(centers, directions, point)
        for weight, value in zip(self.moved, there, strict=True):
            weight.assign(value)

    def rewind(self):
        """Restores the random generators of the process."""
        for put, value in self._generators:
            put(value)

    def start_over(self):
        """Restores all but the variables that move, so that the next evaluation starts from it."""
        for variable in self.others:
            self._backend.put_back(variable, self.value(variable))
        self.rewind()

    def restore(self):
        """Restores everything; a variable that fails does not stop the rest."""
        with contextlib.suppress(Exception):
            if any(id(one) not in self._values for one in self.model.metrics_variables):
                # Metrics built in the meantime have no saved state, only their initial one.
                self.model.reset_metrics()
        errors = []
        for variable, value in self._values.values():
            try:
                self._backend.put_back(variable, value)
            except Exception as error:
                errors.append(error)
        for layer, name, value in self._constants:
            setattr(layer, name, value)
        self.rewind()
        if errors:
            raise errors[0]

    def give_back(self):
        """Restores everything for the user, including the graph that Keras evaluates with."""
        # Not at each point, which would have to build a graph again. The user is better off with
        # no graph than with one for other data.
        self.model.test_function = self._test_function
        if self._made_generator:
            set_global_seed_generator(None)
        self.restore()


def check_copies(name, weights):
    """Refuses weights to move that a strategy keeps with different values; `name` is the model's.

    Args:
        name: The name of the argument that holds the model, for errors.
        weights: List of variables.

    Raises:
        ValueError: If the copies of some differ.
    """
    backend, differing = current(), []
    for weight in weights:
        first, *others = backend.copies(weight)
        if any(not np.array_equal(first, other) for other in others):
            differing.append(weight.path)
    if differing:
        raise ValueError(
            f"`{name}` has weights with another value on each replica of its strategy, so they "
            f"cannot be moved as one: {differing}. Save it, and load it outside of the strategy's "
            "scope: it then has the values of the first replica."
        )


@contextlib.contextmanager
def _given_back(state):
    try:
        yield state
    finally:
        # In a `try` too: a signal may arrive as soon as the function begins.
        try:
            _restore(state)
        except BaseException:
            _restore(state)
            raise


def _restore(state, tries=10):
    """Restores again after any interruption: a model must not be left half restored."""
    try:
        state.give_back()
    except BaseException:
        if tries:
            _restore(state, tries - 1)
        raise


def _copy(variable):
    # On other backends, Keras' own function does not accept TensorFlow's variables.
    return tf.identity(variable) if isinstance(variable, tf.Variable) else ops.copy(variable)


def _fits(variable, value):
    return isinstance(variable, tf.Variable) or tuple(value.shape) == tuple(variable.shape)


def _process_generators():
    """Pairs of functions that read and set each random generator of the process."""
    of_python = (random.getstate, random.setstate), (np.random.get_state, np.random.set_state)
    return [*of_python, *current().generators()]
