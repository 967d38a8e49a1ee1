"""Arrays: arithmetic of lists of arrays, such as directions, and their digest."""

import collections.abc
import hashlib

import numpy as np
from keras import ops, tree


def flat(arrays):
    """All entries of a list of arrays, in one vector."""
    return np.concatenate([np.ravel(ops.convert_to_numpy(array)) for array in arrays])


def plus(arrays, others):
    """The sums of two lists of arrays, entry by entry."""
    return [one + other for one, other in zip(arrays, others, strict=True)]


def times(arrays, others):
    """The products of two lists of arrays, entry by entry."""
    return [one * other for one, other in zip(arrays, others, strict=True)]


def dot(arrays, others):
    """The dot product of two lists of arrays, in double precision."""
    pairs = zip(arrays, others, strict=True)
    return sum(np.vdot(np.asarray(one, float), other) for one, other in pairs)


def digest(structure):
    """A text that differs, for all practical purposes, if any array of a structure differs.

    Args:
        structure: Arrays in lists, tuples and dicts. Lazy sequences and iterators, such as
            random directions that are drawn when needed, are read entry by entry.
    """
    found = hashlib.blake2b(digest_size=16)
    for leaf in _leaves(structure):
        array = ops.convert_to_numpy(leaf)
        array = np.ascontiguousarray(array.astype("S") if array.dtype == object else array)
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.reshape(-1).view("uint8"))
    return found.hexdigest()


def _leaves(structure):
    is_lazy = isinstance(structure, (collections.abc.Sequence, collections.abc.Iterator))
    if is_lazy and not isinstance(structure, str):
        for part in structure:
            yield from _leaves(part)
    else:
        yield from tree.flatten(structure)
