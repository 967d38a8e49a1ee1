"""Evaluation: true values, an untouched model, every kind of data, and what is refused."""

import re
import signal
import subprocess
import sys
import tracemalloc
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from late import late_model
from quadratic import Quadratic, quadratic_model

import losslandscape as ll
from losslandscape import (
    evaluate_line,
    evaluate_lines,
    evaluate_surface,
    evaluate_surfaces,
    random_directions,
)
from losslandscape.measuring.state import preserved
from losslandscape.paths.alignment import match_weights


def naive(model, x, y, directions, points):
    """The losses, computed naively: `set_weights` with NumPy, and Keras' own batches."""
    start = model.get_weights()
    position = {id(weight): index for index, weight in enumerate(model.weights)}
    losses = []
    for point in points:
        weights = [weight.copy() for weight in start]
        for coordinate, direction in zip(point, directions, strict=True):
            for weight, step in zip(model.trainable_variables, direction, strict=True):
                weights[position[id(weight)]] += coordinate * step
        model.set_weights(weights)
        losses.append(model.evaluate(x, y, verbose=0, return_dict=True))
    model.set_weights(start)
    return losses


def variables_of(model):
    """Every variable that a model, its optimizer and its metrics hold."""
    return [*model.variables, *model.metrics_variables, *model.optimizer.variables]


def state_of(model):
    return [np.array(variable) for variable in variables_of(model)]


