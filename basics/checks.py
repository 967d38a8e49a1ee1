"""Checks: what is refused before anything is computed.

Each error names the argument, what is accepted, what was received and how to fix it.
"""

import collections.abc
import contextlib
import importlib
import numbers
import os
import sys
import warnings
from pathlib import Path

import keras
import numpy as np

from losslandscape.basics.hints import meant
from losslandscape.basics.internals import flatten_layers

# The most bytes that the name of a derived file adds to the given one, as in "name-trajectory" and
# ".name.1234567.part".
ROOM = 14


def check_is_model(model, name="model"):
    """Refuses anything but a model; `name` is the argument's."""
    if not isinstance(model, keras.Model):
        is_path = isinstance(model, (str, os.PathLike))
        parts = model.values() if isinstance(model, dict) else model
        are_several = isinstance(parts, collections.abc.Iterable) and any(
            isinstance(part, keras.Model) for part in parts
        )
        raise TypeError(
            f"`{name}` must be a `keras.Model`. Received {type(model).__name__}."
            + " Load it first, with `keras.models.load_model(path)`." * is_path
            + " To compare several, call `compare({'first': model1, 'second': model2}, data)`."
            * are_several
        )


def check_model(model, name="model"):
    """Refuses anything without weights that can be moved; `name` is the argument's."""
    check_is_model(model, name)
    if not model.built:
        raise ValueError(
            f"`{name}` {model.name!r} is not built, so it has no weights yet. Call it on a batch "
            "of data, or start its layers with `keras.Input(shape)`."
        )
    is_complex = [weight.path for weight in model.weights if "complex" in weight.dtype]
    if is_complex:
        raise ValueError(
            f"`{name}` has complex weights, but directions are real: {is_complex}. Keep the real "
            "and the imaginary part in a weight each, and join them in `call`."
        )
    if any(map(_is_spread, model.weights)):
        raise ValueError(
            f"`{name}` {model.name!r} is distributed over several processes, and each would draw "
            "and move its part on its own. Save it, load it in one process, and measure it there; "
            "`executor=` shares out the points among several machines."
        )
    if not model.trainable_variables:
        raise ValueError(
            f"`{name}` {model.name!r} has no trainable weights, and only those are moved. Set "
            "`layer.trainable = True` on some layers and compile again." + about_quantized(model)
        )


def about_quantized(model):
    """Returns a sentence on quantized layers for errors, empty if there are none."""
    layers = quantized_layers(model)
    if not layers:
        return ""
    return (
        f" Quantized weights are integers, which do not move (layers {layers}): call "
        "`layer.enable_lora(rank)` and train the adapters, or use the model as it was before "
        "`quantize()`."
    )


def quantized_layers(model):
    """Returns the names of the layers whose kernels are integers."""
    return [
        layer.name
        for layer in flatten_layers(model)
        # float8 layers keep a floating-point kernel, the others hold integers.
        if layer.quantization_mode not in (None, "float8")
    ]


def check_not_quantized(model):
    """Refuses a model whose loss has no derivatives, since its layers round what they get."""
    if layers := quantized_layers(model):
        raise ValueError(
            f"`model` has quantized layers, which round what they get, so its loss is a staircase "
            f"without curvature: {layers}. Use the model as it was before `quantize()`."
        )


def check_complete(model, number):
    """Refuses a model that had another number of weights before it was called on data."""
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


def check_choice(name, value, choices):
    """Refuses a value that is not among the accepted ones."""
    # An array would be compared entry by entry.
    if getattr(value, "shape", ()) or value not in choices:
        accepted, likely = ", ".join(map(repr, choices)), meant(value, choices)
        hint = "" if likely is None else f" Did you mean {likely!r}?"
        raise ValueError(f"`{name}` must be one of {accepted}. Received {value!r}.{hint}")


def check_metric(metric, *, single=False):
    """Refuses anything but the name of a metric or, unless it must be single, several names."""
    names = [metric] if single or isinstance(metric, str) else metric
    if not isinstance(names, (tuple, list)) or not all(isinstance(each, str) for each in names):
        several = single and isinstance(metric, (tuple, list))
        raise TypeError(
            f"`metric` must be the name of a metric, such as 'accuracy'. Received {metric!r}."
            + " All that was measured along a line is drawn by `plot_metrics`." * several
        )
    if not names:
        raise ValueError(f"`metric` must name at least one metric. Received {metric!r}.")


def check_not_data(name, value):
    """Refuses data in the place of another argument."""
    shape = getattr(value, "shape", ())
    if len(shape) and not all(isinstance(each, str) for each in value):
        raise TypeError(
            f"`{name}` cannot be an array. Received {type(value).__name__} of shape "
            f"{tuple(shape)}. The weights of samples are part of the data, as in "
            "`plot_loss(model, (x, y, sample_weight))`."
        )


