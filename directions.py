"""Directions: the axes of a loss landscape.

A direction is a list of arrays, one per trainable weight of a model, in the
order of `model.trainable_variables`. This module draws random directions with
filter-wise normalization, computes the direction from one model to another, and
says which axes of each weight make up a filter. The scales of such directions are
also the units in which curvature does not depend on the scale of the weights.
"""

__all__ = [  # noqa: RUF022, in the order of the page
    "random_directions",
    "direction_between",
    "save_directions",
    "filters",
    "print_filters",
    "register_filters",
]

import collections
import collections.abc
import copy
import fnmatch
import functools
import itertools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import keras
import numpy as np
from keras import layers

from losslandscape.backends.structures import precise_dtypes
from losslandscape.basics.architecture import check_same_architecture, counterparts
from losslandscape.basics.checks import (
    about_quantized,
    check_choice,
    check_integer,
    check_memory,
    check_model,
)
from losslandscape.basics.claims import claiming
from losslandscape.basics.internals import flatten_layers, own_trainable_variables
from losslandscape.basics.types import Direction, Directions, FilePath, Ignore, Layers, Normalize
from losslandscape.measuring.engines import are_large
from losslandscape.values.files import read_array, reading, writing

NORMALIZATIONS = ("filter", "layer", "weight", None)
IGNORE_RULES = ("biasbn", None)
# What a file of directions says that it holds.
KIND = "Directions"


class Filters(NamedTuple):
    """How one trainable weight of a model splits into filters.

    Attributes:
        path: Keras path of the weight, such as `"sequential/dense/kernel"`.
        shape: Shape of the weight.
        axes: The axes that one filter spans; its norm is taken over them.
            `None` for biases and normalization parameters, which are not
            filters and do not move with `ignore="biasbn"`.
        number: Number of filters in the weight, 0 where `axes` is `None`.
    """

    path: str
    shape: tuple
    axes: tuple | None
    number: int


@claiming
def random_directions(
    model: keras.Model,
    number: int = 1,
    *,
    normalize: Normalize = "filter",
    ignore: Ignore = "biasbn",
    layers: Layers | None = None,
    seed: int | None = None,
) -> list[Direction]:
    """Draws random directions scaled to the weights of a model.

    Every entry is drawn from a standard normal distribution; then each filter
    of the direction is given the norm of the same filter in the model,
    `d_ij ← d_ij / ‖d_ij‖ · ‖θ_ij‖`. This removes the arbitrary scale of ReLU
    networks and makes landscapes of different networks comparable. A filter of
    norm 0 gets a direction of 0.

    The same seed gives the same directions on every backend and machine, and
    the first of several directions is the one that `number=1` gives.

    Example:

    >>> d1, d2 = random_directions(model, 2, seed=0)
    >>> surface = evaluate_surface(model, x_test, y_test, directions=[d1, d2])

    Args:
        model: A built `keras.Model`.
        number: How many directions to draw. Defaults to 1.
        normalize: Which parts are scaled to the norm that they have in the
            model: each `"filter"` (the default, as in the paper), each `"layer"`
            (a whole weight array), each single `"weight"` (its entry is multiplied
            by the model's), or none (`None`, the raw normal draw).
        ignore: `"biasbn"` (the default, as in the paper) keeps biases and
            normalization parameters in place; `None` moves them, too. With
            `normalize="filter"`, each of their entries then counts as a filter.
        layers: The layers that move, while all others are fixed: a layer of the
            model, its name or path, a pattern of names such as `"conv*"`, or a
            list of these. A layer includes those within it. `None` (the default)
            moves all. With the same seed, a layer moves in the same direction,
            whichever others move.
        seed: Integer seed. `None` (the default) draws one from NumPy's global
            random state, which `keras.utils.set_random_seed` sets.

    Returns:
        A list of `number` directions. Each is a list of float32 arrays with the
        shapes of `model.trainable_variables`, with zeros for weights that do not move.

    Raises:
        TypeError: If `model` is not a Keras model, `number` or `seed` is not an
            integer, or `layers` holds neither names nor layers.
        ValueError: If `model` is not built or has nothing to
            move, or another argument is not an accepted value.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 4.
    """
    check_model(model)
    check_choice("normalize", normalize, NORMALIZATIONS)
    check_choice("ignore", ignore, IGNORE_RULES)
    check_integer("number", number, minimum=1)
    size = sum(math.prod(weight.shape) for weight in model.trainable_variables)
    check_memory("number", int(number), 4 * size)
    kind = {"normalize": normalize, "ignore": ignore, "layers": layers}
    return [list(each) for each in RandomDirections(model, number, resolve_seed(seed), **kind)]


