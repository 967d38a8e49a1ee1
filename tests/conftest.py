import gc
import importlib.util
import os
import signal

import pytest
from browsers import chromium

# Two cores and no GPU are enough; TensorFlow's start-up lines would bury what matters.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Three tests run at a time, for two cores: some wait, for a browser or another process.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["TF_NUM_INTEROP_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
# Pages open in no browser of the one who runs the tests.
os.environ["BROWSER"] = "true"
# Read when Matplotlib is imported.
os.environ["MPLBACKEND"] = "agg"

# What takes seconds to import is imported below: the process that only hands out tests and reads
# this file, too, does without.


def pytest_terminal_summary(terminalreporter):
    """Says what was left out: Torch takes gigabytes, a browser hundreds of MB."""
    if importlib.util.find_spec("torch") is None:
        line = "Torch is not installed, so nothing was tested on it. `make torch-cpu` installs it."
        terminalreporter.write_line(line, yellow=True)
    if chromium() is None:
        line = "There is no Chromium, so no web page was tried in it. `make chromium` installs it."
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(autouse=True, scope="session")
def plain_graphs():
    """What TensorFlow prepares for long runs takes longer than a test runs."""
    import tensorflow as tf
    from tensorflow.python.eager import context
    from tensorflow.python.util import tf_stack

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    # Looked up for every operation of a graph, which takes a seventh of the time to trace it, but
    # only used in TensorFlow's own errors.
    stack = tf_stack.extract_stack()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf_stack, "extract_stack", lambda stacklevel=1: stack)  # noqa: ARG005
        # A new seed makes all operations be set up anew, of which those of Keras have no need.
        patch.setattr(context.pywrap_tfe, "TFE_ContextClearCaches", lambda handle: None)  # noqa: ARG005
        yield


@pytest.fixture(autouse=True, scope="module")
def frozen_imports():
    """Garbage is collected once per file, and never looked for among what is imported."""
    gc.collect()
    gc.freeze()
    # A graph is many objects at once, little of it garbage: to look takes a tenth of the time.
    gc.set_threshold(50_000)


@pytest.fixture(autouse=True)
def fresh_session():
    """Every test starts from the same seed, with no figures or graphs left by another."""
    import keras
    from matplotlib import pyplot as plt

    # Before the test: layers that are made with a file of tests have taken names, too.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    yield
    plt.close("all")


@pytest.fixture
def brief(monkeypatch):
    """Scripts that only have to run train for a fifth of their epochs, and turn in three frames."""
    import keras

    fit = keras.Model.fit

    def fit_briefly(*arguments, epochs=1, **options):
        # A plane takes three records.
        return fit(*arguments, epochs=max(epochs // 5, min(epochs, 3)), **options)

    monkeypatch.setattr(keras.Model, "fit", fit_briefly)
    monkeypatch.setattr("losslandscape.plotting.FRAMES", 3)


@pytest.fixture
def ctrl_c():
    """Ctrl-C acts, even if the shell that runs the tests in the background disabled it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def data():
    """Sixty-four samples of four features in three classes."""
    import numpy as np

    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 4)).astype("float32")
    return x, generator.integers(0, 3, 64)


@pytest.fixture
def model(data):
    """A small classifier with every kind of state, none of it at its initial value."""
    import keras
    import numpy as np
    from keras import layers

    network = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.optimizer.build(network.trainable_variables)
    # Builds the metrics, too.
    network.test_step(data)
    generator = np.random.default_rng(0)
    for variable in [*network.weights, *network.metrics_variables, *network.optimizer.variables]:
        variable.assign(generator.uniform(0.1, 1, variable.shape) * 3)
    return network
