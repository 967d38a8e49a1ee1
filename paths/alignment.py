"""Alignment: reorders the channels of one model so that it lies close to another.

Two trained networks may compute almost the same function, yet lie far apart, only because
their channels come in different orders. Channels can be permuted freely as long as
everything that reads them is permuted too, so the loss between two models says something
about them only once their channels are matched.

Channels that must keep one common order form a *group*: the outputs of a layer, those of
all layers added to it, and the rows of every weight that reads them. The last axis of a
tensor is described by the tuple of groups laid end to end along it: flattening repeats
such a tuple, and concatenation joins several.
"""

__all__ = ["match_weights"]

import functools
import itertools
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from losslandscape.basics.architecture import check_same_architecture
from losslandscape.basics.checks import check_model, import_extra
from losslandscape.basics.claims import claiming
from losslandscape.basics.internals import calls, has_graph
from losslandscape.basics.types import Array

# A gain below this, relative to the squared lengths of the weights, may be rounding error.
ROUNDING = 1e-10


@claiming
def match_weights(model: keras.Model, other: keras.Model) -> list[Array]:
    """Permutes the channels of a model so that its weights lie close to those of another.

    The permuted weights compute the same function. They minimize the distance
    `‖θ − π(θ')‖` over the permutations π, as far as weight matching can: one group of
    channels at a time is assigned optimally, until none improves (the problem as a
    whole is NP-hard). The search starts twice, from the given order and from one found
    layer by layer from the inputs, and the closer result is returned; nothing is random.
    Moving statistics are permuted, too, but do not count in the distance.

    Example:

    >>> large_batch.set_weights(match_weights(small_batch, large_batch))
    >>> (line,) = evaluate_interpolation(small_batch, large_batch, (x_test, y_test))

    Args:
        model: A built `keras.Model`. It is left as it was.
        other: A Sequential or Functional model of the same architecture, whose
            channels are permuted. It is left as it was, too.

    Returns:
        List of arrays like `other.get_weights()`, for `set_weights` of `other` or a
        clone of it. An optimizer's state is not permuted: compile again before
        you train further.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        TypeError: If an argument is not a `keras.Model`.
        ValueError: If the models differ in more than their weights, a weight is
            not finite, or a layer is not supported. Supported are dense and
            convolutional layers, embeddings, normalization over channels, pooling,
            elementwise layers and activations, `Flatten`, `Reshape`, `Concatenate`,
            `Add` and other merging layers, nested models, all with channels last;
            and any layer without trainable weights that acts on the inputs.

    Reference:
        [Ainsworth et al., 2023](https://arxiv.org/abs/2209.04836), section 3.2 and
        algorithm 1.
    """
    import_extra("scipy.optimize", "analysis")
    _check(model, other)
    matching = _matching(model, other)
    starts = matching.unpermuted, _matched_forward(matching)
    best = max((_improved(matching, start) for start in starts), key=matching.likeness)
    return [
        _permuted(weight, axes, best)
        for weight, axes in zip(other.get_weights(), matching.axes, strict=True)
    ]


def _check(model, other):
    check_model(model)
    check_model(other, "other")
    if not has_graph(other):
        raise ValueError(
            "`other` must be a Sequential or Functional model, since only these show which layer "
            f"reads which channels. Received {type(other).__name__} with its own `call`."
        )
    check_same_architecture([model, other], ["model", "other"])
    for part, name in ((model, "model"), (other, "other")):
        for weight, array in zip(part.weights, part.get_weights(), strict=True):
            if not np.isfinite(_to_float(array)).all():
                raise ValueError(
                    f"`{name}` must have finite weights, or there is no distance between the "
                    f"models. Received NaN or inf in {weight.path!r}."
                )


# How weights are matched


class _Matching(NamedTuple):
    """Two lists of weights, and the axes of one that can be permuted together.

    Permutations are dicts of index arrays by group: channel `i` of the result is channel
    `permutation[i]` of `others`.

    Attributes:
        weights: Arrays to come close to.
        others: Arrays to permute.
        axes: For each weight, a dict of the tuple of groups along each ordered axis.
        counted: Indices of the weights that count in the distance.
        unpermuted: The permutations that change nothing.
        free: The groups that may be permuted, from inputs to outputs.
    """

    weights: list
    others: list
    axes: list
    counted: list
    unpermuted: dict
    free: list

    def likeness(self, permutations, group=None):
        """The inner product of the weights, or its terms with a group; larger means closer."""
        return sum(
            np.vdot(self.weights[index], _permuted(self.others[index], axes, permutations))
            for index, axes in ((index, self.axes[index]) for index in self.counted)
            if group is None or any(group in groups for groups in axes.values())
        )


