"""Engines: both give the same numbers, and the compiled one says where it does not apply."""

import contextvars
import dataclasses
import os
import re
import signal
import types
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from losslandscape import (
    Hessian,
    evaluate_line,
    evaluate_lines,
    evaluate_surface,
    evaluate_surfaces,
    random_directions,
)
from losslandscape.evaluation import Progress
from losslandscape.measuring import engines
from losslandscape.measuring.engines import candidates


def dense(kind=keras.Sequential, **options):
    return kind(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu", **options),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )


def compiled(network, loss="sparse_categorical_crossentropy", **options):
    network.compile("adam", loss, **options)
    return network


class OwnStep(keras.Sequential):
    """Changes the loss and adds a value in its test step."""

    def test_step(self, data):
        logs = super().test_step(data)
        return logs | {"loss": logs["loss"] + 1, "norm": ops.norm(self.trainable_variables[0])}


class OwnValues(keras.Sequential):
    """Returns changed values of the metrics; Keras reports the metrics themselves instead."""

    def test_step(self, data):
        return {name: value / 2 for name, value in super().test_step(data).items()}


class Autoencoder(keras.Model):
    """Has a custom step for inputs alone, with a loss that sums over features."""

    def __init__(self):
        super().__init__()
        self.hidden, self.output_layer = layers.Dense(3, "relu"), layers.Dense(4)
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.loss_tracker]

    def call(self, inputs):
        return self.output_layer(self.hidden(inputs))

    def test_step(self, data):
        inputs = data["x"] if isinstance(data, dict) else data
        # With a tuple instead of the inputs this would have the right shape and be wrong.
        errors = ops.sum((inputs - self(ops.reshape(inputs, (-1, 4)))) ** 2, axis=-1)
        self.loss_tracker.update_state(ops.mean(errors))
        return {"loss": self.loss_tracker.result()}


class AddedLoss(layers.Layer):
    def call(self, inputs):
        self.add_loss(ops.mean(inputs**2))
        return inputs


class OwnMetric(keras.metrics.Metric):
    """The largest output of all batches, a state that is not a mean."""

    def __init__(self):
        super().__init__(name="largest")
        self.largest = self.add_variable((), "zeros", name="largest")

    def update_state(self, _, y_pred, sample_weight=None):  # noqa: ARG002, Keras' signature
        self.largest.assign(ops.maximum(self.largest, ops.max(y_pred)))

    def result(self):
        return self.largest.value


def sequence_network():
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Embedding(10, 4, mask_zero=True),
            layers.LSTM(5, return_sequences=True),
            layers.GRU(4),
            layers.Dense(3, activation="softmax"),
        ]
    )


def attention_network():
    inputs = keras.Input((6, 4))
    attended = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    outputs = layers.Dense(3, activation="softmax")(
        layers.GlobalAveragePooling1D()(layers.LayerNormalization()(attended))
    )
    return keras.Model(inputs, outputs)


def image_network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, padding="same", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(3),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def two_headed_network():
    inputs = {name: keras.Input((n,), name=name) for name, n in (("a", 4), ("b", 2))}
    joined = layers.Concatenate()(list(inputs.values()))
    outputs = {
        "label": layers.Dense(3, activation="softmax", name="label")(joined),
        "value": layers.Dense(1, name="value")(joined),
    }
    network = keras.Model(inputs, outputs)
    losses = {"label": "sparse_categorical_crossentropy", "value": "mse"}
    network.compile(
        loss=losses, metrics={"label": "accuracy"}, loss_weights={"label": 1.0, "value": 0.3}
    )
    return network


GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(50, 4)).astype("float32")
Y = GENERATOR.integers(0, 3, 50)
TOKENS = GENERATOR.integers(0, 10, (50, 6))
IMAGES = GENERATOR.normal(size=(50, 8, 8, 2))
WEIGHTS = GENERATOR.uniform(size=50)
ONE_HOT = np.eye(3)[Y]

