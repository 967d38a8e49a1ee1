"""Claims: one thread at a time measures a model.

A measurement moves the weights in place, so two at once would see each other's points. The
second is refused, since otherwise it might wait for hours, and nobody would know why.
"""

import contextlib
import functools
import threading
import weakref

import keras

from losslandscape.basics.types import Call

LOCK = threading.RLock()
# The claims of running calls. Only a call holds its claim, so none outlives its call.
CLAIMS = weakref.WeakSet()


class Claim:
    """Which models a thread measures, with the variables that others may share.

    Attributes:
        thread: The identifier of the thread.
        keys: The ids of the models and their variables.
    """

    def __init__(self, models):
        self.thread = threading.get_ident()
        self.keys = {id(each) for model in models for each in (model, *model.variables)}


@contextlib.contextmanager
def claimed(*models):
    """Keeps other threads from measuring some models, or others with the same layers.

    Args:
        *models: `keras.Model`s. The thread itself may claim them again.

    Raises:
        RuntimeError: If another thread has claimed one of them.
    """
    claim = Claim(models)
    with LOCK:
        if any(each.thread != claim.thread and each.keys & claim.keys for each in CLAIMS):
            raise RuntimeError(
                f"`model` {', '.join(repr(model.name) for model in models)} is being measured by "
                "another thread, or shares layers with a model that is, and its weights are moved "
                "meanwhile. Call again when that has ended, or give each thread a model of its "
                "own, with `keras.models.clone_model` and `set_weights`."
            )
        CLAIMS.add(claim)
    try:
        yield
    finally:
        CLAIMS.discard(claim)


def claiming(function: Call) -> Call:
    """Makes a function claim the models among its arguments, from its first line to its last."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        given = [*args, *kwargs.values()]
        given += [part for each in given if isinstance(each, (list, tuple)) for part in each]
        with claimed(*(each for each in given if isinstance(each, keras.Model))):
            return function(*args, **kwargs)

    return call