def _matching(model, other):
    groups = _Groups()
    inputs = [groups.fixed(tensor.shape[-1]) for tensor in other.inputs]
    for outputs in _follow_model(other, inputs, groups):
        groups.fix(outputs)
    labels, sizes = groups.labels(), groups.sizes
    axes = [
        {
            axis: tuple(labels[group] for group in along)
            for axis, along in groups.axes.get(id(weight), {}).items()
        }
        for weight in other.weights
    ]
    held = {labels[group] for group in groups.held}
    unpermuted = {label: np.arange(sizes[label]) for label in labels if sizes[label] is not None}
    counted = [
        index
        for index, weight in enumerate(other.weights)
        if axes[index] and id(weight) not in groups.statistics
    ]
    weights, others = ([_to_float(w) for w in part.get_weights()] for part in (model, other))
    free = [label for label in unpermuted if label not in held]
    return _Matching(weights, others, axes, counted, unpermuted, free)


def _to_float(array):
    return np.asarray(array, dtype="float64")


def _matched_forward(matching):
    """Assigns each group in turn, by the weights whose other axes are already in order."""
    known = {g: order for g, order in matching.unpermuted.items() if g not in matching.free}
    for group in matching.free:
        known[group] = _assigned(matching, group, known)
    return known


def _improved(matching, permutations):
    """Assigns one group after the other until none comes closer."""
    both = matching.weights, matching.others
    least = ROUNDING * sum(
        np.square(part[index]).sum() for index in matching.counted for part in both
    )
    pending = list(matching.free)
    while pending:
        group = pending.pop(0)
        trial = permutations | {group: _assigned(matching, group, permutations)}
        # If a weight has the group on two axes, the order that is best for each may be worse.
        gain = matching.likeness(trial, group) - matching.likeness(permutations, group)
        if gain > least:
            permutations = trial
            # Another order may now be the best for these.
            neighbors = _neighbors(matching, group)
            pending += [each for each in matching.free if each in neighbors and each not in pending]
    return permutations


def _neighbors(matching, group):
    """The groups on the other axes of the weights that follow a group; possibly itself."""
    neighbors = set()
    for axes in (matching.axes[index] for index in matching.counted):
        for one, other in itertools.permutations(axes.values(), 2):
            neighbors.update(other if group in one else ())
    return neighbors


def _assigned(matching, group, permutations):
    """The best order of a group, by the weights whose other axes have a known order."""
    optimize = import_extra("scipy.optimize", "analysis")
    size = len(matching.unpermuted[group])
    gains = np.zeros((size, size))
    for index in matching.counted:
        for axis, along in matching.axes[index].items():
            rest = {other: g for other, g in matching.axes[index].items() if other != axis}
            if group not in along or not permutations.keys() >= set().union(*rest.values()):
                continue
            others = _permuted(matching.others[index], rest, permutations)
            for start in _starts(group, along, matching.unpermuted):
                rows = _rows(matching.weights[index], axis, start, size)
                gains += rows @ _rows(others, axis, start, size).T
    return optimize.linear_sum_assignment(gains, maximize=True)[1]


def _starts(group, along, orders):
    """The places on an axis where a group begins."""
    ends = itertools.accumulate((len(orders[each]) for each in along), initial=0)
    return [start for start, each in zip(ends, along, strict=False) if each == group]


def _rows(array, axis, start, size):
    return np.moveaxis(array, axis, 0)[start : start + size].reshape(size, -1)


def _permuted(array, axes, permutations):
    for axis, along in axes.items():
        orders = [permutations[group] for group in along]
        starts = itertools.accumulate(map(len, orders), initial=0)
        order = [start + each for start, each in zip(starts, orders, strict=False)]
        array = np.take(array, np.concatenate(order), axis)
    return array


# Which axes are permuted together


class _UnsupportedError(Exception):
    """Why a layer is not supported."""


