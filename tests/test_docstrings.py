"""Docstrings: each example runs and prints what it shows."""

import ast
import builtins
import doctest
import functools
import importlib
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from modules import MODULES, public_names
from sklearn.datasets import load_iris

from losslandscape import (
    Comparison,
    LossDisplay,
    WeightHistory,
    evaluate_barriers,
    evaluate_line,
    evaluate_surface,
    evaluate_trajectory,
    plot_levels,
)

ROOT = Path(__file__).parent.parent
IMPORTED = [
    importlib.import_module(f"losslandscape.{name}".removesuffix(".losslandscape"))
    for name in MODULES
    # Each needs the backend of its name.
    if not name.startswith("backends.on_")
]
EXAMPLES = [found for module in IMPORTED for found in doctest.DocTestFinder().find(module)]
EXAMPLES = [found for found in EXAMPLES if found.examples]
ORDER = np.random.default_rng(0).permutation(150)
# Files that examples load, and the fixture whose value each holds.
FILES = {"resnet56.h5": "surface", "training.h5": "trajectory", "batches.h5": "comparison"}


class Checker(doctest.OutputChecker):
    """Compares the output that an example shows, if any, ignoring the digits of decimals."""

    def check_output(self, want, got, optionflags):
        """Accepts other decimals, which depend on the training, but not another sign."""
        decimals = re.compile(r"\d+\.\d+")
        want, got = decimals.sub("0.0", want), decimals.sub("0.0", got)
        return not want or super().check_output(want, got, optionflags)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda found: found.name)
def test_example(example, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "".join(statement.source for statement in example.examples)
    for file, value in FILES.items():
        if f'.load("{file}")' in source:
            request.getfixturevalue(value).save(file)
    public = public_names()
    given = {name: request.getfixturevalue(name) for name in missing_names(source, public)}
    example.globs = public | given
    messages = []
    runner = doctest.DocTestRunner(Checker(), optionflags=doctest.ELLIPSIS)
    failures, _ = runner.run(example, out=messages.append)
    assert not failures, "".join(messages)


def test_the_first_screen_of_help_ends_after_the_example():
    late = []
    for name, public in public_names().items():
        lines = (inspect.getdoc(public) or "").splitlines()
        example = [number for number, line in enumerate(lines) if line.startswith((">>>", "..."))]
        if example and example[-1] >= 24:
            late.append(name)
    assert late == []


def missing_names(source, known):
    """Names that an example does not define itself: the fixtures below."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    made = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return {name.id for name in names} - made - set(known) - set(dir(builtins))


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    """Progress bars would mix with the output of the examples."""
    monkeypatch.setattr(keras.utils.Progbar, "update", lambda *_, **__: None)


def standardized(features):
    return (features - features.mean(axis=0)) / features.std(axis=0)


@pytest.fixture(scope="module")
def x():
    """Iris: features of mean 0 and standard deviation 1, in random order."""
    return standardized(load_iris().data)[ORDER]


@pytest.fixture(scope="module")
def y():
    return load_iris().target[ORDER]


@pytest.fixture(scope="module")
def x_train(x):
    return x[:100]


@pytest.fixture(scope="module")
def y_train(y):
    return y[:100]


@pytest.fixture(scope="module")
def x_test(x):
    return x[100:]


@pytest.fixture(scope="module")
def y_test(y):
    return y[100:]


def network():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-3)),
            layers.Dense(3, activation="softmax"),
        ]
    )
    # Compiling with XLA would take longer than everything else.
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"], jit_compile=False)
    return model


@functools.cache
def trained_weights(batch_size):
    """Trains once for all tests, from the same start."""
    keras.utils.set_random_seed(0)
    model = network()
    data = load_iris(return_X_y=True)
    x, y = standardized(data[0])[ORDER][:100], data[1][ORDER][:100]
    # Epoch by epoch, or `brief` would leave out most of them.
    for _ in range(10):
        model.fit(x, y, batch_size=batch_size, verbose=0)
    return model.get_weights()


def trained(batch_size):
    model = network()
    model.set_weights(trained_weights(batch_size))
    return model


@pytest.fixture
def model():
    return trained(32)


@pytest.fixture
def others(model):
    return [weight * 0.9 for weight in model.get_weights()]


@pytest.fixture
def small_batch():
    return trained(16)


@pytest.fixture
def large_batch():
    return trained(100)


# What was measured is never changed, so all examples share it.


@pytest.fixture(scope="module")
def line(x_test, y_test):
    return evaluate_line(trained(32), x_test, y_test, 5, number_of_directions=3, seed=0)


@pytest.fixture(scope="module")
def small_batch_line(x_test, y_test):
    return evaluate_line(trained(16), x_test, y_test, 5, seed=0)


@pytest.fixture(scope="module")
def large_batch_line(x_test, y_test):
    return evaluate_line(trained(100), x_test, y_test, 5, seed=0)


@pytest.fixture(scope="module")
def comparison(small_batch_line, large_batch_line):
    return Comparison.of({"batch 16": small_batch_line, "batch 100": large_batch_line}, rise=0.1)


@pytest.fixture(scope="module")
def barriers(x_test, y_test):
    models = list(map(trained, (32, 16, 100)))
    return evaluate_barriers(models, x_test, y_test)


@pytest.fixture(scope="module")
def surface(x, y):
    return evaluate_surface(trained(32), x, y, 5, extent=(-0.2, 0.2), seed=0)


@pytest.fixture(scope="module")
def resnet(surface):
    return surface


@pytest.fixture(scope="module")
def vgg(x_test, y_test):
    return evaluate_surface(trained(16), x_test, y_test, 5, seed=0)


@pytest.fixture
def display(surface):
    return LossDisplay(surfaces=[surface], axes={"levels": plot_levels(surface)})


@pytest.fixture(scope="module")
def trajectory(x_train, y_train, tmp_path_factory):
    model, history = trained(32), WeightHistory(tmp_path_factory.mktemp("epochs"))
    model.fit(x_train, y_train, epochs=3, callbacks=[history], verbose=0)
    return evaluate_trajectory(model, history, x_train, y_train, 5)


@pytest.fixture
def small_history():
    start = network()
    return [start, trained(100), trained(16)]


@pytest.fixture
def large_history(small_history):
    start, end, _ = small_history
    return [start, end]


class OutputFirstDenseLayer(layers.Layer):
    """A layer whose kernel has one row per output."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(3, input_shape[-1]), name="kernel")
        self.gain = self.add_weight(shape=(3,), name="gain")


@pytest.fixture
def OutputFirstDense():
    return OutputFirstDenseLayer
