"""Backends other than TensorFlow: the same landscape and curvature, and both engines."""

import contextlib
import importlib.util
import io
import os
import subprocess
import sys

import numpy as np

SCRIPT = """
import tempfile
import keras, numpy as np
from keras import layers, ops
from losslandscape import WeightHistory, evaluate_interpolation, evaluate_line
from losslandscape import evaluate_trajectory, plot_loss, plot_loss_3D

def state():
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    return [ops.convert_to_numpy(variable) for variable in variables]

model = keras.Sequential([
    keras.Input((4,)),
    layers.Dense(8, activation="relu", kernel_regularizer="l2"),
    layers.BatchNormalization(),
    layers.Dropout(0.5),
    layers.Dense(3, activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
generator = np.random.default_rng(0)
# Small weights: where softmax saturates, the backends clip the logarithm at different values.
model.set_weights([generator.uniform(0.1, 0.3, weight.shape) for weight in model.get_weights()])
x, y = generator.normal(size=(64, 4)), generator.integers(0, 3, 64)
model.evaluate(x, y, verbose=0)
before = state()
surface = plot_loss_3D(model, ("levels", "3d"), x, y, 5, seed=0, verbose=0).surface
plot_loss(model, ((x, y), (x[:20], y[:20])), verbose=0)
for now, then in zip(state(), before, strict=True):
    np.testing.assert_array_equal(now, then)

# Steps that do not depend on the backend's random numbers.
other = keras.models.clone_model(model)
other.set_weights([weight * 1.5 for weight in model.get_weights()])
ways = [
    evaluate_interpolation(model, other, x, y, 5, statistics=statistics, verbose=0)[0]
    for statistics in ("interpolate", "estimate")
]
models = [model]
for factor in (0.8, 0.9, 1.2):
    models.append(keras.models.clone_model(model))
    models[-1].set_weights([weight**factor for weight in model.get_weights()])
trajectory = evaluate_trajectory(model, models[:0:-1], x, y, 3, verbose=0)
for now, then in zip(state(), before, strict=True):
    np.testing.assert_array_equal(now, then)
# On JAX, sharded weights are recorded, below.
if keras.backend.backend() != "jax":
    history = WeightHistory(tempfile.mkdtemp())
    model.fit(x, y, epochs=3, callbacks=[history], verbose=0)
    assert len(evaluate_trajectory(model, history, x, y, 2, verbose=0).path) == 4
print(surface.metadata["backend"])
for name in ("loss", "data_loss", "accuracy"):
    print(*surface.values[name].ravel(), *ways[0].values[name][0], *trajectory.true_values[name])
"""