def check_integer(name, value, minimum=None):
    """Refuses anything but an integer, and integers below the minimum."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer. Received {value!r}.")
    if minimum is not None and value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}. Received {value}.")


def check_number(name, value, *, above=None, minimum=None, below=None):
    """Refuses anything but a real number in a range, and NaN; `below=np.inf` means finite."""
    if not _is_number(value):
        raise TypeError(f"`{name}` must be a number. Received {value!r}.")
    limits = {
        f"greater than {above}": above is None or value > above,
        f"at least {minimum}": minimum is None or value >= minimum,
        "finite" if below == np.inf else f"less than {below}": below is None or value < below,
    }
    if np.isnan(value) or not all(limits.values()):
        accepted = [limit for limit in limits if not limit.endswith("None")]
        raise ValueError(
            f"`{name}` must be {' and '.join(accepted) or 'a number'}. Received {value}."
        )


def check_numbers(name, values):
    """Refuses anything but real numbers; returns them as an array of floats."""
    try:
        array = np.asarray(values)
    except ValueError:
        # Lists of different lengths.
        array = np.empty(0, object)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"`{name}` must be numbers. Received {values!r}.")
    return array.astype(float)


def check_pair(name, values, *, above=-np.inf):
    """Refuses anything but two finite numbers above a limit."""
    array = check_numbers(name, values)
    if array.shape != (2,) or not (np.isfinite(array) & (array > above)).all():
        limit = "" if above == -np.inf else f", greater than {above}"
        raise ValueError(f"`{name}` must be two finite numbers{limit}. Received {values!r}.")


def check_list(name, values):
    """Refuses anything but an iterable in a fixed order; returns it as a list."""
    unordered = str, bytes, collections.abc.Mapping, collections.abc.Set
    if not isinstance(values, collections.abc.Iterable) or isinstance(values, unordered):
        raise TypeError(f"`{name}` must be a list. Received {values!r}.")
    return list(values)


def check_memory(name, number, size):
    """Refuses a number of things, each of `size` bytes, that would not fit into memory."""
    available = memory()
    if number * size > available:
        raise ValueError(
            f"`{name}` asks for {number:,} in all, and the {available / 2**30:.0f} GiB of memory "
            f"hold at most {available // size:,}. Ask for fewer."
        )


def memory():
    """Returns how many bytes of memory this machine, or the container on it, has."""
    limits = [sys.maxsize]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        # Windows has no `sysconf`.
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):
        # Without a limit, the file says "max".
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)


def check_path(name, path):
    """Refuses a file that cannot be written; returns its `pathlib.Path`."""
    path = expanded(name, path)
    obstacle = _obstacle(path)
    if obstacle:
        raise ValueError(
            f"`{name}` must be a file that can be written, in a folder that exists. Received "
            f"{str(path)!r}: {obstacle}."
        )
    return path


def expanded(name, path):
    """Returns a `pathlib.Path` with `~` expanded; refuses anything but a path."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`{name}` must be the path of a file or folder. Received {path!r}.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"`{name}` must be a path that exists. Received {str(path)!r}: there is no such user."
        ) from error


def numbered(name, path, number):
    """Returns a list of the path or, for several files, of `line-1.h5`, …; checks each path."""
    path = check_path(name, path)
    if number == 1:
        return [path]
    return [check_path(name, path.with_stem(f"{path.stem}-{k + 1}")) for k in range(number)]


def _is_number(value):
    if isinstance(value, numbers.Real):
        return not isinstance(value, bool)
    # Arrays and tensors of one number.
    return getattr(value, "shape", None) == () and np.asarray(value).dtype.kind in "iuf"


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
            f"This needs {package}, of the extra `{extra}`: run `pip install '.[{extra}]'` in the "
            "folder of losslandscape."
        ) from error


def warn(message):
    """Warns even where warnings are errors or cannot be shown: raising would lose the values."""
    level = _level_of_caller()
    try:
        warnings.warn(message, stacklevel=level)
    except UserWarning:
        # Warnings are errors here, so this one is at least printed.
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=level)
    except Exception:
        # Standard error is closed.
        return


def _level_of_caller():
    """How many calls up from `warn` the code is that called this library."""
    frame, level = sys._getframe(1), 1
    inner = __name__.partition(".")[0], "contextlib"
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in inner:
        frame, level = frame.f_back, level + 1
    return level


def _is_spread(weight):
    """Whether other processes hold parts or copies of a weight; JAX and TensorFlow know."""
    resolver = getattr(getattr(weight.value, "distribute_strategy", None), "cluster_resolver", None)
    is_cluster = resolver is not None and bool(resolver.cluster_spec())
    return is_cluster or not getattr(weight.value, "is_fully_addressable", True)
