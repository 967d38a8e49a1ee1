"""Alignment: the function stays, known permutations are undone, the rest is refused by name."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from losslandscape.paths.alignment import match_weights


def sequential(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


def mlp():
    return sequential(
        (4,), layers.Dense(8, activation="relu"), layers.Dense(6, activation="tanh"),
        layers.Dense(3, activation="softmax"),
    )  # fmt: skip


def normalized():
    return sequential(
        (4,), layers.Dense(8, use_bias=False), layers.BatchNormalization(), layers.PReLU(),
        layers.Dropout(0.5), layers.Dense(6), layers.LayerNormalization(), layers.Activation("elu"),
        layers.UnitNormalization(), layers.Dense(3),
    )  # fmt: skip


def convolutional():
    return sequential(
        (6, 6, 2), layers.Conv2D(5, 3, padding="same", activation="relu"),
        layers.BatchNormalization(scale=False), layers.MaxPooling2D(), layers.ZeroPadding2D(),
        layers.Conv2D(4, 2), layers.PReLU(shared_axes=[1, 2]), layers.Flatten(), layers.Dense(6),
        layers.LeakyReLU(), layers.Dense(3),
    )  # fmt: skip


def pooled():
    return sequential(
        (8, 2), layers.Conv1D(6, 3, strides=2), layers.AveragePooling1D(2),
        layers.Conv1DTranspose(5, 2, activation="relu"), layers.GlobalMaxPooling1D(),
        layers.Dense(3),
    )  # fmt: skip


def volume():
    return sequential(
        (4, 4, 4, 1), layers.Conv3D(5, 2, activation="relu"), layers.GlobalAveragePooling3D(),
        layers.Dense(3),
    )  # fmt: skip


def depthwise():
    return sequential(
        (6, 6, 2), layers.Conv2D(6, 3), layers.DepthwiseConv2D(2, activation="relu"),
        layers.SeparableConv2D(5, 2), layers.Reshape((-1, 5)), layers.GlobalAveragePooling1D(),
        layers.Dense(3),
    )  # fmt: skip


def words():
    return sequential(
        (5,), layers.Embedding(7, 6), layers.GlobalAveragePooling1D(), layers.Dense(3),
    )  # fmt: skip


def residual():
    """Two blocks: the first has a projection shortcut, the second an identity."""
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same")(x)
    for width, strides in ((6, 2), (6, 1)):
        branch = layers.Conv2D(width, 3, strides, padding="same")(layers.ReLU()(x))
        branch = layers.ReLU()(layers.BatchNormalization()(branch))
        branch = layers.Conv2D(width, 3, padding="same")(branch)
        x = layers.Conv2D(width, 1, strides)(x) if strides == 2 else x
        x = layers.Add()([x, branch])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def joined():
    """Concatenated branches, a squeeze-and-excite gate, a nested model twice, and two outputs."""
    inputs = keras.Input((4,))
    left, right = layers.Dense(5, activation="relu")(inputs), layers.Dense(6)(inputs)
    x = layers.Dense(16, activation="relu")(layers.Concatenate()([left, right, left]))
    gate = layers.Dense(16, activation="sigmoid")(layers.Dense(7)(x))
    x = layers.Multiply()([x, gate, layers.Dense(1)(x)])
    block = sequential((16,), layers.Dense(9, activation="tanh"), layers.Dense(16))
    x = block(block(x))
    return keras.Model(inputs, [layers.Dense(3)(x), layers.Dense(5, name="features")(inputs)])


def preprocessed():
    return sequential(
        (4,), layers.Normalization(mean=1.0, variance=2.0), layers.Rescaling(0.5),
        layers.Reshape((2, 2)), layers.Flatten(), layers.Dense(6, activation="relu"),
        layers.Dense(3),
    )  # fmt: skip


NETWORKS = [
    mlp, normalized, convolutional, pooled, volume, depthwise, words, residual, joined,
    preprocessed,
]  # fmt: skip


def randomized(model, seed):
    """Gives all weights random values, moving statistics as well; variances are positive."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        values = generator.normal(size=weight.shape)
        weight.assign(np.abs(values) + 0.1 if "variance" in weight.path else values)
    return model


def inputs_of(model):
    generator = np.random.default_rng(9)
    shape = (16, *model.input_shape[1:])
    is_text = isinstance(model.layers[0], layers.Embedding)
    return generator.integers(0, 7, shape) if is_text else generator.normal(size=shape)