class RandomDirections(collections.abc.Sequence):
    """Random directions whose arrays are drawn when they are needed, each time anew.

    Args:
        model: As in `random_directions`; only the weights that it has now matter.
        number: As in `random_directions`.
        seed: Integer seed.
        normalize: As in `random_directions`.
        ignore: As in `random_directions`.
        layers: As in `random_directions`.

    Raises:
        TypeError: As in `random_directions`.
        ValueError: If there is nothing to move.
    """

    def __init__(self, model, number, seed, *, normalize="filter", ignore="biasbn", layers=None):
        weights = model.trainable_variables
        parts = zip(weights, filters(model), choose_weights(model, layers), strict=True)
        self._parts = [
            (
                tuple(weight.shape),
                _scaling(to_numpy(weight), entry.axes, normalize, ignore) if is_chosen else None,
            )
            for weight, entry, is_chosen in parts
        ]
        _check_any(model, [scale for _, scale in self._parts])
        self._starts = {0: np.random.default_rng(seed).bit_generator.state}
        self._indices = range(number)

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            part = copy.copy(self)
            part._indices = self._indices[index]
            return part
        return RandomDirection(self._parts, self._starts, self._indices[index])


class RandomDirection(collections.abc.Sequence):
    """One random direction, whose arrays are drawn in order.

    Args:
        parts: List of pairs: the shape of a weight, and the function that scales a random array
            to it, or `None` if it stays put.
        starts: Dict of the states of the random generator where directions start, by index. All
            directions are one stream of random numbers, so it grows as they are drawn.
        index: Which direction of the stream this is.
    """

    def __init__(self, parts, starts, index):
        self._parts, self._starts, self._index = parts, starts, index

    def __len__(self):
        return len(self._parts)

    def __getitem__(self, index):
        position = range(len(self))[index]
        return next(itertools.islice(self, position, None))

    def __iter__(self):
        for index in range(self._index):
            if index + 1 not in self._starts:
                collections.deque(self._drawn(index), maxlen=0)
        yield from self._drawn(self._index)

    def _drawn(self, index):
        generator = np.random.default_rng()
        generator.bit_generator.state = self._starts[index]
        for shape, scale in self._parts:
            # Not held here: the next array may be drawn when this one is gone.
            yield _draw(generator, shape, scale)
        self._starts[index + 1] = generator.bit_generator.state


@claiming
def direction_between(model: keras.Model, other: keras.Model) -> Direction:
    """Returns the direction that leads from one model to another.

    Args:
        model: A built `keras.Model`, where the direction starts.
        other: A model of the same architecture, where it ends: at coordinate 1
            the trainable weights of `model` are those of `other`. Non-trainable
            weights, such as the moving statistics of `BatchNormalization`, are
            not part of a direction.

    Returns:
        A direction: a list of float32 arrays with the shapes of
        `model.trainable_variables`. It is not normalized.

    Raises:
        TypeError: If an argument is not a Keras model.
        ValueError: If the two differ in more than the values of their weights.

    Example:

    >>> direction = direction_between(small_batch, large_batch)
    >>> plot_loss(small_batch, (x, y), directions=[direction], extent=(-0.5, 1.5))
    """
    check_model(model)
    check_same_architecture([model, other], ["model", "other"])
    pairs = zip(model.trainable_variables, counterparts(model, other), strict=True)
    return [to_numpy(end) - to_numpy(start) for start, end in pairs]


