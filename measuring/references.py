"""References: the variables that a model refers to in any way, whether Keras tracks them or not.

An evaluation may change them, so they have to be given back. Objects, functions and classes
are followed wherever they lead; of a module, which may hold anything, only what code names.
"""

import collections
import contextlib
import contextvars
import functools
import itertools
import sys
import types

import keras
import tensorflow as tf

VARIABLES = keras.Variable, tf.Variable
# Objects of these packages hold none of the user's state.
CLOSED = {"builtins", "enum", "inspect", "jax", "jaxlib", "numpy", "tensorflow", "torch"}
# Following the functions and classes of these would never end.
LIBRARIES = {"keras", *CLOSED, *sys.stdlib_module_names}
# Types that refer to nothing: two of three objects, which need not be looked at.
ATOMS = {type(None), bool, int, float, complex, str, bytes}
METHODS = types.FunctionType, property, staticmethod, classmethod
# A container with more entries holds data, not variables.
CONTAINER_LIMIT = 10_000


def variables_of(model):
    """Returns the variables that a model refers to, at any depth, except through its optimizer."""
    roots = [model]
    with contextlib.suppress(RuntimeError):
        # There may be none if TensorFlow is set to be deterministic.
        roots.append(tf.random.get_global_generator())
    seen, names = {}, set()
    while roots:
        _follow(roots, seen, names)
        # Only now are all names known that code may look up in a module.
        # By type: a proxy of something that is gone refuses `isinstance`.
        modules = [thing for thing in seen.values() if issubclass(type(thing), types.ModuleType)]
        named = itertools.chain.from_iterable(_named_in(module, names) for module in modules)
        roots = [thing for thing in named if id(thing) not in seen]
    # By type first: TensorFlow's own check is slow.
    kinds = {kind for kind in {*map(type, seen.values())} if issubclass(kind, VARIABLES)}
    return [thing for thing in seen.values() if type(thing) in kinds]


def _follow(roots, seen, names):
    """Adds all that some things refer to, by id, and the names in the code among it."""
    waiting = collections.deque(roots)
    # By type, because asking each of thousands of things what it is would take most of the time.
    finders = {}
    while waiting:
        thing = waiting.popleft()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        # A proxy of something that is gone may refuse to be looked at.
        with contextlib.suppress(Exception):
            # Not `type`: TensorFlow's proxies of containers only pretend to be what they hold.
            kind = thing.__class__
            if kind not in finders:
                finders[kind] = _finder_for(kind)
            if kind is types.FunctionType and not _is_foreign(thing.__module__):
                names |= _names(thing.__code__)
            waiting.extend(part for part in finders[kind](thing) if type(part) not in ATOMS)


def _finder_for(kind):
    """The function that finds whatever things of some type refer to."""
    for base, finder in FINDERS.items():
        if issubclass(kind, base):
            return finder
    return _nothing if _package(kind.__module__) in CLOSED else _finder_for_objects(kind)


def _finder_for_objects(kind):
    """The function that lists the attributes of an object, in slots too, and its class."""
    members = itertools.chain.from_iterable(vars(each).items() for each in kind.__mro__)
    slots = [name for name, part in members if isinstance(part, types.MemberDescriptorType)]
    of_class = _members(kind)

    def parts_of_object(thing):
        attributes = getattr(thing, "__dict__", {})
        held = [getattr(thing, name, None) for name in slots]
        return [*attributes.values(), *held, *of_class]

    return parts_of_object


def _nothing(_):
    return []


def _parts_of_dict(things):
    return [*things, *things.values()] if len(things) <= CONTAINER_LIMIT else []


def _parts_of_container(things):
    return list(things) if len(things) <= CONTAINER_LIMIT else []


def _parts_of_class(kind):
    parts = _members(kind)
    # The methods of an installed package, such as pandas, lead to all of the package.
    is_foreign = _is_foreign(kind.__module__)
    return [part for part in parts if not isinstance(part, METHODS)] if is_foreign else parts


def _members(kind):
    """What a class and those it is made of define, except for classes of libraries."""
    own = [each for each in (*kind.__mro__, type(kind)) if not _is_of_library(each)]
    return [part for each in own for part in vars(each).values()]


def _parts_of_function(function):
    if _is_of_library(function):
        return []
    names = _names(function.__code__)
    cells = [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)]
    used = [function.__globals__[name] for name in names if name in function.__globals__]
    # The function may import modules itself.
    modules = [sys.modules[name] for name in names if name in sys.modules]
    own = vars(function).values()
    return [*cells, *used, *modules, *own, function.__defaults__, function.__kwdefaults__]


def _names(code):
    """The names of the globals and attributes used in a function and in the functions inside it."""
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return {*code.co_names}.union(*map(_names, inner))


def _named_in(module, names):
    """The parts of a module that have one of some names."""
    if _package(module.__name__) in LIBRARIES:
        return []
    return [part for name, part in vars(module).items() if name in names]


def _is_empty(cell):
    try:
        return cell.cell_contents is None
    except ValueError:
        return True


def _is_of_library(thing):
    return _package(thing.__module__) in LIBRARIES


def _is_foreign(name):
    """Whether a module is a library, or installed as one."""
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    is_installed = "site-packages" in path or "dist-packages" in path
    return is_installed or _package(name) in LIBRARIES


def _package(name):
    # Objects that pretend to be others, such as proxies, may have no name here.
    return name.partition(".")[0] if isinstance(name, str) else ""


# The first that fits counts.
FINDERS = {
    keras.Variable: lambda variable: [variable.regularizer],
    types.FunctionType: _parts_of_function,
    types.MethodType: lambda method: [method.__self__, method.__func__],
    types.BuiltinMethodType: lambda method: [method.__self__],
    functools.partial: lambda partial: [partial.func, partial.args, partial.keywords],
    property: lambda attribute: [attribute.fget],
    staticmethod: lambda method: [method.__func__],
    classmethod: lambda method: [method.__func__],
    **dict.fromkeys((dict, types.MappingProxyType), _parts_of_dict),
    **dict.fromkeys((list, tuple, set, frozenset, collections.deque), _parts_of_container),
    contextvars.ContextVar: lambda variable: [variable.get(None)],
    tf.random.Generator: lambda generator: [generator.state],
    tf.types.experimental.PolymorphicFunction: lambda function: [function.python_function],
    type: _parts_of_class,
    **dict.fromkeys((types.ModuleType, keras.KerasTensor, keras.optimizers.Optimizer), _nothing),
}