def outputs_of(model):
    found = model(inputs_of(model), training=False)
    return [np.array(each) for each in keras.tree.flatten(found)]


def distance(model, weights):
    """The distance between trained weights, in which moving statistics do not count."""
    return np.sqrt(
        sum(
            np.sum((weight.numpy() - array) ** 2.0)
            for weight, array in zip(model.weights, weights, strict=True)
            if "moving" not in weight.path
        )
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_aligned_weights_compute_the_same_and_lie_closer(network):
    model, other = randomized(network(), 1), randomized(network(), 2)
    given, expected, before = model.get_weights(), outputs_of(other), other.get_weights()
    aligned = match_weights(model, other)
    for kept, part in ((given, model), (before, other)):
        for array, weight in zip(kept, part.get_weights(), strict=True):
            np.testing.assert_array_equal(array, weight)
    assert distance(model, aligned) < 0.99 * distance(model, before)
    other.set_weights(aligned)
    for found, wanted in zip(outputs_of(other), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("network", NETWORKS)
def test_a_permutation_is_undone(network):
    model, shuffled = randomized(network(), 1), network()
    # Towards unrelated weights, the channels come in an unrelated order.
    shuffled.set_weights(match_weights(randomized(network(), 2), model))
    assert distance(model, shuffled.get_weights()) > 1
    for found, original in zip(match_weights(model, shuffled), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, original)


def test_a_permutation_made_by_hand_is_undone_through_flatten():
    model = randomized(
        sequential((4, 4, 2), layers.Conv2D(5, 2), layers.Flatten(), layers.Dense(3)), 1
    )
    kernel, bias, dense, last = model.get_weights()
    order = np.array([3, 0, 4, 1, 2])
    # Flatten lays the 9 positions end to end, each with its 5 channels.
    rows = dense.reshape(9, 5, 3)[:, order].reshape(45, 3)
    shuffled = keras.models.clone_model(model)
    shuffled.set_weights([kernel[..., order], bias[order], rows, last])
    np.testing.assert_allclose(outputs_of(shuffled), outputs_of(model), rtol=1e-4, atol=1e-4)
    for found, original in zip(match_weights(model, shuffled), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, original)


def test_residual_branches_share_one_permutation():
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="stem")(inputs)
    branch = layers.Dense(6, name="second")(layers.Dense(8, activation="relu", name="first")(x))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Add()([x, branch])))
    randomized(model, 1)
    trunk, inner = np.random.default_rng(0).permutation(6), np.random.default_rng(1).permutation(8)
    shuffled = keras.models.clone_model(model)
    orders = {"stem": (None, trunk), "first": (trunk, inner), "second": (inner, trunk)}
    for name, (rows, columns) in (orders | {"head": (trunk, None)}).items():
        kernel, bias = model.get_layer(name).get_weights()
        kernel = kernel if rows is None else kernel[rows]
        weights = [kernel, bias] if columns is None else [kernel[:, columns], bias[columns]]
        shuffled.get_layer(name).set_weights(weights)
    for found, original in zip(match_weights(model, shuffled), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, original)


def test_a_model_is_already_aligned_with_itself():
    model = randomized(residual(), 1)
    for found, original in zip(match_weights(model, model), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, original)


def test_one_hidden_layer_is_matched_as_well_as_by_trying_all_orders():
    model, other = (
        randomized(sequential((3,), layers.Dense(5, activation="relu"), layers.Dense(2)), seed)
        for seed in (1, 2)
    )
    first, bias, second, last = other.get_weights()
    orders = map(list, itertools.permutations(range(5)))
    least = min(distance(model, [first[:, o], bias[o], second[o], last]) for o in orders)
    assert distance(model, match_weights(model, other)) == pytest.approx(least, rel=1e-6)


def test_alignment_lowers_the_barrier_between_trained_networks():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(256, 2)).astype("float32")
    y = (np.linalg.norm(x, axis=1) > 1.2).astype("int32")
    models = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        model = sequential((2,), layers.Dense(32, activation="relu"), layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.03), loss, jit_compile=False)
        model.fit(x, y, batch_size=64, epochs=20, verbose=0)
        models.append(model)

    def barrier():
        first, second = (model.get_weights() for model in models)
        middle = keras.models.clone_model(models[0])
        middle.set_weights([(a + b) / 2 for a, b in zip(first, second, strict=True)])
        losses = [float(loss(y, part(x))) for part in (middle, *models)]
        return losses[0] - np.mean(losses[1:])

    before = barrier()
    models[1].set_weights(match_weights(*models))
    assert barrier() < 0.5 * before


