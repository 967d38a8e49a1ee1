"""Monitoring: numbers in the course of training, of which training takes no notice."""

import csv
import sys
import types
import warnings

import keras
import matplotlib as mpl
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers
from matplotlib import pyplot as plt

from losslandscape import (
    Hessian,
    LandscapeLogger,
    WeightHistory,
    evaluate_line,
    plot_line,
    random_directions,
    training_curvature,
)
from losslandscape.paths.trajectory import read_history
from losslandscape.values.measures import half_widths
from losslandscape.values.surfaces import TrainingCurvature

# Least squares with this Hessian, whatever the weights: orthogonal features of these lengths.
CURVATURES = np.array([3.0, 1.0, 0.5])
FEATURES = np.sqrt(1.5 * np.diag(CURVATURES)).astype("float32")
TARGETS = FEATURES @ np.array([[1.0], [-2.0], [0.5]], "float32")
RATE = 0.2
QUIET = {"number_of_probes": 2, "number_of_directions": 2, "seed": 0}


@pytest.fixture
def descent(tmp_path):
    """Gradient descent on least squares, from weights that are not zero, and its history."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model.compile(optimizers.SGD(RATE), "mse", jit_compile=False)
    history = WeightHistory(tmp_path / "history")
    model.fit(FEATURES, TARGETS, batch_size=3, epochs=3, callbacks=[history], verbose=0)
    return model, history


def at_records(model, history, measure):
    """What a function finds at each record."""
    found, end = [], model.get_weights()
    for record in read_history(model, history)[1]:
        model.set_weights(record)
        found.append(measure())
    model.set_weights(end)
    return np.array(found)


def test_curvature_of_gradient_descent_on_least_squares(descent):
    model, history = descent
    curvature = training_curvature(model, history, FEATURES, TARGETS, rise=0.1, **QUIET, verbose=0)
    values = curvature.values
    np.testing.assert_array_equal(curvature.times, range(4))
    np.testing.assert_allclose(curvature.thresholds, 2 / RATE)

    def loss():
        return np.mean((FEATURES @ model.get_weights()[0] - TARGETS) ** 2)

    def scale():
        return np.mean(model.get_weights()[0] ** 2)

    def half_width():
        """Half the distance of the roots of a quadratic function, along each direction."""
        residuals = FEATURES @ model.get_weights()[0] - TARGETS
        slope, widths = 2 / 3 * FEATURES.T @ residuals, []
        for (step,) in random_directions(model, 2, seed=0):
            curved = step[:, 0] @ (CURVATURES * step[:, 0])
            widths.append(np.sqrt(np.vdot(slope, step) ** 2 + 0.2 * curved) / curved)
        return np.mean(widths)

    np.testing.assert_allclose(values["loss"], at_records(model, history, loss), rtol=1e-5)
    np.testing.assert_allclose(values["largest_eigenvalue"], 3, rtol=1e-4)
    expected = 3 * at_records(model, history, scale)
    np.testing.assert_allclose(values["scale_free_eigenvalue"], expected, rtol=1e-4)
    # Of a diagonal matrix, any vector of ±1 gives the trace itself.
    for name in ("trace", "trace_low", "trace_high"):
        np.testing.assert_allclose(values[name], 4.5, rtol=1e-4)
    expected = at_records(model, history, half_width)
    np.testing.assert_allclose(values["half_width"], expected, rtol=0.02)
    assert (values["half_width_low"] < values["half_width_high"]).all()


def whole_hessian(model, x, y):
    """The Hessian of a mean squared error, by automatic differentiation."""
    weights = [weight.value for weight in model.trainable_variables]
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        gradient = tf.concat([tf.reshape(g, [-1]) for g in inner.gradient(loss, weights)], axis=0)
    blocks = [tf.reshape(part, [len(gradient), -1]) for part in outer.jacobian(gradient, weights)]
    return np.concatenate(blocks, axis=1)


def test_curvature_of_a_network_is_that_of_its_whole_hessian(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 3)).astype("float32")
    y = np.tanh(x[:, :1] * x[:, 1:2])
    model = keras.Sequential([keras.Input((3,)), layers.Dense(8, "tanh"), layers.Dense(1)])
    model.compile(optimizers.SGD(0.3), "mse", jit_compile=False)
    history = WeightHistory(tmp_path / "history", every=2)
    model.fit(x, y, batch_size=5, epochs=1, callbacks=[history], verbose=0)
    measures = ("largest_eigenvalue", "scale_free_eigenvalue", "trace")
    curvature = training_curvature(
        model, history, x, y, measures, number_of_probes=20, tolerance=1e-4, seed=0, verbose=0
    )
    assert curvature.measures == ["loss", *measures]
    assert curvature.metadata["unit"] == "step"
    np.testing.assert_array_equal(curvature.times, [0, 2, 4])

    def scales():
        norms = [
            np.linalg.norm(weight, axis=0, keepdims=True) * (weight.ndim > 1) / np.sqrt(len(weight))
            for weight in model.get_weights()
        ]
        pairs = zip(norms, model.get_weights(), strict=True)
        return np.concatenate([np.broadcast_to(n, weight.shape).ravel() for n, weight in pairs])

    hessians = at_records(model, history, lambda: whole_hessian(model, x, y))
    units = at_records(model, history, scales)
    scale_free = units[:, :, np.newaxis] * hessians * units[:, np.newaxis]
    for name, matrices in zip(measures, (hessians, scale_free), strict=False):
        expected = np.linalg.eigvalsh(matrices)[:, -1]
        np.testing.assert_allclose(curvature.values[name], expected, rtol=1e-3)
    traces = np.trace(hessians, axis1=1, axis2=2)
    assert (curvature.values["trace_low"] < traces).all()
    assert (traces < curvature.values["trace_high"]).all()


def largest(model, history, **options):
    options = {"number_of_probes": 2, "number_of_directions": 2, "seed": 0, "verbose": 0} | options
    return training_curvature(model, history, FEATURES, TARGETS, "largest_eigenvalue", **options)


def distance_after(optimizer, eigenvalue):
    """How far from the minimum of a quadratic loss an optimizer gets."""
    weight = keras.Variable(1.0)
    for _ in range(80):
        optimizer.apply([eigenvalue * weight], [weight])
    return abs(float(weight))


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}], ids=str
)
def test_gradient_descent_is_stable_up_to_the_threshold(descent, options):
    model, history = descent
    model.compile(optimizers.SGD(RATE, **options), "mse", jit_compile=False)
    threshold = largest(model, history).thresholds[0]
    assert distance_after(optimizers.SGD(RATE, **options), 0.9 * threshold) < 0.01
    assert distance_after(optimizers.SGD(RATE, **options), 1.1 * threshold) > 100


def test_thresholds_follow_the_learning_rate(descent, tmp_path):
    model, history = descent
    rates = np.array([0.4, 0.2, 0.1, 0.05])
    given = largest(model, history, learning_rate=rates)
    np.testing.assert_allclose(given.thresholds, 2 / rates)
    # Adam does not step along the gradient, and nobody knows when models were made.
    model.compile("adam", "mse", jit_compile=False)
    assert np.isnan(largest(model, history).thresholds).all()
    schedule = optimizers.schedules.ExponentialDecay(0.4, 1, 0.5)
    model.compile(optimizers.SGD(schedule), "mse", jit_compile=False)
    assert np.isnan(largest(model, [model, model]).thresholds).all()
    scheduled, logger = WeightHistory(tmp_path / "scheduled"), LandscapeLogger({"one": lambda _: 1})
    callbacks = [scheduled, logger]
    model.fit(FEATURES, TARGETS, batch_size=3, epochs=3, callbacks=callbacks, verbose=0)
    np.testing.assert_allclose(largest(model, scheduled).thresholds, 2 / rates)
    np.testing.assert_allclose(logger.curvature.thresholds, 2 / rates[1:])


def test_records_that_are_not_finite_or_zero_have_no_width(descent):
    model, history = descent
    start, *_ = read_history(model, history)[1]
    diverged = keras.models.clone_model(model)
    diverged.set_weights([np.full_like(weight, np.nan) for weight in start])
    empty = keras.models.clone_model(model)
    empty.set_weights([np.zeros_like(weight) for weight in start])
    curvature = training_curvature(
        model, [empty, diverged, model], FEATURES, TARGETS, **QUIET, verbose=0
    )
    np.testing.assert_array_equal(np.isnan(curvature.values["loss"]), [False, True, False])
    # Where all filters are zero, nothing can be relative to them.
    for name in ("scale_free_eigenvalue", "half_width", "half_width_low"):
        np.testing.assert_array_equal(np.isnan(curvature.values[name]), [True, True, False])
    np.testing.assert_allclose(curvature.values["largest_eigenvalue"], 3, rtol=1e-4)


def test_a_checkpoint_resumes_and_belongs_to_its_measures(descent, tmp_path):
    model, history = descent
    path = tmp_path / "curvature.h5"
    first = largest(model, history, seed=None, checkpoint=path)
    second = largest(model, history, seed=None, checkpoint=path)
    loaded = TrainingCurvature.load(path)
    for value in (second, loaded):
        np.testing.assert_array_equal(value.times, first.times)
        np.testing.assert_array_equal(value.thresholds, first.thresholds)
        for name, values in first.values.items():
            np.testing.assert_array_equal(value.values[name], values)
    assert repr(loaded) == ("TrainingCurvature(loss, largest_eigenvalue; 4 records, epoch 0…3)")
    with pytest.raises(ValueError, match="with different measures"):
        largest(model, history, tolerance=0.1, checkpoint=path)


def test_the_trained_model_is_left_alone(descent):
    model, history = descent
    before = [np.array(each) for each in [*model.variables, *model.optimizer.variables]]
    training_curvature(model, history, FEATURES, TARGETS, **QUIET, verbose=0)
    for variable, value in zip([*model.variables, *model.optimizer.variables], before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def train(data, callbacks, epochs=4):
    """Trains a network with everything that draws random numbers or keeps a state."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)

    def disturb(*_):
        # As data augmentation may draw its random numbers.
        model.layers[0].bias.assign_add(np.random.normal(size=6))  # noqa: NPY002

    callbacks = [*callbacks, keras.callbacks.LambdaCallback(on_epoch_begin=disturb)]
    fit = {"batch_size": 16, "validation_data": data, "callbacks": callbacks, "verbose": 0}
    logs = model.fit(*data, epochs=epochs, **fit).history
    # Another fit: what is drawn when it begins must be the same, too.
    model.fit(*data, **fit | {"callbacks": []})
    variables = [*model.variables, *model.optimizer.variables]
    return model, logs, [np.array(variable) for variable in variables]