def assert_same_state(model, before):
    for now, then in zip(state_of(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_linear_model_gives_its_closed_form_surface_the_right_way_round():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(50, 3)), generator.normal(size=(50, 2))
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile(loss="mse")
    # Directions of different lengths along different columns: no transposition can hide.
    d1 = [np.array([[1.0, 0], [2, 0], [3, 0]], "float32"), np.zeros(2, "float32")]
    d2 = [np.array([[0, 0.5], [0, -1], [0, 0.2]], "float32"), np.array([0, 1], "float32")]
    surface = evaluate_surface(
        model, x, y, (5, 3), directions=[d1, d2], extent=((-1, 2), (0, 3)), verbose=0
    )
    assert surface.values["loss"].shape == (3, 5)
    kernel, bias = (weight.numpy().astype(float) for weight in model.trainable_variables)
    for i, beta in enumerate(np.linspace(0, 3, 3)):
        for j, alpha in enumerate(np.linspace(-1, 2, 5)):
            moved = kernel + alpha * d1[0] + beta * d2[0], bias + alpha * d1[1] + beta * d2[1]
            expected = np.mean((x @ moved[0] + moved[1] - y) ** 2)
            np.testing.assert_allclose(surface.values["loss"][i, j], expected, rtol=1e-5)


def test_a_quadratic_model_gives_its_closed_form_surface_and_line():
    model = quadratic_model()
    data = np.zeros((10, 1)), np.zeros((10, 1))
    d1, d2 = np.array([1.0, 2.0, -1.0]), np.array([0.3, -0.5, 2.0])
    directions = [[d[:, np.newaxis].astype("float32")] for d in (d1, d2)]
    surface = evaluate_surface(model, *data, (4, 7), directions=directions, verbose=0)

    def q(alpha, beta):
        w = 1 + alpha * d1 + beta * d2
        return w @ Quadratic.MATRIX @ w / 2 + Quadratic.SLOPE @ w

    expected = [[q(a, b) for a in np.linspace(-1, 1, 4)] for b in np.linspace(-1, 1, 7)]
    np.testing.assert_allclose(surface.values["loss"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(surface.center["loss"], q(0, 0), rtol=1e-6)
    line = evaluate_line(model, *data, directions=directions, extent=(-2, 1), verbose=0)
    alphas = np.linspace(-2, 1, 21)
    expected = [[q(a, 0) for a in alphas], [q(0, a) for a in alphas]]
    np.testing.assert_allclose(line.values["loss"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_every_point_and_metric_agrees_with_a_naive_loop(model, data, engine):
    directions = random_directions(model, 2, seed=0)
    surface = evaluate_surface(
        model, *data, (4, 3), directions=directions, engine=engine, verbose=0
    )
    points = [(a, b) for b in np.linspace(-1, 1, 3) for a in np.linspace(-1, 1, 4)]
    expected = naive(model, *data, directions, points)
    for name in ("loss", "accuracy"):
        values = np.reshape([result[name] for result in expected], (3, 4))
        np.testing.assert_allclose(surface.values[name], values, rtol=1e-5)
    assert list(surface.values) == ["loss", "accuracy"]


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_every_direction_starts_at_the_models_own_weights(model, data, engine):
    directions = random_directions(model, 3, seed=0)
    # Each moves only one weight: what an earlier one moved must be back in place.
    for kept, direction in enumerate(directions):
        for index in range(len(direction)):
            direction[index] *= index in (0, 2 * kept)
    options = {"engine": engine, "verbose": 0}
    together = evaluate_line(model, *data, 5, directions=directions, **options)
    for row, direction in zip(together.values["loss"], directions, strict=True):
        alone = evaluate_line(model, *data, 5, directions=[direction], **options)
        np.testing.assert_array_equal(row, alone.values["loss"][0])


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_a_point_does_not_depend_on_earlier_points(model, data, engine):
    (direction,) = random_directions(model, seed=0)
    backwards = [-array for array in direction]
    line, backwards = (
        evaluate_line(model, *data, 21, directions=[d], engine=engine, verbose=0)
        for d in (direction, backwards)
    )
    np.testing.assert_array_equal(line.values["loss"], backwards.values["loss"][:, ::-1])


def test_rescaled_relu_layers_give_the_same_curve():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(64, 4)), generator.normal(size=(64, 1))
    first, second = (
        keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(16, activation="relu", use_bias=False),
                layers.Dense(1),
            ]
        )
        for _ in range(2)
    )
    kernel, top, bias = first.get_weights()
    second.set_weights([10 * kernel, top / 10, bias])
    curves = []
    for network in (first, second):
        network.compile(loss="mse")
        curves.append(evaluate_line(network, x, y, seed=0, verbose=0).values["loss"])
    np.testing.assert_allclose(*curves, rtol=1e-4)
    raw = [
        evaluate_line(
            network,
            x,
            y,
            directions=random_directions(network, normalize=None, seed=0),
            verbose=0,
        ).values["loss"]
        for network in (first, second)
    ]
    assert not np.allclose(*raw, rtol=0.5)


def test_datasets_share_their_directions(model, data):
    x, y = data
    both, half = evaluate_lines(
        model, ((x, y), (x[:32], y[:32])), number_of_points=5, seed=0, verbose=0
    )
    np.testing.assert_array_equal(
        both.values["loss"], evaluate_line(model, x, y, 5, seed=0, verbose=0).values["loss"]
    )
    np.testing.assert_array_equal(
        half.values["loss"],
        evaluate_line(model, x[:32], y[:32], 5, seed=0, verbose=0).values["loss"],
    )
    assert (both.metadata["dataset_size"], half.metadata["dataset_size"]) == (64, 32)


def test_the_center_is_measured_where_the_grid_misses_it(model, data):
    surface = evaluate_surface(model, *data, 2, extent=(0.5, 1), seed=0, verbose=0)
    expected = model.evaluate(*data, verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(surface.center[name], value, rtol=1e-6)
    assert not np.isclose(surface.values["loss"], expected["loss"]).any()


def test_weight_penalties_are_separated_from_the_data_loss(data):
    def network(regularizer):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(8, activation="relu", kernel_regularizer=regularizer),
                layers.Dense(3, activation="softmax", bias_regularizer=regularizer),
            ]
        )
        model.compile(loss="sparse_categorical_crossentropy")
        return model

    penalized = evaluate_line(network("l2"), *data, seed=0, verbose=0)
    plain = evaluate_line(network(None), *data, seed=0, verbose=0)
    assert list(plain.values) == ["loss"]
    assert list(penalized.values) == ["loss", "data_loss"]
    np.testing.assert_allclose(penalized.values["data_loss"], plain.values["loss"], rtol=1e-5)
    np.testing.assert_allclose(penalized.center["data_loss"], plain.center["loss"], rtol=1e-5)
    assert (penalized.values["loss"] > plain.values["loss"]).all()


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_data_loss_below_a_huge_penalty_is_right_or_missing(data, engine):
    """As for deep networks that diverge: next to 1e9, single precision cannot resolve 1."""

    def network(regularizer):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(3, "softmax", kernel_regularizer=regularizer)]
        )
        model.compile(loss="sparse_categorical_crossentropy")
        return model

    options = {"number_of_points": 5, "seed": 0, "engine": engine, "verbose": 0}
    regularizer = keras.regularizers.L2(1e9)
    model = network(regularizer)
    penalized = evaluate_line(model, *data, **options)
    plain = evaluate_line(network(None), *data, **options)
    assert model.layers[0].kernel.regularizer is regularizer
    if engine == "compiled":
        np.testing.assert_allclose(penalized.values["data_loss"], plain.values["loss"], rtol=1e-6)
    else:
        assert np.isnan(penalized.values["data_loss"]).all()
    assert (penalized.values["loss"] > 1e6).all()


def test_a_metric_with_a_value_per_class_becomes_one_per_class(data):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile(loss="categorical_crossentropy", metrics=[keras.metrics.F1Score()])
    line = evaluate_line(model, data[0], np.eye(3)[data[1]], 3, verbose=0)
    assert list(line.values) == ["loss", "f1_score_0", "f1_score_1", "f1_score_2"]


