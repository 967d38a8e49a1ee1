"""Architecture: whether models differ in anything but the values of their weights.

Only weights are copied from one model into another. All else, such as an activation, a
vocabulary or a constant, remains that of the model that is measured, so any other difference
between the models would silently be ignored. It is refused here.
"""

import functools
import itertools
import numbers
import reprlib
import sys
import types
import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops, tree

from losslandscape.basics.checks import check_model
from losslandscape.basics.internals import calls_with_arguments, flatten_layers, has_graph

# Settings that may differ: what is computed from given weights and data does not depend on them.
FREE = {"batch_input_shape", "batch_shape", "build_config", "name", "seed", "trainable"}
FREE_ENDINGS = ("_constraint", "_initializer")
# Attributes that every layer has, or that `compile`, `fit` and other methods add to a model.
USUAL = {
    "activity_regularizer",
    "autocast",
    "build",
    "built",
    "call",
    "call_signature_parameters",
    "compiled",
    "history",
    "loss",
    "optimizer",
    "predict_function",
    "quantize",
    "steps_per_execution",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
    "supports_jit",
    "test_function",
    "train_function",
    "unrolled_steps_per_execution",
}
# The packages whose objects and functions are compared by name alone.
LIBRARIES = sys.stdlib_module_names - {"types"} | {
    "jax",
    "jaxlib",
    "keras",
    "numpy",
    "tensorflow",
    "torch",
}
# How many levels of containers deep the attributes of a layer are compared. An object counts as
# several levels, since its own attributes may lead anywhere.
DEPTH, OBJECT = 12, 3


def check_same_architecture(models, names):
    """Refuses models that differ from the first one in more than the values of their weights.

    Args:
        models: List of models. The first one must be built.
        names: The names of the arguments that hold them, for errors.

    Raises:
        TypeError: If one is not a Keras model.
        ValueError: If one differs in the shapes of its weights, or in what
            `check_same_settings` compares.
    """
    first, *others = models
    for other, name in zip(others, names[1:], strict=True):
        check_model(other, name)
        shapes, received = ([tuple(w.shape) for w in part.weights] for part in (first, other))
        if received != shapes:
            raise ValueError(
                f"`{name}` must have the architecture of `{names[0]}`: the shapes of all its "
                f"weights must be {shapes}. Received {received}."
            )
        check_same_settings(first, other, names[0], name)


def counterparts(model, other):
    """Returns the weights of another model in the places of a model's trainable weights.

    They need not be trainable themselves.

    Args:
        model: A built `keras.Model`.
        other: A model of the same architecture.

    Returns:
        List of variables, one per weight in `model.trainable_variables`.
    """
    found = {id(weight): twin for weight, twin in zip(model.weights, other.weights, strict=True)}
    return [found[id(weight)] for weight in model.trainable_variables]


def check_same_settings(model, other, name="model", other_name="other"):
    """Refuses a model that computes something else than the first one, given the same weights.

    Compares the layers and how they are connected, their configurations, vocabularies and
    statistics of inputs, and all attributes of custom layers and models. Names, seeds,
    initializers, constraints and what is trainable may differ.

    Args:
        model: A `keras.Model`.
        other: A `keras.Model` with weights of the same shapes.
        name: The name of the argument that holds the first, for errors.
        other_name: That of the second.

    Raises:
        ValueError: If they differ.
    """
    difference = None if other is model else _difference(model, other)
    if difference:
        raise ValueError(
            f"`{other_name}` must have the architecture of `{name}`, and differ only in the values "
            f"of its weights: all else would be that of `{name}`. Received {difference}. Build "
            f"both alike or, to see the weights of `{other_name}` in `{name}`, put them into a "
            "copy: `copy = keras.models.clone_model(...)` of the one, and "
            "`copy.set_weights(...)` with `get_weights()` of the other."
        )