class _Groups:
    """Which channels have one common order, and which axes of weights follow it.

    Attributes:
        sizes: List of the number of channels of each group, `None` if unknown.
        held: Set of groups that keep their order.
        axes: Dict by the id of a weight, of dicts of the groups along each axis.
        statistics: Set of ids of weights that do not count in the distance.
    """

    def __init__(self):
        self.sizes, self.held, self.axes, self.statistics = [], set(), {}, set()
        self._same = import_extra("scipy.cluster.hierarchy", "analysis").DisjointSet()

    def new(self, size):
        """Returns the description of an axis with a new group of channels."""
        group = len(self.sizes)
        self.sizes.append(size)
        self._same.add(group)
        return (group,)

    def fixed(self, size):
        """Returns the description of an axis whose order is fixed."""
        channels = self.new(size)
        self.fix(channels)
        return channels

    def fix(self, channels):
        """Keeps the order of some channels."""
        self.held.update(channels)

    def are_fixed(self, channels):
        """Whether all of these channels keep their order, as far as is known yet."""
        held = {self._same[group] for group in self.held}
        return all(self._same[group] in held for group in channels)

    def unite(self, first, second):
        """Gives the channels of two axes one common order."""
        if [self.sizes[group] for group in first] == [self.sizes[group] for group in second]:
            for pair in zip(first, second, strict=True):
                self._same.merge(*pair)
        elif self.are_fixed(first) or self.are_fixed(second):
            self.fix(first + second)
        else:
            raise _UnsupportedError("it joins channels that are grouped in different ways")

    def order(self, weight, axes):
        """Makes the axes of a weight follow channels, like those of its earlier uses, if any."""
        axes = {axis % len(weight.shape): channels for axis, channels in axes.items()}
        known = self.axes.setdefault(id(weight), axes)
        for axis, channels in axes.items():
            self.unite(known[axis], channels)

    def labels(self):
        """Returns for each group the first one that has the same order."""
        first = {}
        return [first.setdefault(self._same[group], group) for group in range(len(self.sizes))]


class _Call(NamedTuple):
    """One call of a layer in a model's graph; inputs and outputs are symbolic tensors."""

    layer: keras.Operation
    inputs: list
    outputs: list


def _follow_model(model, inputs, groups):
    """Returns the channels of a model's outputs, and collects the axes of all weights."""
    known = dict(zip(map(id, model.inputs), inputs, strict=True))
    for each in calls(model):
        call = _Call(*each)
        if all(id(tensor) in known for tensor in call.outputs):
            # An input layer.
            continue
        given = [known[id(tensor)] for tensor in call.inputs]
        try:
            found = _follow(call, given, groups)
        except _UnsupportedError as reason:
            raise ValueError(
                f"`other` has a layer whose channels cannot be permuted: {call.layer.name!r} "
                f"({type(call.layer).__name__}), since {reason}."
            ) from None
        known.update(zip(map(id, call.outputs), found, strict=True))
    return [known[id(tensor)] for tensor in model.outputs]


def _follow(call, given, groups):
    """Returns the channels of a call's outputs, one description each."""
    layer = call.layer
    if has_graph(layer):
        return _follow_model(layer, given, groups)
    # Only the exact type, since a subclass may do anything in its `call`.
    rule = RULES.get(type(layer))
    if rule is None:
        return _follow_preprocessing(call, given, groups)
    _check_activation(call)
    if getattr(layer, "data_format", None) == "channels_first":
        raise _UnsupportedError("its channels are not on the last axis")
    found = rule(call, given, groups)
    for weight in layer.weights:
        if id(weight) not in groups.axes:
            raise _UnsupportedError(f"its weight {weight.name!r} is not known")
    return [found]


def _check_activation(call):
    """Refuses an activation whose results depend on the order of the channels."""
    activation, size = getattr(call.layer, "activation", None), call.outputs[0].shape[-1]
    if activation is None or size is None:
        return
    generator = np.random.default_rng(0)
    values, order = generator.normal(size=(1, size)).astype("float32"), generator.permutation(size)
    before, after = (ops.convert_to_numpy(activation(v)) for v in (values, values[:, order]))
    if before.shape != values.shape or not np.allclose(before[:, order], after, atol=1e-6):
        raise _UnsupportedError("its activation depends on the order of the channels")


def _follow_preprocessing(call, given, groups):
    """Allows layers before all channels that can be permuted, such as augmentation."""
    if not isinstance(call.layer, keras.Layer):
        raise _UnsupportedError("it is not a layer; use a layer such as `keras.layers.Add`")
    if call.layer.trainable_weights or not all(map(groups.are_fixed, given)):
        raise _UnsupportedError("this kind of layer is not supported")
    return [groups.fixed(tensor.shape[-1]) for tensor in call.outputs]


def _follow_linear(call, given, groups, *, axes=(-2, -1)):
    """Dense and convolutional layers, whose kernels have an axis of inputs and one of outputs."""
    layer = call.layer
    if getattr(layer, "groups", 1) != 1:
        raise _UnsupportedError(f"it has {layer.groups} groups of channels of its own")
    (channels,), outputs = given, groups.new(call.outputs[0].shape[-1])
    groups.order(layer.kernel, dict(zip(axes, (channels, outputs), strict=True)))
    if layer.bias is not None:
        groups.order(layer.bias, {0: outputs})
    return outputs