# Weights that Keras cuts over four devices: the numbers of a model in one piece, and the same cuts.
SHARDED_SCRIPT = """
import tempfile
import keras, numpy as np
from keras import distribution, layers, ops
from losslandscape import Hessian, WeightHistory, evaluate_interpolation, evaluate_line
from losslandscape import evaluate_trajectory, random_directions
from losslandscape.measuring.engines import on_device

def network():
    model = keras.Sequential([
        keras.Input((4,)),
        layers.Dense(8, "tanh", kernel_regularizer="l2", name="columns"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Dense(3, name="rows"),
    ])
    model.compile("adam", "mse", metrics=["mae"])
    return model

def cuts(array):
    return array.sharding, [shard.data.shape for shard in array.addressable_shards]

def state(model):
    values = [variable.value for variable in (*model.variables, *model.optimizer.variables)]
    return [(ops.convert_to_numpy(value).tobytes(), *cuts(value)) for value in values]

def sharded(device_mesh):
    layout = distribution.LayoutMap(device_mesh)
    layout[".*columns/kernel"], layout[".*rows/kernel"] = (None, "model"), ("model", None)
    layout[".*moving_variance"] = ("model",)
    return distribution.ModelParallel(layout_map=layout, auto_shard_dataset=False)

if keras.backend.backend() == "jax":
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(50, 4)), generator.normal(size=(50, 3))
    mesh = distribution.DeviceMesh((2, 2), ["batch", "model"], distribution.list_devices("cpu"))
    with sharded(mesh).scope():
        model = network()
        # Only its first evaluation builds a model's metrics.
        evaluate_line(model, x, y, 2, verbose=0)
        history = WeightHistory(tempfile.mkdtemp())
        model.fit(x, y, batch_size=50, epochs=3, callbacks=[history], verbose=0)
    one = network()
    one.set_weights(model.get_weights())
    assert [len({str(shard.index) for shard in weight.value.addressable_shards})
            for weight in model.trainable_variables] == [2, 1, 1, 1, 2, 1]
    (direction,) = drawn = random_directions(one, seed=0)
    options = {"seed": 0, "verbose": 0}
    calls = {
        "evaluate": lambda model: evaluate_line(model, x, y, 3, engine="evaluate", **options),
        "compiled": lambda model: evaluate_line(
            model, x, y, 3, engine="compiled", batch_size=4, sampling_error=True, **options
        ),
        "path": lambda model: evaluate_trajectory(model, history.folder, x, y, 2, verbose=0),
        # The other model is in one piece in any case.
        "between": lambda model: evaluate_interpolation(model, one, x, y, 2, verbose=0)[0],
    }
    expected = {name: call(one) for name, call in calls.items()}
    product = Hessian(one, x, y, verbose=0).product(direction)
    with sharded(mesh).scope():
        before = state(model)
        (again,) = random_directions(model, seed=0)
        for array, other in zip(again, direction, strict=True):
            np.testing.assert_array_equal(array, other)
        weights = model.trainable_variables
        for tensor, weight in zip(*on_device(drawn, weights), weights, strict=True):
            assert cuts(tensor) == cuts(weight.value)
        for name, call in calls.items():
            found = call(model)
            for metric, values in expected[name].values.items():
                np.testing.assert_allclose(found.values[metric], values, rtol=1e-5, err_msg=name)
            for metric, errors in expected[name].errors.items():
                np.testing.assert_allclose(found.errors[metric], errors, rtol=1e-3, err_msg=metric)
            assert state(model) == before, name
        assert {"loss", "mae"} <= expected["compiled"].errors.keys()
        for part, other in zip(Hessian(model, x, y).product(direction), product, strict=True):
            np.testing.assert_allclose(part, other, rtol=1e-3, atol=1e-5)
        assert state(model) == before
        try:
            evaluate_line(model, x[:49], y[:49], verbose=0)
        except ValueError as error:
            assert "into 2 equal parts" in str(error) and "49 samples" in str(error), error
        else:
            raise AssertionError
    # In a naive loop.
    for alpha, loss in zip((-1, 0, 1), expected["evaluate"].values["loss"][0], strict=True):
        start = [ops.convert_to_numpy(weight) for weight in one.trainable_variables]
        for weight, center, step in zip(one.trainable_variables, start, direction, strict=True):
            weight.assign(center + alpha * step)
        np.testing.assert_allclose(one.evaluate(x, y, batch_size=50, verbose=0)[0], loss, rtol=1e-5)
        for weight, center in zip(one.trainable_variables, start, strict=True):
            weight.assign(center)
"""


