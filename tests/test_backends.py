"""Other backends than TensorFlow: the same landscape through the `evaluate` engine."""

import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import keras, numpy as np
from keras import layers, ops
from losslandscape import evaluate_line, plot_loss, plot_loss_3D

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
# Small weights: where softmax saturates, the backends cut the logarithm at different places.
model.set_weights([generator.uniform(0.1, 0.3, weight.shape) for weight in model.get_weights()])
x, y = generator.normal(size=(64, 4)), generator.integers(0, 3, 64)
model.evaluate(x, y, verbose=0)
before = state()
surface = plot_loss_3D(model, ("levels", "3d"), x, y, 5, seed=0, verbose=0).surface
plot_loss(model, ((x, y), (x[:20], y[:20])), verbose=0)
for now, then in zip(state(), before, strict=True):
    np.testing.assert_array_equal(now, then)
model.fit(x, y, verbose=0)
if keras.backend.backend() != "tensorflow":
    try:
        evaluate_line(model, x, y, engine="compiled")
    except ValueError as error:
        assert "it needs the TensorFlow backend, and this is " in str(error)
print(surface.metadata["backend"])
for name in ("loss", "data_loss", "accuracy"):
    print(*surface.values[name].ravel())
"""


def landscape(backend):
    environment = os.environ | {"KERAS_BACKEND": backend, "MPLBACKEND": "agg"}
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    name, *values = run.stdout.splitlines()[-4:]
    assert name == backend
    return np.array([line.split() for line in values], dtype=float)


# `make test` takes JAX alone, since Torch's usual build is several gigabytes: `make test-torch`.
BACKENDS = os.environ.get("LOSSLANDSCAPE_BACKENDS", "jax").split(",")


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_backends_show_the_same_landscape_as_tensorflow(backend):
    np.testing.assert_allclose(landscape(backend), landscape("tensorflow"), rtol=1e-4)
