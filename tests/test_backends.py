"""Backends other than TensorFlow: the same landscape, and both engines agree on JAX."""

import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import tempfile
import keras, numpy as np
from keras import layers, ops
from losslandscape import WeightHistory, evaluate_interpolation, evaluate_line, evaluate_trajectory
from losslandscape import plot_loss, plot_loss_3D

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
    evaluate_interpolation(model, other, (x, y), 5, statistics=statistics, verbose=0)[0]
    for statistics in ("interpolate", "estimate")
]
models = [model]
for factor in (0.8, 0.9, 1.2):
    models.append(keras.models.clone_model(model))
    models[-1].set_weights([weight**factor for weight in model.get_weights()])
trajectory = evaluate_trajectory(model, models[:0:-1], x, y, 3, verbose=0)
for now, then in zip(state(), before, strict=True):
    np.testing.assert_array_equal(now, then)
history = WeightHistory(tempfile.mkdtemp())
model.fit(x, y, epochs=3, callbacks=[history], verbose=0)
assert len(evaluate_trajectory(model, history, x, y, 2, verbose=0).path) == 4
if keras.backend.backend() == "torch":
    try:
        evaluate_line(model, x, y, engine="compiled")
    except ValueError as error:
        assert "it needs the TensorFlow or the JAX backend, not torch" in str(error)
print(surface.metadata["backend"])
for name in ("loss", "data_loss", "accuracy"):
    print(*surface.values[name].ravel(), *ways[0].values[name][0], *trajectory.true_values[name])
"""


# Both engines on several models, with everything that a test step may involve.
ENGINES_SCRIPT = """
import keras, numpy as np
from keras import layers, ops
from losslandscape import evaluate_surface

class Halved(keras.Model):
    def test_step(self, state, data):
        logs, state = super().test_step(state, data)
        return logs | {"loss": logs["loss"] / 2, "half": logs["loss"] / 2}, state

def network(kind=keras.Model, policy="float32"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, activation="relu", kernel_regularizer="l2", dtype=policy)(inputs)
    hidden = layers.BatchNormalization(dtype=policy)(layers.Dropout(0.5, dtype=policy)(hidden))
    hidden = layers.Dense(8, activity_regularizer="l1", dtype=policy)(hidden)
    return kind(inputs, layers.Dense(3, activation="softmax", name="one")(hidden))

generator = np.random.default_rng(0)
# The last of the batches of 20 is smaller.
x, y = generator.normal(size=(50, 4)), np.eye(3)[generator.integers(0, 3, 50)]
weight = generator.uniform(size=50)
models = {"plain": network(), "own test step": network(Halved)}
models["half"] = network(policy="mixed_float16")
for model in models.values():
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", keras.metrics.F1Score()])
plain = models["plain"]
models["two outputs"] = keras.Model(plain.input, [plain.output, plain.layers[-2].output])
models["two outputs"].compile(loss=["categorical_crossentropy", "mse"], loss_weights=[1, 0.5])
for name, model in models.items():
    targets = [y, generator.normal(size=(50, 8))] if name == "two outputs" else y
    before = [ops.convert_to_numpy(variable) for variable in model.variables]
    one, other = (
        evaluate_surface(model, (x, targets, weight), None, 3, seed=0, batch_size=20, engine=engine)
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
"""


def run_on(backend, script):
    environment = os.environ | {"KERAS_BACKEND": backend, "MPLBACKEND": "agg"}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def landscape(backend):
    name, *values = run_on(backend, SCRIPT)[-4:]
    assert name == backend
    return np.array([line.split() for line in values], dtype=float)


# `make test` takes only JAX, since Torch takes several gigabytes: for it, `make test-torch`.
BACKENDS = os.environ.get("LOSSLANDSCAPE_BACKENDS", "jax").split(",")


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_backends_show_the_same_landscape_as_tensorflow(backend):
    np.testing.assert_allclose(landscape(backend), landscape("tensorflow"), rtol=1e-4)


def test_both_engines_agree_on_jax():
    shown = run_on("jax", ENGINES_SCRIPT)
    assert "plain loss data_loss accuracy f1_score_0 f1_score_1 f1_score_2" in shown
    assert any(line.startswith("own test step loss accuracy") and "half" in line for line in shown)
    assert any(line.startswith("half loss") for line in shown)
    assert any(line.startswith("two outputs loss") for line in shown)