def _follow_depthwise(call, given, groups):
    (channels,) = given
    _check_multiplier(call.layer)
    groups.order(call.layer.kernel, {-2: channels})
    if call.layer.bias is not None:
        groups.order(call.layer.bias, {0: channels})
    return channels


def _follow_separable(call, given, groups):
    (channels,), outputs = given, groups.new(call.outputs[0].shape[-1])
    _check_multiplier(call.layer)
    groups.order(call.layer.depthwise_kernel, {-2: channels})
    groups.order(call.layer.pointwise_kernel, {-2: channels, -1: outputs})
    if call.layer.bias is not None:
        groups.order(call.layer.bias, {0: outputs})
    return outputs


def _check_multiplier(layer):
    if layer.depth_multiplier != 1:
        raise _UnsupportedError("its `depth_multiplier` is not 1")


def _follow_embedding(call, given, groups):
    if not all(map(groups.are_fixed, given)):
        raise _UnsupportedError("its inputs are channels")
    outputs = groups.new(call.outputs[0].shape[-1])
    groups.order(call.layer.embeddings, {-1: outputs})
    return outputs


def _follow_per_channel(call, given, groups):
    """Layers whose weights have a number per channel, or one for all of them."""
    (channels,) = given
    rank, size = len(call.inputs[0].shape), call.inputs[0].shape[-1]
    if rank - 1 not in np.ravel(getattr(call.layer, "axis", -1)) % rank:
        raise _UnsupportedError("it does not act along the last axis")
    for weight in call.layer.weights:
        groups.order(weight, {-1: channels} if weight.shape[-1] == size else {})
    return channels


def _follow_batch_normalization(call, given, groups):
    layer = call.layer
    learned = {id(layer.gamma), id(layer.beta)}
    groups.statistics.update(id(w) for w in layer.weights if id(w) not in learned)
    return _follow_per_channel(call, given, groups)


def _follow_elementwise(call, given, groups):  # noqa: ARG001, as all rules
    (channels,) = given
    return channels


def _follow_merge(call, given, groups):
    size = call.outputs[0].shape[-1]
    # An input of one channel that is broadcast to many has no order.
    whole = [
        channels
        for channels, tensor in zip(given, call.inputs, strict=True)
        if tensor.shape[-1] == size
    ]
    for channels in whole[1:]:
        groups.unite(whole[0], channels)
    return whole[0]


def _follow_concatenation(call, given, groups):
    rank = len(call.outputs[0].shape)
    if call.layer.axis % rank != rank - 1:
        return _follow_merge(call, given, groups)
    return sum(given, ())


def _follow_reshape(call, given, groups):
    """Layers that lay several rows of channels end to end, as `Flatten` does."""
    (channels,), before, after = given, call.inputs[0].shape[-1], call.outputs[0].shape[-1]
    if groups.are_fixed(channels):
        return groups.fixed(after)
    if after is None or after % before:
        raise _UnsupportedError("it splits the channels, or their number is unknown")
    return channels * (after // before)


RULES = {
    **dict.fromkeys((layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D), _follow_linear),
    **dict.fromkeys(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        functools.partial(_follow_linear, axes=(-1, -2)),
    ),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _follow_depthwise),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), _follow_separable),
    layers.Embedding: _follow_embedding,
    layers.BatchNormalization: _follow_batch_normalization,
    layers.LayerNormalization: _follow_per_channel,
    layers.PReLU: _follow_per_channel,
    layers.Concatenate: _follow_concatenation,
    **dict.fromkeys((layers.Flatten, layers.Reshape), _follow_reshape),
    **dict.fromkeys(
        (
            layers.Add,
            layers.Average,
            layers.Maximum,
            layers.Minimum,
            layers.Multiply,
            layers.Subtract,
        ),
        _follow_merge,
    ),
    **dict.fromkeys(
        (
            layers.Activation,
            layers.ActivityRegularization,
            layers.AlphaDropout,
            layers.Dropout,
            layers.ELU,
            layers.GaussianDropout,
            layers.GaussianNoise,
            layers.Identity,
            layers.LeakyReLU,
            layers.Masking,
            layers.ReLU,
            layers.Softmax,
            layers.UnitNormalization,
            *(
                getattr(layers, f"{name}{rank}D")
                for rank in (1, 2, 3)
                for name in (
                    "AveragePooling",
                    "Cropping",
                    "GlobalAveragePooling",
                    "GlobalMaxPooling",
                    "MaxPooling",
                    "SpatialDropout",
                    "UpSampling",
                    "ZeroPadding",
                )
            ),
        ),
        _follow_elementwise,
    ),
}