def _difference(model, other):
    """Describes how the second model differs from the first one; `None` if it does not."""
    pairs = list(itertools.zip_longest(_computing_layers(model), _computing_layers(other)))
    for mine, its in pairs:
        if _kind(mine) != _kind(its):
            return f"{_titled(its)} in the place of {_titled(mine)}"
    for mine, its in pairs:
        settings, received = _settings(mine), _settings(its)
        for key in settings | received:
            if _described(settings.get(key)) != _described(received.get(key)):
                values = [_shown(each.get(key)) for each in (received, settings)]
                return f"another {key!r} in layer {its.name!r}: {' instead of '.join(values)}"
    if _graphs(model) != _graphs(other):
        return "other connections between the same layers"
    return None


def _computing_layers(model):
    """The layers, and the models with a custom `call`: other models only connect their layers."""
    return [
        layer
        for layer in flatten_layers(model)
        if not isinstance(layer, layers.InputLayer) and not _is_graph(layer)
    ]


def _is_graph(layer):
    return isinstance(layer, keras.Model) and has_graph(layer)


def _kind(layer):
    return layer if layer is None else (type(layer).__module__, type(layer).__qualname__)


def _titled(layer):
    return "no layer" if layer is None else f"layer {layer.name!r} ({type(layer).__name__})"


def _settings(layer):
    """All that a layer computes with besides its weights, by name."""
    attributes = _attributes(layer, _names_in(type(layer)))
    found = {
        # A function itself is compared: its serialized form depends on line numbers.
        key: attributes[key] if callable(attributes.get(key)) else value
        for key, value in _config(layer).items()
    }
    found["dtype"] = layer.dtype_policy.name
    if isinstance(layer, layers.Normalization):
        # Whether given or adapted to data.
        found |= {"mean": layer.mean, "variance": layer.variance}
    if hasattr(layer, "get_vocabulary"):
        found["vocabulary"] = _vocabulary(layer)
        found["idf_weights"] = attributes.get("idf_weights")
    if not _is_of_library(type(layer)):
        found |= {key: value for key, value in attributes.items() if key not in USUAL}
    return {key: value for key, value in found.items() if not _is_free(key)}


def _names_in(kind):
    """The names that methods of custom classes use, among them those of private attributes."""
    own_classes = [each for each in kind.__mro__ if not _is_of_library(each)]
    parts = [part for each in own_classes for part in vars(each).values()]
    functions = [getattr(part, "fget", part) for part in parts]
    codes = [each.__code__ for each in functions if isinstance(each, types.FunctionType)]
    return {name for code in codes for name in code.co_names}


def _config(layer):
    try:
        with warnings.catch_warnings():
            # Keras warns of layers that cannot be loaded again.
            warnings.simplefilter("ignore")
            return layer.get_config()
    except Exception:
        # A custom layer need not have a configuration.
        return {}


def _vocabulary(layer):
    try:
        return layer.get_vocabulary()
    except Exception:
        # There is no vocabulary yet.
        return None


def _is_free(key):
    return key in FREE or str(key).endswith(FREE_ENDINGS)


def _described(thing, depth=DEPTH):
    """A description of a value by plain values, which can be compared."""
    if thing is None or isinstance(thing, (str, bytes, numbers.Number)):
        # NaN is not equal to itself.
        return thing if thing == thing else "nan"  # noqa: PLR0124
    for kind, describe in DESCRIPTIONS.items():
        if isinstance(thing, kind):
            return describe(thing, depth - 1) if depth > 0 else type(thing).__qualname__
    if tf.is_tensor(thing) or ops.is_tensor(thing):
        return _array(thing)
    return _object(thing, depth - OBJECT) if depth > 0 else type(thing).__qualname__


def _mapping(things, depth):
    if things.get("class_name") == "DTypePolicy":
        return things["config"]["name"]
    parts = {key: value for key, value in things.items() if not _is_free(key)}
    return {str(key): _described(value, depth) for key, value in parts.items()}


def _sequence(things, depth):
    return [_described(each, depth) for each in things]


def _set(things, depth):
    return sorted(map(repr, _sequence(things, depth)))


def _array(thing, _=None):
    try:
        array = thing if isinstance(thing, np.ndarray) else ops.convert_to_numpy(thing)
    except Exception:
        # Symbolic, or not an array of numbers.
        return type(thing).__qualname__
    content = array.tolist() if array.dtype == object else array.tobytes()
    return str(array.dtype), array.shape, content


