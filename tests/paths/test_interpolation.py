"""Interpolation: the ends are the models themselves, and mixtures are as documented."""

import concurrent.futures

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from quadratic import Quadratic, quadratic_model

from losslandscape import (
    LossBarriers,
    direction_between,
    evaluate_barriers,
    evaluate_interpolation,
    evaluate_lines,
    evaluate_plane,
)
from losslandscape.values.measures import loss_barrier

ONES = np.ones((4, 1), "float32")


@pytest.fixture
def others(model):
    """Two more models like `model`, with other weights and normalization statistics."""
    generator = np.random.default_rng(1)
    copies = []
    for _ in range(2):
        copy = keras.models.clone_model(model)
        copy.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        copy.set_weights([generator.uniform(0.1, 2, weight.shape) for weight in copy.weights])
        copies.append(copy)
    return copies


def quadratic_at(*weights):
    model = quadratic_model()
    model.layers[0].w.assign(np.reshape(weights, (3, 1)))
    return model


def loss_at(w):
    return w @ Quadratic.MATRIX @ w / 2 + Quadratic.SLOPE @ w


def test_the_line_through_a_quadratic_matches_the_closed_form():
    (line,) = evaluate_interpolation(
        quadratic_at(1, 2, 3), quadratic_at(0, -1, 2), (ONES, ONES), number_of_points=5, verbose=0
    )
    np.testing.assert_array_equal(line.alphas, [-0.5, 0, 0.5, 1, 1.5])
    start, end = np.array([1.0, 2, 3]), np.array([0.0, -1, 2])
    expected = [loss_at(start + alpha * (end - start)) for alpha in line.alphas]
    np.testing.assert_allclose(line.values["loss"], [expected], rtol=1e-5)


def test_the_ends_are_the_models_with_their_own_statistics(model, others, data):
    other = others[0]
    train, test = evaluate_interpolation(
        model, other, (data, (data[0][:20], data[1][:20])), number_of_points=5, verbose=0
    )
    for line, (x, y) in ((train, data), (test, (data[0][:20], data[1][:20]))):
        for column, network in ((1, model), (3, other)):
            expected = network.evaluate(x, y, verbose=0, return_dict=True)
            for name, value in expected.items():
                np.testing.assert_allclose(line.values[name][0, column], value, rtol=1e-5)
    assert train.center == pytest.approx(model.evaluate(*data, verbose=0, return_dict=True))


def test_statistics_between_models_are_interpolated(model, others, data):
    other = others[0]
    (line,) = evaluate_interpolation(
        model, other, data, number_of_points=3, extent=(0, 1), verbose=0
    )
    half = keras.models.clone_model(model)
    half.compile(loss=model.loss)
    mixed = []
    for weight, a, b in zip(model.weights, model.get_weights(), other.get_weights(), strict=True):
        # The geometric mean of variances, the arithmetic mean of everything else.
        mixed.append(np.sqrt(a * b) if weight.name == "moving_variance" else (a + b) / 2)
    half.set_weights(mixed)
    np.testing.assert_allclose(
        line.values["loss"][0, 1], half.evaluate(*data, verbose=0)[0], rtol=1e-5
    )


def test_losses_beyond_the_models_are_finite(model, others, data):
    (line,) = evaluate_interpolation(
        model, others[0], data, number_of_points=21, extent=(-3, 4), verbose=0
    )
    assert np.isfinite(line.values["loss"]).all()


def test_statistics_are_estimated_from_the_data(data):
    def network(scale):
        model = keras.Sequential(
            [keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3, activation="softmax")]
        )
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.layers[0].gamma.assign(scale * np.ones(4))
        return model

    first, second = network(1.0), network(2.0)
    (line,) = evaluate_interpolation(
        first,
        second,
        data,
        number_of_points=3,
        extent=(0, 1),
        statistics="estimate",
        batch_size=32,
        verbose=0,
    )
    # The means over the two batches of 32 of each batch's own statistics.
    halves = data[0].reshape(2, 32, 4)
    mean, variance = halves.mean(axis=1).mean(axis=0), halves.var(axis=1).mean(axis=0)
    for column, model in ((0, first), (2, second)):
        model.layers[0].moving_mean.assign(mean)
        model.layers[0].moving_variance.assign(variance)
        np.testing.assert_allclose(
            line.values["loss"][0, column], model.evaluate(*data, verbose=0), rtol=1e-5
        )
    assert first.layers[0].momentum == 0.99