def test_non_finite_losses_are_kept():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.ones((1, 1))])
    model.compile(loss=lambda _, output: ops.mean(ops.log(output)))
    direction = [np.ones((1, 1), "float32")]
    line = evaluate_line(
        model,
        np.ones((4, 1)),
        np.ones((4, 1)),
        5,
        directions=[direction],
        extent=(-2, 2),
        verbose=0,
    )
    expected = [np.nan, -np.inf, 0, np.log(2), np.log(3)]
    np.testing.assert_allclose(line.values["loss"][0], expected, atol=1e-6)


def test_a_custom_test_step_is_what_is_measured(data):
    class Doubled(keras.Sequential):
        def test_step(self, batch):
            return {"twice": 2 * super().test_step(batch)["loss"]}

    model = Doubled([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile(loss="sparse_categorical_crossentropy")
    line = evaluate_line(model, *data, 3, metric="twice", seed=0, verbose=0)
    assert list(line.values) == ["twice"]
    with pytest.raises(ValueError, match="`metric` must be one of 'twice'. Received 'loss'"):
        evaluate_line(model, *data, 3, verbose=0)


# The model is left as it was.


def test_the_model_is_bit_identical_afterwards_and_trains_as_if_untouched(model, data):
    before = state_of(model)
    for engine in ("evaluate", "compiled"):
        evaluate_surface(model, *data, 3, engine=engine, verbose=0)
        evaluate_lines(model, (data, data), number_of_points=3, engine=engine, verbose=0)
        assert_same_state(model, before)

    trained = []
    for plots in (1, 0):
        for variable, value in zip(variables_of(model), before, strict=True):
            variable.assign(value)
        for _ in range(plots):
            evaluate_line(model, *data, 3, verbose=0)
        keras.utils.set_random_seed(1)
        trained.append(model.fit(*data, verbose=0).history["loss"] + state_of(model))
    for with_plot, without in zip(*trained, strict=True):
        np.testing.assert_array_equal(with_plot, without)


def test_a_model_that_was_never_evaluated_is_left_with_fresh_metrics(data):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    evaluate_line(model, *data, 3, verbose=0)
    assert all(np.array(variable) == 0 for variable in model.metrics_variables)
    assert np.array(model.optimizer.iterations) == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("call", [0, 1, 2, 7])
def test_the_model_is_bit_identical_after_an_exception_inside_evaluate(model, data, error, call):
    before = state_of(model)
    evaluate, calls = model.evaluate, []

    def failing(*arguments, **options):
        calls.append(1)
        results = evaluate(*arguments, **options)
        if len(calls) > call:
            raise error
        return results

    model.evaluate = failing
    with pytest.raises(error):
        evaluate_surface(model, *data, 3, verbose=0)
    assert_same_state(model, before)


@pytest.mark.usefixtures("ctrl_c")
def test_the_model_is_bit_identical_after_interrupts_at_random_times(model, data):
    before = state_of(model)
    generator = np.random.default_rng(0)
    evaluate = model.evaluate
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))

    def evaluate_and_arm(*arguments, **options):
        if delays:
            signal.setitimer(signal.ITIMER_REAL, delays.pop())
        return evaluate(*arguments, **options)

    model.evaluate = evaluate_and_arm
    for delay in generator.uniform(0.001, 0.3, size=15):
        delays = [delay]
        with pytest.raises(KeyboardInterrupt):
            evaluate_line(model, *data, 100_000, verbose=0)
        assert_same_state(model, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
@pytest.mark.parametrize("extent", [(-1, 1), "auto"])
def test_a_model_that_makes_weights_when_it_is_called_is_refused_once(engine, extent, data):
    model = late_model()
    options = {"engine": engine, "extent": extent, "seed": 0, "verbose": 0}
    with pytest.raises(ValueError, match="2 weights that has 4 now.*same call again"):
        evaluate_line(model, *data, 5, **options)
    line = evaluate_line(model, *data, 5, **options)
    (direction,) = random_directions(model, seed=0)
    start = model.get_weights()
    alpha = line.alphas[0]
    model.set_weights(
        [weight + alpha * step for weight, step in zip(start, direction, strict=True)]
    )
    np.testing.assert_allclose(
        line.values["loss"][0, 0], model.evaluate(*data, verbose=0), rtol=1e-5
    )


def test_a_second_interrupt_cannot_stop_the_restore(model, monkeypatch):
    before = state_of(model)
    *_, weight = model.weights
    assign, calls = weight.assign, []

    def interrupted_once(value):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        assign(value)

    def move():
        model.set_weights([weight + 1 for weight in model.get_weights()])
        monkeypatch.setattr(weight, "assign", interrupted_once)

    with pytest.raises(KeyboardInterrupt), preserved(model):
        move()
    assert len(calls) > 1
    assert_same_state(model, before)


def test_layers_that_change_state_when_evaluated_are_restored(data):
    class Counting(layers.Layer):
        def build(self, _):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.seed = keras.random.SeedGenerator(0)

        def call(self, inputs):
            self.calls.assign_add(1)
            return inputs + keras.random.normal(ops.shape(inputs), seed=self.seed)

    model = keras.Sequential([keras.Input((4,)), Counting(), layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.evaluate(*data, verbose=0)
    before = state_of(model)
    evaluate_line(model, *data, 3, verbose=0)
    assert_same_state(model, before)


def test_a_given_seed_leaves_numpys_random_state_alone(model, data):
    draws = []
    for plots in (0, 1):
        keras.utils.set_random_seed(3)
        for _ in range(plots):
            evaluate_line(model, *data, 3, seed=0, verbose=0)
        draws.append(np.random.uniform())  # noqa: NPY002, the global state is what is tested
    assert draws[0] == draws[1]


# Kinds of data and models.


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return self.x[part], self.y[part]


@pytest.mark.parametrize("kind", ["tensors", "tf.data", "PyDataset", "tuple", "batch_size"])
def test_every_kind_of_data_gives_the_same_line(model, data, kind):
    x, y = data
    expected = evaluate_line(model, x, y, 5, seed=0, verbose=0)
    arguments = {
        "tensors": (tf.constant(x), tf.constant(y)),
        "tf.data": (tf.data.Dataset.from_tensor_slices((x, y)).batch(10),),
        "PyDataset": (Batches(x, y),),
        "tuple": ((x, y),),
        "batch_size": (x, y),
    }[kind]
    options = {"batch_size": 7} if kind == "batch_size" else {}
    line = evaluate_line(model, *arguments, number_of_points=5, seed=0, verbose=0, **options)
    for name, values in expected.values.items():
        np.testing.assert_allclose(line.values[name], values, rtol=1e-5)
    assert line.metadata["dataset_size"] == 64


def test_sample_weights_count(model, data):
    x, y = data
    weights = np.random.default_rng(0).uniform(size=64)
    line = evaluate_line(model, (x, y, weights), number_of_points=3, seed=0, verbose=0)
    expected = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    np.testing.assert_allclose(line.values["loss"][0, 1], expected["loss"], rtol=1e-5)
    assert not np.isclose(expected["loss"], model.evaluate(x, y, verbose=0)[0], rtol=1e-3)


@pytest.mark.parametrize("container", [list, dict])
def test_models_with_several_inputs_and_outputs(data, container):
    first, second = keras.Input((4,), name="first"), keras.Input((2,), name="second")
    joined = layers.Concatenate()([first, second])
    outputs = {
        "label": layers.Dense(3, activation="softmax", name="label")(joined),
        "value": layers.Dense(1, name="value")(joined),
    }
    losses = {"label": "sparse_categorical_crossentropy", "value": "mse"}
    inputs = {"first": first, "second": second}
    x = {"first": data[0], "second": data[0][:, :2]}
    y = {"label": data[1], "value": data[0][:, :1]}
    if container is list:
        inputs, outputs, losses, x, y = (
            list(part.values()) for part in (inputs, outputs, losses, x, y)
        )
    model = keras.Model(inputs, outputs)
    model.compile(loss=losses)
    line = evaluate_line(model, x, y, 3, seed=0, verbose=0)
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    assert set(line.values) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(line.values[name][0, 1], value, rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_low_precision_models(data, policy):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu", dtype=policy),
            layers.Dense(3, activation="softmax", dtype="float32"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.evaluate(*data, verbose=0)
    before = state_of(model)
    (direction,) = random_directions(model, seed=0)
    line = evaluate_line(model, *data, 3, directions=[direction], verbose=0)
    assert_same_state(model, before)
    expected = []
    for alpha in (-1, 0, 1):
        # NumPy steps in single precision, then rounds to the model's precision.
        with preserved(model):
            for weight, step in zip(model.trainable_variables, direction, strict=True):
                weight.assign(np.array(weight).astype("float32") + alpha * step)
            expected.append(model.evaluate(*data, verbose=0))
    np.testing.assert_allclose(line.values["loss"][0], expected, rtol=1e-5)


def test_double_precision_models():
    x, y = np.random.default_rng(0).normal(size=(2, 20, 1))
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, dtype="float64")])
    model.compile(loss="mse")
    (direction,) = random_directions(model, seed=0)
    line = evaluate_line(model, x, y, 3, directions=[direction], verbose=0)
    kernel, bias = (np.array(weight) for weight in model.trainable_variables)
    assert kernel.dtype == "float64"
    expected = [np.mean((x * (kernel + a * direction[0]) + bias - y) ** 2) for a in (-1, 0, 1)]
    np.testing.assert_allclose(line.values["loss"][0], expected, rtol=1e-5)


MIRRORED = """
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from losslandscape import evaluate_interpolation, evaluate_line
from losslandscape.measuring.state import preserved
from keras import layers

def copies(model):
    return [[np.array(one).tobytes() for one in v.value.values] for v in model.weights]

def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((4,)), layers.Dense(8, activation="relu", kernel_regularizer="l2"),
        layers.BatchNormalization(), layers.Dense(3, activation="softmax"),
    ])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

generator = np.random.default_rng(0)
x, y = generator.normal(size=(64, 4)), generator.integers(0, 3, 64)
plain = network()
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    mirrored = network()
mirrored.evaluate(x, y, verbose=0)
before = copies(mirrored)
lines = [evaluate_line(model, x, y, 3, seed=0, verbose=0) for model in (plain, mirrored)]
for name in ("loss", "data_loss", "accuracy"):
    np.testing.assert_allclose(*(line.values[name] for line in lines), rtol=1e-5)
assert before == copies(mirrored)
print("same line")

# In training, each replica sees batches of its own.
mirrored.fit(x, y, verbose=0)
before = copies(mirrored)
assert sum(first != second for first, second in before) == 2
expected = mirrored.evaluate(x, y, batch_size=64, verbose=0)
line = evaluate_line(mirrored, x, y, 2, batch_size=64, seed=0, verbose=0)
np.testing.assert_allclose(line.center["loss"], expected[0], rtol=1e-6)
with preserved(mirrored):
    mirrored.set_weights(plain.get_weights())
assert before == copies(mirrored)
for models in ([mirrored, plain], [plain, mirrored]):
    try:
        evaluate_interpolation(*models, (x, y), verbose=0)
    except ValueError as error:
        print(error)
"""


def test_models_under_a_mirrored_strategy_of_two_replicas():
    # Logical devices can only be set up before TensorFlow starts, hence the process.
    command = [sys.executable, "-c", MIRRORED]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    first, *refusals = run.stdout.splitlines()
    assert first == "same line", run.stderr
    for name, refusal in zip(("model", "other"), refusals, strict=True):
        assert f"`{name}` has weights with another value on each replica" in refusal
        assert "moving_mean" in refusal


# Metadata, progress and errors.


def test_the_metadata_suffice_to_repeat_a_line(model, data):
    line = evaluate_line(model, *data, 3, verbose=0)
    assert line.metadata["directions"] == "random"
    assert line.metadata["normalize"] == "filter"
    assert line.metadata["ignore"] == "biasbn"
    assert line.metadata["parameters"] == model.count_params()
    assert line.metadata["versions"]["keras"] == keras.__version__
    again = evaluate_line(model, *data, 3, seed=line.metadata["seed"], verbose=0)
    np.testing.assert_array_equal(line.values["loss"], again.values["loss"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"number_of_points": 1}, ValueError, "`number_of_points` must be at least 2. Received 1"),
        (
            {"number_of_points": 5.0},
            TypeError,
            "`number_of_points` must be an integer for both axes.*5.0",
        ),
        ({"number_of_points": (5, 5.5)}, TypeError, "`number_of_points` must be an integer.*5.5"),
        ({"number_of_points": 10**6}, ValueError, "`number_of_points` asks for 1,000,000,000,000"),
        ({"number_of_points": True}, TypeError, "`number_of_points` must be an integer.*True"),
        (
            {"number_of_points": (5, 5, 5)},
            TypeError,
            "`number_of_points` must be an integer for both axes",
        ),
        ({"extent": (1, -1)}, ValueError, r"`extent`.*smaller first.*Received \(1, -1\)"),
        ({"extent": (0, np.inf)}, ValueError, r"`extent` must be two finite numbers.*inf"),
        ({"extent": (-1, 0, 1)}, TypeError, r"`extent` must be two numbers.*\(-1, 0, 1\)"),
        ({"extent": "wide"}, ValueError, r"`extent` must be two numbers.*or 'auto'.*'wide'"),
        (
            {"engine": "fast"},
            ValueError,
            "`engine` must be one of 'auto', 'compiled', 'evaluate'.*'fast'",
        ),
        ({"verbose": 3}, ValueError, "`verbose` must be one of 'auto', 0, 1, 2. Received 3"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1. Received 0"),
        ({"batch_size": "all"}, TypeError, "`batch_size` must be an integer. Received 'all'"),
        ({"seed": 1.5}, TypeError, "`seed` must be an integer. Received 1.5"),
        ({"metric": "precision"}, ValueError, "one of 'loss', 'accuracy'. Received 'precision'"),
        ({"directions": []}, ValueError, "`directions` must be a list of directions.*length 0"),
        ({"directions": [[np.ones(3)]]}, ValueError, "`directions` must hold 2.*Received 1"),
        ({"directions": [[np.ones(3)]] * 2}, ValueError, r"`directions\[0\]`.*\(4, 8\).*\(3,\)"),
    ],
)
def test_bad_arguments_are_refused_with_the_model_untouched(model, data, options, error, message):
    before = state_of(model)
    with pytest.raises(error, match=message):
        evaluate_surface(model, *data, **{"verbose": 0} | options)
    assert_same_state(model, before)


def test_more_directions_than_memory_can_hold_are_refused(model, data):
    with pytest.raises(ValueError, match="`number` asks for 1,000,000,000,000.* GiB of memory"):
        random_directions(model, 10**12)
    with pytest.raises(ValueError, match="`number_of_directions` asks for 2,000,000,000,000 in"):
        evaluate_line(model, *data, 2, number_of_directions=10**12)


def test_bad_directions_are_refused(model, data):
    (direction,) = random_directions(model, seed=0)
    with pytest.raises(ValueError, match=r"`directions\[0\]` must be a list of arrays"):
        evaluate_line(model, *data, directions=direction, verbose=0)
    with pytest.raises(ValueError, match="`seed` is for random directions.*seed=1"):
        evaluate_line(model, *data, directions=[direction], seed=1, verbose=0)
    direction[0][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"`directions\[0\]` must be finite"):
        evaluate_line(model, *data, directions=[direction], verbose=0)


@pytest.mark.parametrize(
    ("directions", "error", "message"),
    [
        ("steep", FileNotFoundError, "`directions` must be a file of `save_directions`.*'steep'"),
        (3, ValueError, "`directions` must be a list of directions.*Received int"),
        ([None], ValueError, r"`directions\[0\]` must be a list of arrays.*Received NoneType"),
        (["steep"], ValueError, r"`directions\[0\]` must be a list of arrays.*Received str"),
        ([np.ones((1, 3, 1))], ValueError, r"`directions\[0\]` must be.*Received ndarray"),
        ([[1j * np.ones((3, 1))]], TypeError, r"`directions\[0\]` must hold real.*complex128"),
        ([[["a"], ["b"], ["c"]]], TypeError, r"`directions\[0\]` must hold real numbers"),
        ([[[[1], [2, 3]]]], TypeError, r"`directions\[0\]` must hold real numbers.*list"),
        ([[np.full((3, 1), 1e300)]], ValueError, r"`directions\[0\]` must be finite"),
    ],
)
def test_what_is_no_direction_is_refused(directions, error, message):
    x = np.zeros((4, 1), "float32")
    with pytest.raises(error, match=message):
        evaluate_line(quadratic_model(), x, x, directions=directions, verbose=0)


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_own_directions_may_be_of_any_type(engine):
    step = np.array([[1], [-2], [0]])
    kinds = [step.astype(kind) for kind in ("float32", "float64", "float16", "int64", ">f4", bool)]
    kinds += [step.tolist(), tf.constant(step), keras.Variable(step.astype("float32"))]
    directions = [[kind] for kind in kinds]
    x = np.zeros((4, 1), "float32")
    options = {"directions": directions, "engine": engine, "verbose": 0}
    line = evaluate_line(quadratic_model(), x, x, 3, **options)
    steps = [np.array(kind, float) for kind in kinds]
    np.testing.assert_allclose(
        line.values["loss"],
        [[quadratic_loss(1 + alpha * step[:, 0]) for alpha in (-1, 0, 1)] for step in steps],
        rtol=1e-5,
    )


def quadratic_loss(w):
    return w @ Quadratic.MATRIX @ w / 2 + Quadratic.SLOPE @ w


class Rotated(layers.Layer):
    def build(self, _):
        self.turn = self.add_weight(name="turn", shape=(1,), dtype="complex64", autocast=False)

    def call(self, x):
        return ops.abs(ops.cast(x, "complex64") * self.turn)


def test_complex_weights_are_refused_by_every_call_alike(data):
    x, _ = data
    model, other = (keras.Sequential([keras.Input((4,)), Rotated()]) for _ in range(2))
    model.compile(loss="mse")
    for call in (
        lambda: random_directions(model),
        lambda: ll.direction_between(model, other),
        lambda: evaluate_line(model, x, x),
        lambda: ll.evaluate_interpolation(model, other, (x, x)),
        lambda: ll.evaluate_barriers([model, other], x, x),
        lambda: ll.evaluate_trajectory(model, [other] * 4, x, x),
        lambda: ll.Hessian(model, x, x),
        lambda: match_weights(model, other),
    ):
        with pytest.raises(ValueError, match="`model` has complex weights.*turn.*imaginary part"):
            call()


def test_models_of_several_processes_are_refused(model, data, monkeypatch):
    # What arrays of JAX and variables under `MultiWorkerMirroredStrategy` say of themselves.
    cluster = tf.train.ClusterSpec({"worker": ["first:1", "second:1"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster)
    strategy = types.SimpleNamespace(cluster_resolver=resolver)
    for told in ({"is_fully_addressable": False}, {"distribute_strategy": strategy}):
        with monkeypatch.context() as patch:
            value = types.SimpleNamespace(**told)
            patch.setattr(keras.Variable, "value", property(lambda _, value=value: value))
            with pytest.raises(ValueError, match="`model` .* over several processes.*one process"):
                evaluate_line(model, *data, verbose=0)


def test_losses_in_half_precision_are_refused():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 64, 1))
    keras.config.set_floatx("bfloat16")
    try:
        inputs = keras.Input((1,), dtype="float32")
        model = keras.Sequential([inputs, layers.Dense(1, dtype="float32")])
        model.compile(loss="mse")
        with pytest.raises(ValueError, match="rounds its loss and metrics to bfloat16.*float32"):
            evaluate_line(model, x, y, verbose=0)
    finally:
        keras.config.set_floatx("float32")
    with pytest.raises(ValueError, match="rounds its loss and metrics to bfloat16"):
        evaluate_line(model, x, y, verbose=0)
    # The way out.
    model.compile(loss="mse")
    kernel, bias = (np.array(weight, float) for weight in model.weights)
    line = evaluate_line(model, x, y, 2, verbose=0)
    np.testing.assert_allclose(
        line.center["loss"], np.mean((x * kernel + bias - y) ** 2), rtol=1e-6
    )


def test_models_that_cannot_be_evaluated_are_refused(data):
    model = keras.Sequential([layers.Dense(3, activation="softmax")])
    with pytest.raises(ValueError, match="`model` 'sequential' is not built"):
        evaluate_line(model, *data)
    model.build((None, 4))
    with pytest.raises(ValueError, match=r"`model` 'sequential' is not compiled.*compile\(loss"):
        evaluate_line(model, *data)


def test_data_that_do_not_fit_are_refused_before_the_walk(model, data):
    x, y = data
    before = state_of(model)
    with pytest.raises(Exception, match="incompatible") as caught:
        evaluate_lines(model, ((x, y), (x[:, :3], y)), verbose=0)
    assert "`model.evaluate` failed on `datasets[1]`" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="must be one dataset if `y` is not given. Received 2"):
        evaluate_surface(model, ((x, y), (x, y)), verbose=0)
    with pytest.raises(ValueError, match=r"`datasets\[1\]` is empty"):
        evaluate_lines(model, ((x, y), (x[:0], y[:0])), verbose=0)
    assert_same_state(model, before)