def save_directions(directions: Directions, path: FilePath) -> None:
    """Saves directions in a file, which takes their place in other calls, and on other machines.

    The file is that of the paper's reference implementation, with the groups `xdirection` and
    `ydirection`; further directions are called `direction3` and so on. `directions=path`
    reads its files as well, see `docs/directions.md`.

    Args:
        directions: List of directions, such as `random_directions(model, 2)`.
        path: Where to write the HDF5 file; an existing one is replaced.

    Raises:
        TypeError: If a direction does not hold real numbers.
        ValueError: If `directions` is not a list of directions, or `path` is not a file that
            can be written.

    Example:

    >>> save_directions(random_directions(model, 2, seed=0), "directions.h5")
    >>> plot_loss_3D(model, "levels", x_test, y_test, directions="directions.h5")

    Reference:
        [loss-landscape](https://github.com/tomgoldstein/loss-landscape), `net_plotter.py`.
    """
    _check_list(directions)
    with writing(path) as content, h5py.File(content, "w") as file:
        file.attrs["kind"] = KIND
        for name, direction in zip(_group_names(), directions, strict=False):
            group = file.create_group(name)
            for index, array in enumerate(direction):
                array = _real(array, f"directions[{len(file) - 1}]")  # noqa: PLW2901
                # HDF5 does not have the half precision of Keras.
                group[str(index)] = array if array.dtype == np.float64 else np.float32(array)


class SavedDirection(collections.abc.Sequence):
    """A direction in a file, whose arrays are read when they are needed.

    Args:
        path: The file.
        name: The name of the group in it.
        shapes: List of the shapes of its arrays.
        orders: For each array, the axes in the file in the order that they have here.

    Attributes:
        shapes: List of the shapes of its arrays, as they are here.
    """

    def __init__(self, path, name, shapes, orders):
        self._path, self._name, self._orders = path, name, orders
        pairs = zip(shapes, orders, strict=True)
        self.shapes = [tuple(shape[axis] for axis in order) for shape, order in pairs]

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, index):
        index = range(len(self))[index]
        with h5py.File(self._path, "r") as file:
            return read_array(file[self._name][str(index)]).transpose(self._orders[index])


def check_directions(model, directions, number=None):
    """Refuses directions that do not fit the model, or whose number is not `number`.

    Args:
        model: A built `keras.Model`.
        directions: The directions that a user gave, or the path of a file with them.
        number: How many there must be. Defaults to `None`, any number.

    Returns:
        A list of directions, each a sequence of arrays of the types that weights move in.

    Raises:
        TypeError: If a direction does not hold real numbers.
        ValueError: If anything else is wrong.
    """
    if isinstance(directions, (str, os.PathLike)):
        directions = _saved_directions(model, directions)
    _check_list(directions)
    if number is not None and len(directions) != number:
        raise ValueError(f"`directions` must hold {number} directions. Received {len(directions)}.")
    pairs = enumerate(directions)
    return [check_direction(model, each, f"directions[{index}]") for index, each in pairs]


def _check_list(directions):
    is_list = isinstance(directions, (list, tuple))
    if not is_list or not directions:
        raise ValueError(
            "`directions` must be a list of directions, as `random_directions` returns. "
            f"Received {type(directions).__name__}{' of length 0' if is_list else ''}."
        )


