"""Graphs: what was traced for a model is kept with it, and serves its next call.

Tracing reads Python objects once: layers, the loss, functions and numbers. A graph is used
again only if the model refers to exactly the same objects as before, and all numbers and
arrays among them are equal. What may change freely is an argument of the graph: the values
of all variables, the directions and the data.
"""

import dataclasses
import hashlib

import keras
import numpy as np
from keras import ops, tree

from losslandscape.references import ATOMS, references

# The attribute of a model that keeps its graphs. A dictionary of models with weak keys would
# never forget them, because graphs refer to the model.
KEPT = "_losslandscape"
# The most graphs that are kept for a model.
LIMIT = 8
# What is compared by value; everything else is compared by identity.
BY_VALUE = (*ATOMS, np.generic)


@dataclasses.dataclass(eq=False)
class Kept:
    """What is kept with a model; an object of its own, because Keras saves what is in lists.

    Attributes:
        seeds: The generator for random numbers without a seed, to which graphs may refer,
            or `None`.
        references: List of all that the graphs may depend on.
        graphs: Dict of the graphs.
    """

    seeds: object = None
    references: list = dataclasses.field(default_factory=list)
    graphs: dict = dataclasses.field(default_factory=dict)


def kept_with(model):
    """Returns what is kept with a model; an empty `Kept` at first."""
    attributes = vars(model)
    if KEPT not in attributes:
        # Past Keras, which would track it.
        object.__setattr__(model, KEPT, Kept())
    return attributes[KEPT]


def recall(state):
    """Gives a `State` the graphs that are kept with its model; drops them if anything changed."""
    kept = kept_with(state.model)
    if not _are_same(kept.references, _dependencies(state, state.references)):
        kept.references, kept.graphs = [], {}
    state.graphs = dict(kept.graphs)


def keep(state):
    """Keeps the graphs of a `State`, the latest ones, with its model."""
    kept = kept_with(state.model)
    if state.graphs.keys() - kept.graphs.keys():
        # Found again, since metrics may have been built since then.
        kept.references = _dependencies(state, references(state.model))
    kept.graphs = dict(list(state.graphs.items())[-LIMIT:])


def graph_of(state, key, make):
    """Returns the graph that a `State` has for a key; makes it if there is none."""
    # Last, so that the first are those that have not been used for longest.
    state.graphs[key] = state.graphs.pop(key) if key in state.graphs else make()
    return state.graphs[key]


def signature(structure):
    """Describes the arrays or specifications in a structure: a key for graphs."""

    def describe(part):
        return None if part is None else (tuple(part.shape), str(part.dtype))

    return repr(tree.map_structure(describe, structure))


def _dependencies(state, found):
    """All that a graph may depend on, of which arrays are represented by their content."""
    found = [keras.config.floatx(), *state.moves, *state.moved, *state.others, *found]
    if keras.backend.backend() != "tensorflow":
        # Variables that Keras does not track are constants in the graph.
        tracked = {id(variable) for variable in state.model.variables}
        hidden = [variable for variable in state.others if id(variable) not in tracked]
        found += [ops.convert_to_numpy(state.value(variable)) for variable in hidden]
    digests = {id(thing): _digest(thing) for thing in found if isinstance(thing, np.ndarray)}
    return [digests.get(id(thing), thing) for thing in found] if digests else found


def _digest(array):
    content = np.ascontiguousarray(array).data.cast("B") if array.size else b""
    return f"{array.shape} {array.dtype} {hashlib.blake2b(content).hexdigest()}"


def _are_same(first, second):
    return len(first) == len(second) and all(map(_is_same, first, second))


def _is_same(one, other):
    return one is other or (type(one) is type(other) and isinstance(one, BY_VALUE) and one == other)