def normalizing(*, seed, **options):
    """A network whose first layer is `BatchNormalization` with these options."""
    keras.utils.set_random_seed(seed)
    normalization = layers.BatchNormalization(**options)
    model = keras.Sequential([keras.Input((4,)), normalization, layers.Dense(3)])
    model.compile("sgd", "mse")
    return model


def with_statistics(model, mean, variance):
    """A copy of a model of `normalizing` with other moving statistics."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("sgd", "mse")
    copy.layers[0].moving_mean.assign(mean)
    copy.layers[0].moving_variance.assign(variance)
    return copy


@pytest.mark.parametrize("name", ["log_variance", "moving_variance", "kernel"])
def test_names_of_weights_do_not_matter(name, data):
    class Scaled(layers.Layer):
        def build(self, _):
            self.factor = self.add_weight(name=name, shape=(1,), initializer="zeros")
            self.offset = self.add_weight(
                name=name, shape=(1,), initializer="zeros", trainable=False
            )

        def call(self, x):
            return keras.ops.exp(-self.factor) * x + self.offset

    def network(seed, factor, offset):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Scaled()])
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.layers[1].set_weights([np.array([factor]), np.array([offset])])
        return model

    first, second = network(0, -1.5, -2), network(1, 0.7, -2)
    (line,) = evaluate_interpolation(
        first, second, data, number_of_points=3, extent=(0, 1), verbose=0
    )
    half = network(0, 0, 0)
    half.set_weights(
        [(a + b) / 2 for a, b in zip(first.get_weights(), second.get_weights(), strict=True)]
    )
    expected = [network.evaluate(*data, verbose=0) for network in (first, half, second)]
    np.testing.assert_allclose(line.values["loss"], [expected], rtol=1e-5)
    # Weights that are not statistics lie on the straight line that a direction follows.
    direction = [direction_between(first, second)]
    (straight,) = evaluate_lines(
        first, data, number_of_points=3, directions=direction, extent=(0, 1), verbose=0
    )
    np.testing.assert_allclose(line.values["loss"], straight.values["loss"], rtol=1e-5)


def test_epsilon_is_added_to_channels_of_little_variance(data):
    x, y = data[0], data[0][:, :3]
    first, second = (
        with_statistics(normalizing(seed=0, epsilon=0.01), [0.5] * 4, variance)
        for variance in ([0, 1, 4, 0], [2, 0.005, 1, 0])
    )
    (line,) = evaluate_interpolation(first, second, (x, y), number_of_points=5, verbose=0)
    for column, share in enumerate(line.alphas):
        logarithms = [np.log([0.01, 1.01, 4, 0.01]), np.log([2.01, 0.015, 1, 0.01])]
        mixed = np.exp((1 - share) * logarithms[0] + share * logarithms[1])
        variance = np.maximum(mixed - [0.01, 0.01, 0, 0.01], 0)
        expected = with_statistics(first, [0.5] * 4, variance).evaluate(x, y, verbose=0)
        np.testing.assert_allclose(line.values["loss"][0, column], expected, rtol=1e-5)


def test_renormalization_is_mixed_but_not_estimated(data):
    models = [normalizing(seed=seed, renorm=True) for seed in (0, 1)]
    for factor, model in zip((1, 4), models, strict=True):
        model.layers[0].moving_variance.assign(factor * np.ones(4))
    x, y = data[0], data[0][:, :3]
    (line,) = evaluate_interpolation(*models, (x, y), number_of_points=3, extent=(0, 1), verbose=0)
    expected = [model.evaluate(x, y, verbose=0) for model in models]
    np.testing.assert_allclose(line.values["loss"][0, [0, 2]], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="`statistics='estimate'` does not.*renorm.*in `model`"):
        evaluate_interpolation(*models, (x, y), statistics="estimate")


def test_frozen_weights_are_mixed_and_integers_stay(data):
    class Counting(layers.Layer):
        def build(self, _):
            self.count = self.add_weight(
                name="count", shape=(), dtype="int32", initializer="zeros", trainable=False
            )

        def call(self, x):
            return x * keras.ops.cast(self.count, "float32")

    def network(seed, count):
        keras.utils.set_random_seed(seed)
        # Frozen in the first model; what the second one would train does not matter.
        frozen = layers.Dense(5, trainable=seed > 0)
        model = keras.Sequential([keras.Input((4,)), frozen, Counting(), layers.Dense(3)])
        model.compile("sgd", "mse")
        model.layers[1].count.assign(count)
        return model

    x, y = data[0], data[0][:, :3]
    first, second = network(0, 2), network(1, 7)
    (line,) = evaluate_interpolation(
        first, second, (x, y), number_of_points=3, extent=(0, 1), verbose=0
    )
    expected = [first.evaluate(x, y, verbose=0)]
    second.layers[1].count.assign(2)
    expected.append(second.evaluate(x, y, verbose=0))
    np.testing.assert_allclose(line.values["loss"][0, [0, 2]], expected, rtol=1e-5)


def test_a_model_without_a_share_does_not_show(data):
    x, y = data[0], data[0][:, :3]
    first, second = (normalizing(seed=seed) for seed in (0, 1))
    second.layers[1].bias.assign([np.nan, np.inf, 1])
    (line,) = evaluate_interpolation(
        first, second, (x, y), number_of_points=3, extent=(0, 1), verbose=0
    )
    np.testing.assert_allclose(
        line.values["loss"][0, 0], first.evaluate(x, y, verbose=0), rtol=1e-5
    )
    assert np.isnan(line.values["loss"][0, 1:]).all()


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.9999])
@pytest.mark.parametrize("kind", ["x", "x and y", "dict"])
def test_estimates_are_the_mean_over_batches_of_any_structure(momentum, kind, data):
    class Encoder(keras.Model):
        def __init__(self, seed):
            super().__init__()
            keras.utils.set_random_seed(seed)
            self.normalization = layers.BatchNormalization(momentum=momentum)
            self.dense = layers.Dense(4)
            self(data[0])
            self.compile("sgd")

        def call(self, inputs, training=False):
            x = inputs["x"] if isinstance(inputs, dict) else inputs
            return self.dense(self.normalization(x, training=training))

        def compute_loss(self, _x, _y, y_pred, *_):
            return keras.ops.mean(keras.ops.square(y_pred - 1))

    x = 3 + 2 * data[0]
    pipeline = {"x": x, "x and y": (x, x), "dict": {"x": x}}[kind]
    batches = tf.data.Dataset.from_tensor_slices(pipeline).batch(24)
    first, second = Encoder(0), Encoder(1)
    (line,) = evaluate_interpolation(
        first, second, batches, number_of_points=3, extent=(0, 1), statistics="estimate", verbose=0
    )
    # Two batches of 24 samples, and one of 16.
    parts = x[:24], x[24:48], x[48:]
    mean, variance = (
        np.average([moment(part, axis=0) for part in parts], axis=0, weights=[24, 24, 16])
        for moment in (np.mean, np.var)
    )
    normalized = (x - mean) / np.sqrt(variance + 1e-3)
    for share, loss in zip(line.alphas, line.values["loss"][0], strict=True):
        kernel, bias = (
            (1 - share) * np.array(a) + share * np.array(b)
            for a, b in zip(first.dense.weights, second.dense.weights, strict=True)
        )
        batch_losses = [
            np.mean((part @ kernel + bias - 1) ** 2) for part in np.split(normalized, [24, 48])
        ]
        expected = np.average(batch_losses, weights=[24, 24, 16])
        np.testing.assert_allclose(loss, expected, rtol=2e-5)
    assert first.normalization.momentum == momentum


def test_a_layer_called_twice_has_the_mean_of_both_calls(data):
    x, y = data[0], data[0][:, :1]

    def network(seed):
        keras.utils.set_random_seed(seed)
        normalization = layers.BatchNormalization()
        inputs = keras.Input((4,))
        outputs = layers.Dense(1)(normalization(3 * normalization(inputs) + 1))
        model = keras.Model(inputs, outputs)
        model.compile("sgd", "mse")
        return model

    first, second = network(0), network(1)
    (line,) = evaluate_interpolation(
        first,
        second,
        (x, y),
        number_of_points=2,
        extent=(0, 1),
        statistics="estimate",
        batch_size=64,
        verbose=0,
    )
    once = 3 * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3) + 1
    normalization = first.layers[1]
    normalization.moving_mean.assign((x.mean(axis=0) + once.mean(axis=0)) / 2)
    normalization.moving_variance.assign((x.var(axis=0) + once.var(axis=0)) / 2)
    expected = first.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(line.center["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("why", ["frozen", "momentum", "in inference"])
def test_statistics_that_training_would_not_change_are_not_estimated(why, data):
    x, y = data[0], data[0][:, :3]

    class Inferring(layers.Wrapper):
        def call(self, x):
            return self.layer(x, training=False)

    def network(seed, factor):
        keras.utils.set_random_seed(seed)
        normalization = layers.BatchNormalization(
            momentum=1.0 if why == "momentum" else 0.9, trainable=why != "frozen"
        )
        inputs = keras.Input((4,))
        normalize = Inferring(normalization) if why == "in inference" else normalization
        normalized = normalize(inputs)
        # Spectral normalization changes its kernel when called in training.
        outputs = layers.SpectralNormalization(layers.Dense(3))(normalized)
        model = keras.Model(inputs, outputs)
        model.compile("sgd", "mse")
        normalization.moving_variance.assign(factor * np.ones(4))
        return model

    models = network(0, 2), network(1, 5)
    estimated, mixed = (
        evaluate_interpolation(
            *models, (x, y), number_of_points=3, extent=(0, 1), statistics=statistics, verbose=0
        )[0].values["loss"]
        for statistics in ("estimate", "interpolate")
    )
    np.testing.assert_array_equal(estimated, mixed)
    expected = [model.evaluate(x, y, verbose=0) for model in models]
    np.testing.assert_allclose(mixed[0, [0, 2]], expected, rtol=1e-5)


def test_layers_called_in_inference_keep_their_statistics_for_the_layers_after_them(data):
    x, y = data[0], data[0][:, :1]

    class HalfFrozen(keras.Model):
        def __init__(self, seed):
            super().__init__()
            keras.utils.set_random_seed(seed)
            self.first, self.second = layers.BatchNormalization(), layers.BatchNormalization()
            self.dense = layers.Dense(1)
            self(x)
            self.first.moving_mean.assign([1, -1, 2, 0])
            self.first.moving_variance.assign([4, 0.5, 1, 2])
            self.compile("sgd", "mse")

        def call(self, inputs, training=False):
            kept = self.first(inputs, training=False)
            return self.dense(self.second(kept, training=training))

    first, second = HalfFrozen(0), HalfFrozen(1)
    (line,) = evaluate_interpolation(
        first,
        second,
        (x, y),
        number_of_points=2,
        extent=(0, 1),
        statistics="estimate",
        batch_size=64,
        verbose=0,
    )
    kept = (x - [1, -1, 2, 0]) / np.sqrt(np.array([4, 0.5, 1, 2]) + 1e-3)
    for model, loss in zip((first, second), line.values["loss"][0], strict=True):
        model.second.moving_mean.assign(kept.mean(axis=0))
        model.second.moving_variance.assign(kept.var(axis=0))
        np.testing.assert_allclose(loss, model.evaluate(x, y, verbose=0), rtol=1e-5)


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "bfloat16", "float64"])
def test_statistics_of_other_precisions_are_estimated(policy, data):
    x, y = data[0], data[0][:, :3]
    precision = {"float16": 1e-2, "bfloat16": 5e-2, "mixed_float16": 1e-2, "float64": 1e-5}[policy]
    models = [normalizing(seed=seed, dtype=policy) for seed in (0, 1)]
    (line,) = evaluate_interpolation(
        *models,
        (x, y),
        number_of_points=2,
        extent=(0, 1),
        statistics="estimate",
        batch_size=64,
        verbose=0,
    )
    for model, loss in zip(models, line.values["loss"][0], strict=True):
        model.layers[0].moving_mean.assign(x.mean(axis=0))
        model.layers[0].moving_variance.assign(x.var(axis=0))
        np.testing.assert_allclose(loss, model.evaluate(x, y, verbose=0), rtol=precision)


def test_the_models_are_left_alone(model, others, data):
    networks = [model, *others]
    variables = [
        variable
        for network in networks
        for variable in (*network.variables, *network.metrics_variables)
    ]
    before = [np.array(variable) for variable in variables]
    evaluate_interpolation(
        model, others[0], data, number_of_points=3, statistics="estimate", verbose=0
    )
    evaluate_plane(networks, *data, number_of_points=2, verbose=0)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_the_plane_preserves_lengths_and_angles():
    points = np.array([[1.0, 2, 3], [3, 2, 3], [2, 6, 3]])
    surface = evaluate_plane(
        [quadratic_at(*point) for point in points],
        ONES,
        ONES,
        (5, 4),
        extent=((-1, 1), (0, 3)),
        verbose=0,
    )
    # The first two are 2 apart, which is the unit; the third is 1 along that line and 4 across.
    np.testing.assert_allclose(surface.metadata["positions"], [[0, 0], [1, 0], [0.5, 2]], atol=1e-6)
    along, across = np.array([2.0, 0, 0]), np.array([0, 2.0, 0])
    expected = [
        [loss_at(points[0] + alpha * along + beta * across) for alpha in surface.alphas]
        for beta in surface.betas
    ]
    np.testing.assert_allclose(surface.values["loss"], expected, rtol=1e-4)


def test_the_plane_has_each_model_at_its_position(model, others, data):
    networks = [model, *others]
    others[1].layers[0].trainable = False
    positions = evaluate_plane(networks, *data, number_of_points=2, verbose=0).metadata["positions"]
    for network, (alpha, beta) in zip(networks, positions, strict=True):
        corner = (alpha, alpha + 1), (beta, beta + 1)
        surface = evaluate_plane(networks, *data, number_of_points=2, extent=corner, verbose=0)
        expected = network.evaluate(*data, verbose=0)[0]
        np.testing.assert_allclose(surface.values["loss"][0, 0], expected, rtol=1e-4)


def test_models_that_cannot_be_mixed_are_refused(model, others, data):
    small = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="`other` must have the architecture of `model`"):
        evaluate_interpolation(model, small, data)
    with pytest.raises(ValueError, match="`statistics` must be one of 'interpolate', 'estimate'"):
        evaluate_interpolation(model, others[0], data, statistics="frozen")
    with pytest.raises(ValueError, match="`metric` must be one of 'loss'.*Received 'f1'"):
        evaluate_interpolation(model, others[0], data, metric="f1")
    with pytest.raises(ValueError, match="list of three models"):
        evaluate_plane([model, others[0]], *data)
    with pytest.raises(ValueError, match="must not lie on one line"):
        evaluate_plane([model, others[0], model], *data)


def test_an_automatic_extent_between_models_is_refused(model, others, data):
    with pytest.raises(TypeError, match="`extent` must be two numbers"):
        evaluate_interpolation(model, others[0], data, extent="auto", verbose=0)
    with pytest.raises(TypeError, match="`extent` must be two numbers"):
        evaluate_plane([model, *others], *data, extent="auto", verbose=0)


def test_models_that_differ_in_untrained_parts_are_refused(data):
    def network(shift, size=1):
        class Shifted(layers.Layer):
            def build(self, _):
                self.by = self.add_weight(shape=(size,), initializer="zeros", trainable=False)

            def call(self, x):
                return x + self.by

        normalization = layers.Normalization()
        normalization.adapt(data[0] + shift)
        model = keras.Sequential([keras.Input((4,)), normalization, Shifted(), layers.Dense(3)])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    with pytest.raises(ValueError, match="`other` must have.*another 'mean' in layer 'norm"):
        evaluate_interpolation(network(0), network(1), data)
    with pytest.raises(ValueError, match=r"`models\[2\]` must have the architecture of `models\[0"):
        evaluate_plane([network(0), network(0), network(1)], *data)
    with pytest.raises(ValueError, match=r"the shapes of all its weights must be .*\(1,\).*\(4,\)"):
        evaluate_interpolation(network(0), network(0, size=4), data)
    (line,) = evaluate_interpolation(network(0), network(0), data, number_of_points=2, verbose=0)
    assert np.isfinite(line.values["loss"]).all()


def test_statistics_in_a_graph_are_refused(data):
    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.normalization = layers.BatchNormalization()
            self(data[0])
            self.compile("sgd", "mse")

        @tf.function
        def call(self, x, training=False):
            return self.normalization(x, training=training)

    with pytest.raises(ValueError, match="inside a `tf.function`.*moving_mean.*'interpolate'"):
        evaluate_interpolation(
            Compiled(), Compiled(), (data[0], data[0]), statistics="estimate", verbose=0
        )


def test_a_refused_graph_leaves_the_model_able_to_train(data):
    class Encoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.dropout, self.normalization = layers.Dropout(0.5), layers.BatchNormalization()
            self(data[0])
            self.compile("sgd", "mse")

        @tf.function
        def encode(self, x, training):
            return self.dropout(x, training=training)

        def call(self, x, training=False):
            return self.normalization(self.encode(x, training), training=training)

    model = Encoder()
    with pytest.raises(ValueError, match="inside a `tf.function`"):
        evaluate_interpolation(
            model, Encoder(), (data[0], data[0]), statistics="estimate", verbose=0
        )
    # A graph traced during the call would be cached, and draw the same numbers forever.
    seed = np.array(model.dropout.seed_generator.state)
    model(data[0], training=True)
    assert not np.array_equal(seed, np.array(model.dropout.seed_generator.state))


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_engines_measure_mixtures_of_all_weights(engine):
    first, second, (x, y) = *trained_pair(), small_data()
    options = {"engine": engine, "number_of_points": 9, "verbose": 0}
    (line,) = evaluate_interpolation(first, second, (x, y), **options)
    assert line.metadata["engine"] == engine
    mixture = trained_pair()[0]
    variance = 3
    for column, alpha in enumerate(line.alphas):
        pairs = zip(first.get_weights(), second.get_weights(), strict=True)
        mixed = [(1 - alpha) * one + alpha * other for one, other in pairs]
        # After `moving_variance` come only the two weights of the second Dense layer.
        position = len(mixed) - variance
        ends = first.get_weights()[position], second.get_weights()[position]
        mixed[position] = ends[0] ** (1 - alpha) * ends[1] ** alpha
        mixture.set_weights(mixed)
        expected = mixture.evaluate(x, y, verbose=0)
        np.testing.assert_allclose(line.values["loss"][0, column], expected, rtol=1e-4)


def test_auto_compiles_mixtures_if_that_is_faster():
    first, second = trained_pair()
    (line,) = evaluate_interpolation(first, second, small_data(), verbose=0)
    assert line.metadata["engine"] == "compiled"


@pytest.mark.parametrize("statistics", ["interpolate", "estimate"])
def test_workers_measure_mixtures(statistics):
    first, second = trained_pair()
    options = {"statistics": statistics, "number_of_points": 5, "engine": "evaluate", "verbose": 0}
    (line,) = evaluate_interpolation(first, second, small_data(), **options)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        (other,) = evaluate_interpolation(first, second, small_data(), executor=executor, **options)
    np.testing.assert_array_equal(other.values["loss"], line.values["loss"])


def test_statistics_are_not_estimated_by_the_compiled_engine():
    first, second = trained_pair()
    with pytest.raises(ValueError, match="needs the `evaluate` engine.*'compiled'"):
        evaluate_interpolation(
            first, second, small_data(), statistics="estimate", engine="compiled"
        )


def small_data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(48, 4)).astype("float32")
    return x, (x[:, 0] + x[:, 1] > 0).astype("float32")


def trained_pair():
    """Two small networks whose moving variances are far apart and far from 0."""
    models = []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(6),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Dense(1),
            ]
        )
        model.compile("sgd", "mse")
        model.layers[1].moving_variance.assign(np.linspace(0.5, 2 + 3 * seed, 6))
        models.append(model)
    return models


def test_barriers_of_a_quadratic_match_the_closed_form():
    places = [(1, 2, 3), (0, -1, 2), (2, 0, -1)]
    barriers = evaluate_barriers([quadratic_at(*place) for place in places], ONES, ONES, verbose=0)
    assert barriers.pairs == [(0, 1), (0, 2), (1, 2)]
    for (a, b), row in zip(barriers.pairs, barriers.values["loss"], strict=True):
        start, end = np.array(places[a], float), np.array(places[b], float)
        expected = [loss_at(start + alpha * (end - start)) for alpha in barriers.alphas]
        np.testing.assert_allclose(row, expected, rtol=1e-5)
    np.testing.assert_allclose(loss_barrier(barriers), np.zeros((3, 3)), atol=1e-5)
    ends = [loss_at(np.array(place, float)) for place in places]
    half = np.abs(np.subtract.outer(ends, ends)) / 2
    np.testing.assert_allclose(loss_barrier(barriers, definition="mean"), half, rtol=1e-5)


@pytest.mark.parametrize("engine", ["compiled", "evaluate"])
def test_barriers_are_those_of_each_line_alone(engine, model, others, data):
    models = [model, *others]
    barriers = evaluate_barriers(models, *data, 5, engine=engine, verbose=0)
    assert barriers.metadata["engine"] == engine
    matrix = loss_barrier(barriers, "accuracy", mode="max")
    np.testing.assert_array_equal(matrix, matrix.T)
    for first, second in barriers.pairs:
        (line,) = evaluate_interpolation(
            models[first], models[second], data, number_of_points=5, extent=(0, 1), verbose=0
        )
        for name, values in line.values.items():
            found = barriers.line(first, second).values[name]
            np.testing.assert_allclose(found, values, rtol=1e-5)
        expected = loss_barrier(line, "accuracy", mode="max")
        assert matrix[first, second] == pytest.approx(expected, abs=1e-6)


def test_barriers_do_not_depend_on_the_other_models(data):
    first, second, broken = (normalizing(seed=seed) for seed in range(3))
    second.layers[0].moving_variance.assign(np.full(4, 1e-7))
    broken.set_weights([np.full(weight.shape, np.nan) for weight in broken.get_weights()])
    y = np.zeros((64, 3))
    (line,) = evaluate_interpolation(
        first, second, (data[0], y), number_of_points=5, extent=(0, 1), verbose=0
    )
    for order in ([first, second, broken], [first, broken, second]):
        barriers = evaluate_barriers(order, data[0], y, 5, verbose=0)
        found = barriers.line(0, order.index(second)).values["loss"]
        np.testing.assert_allclose(found, line.values["loss"], rtol=1e-5)
    # Not even on the first one, though all weights are computed from its own.
    broken.layers[1].kernel.assign(np.ones((4, 3)))
    barriers = evaluate_barriers([broken, first, second], data[0], y, 5, verbose=0)
    np.testing.assert_allclose(barriers.line(1, 2).values["loss"], line.values["loss"], rtol=1e-5)


def test_statistics_are_estimated_for_barriers(model, others, data):
    options = {"statistics": "estimate", "batch_size": 32, "verbose": 0}
    barriers = evaluate_barriers([model, *others], *data, 3, **options)
    (line,) = evaluate_interpolation(*others, data, number_of_points=3, extent=(0, 1), **options)
    np.testing.assert_allclose(barriers.line(1, 2).values["loss"], line.values["loss"], rtol=1e-5)


def test_models_without_normalization_have_no_statistics_to_estimate():
    models = [quadratic_at(1, 2, 3), quadratic_at(0, -1, 2)]
    (line,) = evaluate_interpolation(
        *models, (ONES, ONES), number_of_points=25, statistics="estimate", verbose=0
    )
    assert line.metadata["engine"] == "compiled"


def test_barriers_resume_from_a_checkpoint(model, others, data, tmp_path):
    models, path = [model, *others], tmp_path / "barriers.h5"
    whole = evaluate_barriers(models, *data, 3, checkpoint=path, verbose=0)
    saved = LossBarriers.load(path)
    for name, values in whole.values.items():
        np.testing.assert_array_equal(saved.values[name], values)
    resumed = evaluate_barriers(models, *data, 3, checkpoint=path, verbose=0)
    np.testing.assert_array_equal(resumed.values["loss"], whole.values["loss"])


def test_barriers_leave_the_models_alone(model, others, data):
    before = [[weight.copy() for weight in each.get_weights()] for each in (model, *others)]
    evaluate_barriers([model, *others], *data, 3, statistics="estimate", verbose=0)
    for network, weights in zip((model, *others), before, strict=True):
        for now, then in zip(network.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)


def test_barriers_need_several_models_that_fit(model, others, data):
    with pytest.raises(ValueError, match="`models` must be a list of at least two models"):
        evaluate_barriers([model], *data)
    with pytest.raises(ValueError, match="`number_of_points` must be at least 3. Received 2"):
        evaluate_barriers([model, *others], *data, 2)
    with pytest.raises(ValueError, match=r"`models\[1\]` must have the architecture"):
        evaluate_barriers([model, quadratic_model()], *data)
