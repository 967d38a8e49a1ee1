"""References: all that a model refers to, in any way.

This finds variables that Keras does not track, and shows whether anything has changed
that a graph of the model may depend on.
"""

import collections
import contextlib
import functools
import types

import keras
import tensorflow as tf

# These packages hold none of the user's state, and following their functions would never end.
LIBRARIES = {
    "builtins",
    "enum",
    "inspect",
    "jax",
    "jaxlib",
    "keras",
    "numpy",
    "tensorflow",
    "torch",
}
# Types that refer to nothing: two of three objects, which need not be looked at.
ATOMS = {type(None), bool, int, float, complex, str, bytes}
# A container with more entries holds data, not variables.
CONTAINER_LIMIT = 10_000
# The attributes that calls of Keras and of this library set, and no step depends on.
FLEETING = {
    keras.Layer: {
        "_loss_ids",
        "_losses",
        "_losses_override",
        # TensorFlow's own record of the attributes.
        "_self_unconditional_checkpoint_dependencies",
        "_self_unconditional_dependency_names",
    },
    keras.Model: {
        "_eval_epoch_iterator",
        "_jax_state",
        "_jax_state_synced",
        "_losslandscape",
        "history",
        "predict_function",
        "stop_evaluating",
        "stop_predicting",
        "stop_training",
        "test_function",
        "train_function",
    },
}


def references(model):
    """Returns everything that a model refers to, at any depth, except through its optimizer.

    What is referred to several times is listed as often, so that the list also shows how
    things are connected.
    """
    found = [model]
    with contextlib.suppress(RuntimeError):
        # There may be none if TensorFlow is set to be deterministic.
        found.append(tf.random.get_global_generator())
    seen, waiting = {}, collections.deque(found)
    # By type, because asking each of thousands of things what it is would take most of the time.
    ways = {}
    while waiting:
        thing = waiting.popleft()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        # Not `type`: TensorFlow's proxies of containers only pretend to be what they hold.
        kind = thing.__class__
        if kind not in ways:
            ways[kind] = _way_for(kind)
        parts = ways[kind](thing)
        found += parts
        waiting.extend(part for part in parts if part.__class__ not in ATOMS)
    return found


def _way_for(kind):
    """The function that finds whatever things of some type refer to."""
    for base, way in WAYS.items():
        if issubclass(kind, base):
            return way
    package = kind.__module__.partition(".")[0]
    return _nothing if package in LIBRARIES - {"keras"} else _way_for_objects(kind)


def _way_for_objects(kind):
    """The function that lists the attributes of an object, and what its own classes define."""
    own_classes = [each for each in kind.__mro__ if not _is_of_library(each)]
    methods = [part for each in own_classes for part in vars(each).values()]
    fleeting = set().union(*(FLEETING[base] for base in FLEETING if issubclass(kind, base)))

    def parts_of_object(thing):
        attributes = getattr(thing, "__dict__", {})
        kept = {name: part for name, part in attributes.items() if name not in fleeting}
        return [*kept, *kept.values(), *methods]

    return parts_of_object


def _nothing(_):
    return []


def _parts_of_dict(things):
    return [*things, *things.values()] if len(things) <= CONTAINER_LIMIT else []


def _parts_of_container(things):
    return list(things) if len(things) <= CONTAINER_LIMIT else []


def _parts_of_function(function):
    if _is_of_library(function):
        return []
    names = _names(function.__code__)
    cells = [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)]
    used = [function.__globals__[name] for name in names if name in function.__globals__]
    return [*cells, *used, function.__defaults__, function.__kwdefaults__]


def _names(code):
    """The names of the globals used in a function and in the functions inside it."""
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return {*code.co_names}.union(*map(_names, inner))


def _is_empty(cell):
    try:
        return cell.cell_contents is None
    except ValueError:
        return True


def _is_of_library(thing):
    return (thing.__module__ or "").partition(".")[0] in LIBRARIES


# The first that fits counts.
WAYS = {
    keras.Variable: lambda variable: [variable.regularizer],
    types.FunctionType: _parts_of_function,
    types.MethodType: lambda method: [method.__self__, method.__func__],
    functools.partial: lambda partial: [partial.func, partial.args, partial.keywords],
    property: lambda attribute: [attribute.fget],
    staticmethod: lambda method: [method.__func__],
    classmethod: lambda method: [method.__func__],
    dict: _parts_of_dict,
    **dict.fromkeys((list, tuple, set, frozenset, collections.deque), _parts_of_container),
    tf.random.Generator: lambda generator: [generator.state],
    tf.types.experimental.PolymorphicFunction: lambda function: [function.python_function],
    **dict.fromkeys((type, types.ModuleType), _nothing),
    **dict.fromkeys((keras.KerasTensor, keras.optimizers.Optimizer), _nothing),
}
