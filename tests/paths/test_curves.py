"""Curves: trained as in closed form, measured where they lie, and drawn in their plane."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from matplotlib import pyplot as plt
from quadratic import Quadratic, quadratic_model
from scipy.integrate import trapezoid

from losslandscape import evaluate_curve, evaluate_interpolation, evaluate_plane, fit_curve
from losslandscape.plotting import plot_curve
from losslandscape.values.measures import loss_barrier

ONES = np.ones((4, 1), "float32")
SGD = keras.optimizers.SGD


class Ring(layers.Layer):
    """Puts out (‖w‖² - 1)² of its two weights, which is 0 on the unit circle."""

    def build(self, _):
        self.w = self.add_weight(shape=(2,), name="w")

    def call(self, inputs):
        return (ops.sum(self.w**2) - 1) ** 2 + 0 * inputs[:, :1]


def ring_at(*w):
    model = keras.Sequential([keras.Input((1,)), Ring()])
    model.compile("sgd", loss=lambda _, output: ops.mean(output))
    model.layers[0].w.assign(w)
    return model


@pytest.fixture(scope="module")
def across_the_ring():
    """Opposite models on the ring, and the control point of a curve around its center."""
    keras.utils.set_random_seed(0)
    ends = ring_at(1, 0), ring_at(-1, 0)
    rate = keras.optimizers.schedules.CosineDecay(0.3, 1200)
    control = fit_curve(*ends, ONES, ONES, optimizer=SGD(rate), epochs=1200, seed=0, verbose=0)
    return *ends, control


def test_the_best_curve_around_a_ring_is_found(across_the_ring):
    # The mean of (‖φ(t)‖² - 1)² = 16(h²s² - s)², where s = t(1 - t), is least for h² = 4.5.
    (w,) = across_the_ring[2].get_weights()
    np.testing.assert_allclose([w[0], abs(w[1])], [0, np.sqrt(4.5)], atol=0.05)
    (curve,) = evaluate_curve(*across_the_ring, (ONES, ONES), number_of_points=201, verbose=0)
    mean = trapezoid(curve.values["loss"][0], curve.alphas)
    # No curve can have less, but for the steps between points.
    assert 2 / 105 - 1e-5 < mean < 2 / 105 + 5e-4


def test_the_best_curve_has_hardly_a_barrier_where_the_straight_line_has_one():
    first, second, best = ring_at(1, 0), ring_at(-1, 0), ring_at(0, np.sqrt(4.5))
    (straight,) = evaluate_interpolation(first, second, (ONES, ONES), number_of_points=5, verbose=0)
    assert loss_barrier(straight) == pytest.approx(1)
    (curve,) = evaluate_curve(first, second, best, (ONES, ONES), number_of_points=201, verbose=0)
    assert trapezoid(curve.values["loss"][0], curve.alphas) == pytest.approx(2 / 105, rel=1e-3)
    # The highest point is at s = 1/9.
    assert loss_barrier(curve) == pytest.approx(4 / 81, rel=1e-3)


def test_the_curve_is_measured_where_it_lies(across_the_ring):
    first, second, control = across_the_ring
    (curve,) = evaluate_curve(first, second, control, (ONES, ONES), number_of_points=5, verbose=0)
    t = curve.alphas[:, np.newaxis]
    start, end, bend = (model.get_weights()[0].astype(float) for model in across_the_ring)
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    expected = ((points**2).sum(axis=1) - 1) ** 2
    np.testing.assert_allclose(curve.values["loss"], [expected], rtol=1e-4, atol=1e-6)
    assert curve.metadata["directions"] == "along a curve between models"
    assert curve.metadata["control"] == "control_point"


def test_the_curve_is_drawn_in_the_plane_of_its_points(across_the_ring):
    plane = evaluate_plane(across_the_ring, ONES, ONES, 5, verbose=0)
    ax = plot_curve(plane)
    straight, curve = (line.get_xydata() for line in ax.lines)
    np.testing.assert_allclose(straight, [[0, 0], [1, 0]])
    # At t = 1/2, halfway between the control point and the middle of the ends.
    np.testing.assert_allclose(
        curve[[0, 50, 100]], [[0, 0], plane.models[2] / 2 + [0.25, 0], [1, 0]]
    )
    assert "control_point" in [text.get_text() for text in ax.texts]
    with pytest.raises(ValueError, match="the plane of both ends .* with 1 models"):
        plot_curve(plane.__class__(plane.alphas, plane.betas, plane.values, plane.center, {}))
    plt.close("all")


def quadratic_at(*weights):
    model = quadratic_model()
    model.layers[0].w.assign(np.reshape(weights, (3, 1)))
    return model


def control_after(rate, ends, *data, **options):
    """The trained weights of a control point after a step of gradient descent."""
    options = {"optimizer": SGD(rate), "epochs": 1, "seed": 0, "verbose": 0} | options
    control = fit_curve(*ends, *data, **options)
    return np.concatenate([ops.convert_to_numpy(w).ravel() for w in control.trainable_variables])


def test_a_step_follows_the_gradient_at_a_point_of_the_curve():
    ends = quadratic_at(1, 2, 3), quadratic_at(0, -1, 2)
    before, after = (control_after(rate, ends, ONES, ONES).astype(float) for rate in (0.0, 0.1))
    start, end = np.array([1.0, 2, 3]), np.array([0.0, -1, 2])
    distance = np.linalg.norm(before - (start + end) / 2)
    assert distance == pytest.approx(0.01 * np.linalg.norm(end - start), rel=1e-3)
    # Three numbers, and one unknown: t.
    t = np.linspace(0, 1, 100_001)[:, np.newaxis]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * before + t**2 * end
    steps = -0.1 * 2 * t * (1 - t) * (points @ Quadratic.MATRIX + Quadratic.SLOPE)
    assert np.abs(steps - (after - before)).max(axis=1).min() < 1e-4


def test_a_seed_repeats_a_curve():
    ends = quadratic_at(1, 2, 3), quadratic_at(0, -1, 2)
    options = {"batch_size": 2, "epochs": 2}
    first, again, other = (
        control_after(0.1, ends, ONES, ONES, seed=seed, **options) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_optimizer_that_keeps_means_returns_them():
    ends = quadratic_at(1, 2, 3), quadratic_at(0, -1, 2)
    # A mean that counts nothing but the first step.
    optimizer = SGD(0.1, use_ema=True, ema_momentum=1.0)
    mean = control_after(0.1, ends, ONES, ONES, optimizer=optimizer, epochs=3)
    np.testing.assert_array_equal(mean, control_after(0.1, ends, ONES, ONES))


def random_state():
    return np.random.get_state()[1]  # noqa: NPY002, it is the caller's


def test_the_callers_models_and_optimizer_are_left_alone(model, data):
    other = keras.models.clone_model(model)
    other.set_weights([1.1 * weight for weight in model.get_weights()])
    model.fit(*data, verbose=0)
    optimizer = SGD(0.01, momentum=0.9)

    def state():
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        return [ops.convert_to_numpy(each) for each in [*variables, *other.variables]]

    before, random = state(), random_state()
    for _ in range(2):
        fit_curve(model, other, *data, optimizer=optimizer, epochs=1, seed=0, verbose=0)
    for now, then in zip(state(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(random_state(), random)
    assert model.compiled
    assert not optimizer.built
    # It still trains.
    model.fit(*data, verbose=0)


def test_statistics_are_estimated_along_the_curve(model, data):
    generator = np.random.default_rng(1)

    def another():
        copy = keras.models.clone_model(model)
        copy.set_weights([generator.uniform(0.1, 2, weight.shape) for weight in copy.weights])
        return copy

    other, control = another(), another()
    (curve,) = evaluate_curve(
        model, other, control, data, number_of_points=4, batch_size=32, verbose=0
    )
    mixture = keras.models.clone_model(model)
    mixture.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    for column, t in enumerate(curve.alphas):
        shares = (1 - t) ** 2, 2 * t * (1 - t), t**2
        weights = [each.get_weights() for each in (model, control, other)]
        mixture.set_weights(
            [sum(map(np.multiply, shares, parts)) for parts in zip(*weights, strict=True)]
        )
        (there,) = evaluate_interpolation(
            mixture,
            other,
            data,
            number_of_points=2,
            extent=(0, 1),
            statistics="estimate",
            batch_size=32,
            verbose=0,
        )
        for name, values in curve.values.items():
            np.testing.assert_allclose(values[0, column], there.values[name][0, 0], rtol=1e-4)


def small_network(seed, *, frozen=False, **options):
    keras.utils.set_random_seed(seed)
    hidden = layers.Dense(3, activation="tanh")
    model = keras.Sequential([keras.Input((4,)), hidden, layers.Dense(3)])
    hidden.trainable = not frozen
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", logits, **options)
    return model


def test_samples_without_a_weight_do_not_count(data):
    x, y = data
    ends = [small_network(seed) for seed in range(2)]
    unmoved = control_after(0.0, ends, x, y)
    nothing = control_after(1.0, ends, (x, y, np.zeros(len(x))))
    np.testing.assert_array_equal(nothing, unmoved)
    assert not np.array_equal(control_after(1.0, ends, (x, y, np.ones(len(x)))), unmoved)


def test_frozen_weights_stay_on_the_straight_line(data):
    # Those that the first model does not train; what the second one would train does not matter.
    first, second = (small_network(seed, frozen=seed == 0) for seed in range(2))
    control = fit_curve(first, second, *data, epochs=1, seed=0, verbose=0)
    triples = zip(first.weights, second.weights, control.weights, strict=True)
    for index, (start, end, bend) in enumerate(triples):
        middle = (ops.convert_to_numpy(start) + ops.convert_to_numpy(end)) / 2
        is_straight = np.allclose(ops.convert_to_numpy(bend), middle, atol=1e-6)
        assert is_straight == (index < 2)


def test_adapted_inputs_are_the_same_along_the_curve(data):
    x, y = data
    ends = []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        normalization = layers.Normalization()
        normalization.adapt(5 * x + 3)
        ends.append(keras.Sequential([keras.Input((4,)), normalization, layers.Dense(3)]))
        ends[-1].compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    control = fit_curve(*ends, x, y, optimizer=SGD(0.0), epochs=1, seed=0, verbose=0)
    control.set_weights(ends[0].get_weights())
    np.testing.assert_allclose(control(x), ends[0](x), rtol=1e-5)
    (curve,) = evaluate_curve(*ends, control, (x, y), number_of_points=2, verbose=0)
    assert curve.values["loss"][0, 1] == pytest.approx(ends[1].evaluate(x, y, verbose=0))


class Coder(keras.Model):
    """A subclassed model with inputs alone, whose loss it computes itself."""

    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(5, 2)
        self.out = layers.Dense(2)

    def call(self, inputs):
        return self.out(self.embedding(inputs))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):  # noqa: ARG002
        return ops.mean((y_pred - self.embedding(x)) ** 2)

    def get_config(self):
        return {}


def test_subclassed_models_with_their_own_loss_have_curves():
    x = np.arange(10)[:, np.newaxis] % 5
    ends = []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        ends.append(Coder())
        ends[-1].compile("sgd")
        ends[-1].fit(x, epochs=1, verbose=0)
    control = fit_curve(*ends, x, optimizer=SGD(0.5), epochs=10, seed=0, verbose=0)
    start = fit_curve(*ends, x, optimizer=SGD(0.0), epochs=1, seed=0, verbose=0)
    trained, untrained = (
        evaluate_curve(*ends, middle, x, number_of_points=5, verbose=0)[0].values["loss"].mean()
        for middle in (control, start)
    )
    assert trained < untrained


def test_a_loss_that_only_the_own_steps_know_is_refused():
    class Stepper(keras.Sequential):
        def test_step(self, data):
            return {"loss": ops.mean(self(data[0]) ** 2)}

    model = Stepper([keras.Input((1,)), layers.Dense(1)])
    model.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match="No loss to compute") as refused:
        fit_curve(model, model, ONES, ONES, epochs=1, verbose=0)
    (note,) = refused.value.__notes__
    assert note.startswith("A curve is trained with `model.compute_loss`")


def test_models_that_cannot_be_copied_are_refused(data):
    class Closed(keras.Model):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def call(self, inputs):
            return self.layer(inputs)

    model = Closed(layers.Dense(3))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.evaluate(*data, verbose=0)
    with pytest.raises(
        ValueError, match="`keras.models.clone_model` can copy.*`get_config`. Keras says"
    ):
        fit_curve(model, model, *data, verbose=0)
    assert model.compiled


@pytest.mark.parametrize("kind", ["eager", "dataset", "uneven", "mixed_bfloat16"])
def test_all_that_fit_takes_is_trained_on(kind, data):
    x, y = data
    inputs, options = (x, y), {}
    if kind in ("dataset", "uneven"):
        sizes = [32, 32] if kind == "dataset" else [16, 40, 8]
        parts = zip(np.split(x, np.cumsum(sizes)), np.split(y, np.cumsum(sizes)), strict=True)
        batches = [part for part in parts if len(part[0])]
        spec = tf.TensorSpec((None, 4), "float32"), tf.TensorSpec((None,), "int64")
        pipeline = tf.data.Dataset.from_generator(lambda: batches, output_signature=spec)
        inputs = (pipeline.apply(tf.data.experimental.assert_cardinality(len(batches))),)
    if kind == "eager":
        options["run_eagerly"] = True
    policy = kind if kind.startswith("mixed") else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        ends = [small_network(seed, **options) for seed in range(2)]
        moved, still = (control_after(rate, ends, *inputs) for rate in (0.5, 0.0))
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(moved).all()
    assert not np.array_equal(moved, still)


def test_the_control_point_has_what_the_models_learned_from_data():
    words, y = np.array([["a"], ["b"]] * 4), np.zeros((8, 1), "float32")

    def network():
        lookup = layers.StringLookup()
        lookup.adapt(words)
        model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
        model.add(layers.Embedding(4, 2))
        model.add(layers.Dense(1))
        model.compile(loss="mse")
        return model

    ends = network(), network()
    data = tf.data.Dataset.from_tensor_slices((words, y)).batch(8)
    control = fit_curve(*ends, data, epochs=1, verbose=0)
    assert control.layers[0].get_vocabulary() == ends[0].layers[0].get_vocabulary()


def test_curves_that_cannot_be_fitted_are_refused(data, monkeypatch):
    ends = [small_network(seed) for seed in range(2)]
    with pytest.raises(ValueError, match="`other` must have the architecture of `model`"):
        fit_curve(ends[0], quadratic_model(), *data)
    with pytest.raises(ValueError, match="`epochs` must be at least 1. Received 0"):
        fit_curve(*ends, *data, epochs=0)
    with pytest.raises(ValueError, match="must stay finite. It became .* in epoch 1. Lower"):
        fit_curve(*ends, np.nan * data[0], data[1], verbose=0)
    with pytest.raises(ValueError, match="`control` must have the architecture of `model`"):
        evaluate_curve(*ends, quadratic_model(), data)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="needs a backend.*'tensorflow'. Received 'jax'"):
        fit_curve(*ends, *data)
