"""Current: the backend that Keras runs on."""

import importlib

import keras

from losslandscape.backends.plain import Plain

BACKENDS = "jax", "tensorflow", "torch"


def current():
    """Returns the interface to the backend that Keras runs on: its `Backend`, or a `Plain` one."""
    name = keras.backend.backend()
    if name not in BACKENDS:
        return Plain()
    # Imported here, since the other backends may not be installed.
    return importlib.import_module(f"losslandscape.backends.on_{name}").Backend()


def check_differentiates(subject, backends=BACKENDS):
    """Refuses other backends for a call that differentiates; the error begins with `subject`."""
    if keras.backend.backend() not in backends:
        *others, last = map(repr, backends)
        accepted = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(
            f"{subject} needs a backend for its automatic differentiation: {accepted}. Received "
            f"{keras.backend.backend()!r}. Set the environment variable `KERAS_BACKEND`."
        )