CASES = {
    "metrics with state": lambda: (
        compiled(
            dense(),
            "categorical_crossentropy",
            metrics=["accuracy", keras.metrics.AUC(), keras.metrics.F1Score(), OwnMetric()],
        ),
        (X, ONE_HOT),
    ),
    "regularizers": lambda: (
        compiled(dense(kernel_regularizer="l2", bias_regularizer="l1")),
        (X, Y),
    ),
    "activity regularizer": lambda: (compiled(dense(activity_regularizer="l2")), (X, Y)),
    "added loss": lambda: (
        compiled(keras.Sequential([keras.Input((4,)), layers.Dense(2), AddedLoss()]), "mse"),
        (X, X[:, :2]),
    ),
    "own loss": lambda: (
        compiled(dense(), lambda y, output: ops.mean((output - y) ** 4, axis=-1)),
        (X, ONE_HOT),
    ),
    "own test step": lambda: (compiled(dense(OwnStep)), (X, Y)),
    "own values of metrics": lambda: (compiled(dense(OwnValues)), (X, Y)),
    "sample weights": lambda: (compiled(dense(), weighted_metrics=["accuracy"]), (X, Y, WEIGHTS)),
    "several outputs": lambda: (
        two_headed_network(),
        ({"a": X, "b": X[:, :2]}, {"label": Y, "value": X[:, :1]}),
    ),
    "images": lambda: (compiled(image_network(), metrics=["accuracy"]), (IMAGES, Y)),
    "masked sequences": lambda: (compiled(sequence_network()), (TOKENS, Y)),
    "attention": lambda: (compiled(attention_network()), (GENERATOR.normal(size=(50, 6, 4)), Y)),
    "mixed precision": lambda: (compiled(dense(dtype="mixed_bfloat16")), (X, Y)),
    "pipeline": lambda: (
        compiled(dense()),
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(13),
    ),
    "jit_compile": lambda: (compiled(dense(), jit_compile=True), (X, Y)),
    "steps_per_execution": lambda: (compiled(dense(), steps_per_execution=3), (X, Y)),
}