# Both engines on several models, with everything that a test step may involve.
ENGINES_SCRIPT = """
import keras, numpy as np, tensorflow as tf
from keras import layers, ops
from losslandscape import evaluate_line, evaluate_surface

on_torch = keras.backend.backend() == "torch"
of_tensorflow = tf.random.get_global_generator().state.numpy()

class Halved(keras.Model):
    def test_step(self, *arguments):
        result = super().test_step(*arguments)
        logs, *state = result if keras.backend.backend() == "jax" else (result,)
        logs = logs | {"loss": logs["loss"] / 2, "half": logs["loss"] / 2}
        return (logs, *state) if state else logs

class Noise(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), stddev=0.1, seed=self.seeds)

class Counting(layers.Layer):
    def build(self, shape):
        self.calls = self.add_weight(initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add(1)
        return x * self.calls

def network():
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, activation="relu", kernel_regularizer="l2")(inputs)
    hidden = Counting()(Noise()(layers.Dropout(0.5)(hidden)))
    hidden = layers.BatchNormalization()(hidden)
    hidden = layers.Dense(8, activity_regularizer="l1")(hidden)
    return Halved(inputs, layers.Dense(3, activation="softmax", name="one")(hidden))

def sequential(*inner):
    return keras.Sequential([keras.Input((4,)), *inner, layers.Dense(3, "softmax")])

generator = np.random.default_rng(0)
# The last of the batches of 20 is smaller.
x, y = generator.normal(size=(50, 4)), np.eye(3)[generator.integers(0, 3, 50)]
weight = generator.uniform(size=50)
keras.utils.set_random_seed(0)
models = {
    "own test step": network(),
    "half": sequential(layers.Dense(8, "relu", kernel_regularizer="l2", dtype="mixed_float16")),
    "sequence": sequential(layers.Reshape((2, 2)), layers.LSTM(3)),
}
if on_torch:
    import torch
    # Its weights are known to Torch, too.
    models["wrapped"] = sequential(layers.TorchModuleWrapper(torch.nn.Linear(4, 4)))
    models["wrapped"](np.zeros((1, 4)))
for model in models.values():
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", keras.metrics.F1Score()])
first = models["own test step"]
models["two outputs"] = keras.Model(first.input, [first.output, first.layers[-2].output])
models["two outputs"].compile(loss=["categorical_crossentropy", "mse"], loss_weights=[1, 0.5])
# A metric with the name of the loss without penalties.
models["same name"] = sequential(layers.Dense(4, kernel_regularizer="l2"))
models["same name"].compile(loss="mse", metrics=[keras.metrics.MeanAbsoluteError("data_loss")])
for name, model in models.items():
    targets = [y, generator.normal(size=(50, 8))] if name == "two outputs" else y
    before = [ops.convert_to_numpy(variable) for variable in model.variables]
    one, other = (
        evaluate_surface(model, (x, targets, weight), None, 5, seed=0, batch_size=20, engine=engine)
        for engine in ("evaluate", "compiled")
    )
    assert one.values.keys() == other.values.keys()
    for metric in one.values:
        tolerance = 2e-3 if name == "half" else 1e-5
        np.testing.assert_allclose(
            one.values[metric], other.values[metric], rtol=tolerance, err_msg=f"{name}: {metric}"
        )
        assert np.ptp(one.values[metric]) > 0 or "f1" in metric or metric == "accuracy"
    for now, then in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(now), then)
    print(name, *one.values)

# The last batch is smaller.
one, other = (
    evaluate_line(
        models["same name"], (x, y, weight), None, 2, seed=0, batch_size=4, engine=engine,
        sampling_error=True, verbose=0,
    )
    for engine in ("evaluate", "compiled")
)
assert one.errors.keys() == other.errors.keys() == {"loss", "data_loss"}
for metric in one.errors:
    np.testing.assert_allclose(one.errors[metric], other.errors[metric], rtol=1e-3)

# Every call sees a change, also where Keras has a trace of its own, which JAX would share.
factor = {}
model = sequential()
model.compile("sgd", lambda y, output: factor["now"] * ops.square(y - output))
for engine in ("evaluate", "compiled"):
    found = []
    for factor["now"] in (1.0, 10.0):
        line = evaluate_line(model, x, y, 15, seed=0, engine=engine, verbose=0)
        found.append(line.values["loss"])
        if model.test_function is None:
            model.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(found[1], 10 * found[0], rtol=1e-5)

# A few points are not worth a graph.
short = evaluate_line(first, (x, y, weight), None, 5, verbose=0)
assert short.metadata["engine"] == ("compiled" if on_torch else "evaluate")
np.testing.assert_array_equal(tf.random.get_global_generator().state.numpy(), of_tensorflow)
"""