def _saved_directions(model, path):
    """The directions in a file, read at once unless they are large."""
    expected = "a file of `save_directions`, or of the reference implementation"
    with reading("directions", path, expected) as file:
        names = list(itertools.takewhile(file.__contains__, _group_names()))
        if not names:
            raise ValueError(f"it has no {next(_group_names())}, only {sorted(file)}")
        is_ours, directions = file.attrs.get("kind") == KIND, []
        for name in names:
            shapes = [file[name][str(index)].shape for index in range(len(file[name]))]
            kept = [tuple(range(len(shape))) for shape in shapes]
            orders = kept if is_ours else _orders_of_torch(model, kept)
            directions.append(SavedDirection(Path(path).resolve(), name, shapes, orders))
    if are_large(model.trainable_variables):
        return directions
    return [list(direction) for direction in directions]


def _orders_of_torch(model, orders):
    """The order of the axes of each array that Torch keeps, where those of the outputs come first.

    Of other numbers of arrays than the model has nothing is known, and they are refused anyway.
    """
    same = layers.Embedding, layers.TorchModuleWrapper
    return [
        order if owner is None or isinstance(owner, same) or len(order) < 2 else (*order[2:], 1, 0)
        for order, owner in itertools.zip_longest(orders, owners(model)[: len(orders)])
    ]


def _group_names():
    """The names of the groups in a file of directions; the first two are the reference's."""
    yield from ("xdirection", "ydirection")
    yield from (f"direction{number}" for number in itertools.count(3))


def check_direction(model, direction, name="direction"):
    """Refuses anything but a direction of a model.

    Args:
        model: A built `keras.Model`.
        direction: The direction that a user gave.
        name: Its name in errors.

    Returns:
        A list of arrays, of the types that weights move in.

    Raises:
        TypeError: If it does not hold real numbers.
        ValueError: If its shapes are not those of the weights, or a number is not finite.
    """
    weights = model.trainable_variables
    shapes = [tuple(weight.shape) for weight in weights]
    is_saved = isinstance(direction, SavedDirection)
    is_list = isinstance(direction, (list, tuple))
    arrays = [_real(array, name) for array in direction] if is_list else direction
    if is_list:
        received = [array.shape for array in arrays]
    else:
        received = direction.shapes if is_saved else type(direction).__name__
    if received != shapes:
        raise ValueError(
            f"`{name}` must be a list of arrays with the shapes of `model.trainable_variables`, "
            f"{shapes}. Received {received}."
        )
    checked = (
        _finite(array, dtype, name)
        for array, dtype in zip(arrays, precise_dtypes(weights), strict=True)
    )
    if is_saved:
        collections.deque(checked, maxlen=0)
        return direction
    return list(checked)


def _finite(array, dtype, name):
    """An array of the type that a weight moves in; refuses what is not finite."""
    with np.errstate(over="ignore"):
        array = array.astype(dtype, copy=False)
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite. It holds NaN or inf.")
    return array


def filters(model: keras.Model) -> list[Filters]:
    """Returns how each trainable weight of a model splits into filters.

    A filter consists of the weights that produce one feature map or one neuron: a
    column of a `Dense` kernel, a slice `kernel[..., i]` of a convolution, one channel
    of a depthwise kernel, the vector of one token of an `Embedding`.

    Args:
        model: A built `keras.Model`.

    Returns:
        A list of `Filters`, one per weight in `model.trainable_variables`.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If `model` is not built or has no trainable
            weights.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 4. Where
        the paper is silent (embeddings, attention, recurrence), see the table
        in `docs/directions.md`.
    """
    check_model(model)
    pairs = zip(model.trainable_variables, owners(model), strict=True)
    return [_filters_of(weight, owner) for weight, owner in pairs]


