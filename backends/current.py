"""Current: the backend that Keras runs on."""

import importlib

import keras

from losslandscape.backends.plain import Plain

BACKENDS = "jax", "tensorflow", "torch"


def current():
    """Returns the backend that Keras runs on, with what it can do for this library."""
    name = keras.backend.backend()
    if name not in BACKENDS:
        return Plain()
    # Another one may not be installed.
    return importlib.import_module(f"losslandscape.backends.on_{name}").Backend()


def check_differentiates(subject, backends=BACKENDS):
    """Refuses other backends than these for what differentiates; `subject` begins the error."""
    if keras.backend.backend() not in backends:
        *others, last = map(repr, backends)
        accepted = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(
            f"{subject} needs a backend for its automatic differentiation: {accepted}. Received "
            f"{keras.backend.backend()!r}. Set the environment variable `KERAS_BACKEND`."
        )