# What differentiates, on a network small enough for a closed form of its loss.
CURVATURE_SCRIPT = """
import keras, numpy as np
from keras import layers, ops
import losslandscape as ll
from losslandscape.curvature.gradients import gradient_direction
from losslandscape.curvature.hessian import evaluate_convexity

class Halved(keras.Model):
    def test_step(self, *arguments):
        result = super().test_step(*arguments)
        logs, *state = result if keras.backend.backend() == "jax" else (result,)
        logs = {name: logs["loss"] / 2 for name in ("loss", "half")}
        return (logs, *state) if state else logs

class Penalized(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **options):
        loss = super().compute_loss(x, y, y_pred, sample_weight, **options)
        return loss + 0.1 * ops.mean(ops.square(y_pred))

# Not an activity regularizer, which is a mean over samples only since Keras 3.14.
class Bounded(layers.Layer):
    def call(self, x):
        self.add_loss(0.01 * ops.mean(ops.square(x)))
        return x

class Memory(layers.Layer):
    def build(self, shape):
        self.last = self.add_weight(name="last", trainable=False)

    def call(self, x):
        self.last.assign(ops.mean(x))
        return x

def compiled(model):
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    values = np.random.default_rng(1)
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(values.uniform(0.2, 0.8, weight.shape))
    return model

def network(kind=keras.Model):
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, "tanh", kernel_regularizer=keras.regularizers.L2(0.01))(inputs)
    return compiled(kind(inputs, layers.Dense(3, "softmax")(hidden)))

def norms():
    inputs = keras.Input((4,))
    hidden = layers.Dropout(0.5)(Bounded()(layers.Dense(4, "tanh")(inputs)))
    hidden = layers.LayerNormalization()(layers.BatchNormalization()(hidden))
    return compiled(Penalized(inputs, layers.Dense(3, "softmax")(hidden)))

def show(name, values):
    print(name, *np.ravel(values))

def flat(direction):
    return np.concatenate([np.ravel(part) for part in direction])

generator = np.random.default_rng(0)
x, y = generator.normal(size=(50, 4)), generator.integers(0, 3, 50)
data = x, y, generator.uniform(size=50)
model = network(Halved)
before = [ops.convert_to_numpy(variable) for variable in model.variables]
directions = ll.random_directions(model, 2, ignore=None, seed=0)
show("direction", flat(directions[0]))
# The last of the batches of 20 is smaller.
hessian = ll.Hessian(model, data, batch_size=20, verbose=0)
show("product", 2 * flat(hessian.product(directions[0])))
values, vectors = hessian.eigenvalues(which="both", seed=0)
show("eigenvalues", 2 * values)
show("eigenvector", flat(vectors[0]) * np.sign(flat(vectors[0])[0]))
options = {"number_of_points": 2, "extent": (0, 0.5), "directions": directions, "verbose": 0}
convexity = evaluate_convexity(model, data, **options)
show("convexity", [2 * convexity.values[name] for name in ("largest", "smallest", "loss")])
show("gradient", flat(gradient_direction(model, data, normalize=None)))
for now, then in zip(model.variables, before, strict=True):
    np.testing.assert_array_equal(ops.convert_to_numpy(now), then)
other = norms()
(direction,) = ll.random_directions(other, ignore=None, seed=0)
show("norms", flat(ll.Hessian(other, data).product(direction)))
state = compiled(keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax"), Memory()]))
try:
    ll.Hessian(state, data, verbose=0).trace()
except ValueError as error:
    assert "passes from batch to batch" in str(error) and "last" in str(error), error
else:
    raise AssertionError
"""


SCRIPTS = {
    "landscape": SCRIPT,
    "curvature": CURVATURE_SCRIPT,
    "engines": ENGINES_SCRIPT,
    "sharded": SHARDED_SCRIPT,
}
# One process for all scripts of a backend, since it takes seconds to start.
ALL = """
for name, script in SCRIPTS.items():
    print("script", name)
    exec(script, {"__name__": "script"})
"""
# JAX takes longer to optimize what it compiles than these scripts to run it.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
DEVICES = "--xla_force_host_platform_device_count=4"
BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]