def print_filters(model: keras.Model, print_fn: Callable[[str], object] = print) -> None:
    """Prints which axes make up a filter, for each trainable weight of a model.

    Args:
        model: A built `keras.Model`.
        print_fn: Called with the text of each line. Defaults to `print`.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: As in `filters`.

    Example:

    >>> print_filters(model)
    weight                     shape   filters  norm over axes
    sequential/dense/kernel    (4, 8)        8  (0,)
    sequential/dense/bias      (8,)          -  stays put
    sequential/dense_1/kernel  (8, 3)        3  (0,)
    sequential/dense_1/bias    (3,)          -  stays put
    """
    header = ("weight", "shape", "filters", "norm over axes")
    rows = [
        (path, str(shape), "-", "stays put")
        if axes is None
        else (path, str(shape), str(number), str(axes))
        for path, shape, axes, number in filters(model)
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for path, shape, number, axes in (header, *rows):
        print_fn(f"{path:<{widths[0]}}  {shape:<{widths[1]}}  {number:>{widths[2]}}  {axes}")


def register_filters(
    layer_class: type[keras.layers.Layer], **weights: int | tuple[int, ...] | None
) -> None:
    """Registers which axes of a custom layer's weights number its filters.

    Without a rule, a weight of a custom layer counts as a bias if it has at most one
    dimension or is named `"bias"`; if not, its last axis numbers the filters.
    Subclasses inherit the rules that are registered for their parents.

    Args:
        layer_class: The custom `keras.layers.Layer` class.
        **weights: For each weight, by the name given to `add_weight`, the axis
            or tuple of axes with one entry per filter, or `None` for a weight
            that is a bias or a normalization parameter.

    Raises:
        TypeError: If `layer_class` is not a layer class, or an axis not an integer.

    Example:

    >>> register_filters(OutputFirstDense, kernel=0, gain=None)
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, layers.Layer)):
        raise TypeError(
            f"`layer_class` must be a subclass of `keras.layers.Layer`. Received {layer_class!r}."
        )
    for name, axes in weights.items():
        for axis in () if axes is None else np.atleast_1d(axes).tolist():
            check_integer(f"{name}", axis)
    rules = {
        name: None if axes is None else tuple(np.atleast_1d(axes).tolist())
        for name, axes in weights.items()
    }
    _FILTER_NUMBERING[layer_class] = _FILTER_NUMBERING.get(layer_class, {}) | rules


def owners(model):
    """Returns the layer that holds each trainable weight of a model, without its sublayers."""
    found = {}
    for layer in flatten_layers(model):
        for weight in own_trainable_variables(layer):
            found.setdefault(id(weight), layer)
    return [found.get(id(weight), model) for weight in model.trainable_variables]


def choose_weights(model, layers=None):
    """Returns whether each trainable weight belongs to the chosen layers.

    Args:
        model: A built `keras.Model`.
        layers: As in `random_directions`.

    Returns:
        A list of bools, one per weight in `model.trainable_variables`.

    Raises:
        TypeError: If `layers` holds neither names nor layers.
        ValueError: If the model has no such layer, or there is nothing to train in it.
    """
    if layers is None:
        return [True] * len(model.trainable_variables)
    wanted = layers if isinstance(layers, (list, tuple)) else [layers]
    found = [layer for each in wanted for layer in _matching(model, each)]
    held = {id(weight) for layer in found for weight in layer.trainable_variables}
    chosen = [id(weight) in held for weight in model.trainable_variables]
    if not any(chosen):
        raise ValueError(
            f"`layers` must have trainable weights. Received {layer_names(layers)}, which have "
            "none. Name other layers, or set their `trainable = True` and compile again."
        )
    return chosen


def layer_names(layers):
    """Returns the names and patterns in the argument `layers` of `random_directions`."""
    wanted = layers if isinstance(layers, (list, tuple)) else [layers]
    return [each if isinstance(each, str) else each.path or each.name for each in wanted]


def scales(model, normalize=None, ignore="auto", layers=None):
    """Returns the root mean square of each entry of a random direction.

    With T, the diagonal matrix of these scales, random directions d of any
    normalization have `E[d·dᵀ] = T²`, so `E[dᵀHd] = tr(T·H·T)`. With `"filter"`,
    each of the n entries of a filter has the scale `‖θ_f‖ / √n`.

    Args:
        model: A built `keras.Model`.
        normalize: As in `random_directions`. `None` (the default) makes all
            scales 1.
        ignore: As in `random_directions`, or `"auto"` (the default), which
            `resolve_ignore` explains.
        layers: As in `random_directions`.

    Returns:
        A list of float32 arrays with the shapes of `model.trainable_variables`, 0
        where nothing moves.

    Raises:
        TypeError: If `layers` holds neither names nor layers.
        ValueError: If nothing moves, or an argument is not an accepted value.
    """
    check_model(model)
    check_choice("normalize", normalize, NORMALIZATIONS)
    check_choice("ignore", ignore, ("auto", *IGNORE_RULES))
    ignore = resolve_ignore(normalize, ignore)
    pairs = zip(model.trainable_variables, filters(model), strict=True)
    found = [_scale(to_numpy(weight), entry.axes, normalize, ignore) for weight, entry in pairs]
    found = [
        scale if is_chosen else np.zeros_like(scale)
        for scale, is_chosen in zip(found, choose_weights(model, layers), strict=True)
    ]
    _check_any(model, [scale if scale.any() else None for scale in found])
    return found


def resolve_ignore(normalize, ignore):
    """Returns the rule itself; for `"auto"`, `"biasbn"`, or `None` without normalization."""
    if ignore != "auto":
        return ignore
    return None if normalize is None else "biasbn"


def resolve_seed(seed):
    """Returns the given seed, or one drawn from NumPy's global random state."""
    if seed is None:
        return int(np.random.randint(2**31))  # noqa: NPY002, `set_random_seed` governs this state
    check_integer("seed", seed, minimum=0)
    return int(seed)


def to_numpy(weight):
    """Returns a Keras variable as a float32 array."""
    return np.asarray(keras.ops.convert_to_numpy(weight)).astype(np.float32, copy=False)


def _real(array, name):
    """Converts anything like an array to an array; refuses one that does not hold real numbers."""
    if isinstance(array, keras.Variable) or keras.ops.is_tensor(array):
        array = keras.ops.convert_to_numpy(array)
    try:
        array = np.asarray(array)
        kind = keras.backend.standardize_dtype(array.dtype)
    except (TypeError, ValueError):
        # Rows of different lengths, or objects other than numbers.
        kind = str(getattr(array, "dtype", type(array).__name__))
    if kind != "bool" and "float" not in kind and "int" not in kind:
        raise TypeError(
            f"`{name}` must hold real numbers, since weights move by real steps. Received {kind}."
        )
    return array


def _check_any(model, scales):
    if all(scale is None for scale in scales):
        raise ValueError(
            f"`model` has no filter to move: all of the {len(scales)} trainable weights that could "
            "move are biases or normalization parameters, or zero. To move the former, too, pass "
            "`ignore=None`, or, to a call without that argument, "
            "`directions=random_directions(model, ..., ignore=None)`." + about_quantized(model)
        )


def _matching(model, wanted):
    """The layers of a model that one entry of `layers` refers to."""
    if not isinstance(wanted, (str, keras.Layer)):
        raise TypeError(
            "`layers` must be names, patterns such as 'conv*' or layers of `model`. Received "
            f"{wanted!r}."
        )
    # Not the model itself, which could match a pattern by chance.
    within = [layer for layer in flatten_layers(model) if layer is not model]
    found = [layer for layer in within if _is_meant(layer, wanted)]
    if not found:
        names = list(dict.fromkeys(layer.name for layer in within if layer.trainable_variables))
        raise ValueError(
            f"`layers` must be names, patterns or layers of `model`, which has {names}. Received "
            f"{wanted if isinstance(wanted, str) else wanted.name!r}."
        )
    return found


def _is_meant(layer, wanted):
    if not isinstance(wanted, str):
        return layer is wanted
    return wanted in (layer.name, layer.path) or fnmatch.fnmatchcase(layer.name, wanted)


def _scale(weight, axes, normalize, ignore):
    """The root mean square of each entry of an array that `_scaling` scales."""
    if axes is None and ignore == "biasbn":
        return np.zeros_like(weight)
    if normalize is None:
        return np.ones_like(weight)
    norm_axes = () if normalize == "weight" else _norm_axes(weight, axes, normalize)
    number = np.prod([weight.shape[axis] for axis in norm_axes])
    scale = _norm(weight, norm_axes) / np.sqrt(number)
    return np.broadcast_to(scale, weight.shape).astype(np.float32)


def _draw(generator, shape, scale):
    # Drawn for weights that stay put, too, so that these do not change the others.
    draw = generator.standard_normal(shape, dtype=np.float32)
    return np.zeros_like(draw) if scale is None else scale(draw)


def _scaling(weight, axes, normalize, ignore):
    """The function that scales a random array to a weight, or `None` if that stays put."""
    if axes is None and ignore == "biasbn":
        return None
    if normalize is None:
        return np.asarray
    if not weight.any():
        return None
    if normalize == "weight":
        return functools.partial(np.multiply, weight)
    norm_axes = _norm_axes(weight, axes, normalize)
    return functools.partial(_scaled, _norm(weight, norm_axes), norm_axes)


def _norm_axes(weight, axes, normalize):
    return tuple(range(weight.ndim)) if normalize == "layer" else axes or ()


def _scaled(norm, axes, draw):
    return np.multiply(draw, (norm / _norm(draw, axes)).astype(np.float32), out=draw)


def _norm(array, axes):
    return np.sqrt(np.sum(np.square(array), axis=axes, keepdims=True, dtype=np.float64))


def _filters_of(weight, layer):
    shape = tuple(weight.shape)
    numbering = _numbering(weight, layer)
    if numbering is None:
        return Filters(weight.path, shape, None, 0)
    output_axes = {axis % len(shape) for axis in numbering}
    axes = tuple(axis for axis in range(len(shape)) if axis not in output_axes)
    return Filters(weight.path, shape, axes, int(np.prod([shape[axis] for axis in output_axes])))


def _numbering(weight, layer):
    for layer_class in type(layer).__mro__:
        rules = _FILTER_NUMBERING.get(layer_class, {})
        if weight.name in rules:
            rule = rules[weight.name]
            return rule(layer) if callable(rule) else rule
    if len(weight.shape) <= 1 or weight.name == "bias":
        return None
    return (-1,)


def _einsum_output_axes(layer):
    """The axes of an EinsumDense kernel that appear in the output."""
    operands, output = layer.equation.replace(" ", "").split("->")
    kernel = operands.split(",")[1]
    return tuple(axis for axis, letter in enumerate(kernel) if letter in output)


# Which axes of a weight number its filters, by layer class and weight name;
# `None` marks a bias or normalization parameter. Other weights follow the
# default in `_numbering`, which is right for Dense, Conv, LSTM, GRU, SimpleRNN
# and ConvLSTM: they all keep their outputs in the last axis.
_FILTER_NUMBERING = {
    layers.Conv1DTranspose: {"kernel": (-2,)},
    layers.Conv2DTranspose: {"kernel": (-2,)},
    layers.Conv3DTranspose: {"kernel": (-2,)},
    layers.DepthwiseConv1D: {"kernel": (-2, -1)},
    layers.DepthwiseConv2D: {"kernel": (-2, -1)},
    layers.SeparableConv1D: {"depthwise_kernel": (-2, -1)},
    layers.SeparableConv2D: {"depthwise_kernel": (-2, -1)},
    layers.EinsumDense: {"kernel": _einsum_output_axes},
    layers.Embedding: {"embeddings": (0,), "lora_embeddings_a": (0,)},
    layers.ReversibleEmbedding: {"reverse_embeddings": (1,)},
    layers.BatchNormalization: {"gamma": None, "beta": None},
    layers.LayerNormalization: {"gamma": None, "beta": None},
    layers.GroupNormalization: {"gamma": None, "beta": None},
    layers.RMSNormalization: {"scale": None},
    layers.PReLU: {"alpha": None},
}
