"""State: everything that an evaluation may change, saved and restored.

In addition to its weights, a model has the moving statistics of normalization layers,
seed generators, the memory of stateful layers, metrics and an optimizer; layers, losses
and steps may refer to variables that Keras does not track; and random numbers come from
generators of the process. Each point of a landscape has to start from exactly the same
state, and the user gets all of it back.
"""

import contextlib
import random

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from losslandscape.checks import import_extra
from losslandscape.claims import claimed
from losslandscape.graphs import kept_with
from losslandscape.internals import (
    global_seed_generator,
    has_global_seed_generator,
    set_global_seed_generator,
    start_anew,
)
from losslandscape.references import references
from losslandscape.walks import along_directions, put_back

VARIABLES = keras.Variable, tf.Variable


@contextlib.contextmanager
def preserved(model):
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
    has_own_step = type(model).test_step is not keras.Model.test_step
    with claimed(model), _given_back(State(model, walk, with_optimizer=has_own_step)) as state:
        yield state


class State:
    """The state of a model at one moment.

    Attributes:
        model: The `keras.Model`.
        walk: How a point becomes weights.
        moved: List of the variables that a point sets.
        moves: List of the functions that compute their values; see `walks`.
        others: List of all other variables that an evaluation may change, except
            those of metrics, which every evaluation resets anyway.
        references: List of all that the model refers to; see `references`.
        graphs: Dict of the graphs that engines made for the model, by what they are.
    """

    def __init__(self, model, walk=along_directions, *, with_optimizer):
        self.model, self.walk = model, walk
        pairs = walk(model)
        self.moved, self.moves = [weight for weight, _ in pairs], [move for _, move in pairs]
        self._test_function = model.test_function
        metrics = model.metrics_variables
        self._generators = [(put, get()) for get, put in _process_generators()]
        # Made now; otherwise the first point would make it and differ from all others.
        self._made_generator = not has_global_seed_generator()
        self._seed = _seed_generator(model).state
        self.references, self.graphs = references(model), {}
        # By type first: TensorFlow's own check is slow, and there are thousands of references.
        kinds = {kind for kind in {*map(type, self.references)} if issubclass(kind, VARIABLES)}
        hidden = [thing for thing in self.references if type(thing) in kinds]
        found = [*model.variables, *metrics, self._seed, *hidden]
        if with_optimizer and model.optimizer is not None:
            found += model.optimizer.variables
        found = list({id(variable): variable for variable in found}.values())
        pairs = [(variable, _copy(variable)) for variable in found]
        # A failed build leaves variables without a value behind.
        pairs = [pair for pair in pairs if _fits(*pair)]
        # Variables are kept too, so that they live as long as their ids are used.
        self._values = {id(variable): (variable, value) for variable, value in pairs}
        moved = {id(variable) for variable in (*self.moved, *metrics)}
        self.others = [variable for variable, _ in pairs if id(variable) not in moved]

    def value(self, variable):
        """Returns the saved value of a variable."""
        return self._values[id(variable)][1]

    @property
    def values(self):
        """The saved values of the variables that move, and those of all others."""
        return [[self.value(one) for one in each] for each in (self.moved, self.others)]

    def rewind(self):
        """Restores the random generators of the process."""
        for put, value in self._generators:
            put(value)

    def start_over(self):
        """Restores all but the variables that move, so that the next evaluation starts from it."""
        for variable in self.others:
            put_back(variable, self.value(variable))
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
                put_back(variable, value)
            except Exception as error:
                errors.append(error)
        self.rewind()
        if errors:
            raise errors[0]

    def give_back(self):
        """Restores everything for the user, including the graph that Keras evaluates with."""
        # The graph only at the end, or each point would build it again. A graph made for other
        # data would serve the user worse than none.
        self.model.test_function = self._test_function
        if self._made_generator:
            set_global_seed_generator(None)
        self.restore()


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


def _seed_generator(model):
    """The generator behind `keras.random`; one made now is always the same for a model."""
    if has_global_seed_generator():
        return global_seed_generator()
    kept = kept_with(model)
    if kept.seeds is None:
        kept.seeds = global_seed_generator()
    else:
        start_anew(kept.seeds)
        set_global_seed_generator(kept.seeds)
    return kept.seeds


def _copy(variable):
    # On other backends, Keras' own function does not accept TensorFlow's variables.
    return tf.identity(variable) if isinstance(variable, tf.Variable) else ops.copy(variable)


def _fits(variable, value):
    return isinstance(variable, tf.Variable) or tuple(value.shape) == tuple(variable.shape)


def _process_generators():
    """Pairs of functions that read and set each random generator of the process."""
    pairs = [(random.getstate, random.setstate), (np.random.get_state, np.random.set_state)]
    if keras.backend.backend() == "torch":
        torch = import_extra("torch", "torch")
        pairs.append((torch.get_rng_state, torch.set_rng_state))
    return pairs