def test_frozen_layers_are_matched_and_custom_steps_do_not_matter():
    class WithOwnStep(keras.Model):
        def test_step(self, data):
            raise NotImplementedError

    def network():
        inputs = keras.Input((4,))
        hidden = layers.Dense(6, trainable=False, name="a b-c")(inputs)
        return WithOwnStep(inputs, layers.Dense(3)(layers.ReLU()(hidden)))

    model, shuffled = randomized(network(), 1), network()
    kernel, bias, head, last = model.get_weights()
    order = [5, 3, 1, 0, 2, 4]
    shuffled.set_weights([kernel[:, order], bias[order], head[order], last])
    np.testing.assert_array_equal(match_weights(model, shuffled)[0], kernel)


def test_half_precision_is_kept():
    model, other = (
        randomized(sequential((4,), *(layers.Dense(n, dtype="bfloat16") for n in (5, 3))), seed)
        for seed in (1, 2)
    )
    aligned = match_weights(model, other)
    assert {str(array.dtype) for array in aligned} == {"bfloat16"}
    kernel = other.get_weights()[0]
    np.testing.assert_array_equal(np.sort(aligned[0].sum(axis=0)), np.sort(kernel.sum(axis=0)))


class OwnDense(layers.Dense):
    """A subclass, which may do anything."""


def gated():
    inputs = keras.Input((4,))
    parts = [layers.Dense(2)(inputs), layers.Dense(2)(inputs)]
    product = layers.Multiply(name="odd")([layers.Concatenate()(parts), layers.Dense(4)(inputs)])
    return keras.Model(inputs, layers.Dense(1)(product))


def summed_by_an_operator():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1)(layers.Dense(4)(inputs) + layers.Dense(4)(inputs)))


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (layers.LSTM(3, name="odd"), "this kind of layer is not supported"),
        (OwnDense(3, name="odd"), "this kind of layer is not supported"),
        (layers.Lambda(lambda x: x, name="odd"), "this kind of layer is not supported"),
        (layers.Conv1D(4, 1, groups=2, name="odd"), "it has 2 groups of channels of its own"),
        (layers.Conv1D(3, 1, data_format="channels_first", name="odd"), "not on the last axis"),
        (layers.BatchNormalization(axis=1, name="odd"), "it does not act along the last axis"),
        (layers.DepthwiseConv1D(1, depth_multiplier=2, name="odd"), "its `depth_multiplier`"),
        (layers.Reshape((12, 2), name="odd"), "it splits the channels"),
        (layers.Dense(4, activation=lambda x: x[..., ::-1] * x, name="odd"), "its activation"),
    ],
    ids=lambda value: getattr(value, "name", None) and type(value).__name__,
)
def test_unsupported_layers_are_refused_by_name(odd, reason):
    model = sequential((6, 3), layers.Dense(4), odd, layers.Dense(2))
    with pytest.raises(ValueError, match=f"cannot be permuted: 'odd' .*{reason}"):
        match_weights(model, model)


def test_channels_grouped_differently_and_operations_are_refused():
    with pytest.raises(ValueError, match=r"'odd' \(Multiply\), since it joins channels that are"):
        match_weights(gated(), gated())
    model = summed_by_an_operator()
    with pytest.raises(ValueError, match=r"\(Add\), since it is not a layer; use a layer such as"):
        match_weights(model, model)


def test_low_rank_weights_are_refused():
    model = mlp()
    model.layers[0].enable_lora(2)
    with pytest.raises(ValueError, match="'dense.*' .*, since its weight '.*' is not known"):
        match_weights(model, model)


def test_models_that_cannot_be_matched_are_refused():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, inputs):
            return self.dense(inputs)

    model = mlp()
    with pytest.raises(ValueError, match="`other` must have the architecture of `model`"):
        match_weights(model, normalized())
    subclassed = Subclassed()
    subclassed(np.ones((1, 4)))
    with pytest.raises(ValueError, match="must be a Sequential or Functional model.*Subclassed"):
        match_weights(subclassed, subclassed)
    broken = mlp()
    broken.weights[0].assign(np.full((4, 8), np.nan))
    with pytest.raises(ValueError, match="`other` must have finite weights.*kernel"):
        match_weights(model, broken)
    with pytest.raises(TypeError, match=r"`other` must be a `keras.Model`"):
        match_weights(model, model.get_weights())