def bowl(width, kind=keras.Sequential):
    """A model with the loss 1 + 9·|w/width|² of its three weights, which is 10 at the width."""

    class Bowl(layers.Layer):
        def build(self, _):
            self.w = self.add_weight(shape=(3, 1), initializer="zeros", name="w")

        def call(self, inputs):
            return 1 + 9 * ops.sum((self.w / width) ** 2) + 0 * inputs[:, :1]

    model = kind([keras.Input((1,)), Bowl()])
    model.compile(loss=lambda _, output: ops.mean(output))
    return model


@pytest.mark.parametrize("width", [0.01, 0.3, 5.0])
def test_an_automatic_extent_goes_to_ten_times_the_loss(width):
    x = np.zeros((4, 1), "float32")
    directions = [[np.eye(3, dtype="float32")[:, [axis]]] for axis in range(2)]
    options = {"directions": directions, "extent": "auto", "verbose": 0}
    line = evaluate_line(bowl(width), x, x, 5, **options)
    surface = evaluate_surface(bowl(width), x, x, 5, **options)
    # Powers of two in steps of an eighth, rounded down to two digits.
    assert width / 2 ** (1 / 8) * 0.9 < line.alphas[-1] <= width
    assert -line.alphas[0] == line.alphas[-1] == surface.alphas[-1] == surface.betas[-1]
    assert line.values["loss"].max() <= 10