def _function(function, depth):
    if _is_of_library(function):
        return function.__module__, function.__qualname__
    # An empty cell has no contents.
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
    around = [cells, function.__defaults__, function.__kwdefaults__]
    return _code(function.__code__), _described(around, depth)


def _code(code):
    """What a function does, wherever it is defined."""
    constants = [
        _code(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts
    ]
    return code.co_code, code.co_names, constants


def _partial(partial, depth):
    return _described([partial.func, partial.args, partial.keywords], depth)


def _name(thing, _):
    return getattr(thing, "__qualname__", None) or type(thing).__qualname__


def _object(thing, depth):
    """An object with a configuration or a table, or of a custom class."""
    name = type(thing).__qualname__
    if hasattr(thing, "get_config"):
        return name, _described(_config(thing), depth)
    if hasattr(thing, "export"):
        # A table of TensorFlow.
        keys, values = (part.numpy().tolist() for part in thing.export())
        return name, sorted(map(repr, zip(keys, values, strict=True)))
    if _is_of_library(type(thing)):
        return name
    slots = [getattr(each, "__slots__", ()) for each in type(thing).__mro__]
    names = [*getattr(thing, "__dict__", ()), *(name for each in slots for name in each)]
    return name, _described({name: getattr(thing, name, None) for name in names}, depth)


DESCRIPTIONS = {
    np.generic: _array,
    np.ndarray: _array,
    tf.Variable: _array,
    # Layers are compared on their own, and variables are weights.
    **dict.fromkeys((keras.Layer, keras.Variable, type, types.ModuleType), _name),
    # Used only in training and reporting.
    **dict.fromkeys((keras.metrics.Metric, keras.optimizers.Optimizer), _name),
    dict: _mapping,
    **dict.fromkeys((list, tuple), _sequence),
    **dict.fromkeys((set, frozenset), _set),
    **dict.fromkeys((slice, range, np.dtype, tf.DType), lambda thing, _: repr(thing)),
    types.FunctionType: _function,
    types.MethodType: lambda method, depth: _function(method.__func__, depth),
    types.BuiltinFunctionType: _name,
    functools.partial: _partial,
    tf.types.experimental.PolymorphicFunction: lambda graph, depth: _described(
        graph.python_function, depth
    ),
}


def _is_of_library(thing):
    return (thing.__module__ or "").partition(".")[0] in LIBRARIES


def _attributes(thing, used=()):
    """The public attributes of an object, and the private ones whose names are in `used`."""
    return {key: value for key, value in vars(thing).items() if key[0] != "_" or key in used}


def _graphs(model):
    """How the layers of each model that is just a graph are connected, through which operations."""
    parts = [layer for layer in flatten_layers(model) if not isinstance(layer, layers.InputLayer)]
    positions = {id(layer): index for index, layer in enumerate(parts)}
    return [_graph(part, positions) for part in parts if _is_graph(part)]


def _graph(model, positions):
    """The calls of a model's graph, whose tensors are numbered, and its outputs."""
    numbers_of, found = {}, []

    def described(part):
        is_symbolic = isinstance(part, keras.KerasTensor)
        return ("tensor", numbers_of[id(part)]) if is_symbolic else _described(part)

    for operation, arguments, outputs in calls_with_arguments(model):
        if not isinstance(operation, layers.InputLayer):
            # An operation that is no layer, such as a product, has its settings as attributes.
            is_layer = isinstance(operation, keras.Layer)
            what = positions[id(operation)] if is_layer else _described(_attributes(operation))
            kind = None if is_layer else _kind(operation)
            found.append((kind, what, tree.map_structure(described, arguments)))
        for tensor in outputs:
            numbers_of[id(tensor)] = len(numbers_of)
    return found, [numbers_of[id(tensor)] for tensor in model.outputs]


def _shown(value):
    """A setting as an error shows it."""
    if isinstance(value, (np.ndarray, tf.Tensor)) or ops.is_tensor(value):
        value = ops.convert_to_numpy(value)
    if isinstance(value, (list, np.ndarray)):
        value = np.asarray(value).tolist()
    return getattr(value, "__qualname__", None) or reprlib.repr(value)