# Without `batch_size`, all samples are one batch.
@pytest.mark.parametrize(
    ("case", "batch_size"),
    [("sample weights", None), ("steps_per_execution", None), *((case, 13) for case in CASES)],
)
def test_both_engines_give_the_same_numbers(case, batch_size):
    model, data = CASES[case]()
    # Fifty samples in batches of thirteen leave eleven for the last.
    options = {} if isinstance(data, tf.data.Dataset) else {"batch_size": batch_size}
    first, second = (
        evaluate_surface(
            model, data, number_of_points=3, seed=0, engine=engine, verbose=0, **options
        )
        for engine in ("evaluate", "compiled")
    )
    assert list(first.values) == list(second.values)
    for name, values in first.values.items():
        np.testing.assert_allclose(second.values[name], values, rtol=1e-5, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(second.center[name], first.center[name], rtol=1e-5)


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
@pytest.mark.parametrize(
    "data",
    [X, (X,), {"x": X}, tf.data.Dataset.from_tensor_slices(X).batch(25)],
    ids=["array", "tuple", "dict", "tf.data"],
)
def test_inputs_alone_reach_a_step_as_evaluate_passes_them(data, engine):
    model = Autoencoder()
    expected = np.mean(np.sum((X - ops.convert_to_numpy(model(X))) ** 2, axis=-1))
    model.compile()
    line = evaluate_line(model, data, None, 3, engine=engine, verbose=0)
    np.testing.assert_allclose(line.center["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(line.values["loss"][0, 1], expected, rtol=1e-5)


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
@pytest.mark.parametrize("name", ["data_loss", "quality/accuracy", "loss_0", "", "a b\n$x$"])
def test_a_metric_of_any_name_has_the_value_that_evaluate_reports(name, engine):
    network = dense(kernel_regularizer="l2")
    metric = keras.metrics.SparseCategoricalAccuracy(name=name or " ")
    network.compile(loss="sparse_categorical_crossentropy", metrics=[metric])
    expected = network.evaluate(X, Y, verbose=0, return_dict=True)
    line = evaluate_line(network, X, Y, 3, engine=engine, verbose=0)
    assert {*line.center} - {"data_loss"} == {*expected} - {"data_loss"}
    for key, value in expected.items():
        np.testing.assert_allclose(line.center[key], value, rtol=1e-5)


class Settings:
    class Inner:
        factor = 1.0


@dataclasses.dataclass(slots=True)
class Slots:
    factor: float = 1.0


def by_attribute():
    return by_attribute.factor


by_attribute.factor = 1.0
MODULE, SLOTS, SHOWN = types.ModuleType("settings"), Slots(), {"factor": 1.0}
MODULE.factor = 1.0
PROXY = types.MappingProxyType(SHOWN)
VARIABLE = contextvars.ContextVar("factor", default=1.0)
# Where a loss may read a number, and how that is changed.
FACTORS = {
    "a module": (lambda: MODULE.factor, lambda value: setattr(MODULE, "factor", value)),
    "a class": (
        lambda: Settings.Inner.factor,
        lambda value: setattr(Settings.Inner, "factor", value),
    ),
    "slots": (lambda: SLOTS.factor, lambda value: setattr(SLOTS, "factor", value)),
    "a function": (by_attribute, lambda value: setattr(by_attribute, "factor", value)),
    "a mapping": (lambda: PROXY["factor"], lambda value: SHOWN.update(factor=value)),
    "a context": (VARIABLE.get, VARIABLE.set),
    "the environment": (
        lambda: float(os.environ.get("LOSS_FACTOR", "1")),
        lambda value: os.environ.update(LOSS_FACTOR=str(value)),
    ),
    "Keras": (
        lambda: keras.config.epsilon() / 1e-7,
        lambda value: keras.config.set_epsilon(1e-7 * value),
    ),
}


@pytest.fixture
def factors(monkeypatch):
    """The factors, which are 1 again afterwards."""
    monkeypatch.setenv("LOSS_FACTOR", "1")
    yield FACTORS
    for _, change in FACTORS.values():
        change(1.0)


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_every_call_reads_all_that_a_loss_reads_anew(engine, factors):
    def loss(y, output):
        return np.prod([read() for read, _ in factors.values()]) * ops.square(y - output)

    model = compiled(keras.Sequential([keras.Input((4,)), layers.Dense(1)]), loss)
    # Keras has a graph of its own, in which all factors are 1.
    model.evaluate(X, X[:, :1], verbose=0)

    def losses():
        return evaluate_line(model, X, X[:, :1], 3, seed=0, engine=engine, verbose=0).values["loss"]

    first = losses()
    for number, (name, (_, change)) in enumerate(factors.items(), start=1):
        change(2.0)
        np.testing.assert_allclose(losses(), 2**number * first, rtol=1e-5, err_msg=name)


def test_the_model_is_traced_once_for_all_points_and_directions():
    traced = []

    class Counting(keras.Sequential):
        def test_step(self, data):
            traced.append(1)
            return super().test_step(data)

    model = compiled(dense(Counting))
    evaluate_line(model, X, Y, 500, number_of_directions=3, engine="compiled", verbose=0)
    # Once eagerly, and once for the batch.
    assert len(traced) == 2


def test_many_points_in_chunks_stay_in_order():
    model = compiled(dense())
    options = {"directions": random_directions(model, seed=0), "verbose": 0}
    fine = evaluate_line(model, X, Y, 1001, engine="compiled", **options)
    coarse = evaluate_line(model, X, Y, 11, engine="evaluate", **options)
    np.testing.assert_allclose(
        fine.values["loss"][:, ::100], coarse.values["loss"], rtol=1e-5, atol=1e-7
    )


def test_both_engines_agree_on_datasets_of_different_sizes():
    model = compiled(dense())
    datasets = ((X, Y), (X[:17], Y[:17]), tf.data.Dataset.from_tensor_slices((X, Y)).batch(9))
    for first, second in zip(
        *(
            evaluate_lines(model, datasets, number_of_points=5, seed=0, engine=engine, verbose=0)
            for engine in ("evaluate", "compiled")
        ),
        strict=True,
    ):
        np.testing.assert_allclose(second.values["loss"], first.values["loss"], rtol=1e-5)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_between_chunks_leaves_the_model_alone(monkeypatch):
    model = compiled(dense())
    before = model.get_weights()
    monkeypatch.setattr("losslandscape.measuring.engines.CHUNK", 4)
    advance, counts = Progress.advance, []

    def interrupt_once(progress, number, value):
        advance(progress, number, value)
        counts.append(number)
        if len(counts) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "advance", interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        evaluate_line(model, X, Y, 100, engine="compiled")
    assert sum(counts) < 100
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def irregular():
    return tf.data.Dataset.from_generator(
        lambda: ((X[:n], Y[:n]) for n in (3, 7, 5)),
        output_signature=(tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64)),
    )


class OwnEvaluate(keras.Sequential):
    def evaluate(self, *arguments, **options):
        return {name: 2 * v for name, v in super().evaluate(*arguments, **options).items()}


OBSTACLES = {
    "the model runs eagerly": lambda: (compiled(dense(), run_eagerly=True), (X, Y)),
    r"the batches of \['dataset'\] differ": lambda: (compiled(dense()), irregular()),
    "custom `evaluate`": lambda: (compiled(dense(OwnEvaluate)), (X, Y)),
}


@pytest.mark.parametrize("reason", OBSTACLES)
def test_where_the_compiled_engine_does_not_apply_auto_evaluates(reason):
    model, data = OBSTACLES[reason]()
    with pytest.raises(ValueError, match=f"`engine='compiled'` does not apply: .*{reason}"):
        evaluate_line(model, data, engine="compiled", verbose=0)
    # Enough points that they would otherwise be compiled.
    auto, evaluated = (
        evaluate_line(model, data, number_of_points=31, seed=0, engine=engine, verbose=0)
        for engine in ("auto", "evaluate")
    )
    np.testing.assert_array_equal(auto.values["loss"], evaluated.values["loss"])
    assert auto.metadata["engine"] == evaluated.metadata["engine"] == "evaluate"
    assert re.search(reason, auto.metadata["not_compiled"])
    assert "not_compiled" not in evaluated.metadata


@pytest.mark.parametrize(("number_of_points", "engine"), [(2, "evaluate"), (40, "compiled")])
def test_auto_compiles_an_ordinary_model_where_it_pays_off(number_of_points, engine):
    two_headed_data = {"a": X, "b": X[:, :2]}, {"label": Y, "value": X[:, 0]}
    for model, data in ((compiled(dense()), (X, Y)), (two_headed_network(), two_headed_data)):
        line = evaluate_line(model, data, None, number_of_points, verbose=0)
        assert line.metadata["engine"] == engine
        assert "not_compiled" not in line.metadata


@pytest.mark.parametrize(("depth", "points"), [(1, 26), (10, 35), (100, 125)])
def test_the_more_weights_the_more_points_a_graph_needs_to_pay_off(depth, points):
    model = keras.Sequential([keras.Input((2,)), *(layers.Dense(2) for _ in range(depth))])
    assert [*candidates("auto", model, points - 1)] == ["evaluate"]
    assert [*candidates("auto", model, points)] == ["compiled", "evaluate"]
    assert [*candidates("compiled", model, 1)] == ["compiled"]


def test_data_beyond_the_budget_are_not_compiled(monkeypatch):
    monkeypatch.setattr("losslandscape.measuring.engines.DATA_BUDGET", 1000)
    # 50 samples of four floats and one label of eight bytes.
    with pytest.raises(ValueError, match="the data take 1,200 bytes, more than the 1,000"):
        evaluate_line(compiled(dense()), X, Y, engine="compiled", verbose=0)


def test_large_random_directions_are_drawn_at_each_point_with_the_same_bits(
    model, data, monkeypatch
):
    options = {"number_of_points": 3, "seed": 0, "verbose": 0}
    several = {"number_of_directions": 3, **options}
    expected = evaluate_lines(model, data, **several), evaluate_surfaces(model, data, **options)
    monkeypatch.setattr(engines, "LARGE", 0)
    found = evaluate_lines(model, data, **several), evaluate_surfaces(model, data, **options)
    for ones, others in zip(found, expected, strict=True):
        for one, other in zip(ones, others, strict=True):
            np.testing.assert_array_equal(one.values["loss"], other.values["loss"])
            assert one.metadata["memory"] == "one weight of a direction at a time"
            assert "memory" not in other.metadata
    surface = evaluate_surface(model, *data, 6, seed=0, verbose=0)
    assert surface.metadata["engine"] == "evaluate"
    assert "so large that directions are drawn" in surface.metadata["not_compiled"]


def test_streamed_data_give_the_bits_of_data_in_memory(monkeypatch, tmp_path):
    model = compiled(dense())
    pipeline = tf.data.Dataset.from_tensor_slices((X, Y)).batch(20)
    options = {"number_of_points": 31, "seed": 0, "verbose": 0}
    line = evaluate_line(model, pipeline, engine="evaluate", **options)
    product = Hessian(model, pipeline, verbose=0).product(random_directions(model, seed=0)[0])
    saved = evaluate_line(model, pipeline, checkpoint=tmp_path / "line.h5", **options)
    monkeypatch.setattr("losslandscape.measuring.datasets.SHARE", 0)
    streamed = evaluate_line(model, pipeline, **options)
    for name, values in line.values.items():
        np.testing.assert_array_equal(streamed.values[name], values)
    assert streamed.metadata["streamed"]
    assert streamed.metadata["dataset_size"] == 50
    assert "['dataset'] does not fit into memory" in streamed.metadata["not_compiled"]
    assert "streamed" not in line.metadata
    again = Hessian(model, pipeline, verbose=0).product(random_directions(model, seed=0)[0])
    for one, other in zip(again, product, strict=True):
        np.testing.assert_array_equal(one, other)
    # What was begun on a machine with more memory goes on here.
    resumed = evaluate_line(model, pipeline, checkpoint=tmp_path / "line.h5", **options)
    np.testing.assert_array_equal(resumed.values["loss"], saved.values["loss"])
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="`executor` needs"):
        evaluate_line(model, pipeline, executor=executor, **options)


def test_a_model_that_fails_in_a_graph_is_evaluated():
    class Remembering(keras.Sequential):
        def reset_metrics(self):
            self.total = np.array(self.metrics_variables[0])
            super().reset_metrics()

    model = compiled(dense(Remembering))
    with pytest.raises(NotImplementedError, match="eager execution"):
        evaluate_line(model, X, Y, engine="compiled", verbose=0)
    auto, evaluated = (
        evaluate_line(model, X, Y, 31, seed=0, engine=engine, verbose=0)
        for engine in ("auto", "evaluate")
    )
    np.testing.assert_array_equal(auto.values["loss"], evaluated.values["loss"])


def test_many_calls_cause_no_retracing_warnings(caplog):
    model = compiled(dense())
    with caplog.at_level("WARNING", logger="tensorflow"):
        for _ in range(6):
            evaluate_line(model, X, Y, 2, engine="evaluate", verbose=0)
            evaluate_line(model, X, Y, 2, engine="compiled", verbose=0)
            Hessian(model, X, Y).trace(2)
    assert not [record for record in caplog.records if "retracing" in record.getMessage()]