class Generator(keras.Sequential):
    """A model that reports no loss of that name, like those with several."""

    def test_step(self, *args):
        return {"generator_loss": super().test_step(*args)["loss"]}


def test_a_model_without_a_loss_has_an_automatic_extent_in_the_metric_that_is_named():
    x = np.zeros((4, 1), "float32")
    model, options = bowl(0.3, Generator), {"extent": "auto", "verbose": 0}
    options["directions"] = [[np.eye(3, dtype="float32")[:, [0]]]]
    line = evaluate_line(model, x, x, 5, metric="generator_loss", **options)
    assert line.alphas[-1] == evaluate_line(bowl(0.3), x, x, 5, **options).alphas[-1] <= 0.3
    expected = 1 + 9 * (line.alphas / 0.3) ** 2
    np.testing.assert_allclose(line.values["generator_loss"][0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="`metric` must be one of 'generator_loss'.*'loss'"):
        evaluate_line(model, x, x, 5, **options)


@pytest.mark.parametrize(("width", "extent"), [(1e6, 16), (1e-6, 0.00097)])
def test_an_automatic_extent_ends_where_the_loss_is_flat_or_steep(width, extent):
    x = np.zeros((4, 1), "float32")
    directions = [[np.ones((3, 1), "float32")]]
    line = evaluate_line(bowl(width), x, x, directions=directions, extent="auto", verbose=0)
    np.testing.assert_allclose(line.alphas[[0, -1]], [-extent, extent])


def test_surfaces_of_several_datasets_lie_on_the_same_plane(model, data):
    x, y = data
    parts = (x[:40], y[:40]), (x[40:], y[40:])
    surfaces = evaluate_surfaces(model, parts, number_of_points=(4, 3), seed=0, verbose=0)
    for surface, part in zip(surfaces, parts, strict=True):
        alone = evaluate_surface(model, *part, (4, 3), seed=0, verbose=0)
        np.testing.assert_allclose(surface.values["loss"], alone.values["loss"], rtol=1e-6)


def test_a_metric_that_is_not_measured_is_refused_before_a_pass_over_the_data(model, data):
    seen = []
    x, y = (tf.data.Dataset.from_tensor_slices(part) for part in data)
    batches = tf.data.Dataset.zip(x, y).batch(8)

    class Watching(keras.Model):
        def test_step(self, data):
            tf.py_function(lambda: seen.append(1), [], [])
            return super().test_step(data)

    watching = Watching(model.inputs, model.outputs)
    watching.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    for engine in ("evaluate", "compiled"):
        seen.clear()
        with pytest.raises(
            ValueError, match="`metric` must be one of 'loss', 'accuracy'.*'acuracy'"
        ):
            evaluate_line(watching, batches, metric="acuracy", engine=engine, verbose=0)
        # Of eight batches.
        assert len(seen) == 1
    with pytest.raises(ValueError, match="`metric` must be 'loss'.*no weight penalties"):
        evaluate_line(model, *data, metric="data_loss", verbose=0)


def test_a_forgotten_y_is_named(model, data):
    before = state_of(model)
    with pytest.raises(ValueError, match="`y` must be the targets.*Received inputs alone"):
        evaluate_surface(model, data[0], number_of_points=2, verbose=0)
    with pytest.raises(ValueError, match=r"inputs alone, as `datasets\[1\]`"):
        evaluate_lines(model, (data, (data[0],)), number_of_points=2, verbose=0)
    assert_same_state(model, before)
    # Only the model itself knows what its own test step needs.
    own = Generator([keras.Input((4,)), layers.Dense(3)])
    own.compile(loss="mse")
    with pytest.raises(ValueError, match=".") as caught:
        evaluate_line(own, data[0], metric="generator_loss", verbose=0)
    assert any("is `y` missing?" in note for note in caught.value.__notes__)


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_datasets_as_lists_are_named(model, data):
    with pytest.raises(ValueError, match=".") as caught:
        evaluate_lines(model, [list(data), list(data)], number_of_points=2, verbose=0)
    assert any(
        "several are tuples: ((x1, y1), (x2, y2))" in note for note in caught.value.__notes__
    )


def test_directions_and_their_number_exclude_each_other(model, data):
    directions = random_directions(model, 2, seed=0)
    with pytest.raises(ValueError, match="`number_of_directions` is for random.*Received 2"):
        evaluate_line(model, *data, directions=directions, number_of_directions=2)


def test_many_random_directions_are_drawn_one_at_a_time():
    x = np.ones((4, 256), "float32")
    network = keras.Sequential(
        [keras.Input((256,)), *(layers.Dense(256, use_bias=False) for _ in range(4))]
    )
    network.compile("sgd", "mse")

    def measure(**directions):
        tracemalloc.start()
        line = evaluate_line(network, x, x, 3, **directions, engine="evaluate", verbose=0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return line, peak

    # Without what only the first call makes.
    measure(number_of_directions=1, seed=0)
    _, of_one = measure(number_of_directions=1, seed=0)
    line, of_six = measure(number_of_directions=6, seed=0)
    size_of_one = 4 * network.count_params()
    assert of_one > size_of_one
    assert of_six < of_one + size_of_one / 2
    given, _ = measure(directions=random_directions(network, 6, seed=0))
    np.testing.assert_allclose(line.values["loss"], given.values["loss"], rtol=1e-6)


def test_an_interrupted_call_says_what_was_measured_and_where_it_is(
    model, data, tmp_path, monkeypatch
):
    advance = ll.evaluation.Progress.advance

    def fail(progress, *arguments):
        advance(progress, *arguments)
        if progress._done == 3:
            raise RuntimeError("the machine went down")

    monkeypatch.setattr(ll.evaluation.Progress, "advance", fail)
    options = {"number_of_points": 8, "engine": "evaluate", "verbose": 0}
    for checkpoint, note in (
        (tmp_path / "line.h5", "3 of 8 points were measured, and are in .*line.h5. The same call"),
        (None, "3 of 8 points were measured; with `checkpoint=`, they would have been kept"),
    ):
        with pytest.raises(RuntimeError) as caught:
            evaluate_line(model, *data, checkpoint=checkpoint, **options)
        assert re.search(note, caught.value.__notes__[-1])


def test_an_automatic_extent_needs_a_loss_above_zero(data):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.compile(loss=lambda _, output: -ops.mean(output**2))
    with pytest.raises(ValueError, match="`extent='auto'` needs a finite loss above 0"):
        evaluate_line(model, *data, extent="auto", verbose=0)
    with pytest.raises(ValueError, match="`extent` must be two numbers.*or 'auto'"):
        evaluate_line(model, *data, extent="automatic", verbose=0)