def shown_on(backend):
    """The lines that each script prints on another backend."""
    flags = {"KERAS_BACKEND": backend, "MPLBACKEND": "agg", "XLA_FLAGS": f"{QUICK} {DEVICES}"}
    environment = os.environ | flags
    command = [sys.executable, "-c", f"SCRIPTS = {SCRIPTS}{ALL}"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    parts = run.stdout.split("script ")[1:]
    return {name: lines for name, *lines in map(str.splitlines, parts)}


def shown_here(name):
    """The lines that a script prints in this process, on TensorFlow."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(SCRIPTS[name], {"__name__": "script"})  # noqa: S102
    return output.getvalue().splitlines()


def landscape(backend, lines):
    name, *values = lines[-4:]
    assert name == backend
    return np.array([line.split() for line in values], dtype=float)


# One test, or two processes would run what TensorFlow shows.
def test_other_backends_give_the_numbers_of_tensorflow_and_of_closed_forms(monkeypatch):
    # Another test may have imported it, and all would be shown as in a notebook.
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    expected = {name: shown_here(name) for name in ("landscape", "curvature")}
    for backend in BACKENDS:
        shown = shown_on(backend)
        assert_landscapes_agree(backend, shown["landscape"], expected["landscape"])
        assert_both_engines_agreed(shown["engines"])
        assert_curvature_agrees_and_is_that_of_the_closed_form(
            shown["curvature"], expected["curvature"]
        )


def assert_landscapes_agree(backend, lines, on_tensorflow):
    found, expected = landscape(backend, lines), landscape("tensorflow", on_tensorflow)
    np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=backend)


def assert_both_engines_agreed(shown):
    assert "half loss data_loss accuracy f1_score_0 f1_score_1 f1_score_2" in shown
    assert any(line.startswith("own test step loss accuracy") and "half" in line for line in shown)
    for name in ("sequence loss", "two outputs loss"):
        assert any(line.startswith(name) for line in shown)


def curvature(lines):
    """What the script shows, by name."""
    return {name: np.array(values, float) for name, *values in map(str.split, lines)}


def loss_in_closed_form(vector):
    """The loss of the script's network on its data, written out in double precision."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(50, 4)), generator.integers(0, 3, 50)
    weight = generator.uniform(size=50)
    kernel, bias, top, offset = np.split(vector, np.cumsum([12, 3, 9]))
    hidden = np.tanh(x @ kernel.reshape(4, 3) + bias)
    scores = hidden @ top.reshape(3, 3) + offset
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(50), y]
    return np.mean(weight * losses) + 0.01 * np.sum(kernel**2)


def hessian_by_differences(function, point, step=1e-3):
    ends = [(i, j, i * j) for i in (step, -step) for j in (step, -step)]
    units = np.eye(len(point))
    values = [
        [sum(ij * function(point + i * one + j * other) for i, j, ij in ends) for other in units]
        for one in units
    ]
    return np.array(values) / (4 * step**4)


def assert_curvature_agrees_and_is_that_of_the_closed_form(lines, on_tensorflow):
    shown, expected = curvature(lines), curvature(on_tensorflow)
    assert shown.keys() == expected.keys()
    for name, values in expected.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(shown[name], values, rtol=1e-3, atol=1e-4 * scale, err_msg=name)
    assert_of_the_closed_form(shown)
    assert_of_the_closed_form(expected)


def assert_of_the_closed_form(shown):
    generator = np.random.default_rng(1)
    shapes = (4, 3), (3,), (3, 3), (3,)
    point = np.concatenate([generator.uniform(0.2, 0.8, shape).ravel() for shape in shapes])
    hessian = hessian_by_differences(loss_in_closed_form, point)
    product = hessian @ shown["direction"]
    np.testing.assert_allclose(shown["product"], product, rtol=1e-3, atol=1e-5)
    values, vectors = np.linalg.eigh(hessian)
    np.testing.assert_allclose(shown["eigenvalues"], values[[-1, 0]], rtol=1e-3)
    assert abs(shown["eigenvector"] @ vectors[:, -1]) > 0.9999
    # The first point of the plane is the model itself.
    np.testing.assert_allclose(shown["convexity"][:5:4], values[[-1, 0]], rtol=1e-3)
    units = 1e-5 * np.eye(len(point))
    slopes = np.array(
        [loss_in_closed_form(point + unit) - loss_in_closed_form(point - unit) for unit in units]
    )
    expected = np.sqrt(len(point)) * slopes / np.linalg.norm(slopes)
    np.testing.assert_allclose(shown["gradient"], expected, rtol=1e-3, atol=1e-4)
