"""Checks: what is refused before anything is computed.

Each error names the argument, what is accepted, what was received and how to fix it.
"""

import contextlib
import importlib
import numbers
import os
import sys
import warnings
from pathlib import Path

import keras

from losslandscape.internals import flatten_layers

# The most bytes that a derived name adds to the given one: "-trajectory", or what makes
# ".name.1234567.part" of it.
ROOM = 14


def check_model(model, name="model"):
    """Refuses anything without weights that can be moved; `name` is the argument's."""
    if not isinstance(model, keras.Model):
        is_path = isinstance(model, (str, os.PathLike))
        raise TypeError(
            f"`{name}` must be a `keras.Model`. Received {type(model).__name__}."
            + " Load it first, with `keras.models.load_model(path)`." * is_path
        )
    if not model.built:
        raise ValueError(
            f"`{name}` {model.name!r} is not built, so it has no weights yet. Call it on a batch "
            "of data, or start its layers with `keras.Input(shape)`."
        )
    quantized = [
        layer.name
        for layer in flatten_layers(model)
        # float8 layers keep a floating-point kernel, the others hold integers.
        if layer.quantization_mode not in (None, "float8")
    ]
    if quantized:
        raise ValueError(
            f"`{name}` has quantized weights, which cannot be moved by small steps (layers "
            f"{quantized}). Use the model as it was before `quantize()`."
        )
    is_complex = [weight.path for weight in model.weights if "complex" in weight.dtype]
    if is_complex:
        raise ValueError(
            f"`{name}` has complex weights, but directions are real: {is_complex}. Keep the real "
            "and the imaginary part in a weight each, and join them in `call`."
        )
    if not model.trainable_variables:
        raise ValueError(
            f"`{name}` {model.name!r} has no trainable weights, and only those are moved. Set "
            "`layer.trainable = True` on some layers and compile again."
        )


def check_complete(model, number):
    """Refuses a model that had fewer weights, this number of them, before it was called."""
    if len(model.weights) != number:
        raise ValueError(
            f"`model` {model.name!r} made weights when it was called on data for the first time, "
            "and so far they would be left out. Received a model of "
            f"{number} weights that has {len(model.weights)} now. It is complete: make the same "
            "call again, without directions for fewer weights."
        )


def check_compiled(model, name="model"):
    """Refuses anything without weights that can be moved, or without a loss in full precision."""
    check_model(model, name)
    if not model.compiled:
        raise ValueError(
            f"`{name}` {model.name!r} is not compiled, so its loss is unknown. Call "
            "`model.compile(loss=...)` first; an optimizer is not needed."
        )
    kept = [variable.dtype for variable in model.metrics_variables]
    halves = {each for each in (keras.config.floatx(), *kept) if each in ("float16", "bfloat16")}
    if halves:
        raise ValueError(
            f"`{name}` rounds its loss and metrics to {halves.pop()}, in which it was compiled, to "
            "two or three digits. Call `keras.config.set_floatx('float32')` and compile it again; "
            "its layers keep their type, and new ones take that of `keras.config.set_dtype_policy`."
        )


def check_same_weights(model, other, name="other"):
    """Refuses a model whose trainable weights differ in shape from those of the first."""
    check_model(other, name)
    shapes, received = (
        [tuple(weight.shape) for weight in part.trainable_variables] for part in (model, other)
    )
    if received != shapes:
        raise ValueError(
            f"`{name}` must have the architecture of `model`: the shapes of its trainable weights "
            f"must be {shapes}. Received {received}."
        )


def check_backend(subject, backends):
    """Refuses other backends than these for what differentiates; `subject` begins the error."""
    if keras.backend.backend() not in backends:
        *others, last = map(repr, backends)
        accepted = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(
            f"{subject} needs a backend for its automatic differentiation: {accepted}. Received "
            f"{keras.backend.backend()!r}. Set the environment variable `KERAS_BACKEND`."
        )


def check_choice(name, value, choices):
    """Refuses a value that is not among the accepted ones."""
    if value not in choices:
        accepted = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` must be one of {accepted}. Received {value!r}.")


def check_metric(metric, *, single=False):
    """Refuses anything but the name of a metric or, unless it must be single, several names."""
    names = [metric] if single or isinstance(metric, str) else metric
    if not isinstance(names, (tuple, list)) or not all(isinstance(each, str) for each in names):
        raise TypeError(
            f"`metric` must be the name of a metric, such as 'accuracy'. Received {metric!r}."
        )


def check_not_data(name, value):
    """Refuses targets that are apart from their inputs, in the place of another argument."""
    shape = getattr(value, "shape", ())
    if len(shape) and not all(isinstance(each, str) for each in value):
        raise TypeError(
            f"`{name}` cannot be an array. Received {type(value).__name__} of shape "
            f"{tuple(shape)}. Inputs and targets are one argument, as in "
            "`plot_loss(model, (x, y))`."
        )


def check_integer(name, value, minimum=None):
    """Refuses anything but an integer, and integers below the minimum."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer. Received {value!r}.")
    if minimum is not None and value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}. Received {value}.")


def check_memory(name, number, size):
    """Refuses a number of things of some bytes each that all memory together cannot hold."""
    available = _memory()
    if number * size > available:
        raise ValueError(
            f"`{name}` asks for {number:,} in all, and the {available / 2**30:.0f} GiB of memory "
            f"hold at most {available // size:,}. Ask for fewer."
        )


def _memory():
    """The bytes of memory that this machine, or the container on it, has."""
    limits = [sys.maxsize]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        # There is none on Windows.
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):
        # It is "max" without a limit.
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)


def check_path(name, path):
    """Refuses a file that cannot be written; returns its `pathlib.Path`."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`{name}` must be the path of a file. Received {path!r}.")
    path = Path(path).expanduser()
    obstacle = _obstacle(path)
    if obstacle:
        raise ValueError(
            f"`{name}` must be a file that can be written, in a folder that exists. Received "
            f"{str(path)!r}: {obstacle}."
        )
    return path


def numbered(name, path, number):
    """Returns a path, or for several files `line-1.h5`, `line-2.h5`, …, as `check_path` does."""
    path = check_path(name, path)
    if number == 1:
        return [path]
    return [check_path(name, path.with_stem(f"{path.stem}-{k + 1}")) for k in range(number)]


def _obstacle(path):
    """What prevents a file from being written, or `None`."""
    try:
        # A link stays, and its target is replaced.
        target = Path(os.path.realpath(path))
        for each in (path, target):
            with contextlib.suppress(FileNotFoundError):
                each.with_name(each.name + ROOM * "x").lstat()
        if not target.parent.is_dir():
            return "there is no such folder"
        if target.exists() and not target.is_file():
            return "this is not a file"
        if not all(os.access(each, os.W_OK) for each in (target.parent, target) if each.exists()):
            return "this is not writable"
    except (OSError, ValueError) as error:
        # The name is too long, or has a character that no name can have.
        return getattr(error, "strerror", None) or str(error)
    return None


def import_extra(module, extra):
    """Imports a module of an optional package, or says which extra installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"This needs {package}. Install it with `pip install losslandscape[{extra}]`."
        ) from error


def warn(message, stacklevel=3):
    """Warns even where warnings are errors: raising would lose the computed values."""
    try:
        warnings.warn(message, stacklevel=stacklevel)
    except UserWarning:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=stacklevel)