def sharpness(data):
    return lambda model: Hessian(model, *data).eigenvalues(seed=0)[0][0]


def test_numbers_are_those_of_the_records_and_training_is_bit_identical(data, tmp_path):
    _, plain, expected = train(data, [])
    history = WeightHistory(tmp_path / "history")
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    # One draws from the global state of NumPy, since it has no seed.
    own = {"random": lambda model: evaluate_line(model, *data, 2, verbose=0).values["loss"][0, 0]}
    named = LandscapeLogger(x=data[0], y=data[1], every=2, live=True, rise=0.1, **QUIET)
    callbacks = [named, LandscapeLogger(own, every=2), history, table]
    model, logs, variables = train(data, callbacks)
    for found, value in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(found, value)
    assert {name: logs[name] for name in plain} == plain
    for name in (*named.measures, "random"):
        first, second, third, fourth = logs[name]
        # In between, the last number stands.
        assert third == second
        assert len({first, second, fourth}) == 3

    def width(model):
        directions = random_directions(model, 2, seed=0)
        line = evaluate_line(model, *data, 321, directions=directions, extent=(-8, 8), verbose=0)
        return half_widths(line, rise=0.1).mean()

    _, records = read_history(model, history)
    model.set_weights(records[2])
    (free,), _ = Hessian(model, *data, normalize="filter").eigenvalues(seed=0)
    trace = Hessian(model, *data).trace(2, seed=0)
    assert logs["largest_eigenvalue"][1] == pytest.approx(sharpness(data)(model), 0.01)
    assert logs["scale_free_eigenvalue"][1] == pytest.approx(free, rel=0.01)
    assert logs["trace"][1] == pytest.approx(trace.mean, rel=1e-3)
    assert logs["half_width"][1] == pytest.approx(width(model), rel=0.03)
    assert named.curvature.values["trace_low"][1] == pytest.approx(trace.low, rel=1e-3)
    np.testing.assert_array_equal(named.curvature.times, [1, 2, 4])
    with (tmp_path / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = [float(row["trace"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rows, logs["trace"])


def test_callbacks_that_follow_a_number_get_one_each_epoch(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model.compile(optimizers.SGD(RATE), "mse", jit_compile=False)
    numbers = iter(np.linspace(1, 0.1, 7))
    logger = LandscapeLogger({"falling": lambda _: next(numbers)}, every=2)
    follow, path = {"monitor": "falling", "mode": "min"}, tmp_path / "best.keras"
    others = [
        keras.callbacks.EarlyStopping(patience=3, **follow),
        keras.callbacks.ReduceLROnPlateau(patience=2, **follow),
        keras.callbacks.ModelCheckpoint(path, save_best_only=True, **follow),
    ]
    fit = {"batch_size": 3, "epochs": 12, "verbose": 0}
    # A callback before the logger would not see its numbers.
    for other in others:
        name = type(other).__name__
        with pytest.raises(ValueError, match=rf"Received it after {name} \('falling'\): put it fi"):
            model.fit(FEATURES, TARGETS, callbacks=[[other], logger], **fit)
    history = model.fit(FEATURES, TARGETS, callbacks=[logger, *others], **fit)
    assert len(history.history["falling"]) == 12
    assert float(model.optimizer.learning_rate) == pytest.approx(RATE)
    assert others[2].best == pytest.approx(0.1)


def test_a_callback_that_would_leave_the_numbers_out_causes_a_warning(tmp_path):
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    kept = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.warns(UserWarning, match="comes after CSVLogger in `callbacks`"):
        fit_with([kept, table, LandscapeLogger({"one": lambda _: 1.0})], epochs=1)
    with warnings.catch_warnings(record=True) as found:
        fit_with([kept, LandscapeLogger({"one": lambda _: 1.0}), table], epochs=1)
    assert not [each for each in found if "LandscapeLogger" in str(each.message)]


def test_a_model_that_training_builds_is_measured():
    model = keras.Sequential([layers.Dense(1, use_bias=False)])
    model.compile(optimizers.SGD(RATE), "mse", jit_compile=False)
    logger = LandscapeLogger("largest_eigenvalue", FEATURES, TARGETS)
    logs = model.fit(FEATURES, TARGETS, epochs=1, callbacks=[logger], verbose=0).history
    np.testing.assert_allclose(logs["largest_eigenvalue"], 3, rtol=1e-4)


def fit_with(callbacks, epochs=3):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model.compile(optimizers.SGD(RATE), "mse", jit_compile=False)
    model.fit(FEATURES, TARGETS, epochs=epochs, callbacks=callbacks, verbose=0)


def test_a_logger_traces_once_for_each_fit():
    traced, numbers = [], []

    class Counting(keras.Sequential):
        def test_step(self, *arguments):
            traced.append(1)
            return super().test_step(*arguments)

    model = Counting([keras.Input((3,)), layers.Dense(1)])
    model.compile(optimizers.SGD(RATE), "mse")
    logger = LandscapeLogger("half_width", FEATURES, TARGETS, **QUIET)
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: numbers.append(len(traced)))
    for _ in range(2):
        model.fit(FEATURES, TARGETS, epochs=3, callbacks=[logger, count], verbose=0)
    first, *_ = numbers
    assert first > 0
    assert numbers == [first] * 3 + [2 * first] * 3


def test_a_live_figure_is_drawn_again_after_each_time():
    logger = LandscapeLogger({"one": lambda _: 1.0, "two": lambda _: 2.0}, live=True)
    assert logger.curvature is None
    fit_with([logger])
    assert plt.get_fignums() == [logger.figure.number]
    assert [ax.get_ylabel() for ax in logger.figure.axes] == ["one", "two"]
    for value, ax in enumerate(logger.figure.axes, 1):
        (curve,) = ax.lines
        np.testing.assert_array_equal(curve.get_xydata(), [[1, value], [2, value], [3, value]])
    # Another fit starts over, in the same figure.
    fit_with([logger], epochs=1)
    np.testing.assert_array_equal(logger.curvature.times, [1])
    assert plt.get_fignums() == [logger.figure.number]


def images_in(folder):
    """The tag, the step and the pixels of each image in a folder of TensorBoard's logs."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "images"
                width, height, png = tf.make_ndarray(value.tensor)
                pixels = tf.io.decode_png(png).numpy()
                assert pixels.shape[:2] == (int(height), int(width))
                yield value.tag, event.step, pixels


def test_tensorboard_gets_an_image_every_few_epochs(tmp_path):
    drawn = []

    def draw(model):
        drawn.append(model.get_weights()[0])
        return plot_line(evaluate_line(model, FEATURES, TARGETS, 3, seed=0, verbose=0))

    line, plane = tmp_path / "line", tmp_path / "plane"
    own = LandscapeLogger({"one": lambda _: 1.0}, every=2, image=draw, log_dir=line)
    named = LandscapeLogger({}, FEATURES, TARGETS, image="levels", log_dir=plane)
    fit_with([own, named], epochs=4)
    found = list(images_in(line / "landscape"))
    assert [(tag, step) for tag, step, _ in found] == [("landscape", step) for step in (0, 1, 3)]
    assert len(drawn) == 3
    # In the size of a figure, at 150 dots per inch.
    assert {pixels.shape for *_, pixels in found} == {(420, 525, 4)}
    assert not np.array_equal(found[0][2], found[-1][2])
    assert [step for _, step, _ in images_in(plane / "landscape")] == [0, 1, 2, 3]
    assert not plt.get_fignums()


def test_a_notebook_shows_one_figure_that_changes(monkeypatch):
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    def display(figure, display_id):
        assert display_id
        shown.append(figure)
        return Handle()

    module = types.SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(mpl, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    logger = LandscapeLogger({"one": lambda _: 1.0}, live=True)
    fit_with([logger])
    assert shown == 3 * [logger.figure]
    # The notebook would show an open one again at the end of its cell.
    assert not plt.get_fignums()


def test_a_failure_to_draw_costs_a_warning_but_not_the_training(monkeypatch):
    logger = LandscapeLogger({"one": lambda _: 1.0}, live=True)
    monkeypatch.setattr(plt, "subplots", lambda *_, **__: 1 / 0)
    with pytest.warns(UserWarning, match="not draw what was logged: ZeroDivisionError"):
        fit_with([logger], epochs=1)
    assert logger.curvature.values["one"] == [1]


def test_a_failure_to_measure_costs_a_warning_but_not_the_training(data):
    def fail(model):
        model.layers[0].kernel.assign_add([[1.0] * 6] * 4)
        raise FloatingPointError("the Hessian is not finite")

    _, _, expected = train(data, [], epochs=1)
    with pytest.warns(UserWarning, match="not measure 'λmax': FloatingPointError: the Hessian"):
        _, logs, variables = train(data, [LandscapeLogger({"λmax": fail})], epochs=1)
    assert np.isnan(logs["λmax"]).all()
    for found, value in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_unusable_arguments_are_refused(data):
    with pytest.raises(TypeError, match="`measures` must be names of measures, or a dict of funct"):
        LandscapeLogger({"λmax": 3})
    with pytest.raises(ValueError, match="`measures` is empty"):
        LandscapeLogger({})
    with pytest.raises(ValueError, match="`measures` must be one of 'largest_eigenvalue', "):
        LandscapeLogger("sharpness", *data)
    with pytest.raises(ValueError, match="`measures` is empty"):
        LandscapeLogger([], *data)
    with pytest.raises(ValueError, match="`x` must be the data to measure on"):
        LandscapeLogger("trace")
    with pytest.raises(ValueError, match="`x` is for what is given by name"):
        LandscapeLogger({"λmax": sharpness(data)}, *data)
    with pytest.raises(ValueError, match="`number_of_directions` must be at least 2"):
        LandscapeLogger("half_width", *data, number_of_directions=1)
    with pytest.raises(ValueError, match="`rise` must be greater than 0"):
        LandscapeLogger("half_width", *data, rise=0)
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        LandscapeLogger({"λmax": sharpness(data)}, every=0)
    with pytest.raises(ValueError, match="`image` and `log_dir` must be given together"):
        LandscapeLogger("trace", *data, image="line")
    with pytest.raises(ValueError, match="`image` must be one of 'line', 'levels'"):
        LandscapeLogger("trace", *data, image="3d", log_dir="logs")
    with pytest.raises(ValueError, match="`x` must be the data to draw"):
        LandscapeLogger({"λmax": sharpness(data)}, image="line", log_dir="logs")
    with pytest.raises(ValueError, match=r"do not have. Received \['accuracy', 'loss'\]"):
        train(data, [LandscapeLogger({"loss": float, "accuracy": float})], epochs=1)


def test_data_and_models_that_do_not_fit_are_refused_before_training(descent, data):
    model, history = descent
    with pytest.raises(ValueError, match="`learning_rate` must be a number above 0, or one for"):
        largest(model, history, learning_rate=[0.1, 0.2])
    with pytest.raises(ValueError, match="`history` must hold weights of `model`"):
        largest(model, [keras.Sequential([keras.Input((2,)), layers.Dense(1)])])
    epochs = []
    count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: epochs.append(epoch))
    logger = LandscapeLogger("trace", data[0], data[1][:3])
    with pytest.raises(ValueError, match="64.*3|3.*64"):
        model.fit(FEATURES, TARGETS, callbacks=[logger, count], verbose=0)
    assert not epochs
