"""State: every point starts from the same one, and all of it is restored."""

import contextvars
import dataclasses
import functools
import random
import types
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from losslandscape import evaluate_line, evaluate_surface, random_directions
from losslandscape.measuring.references import variables_of
from losslandscape.measuring.state import preserved

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 1)).astype("float32")
ALPHAS = np.linspace(-1, 1, 27)


def network(*before, loss="mse", **options):
    model = keras.Sequential([keras.Input((4,)), *before, layers.Dense(1)])
    model.compile("sgd", loss, **options)
    return model


class Noise(layers.Layer):
    """Adds random numbers without a seed, which come from Keras' global generator."""

    def call(self, inputs):
        return inputs + 0.1 * keras.random.normal(ops.shape(inputs))


class SeededNoise(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(3)

    def call(self, inputs):
        return inputs + 0.1 * keras.random.normal(ops.shape(inputs), seed=self.seed)


class Hoarding(layers.Layer):
    """Keeps a TensorFlow variable and generator where Keras does not look."""

    def __init__(self):
        super().__init__()
        self.things = {"kept": [tf.Variable(1.0), tf.random.Generator.from_seed(1)]}

    def call(self, inputs):
        variable, generator = self.things["kept"]
        variable.assign(variable * 1.1)
        return inputs * variable + 0.1 * generator.normal(tf.shape(inputs))


class Module(tf.Module):
    """TensorFlow puts the dict of a module into a proxy."""

    def __init__(self):
        super().__init__()
        self.things = {"factor": tf.Variable(1.0)}


class UsingAModule(layers.Layer):
    def __init__(self):
        super().__init__()
        self.module = Module()

    def call(self, inputs):
        factor = self.module.things["factor"]
        factor.assign(factor * 1.1)
        return inputs * factor


GLOBAL_COUNTER = tf.Variable(0.0)


def loss_with_a_global(y, output):
    GLOBAL_COUNTER.assign_add(1.0)
    return ops.mean((y - output) ** 2) * (1 + 0.1 * GLOBAL_COUNTER)


def loss_with_a_closure():
    counter = tf.Variable(0.0)

    def loss(factor, y, output):
        def count():
            return counter.assign_add(1.0)

        return ops.mean((y - output) ** 2) * (1 + factor * count())

    # As users bind weights to their losses.
    return functools.partial(loss, 0.1)


class Registry:
    class Inner:
        counter = tf.Variable(0.0)


@dataclasses.dataclass(slots=True)
class Slots:
    counter: tf.Variable


def by_attribute():
    return by_attribute.counter


by_attribute.counter = tf.Variable(0.0)
MODULE, SLOTS = types.ModuleType("settings"), Slots(tf.Variable(0.0))
MODULE.inner = types.ModuleType("settings.inner")
MODULE.inner.counter = tf.Variable(0.0)
PROXY = types.MappingProxyType({"counter": tf.Variable(0.0)})
CONTEXT = contextvars.ContextVar("counter")
CONTEXT.set(tf.Variable(0.0))
# Where else code finds a variable.
HOLDERS = {
    "variable in a class": lambda: Registry.Inner.counter,
    "variable in a module": lambda: MODULE.inner.counter,
    "variable in slots": lambda: SLOTS.counter,
    "variable in a function": by_attribute,
    "variable in a mapping": lambda: PROXY["counter"],
    "variable in a context": CONTEXT.get,
}


def counting(counter):
    def loss(y, output):
        return ops.mean((y - output) ** 2) * (1 + 0.1 * counter().assign_add(1.0))

    return network(loss=loss)


class OwnStep(keras.Sequential):
    """Adapts to the data when tested: changes the weights and the optimizer, and sums losses."""

    def test_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean((self(x) - y) ** 2)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.losses_seen.assign_add(loss)
        return {"loss": loss, "seen": self.losses_seen + 0.0}


def adapting():
    model = OwnStep([keras.Input((4,)), layers.Dense(1)])
    model.losses_seen = tf.Variable(0.0)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def stateful(cell):
    model = keras.Sequential(
        [keras.Input(batch_shape=(4, 4, 1)), cell(3, stateful=True), layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    return model


MODELS = {
    "random numbers and variables of layers": lambda: network(
        Noise(), SeededNoise(), Hoarding(), UsingAModule()
    ),
    "variables of a loss and of a metric": lambda: network(
        loss=loss_with_a_global, metrics=[loss_with_a_closure()]
    ),
    "own test step": adapting,
    "bidirectional": lambda: stateful(
        lambda units, **options: layers.Bidirectional(layers.SimpleRNN(units, **options))
    ),
    "NumPy": lambda: network(
        loss=lambda y, output: ops.mean((y - output) ** 2) * np.random.uniform(),  # noqa: NPY002
        run_eagerly=True,
    ),
}


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_variable_is_given_back_whatever_holds_it(holder, engine):
    counter = HOLDERS[holder]
    model = counting(counter)
    counter().assign(4.0)
    line = evaluate_line(model, X, Y, 3, seed=0, engine=engine, verbose=0)
    assert counter().numpy() == 4
    # The center is measured after the first point, and as if it had been the only one.
    expected = 1.5 * np.mean((model.predict(X, verbose=0) - Y) ** 2)
    np.testing.assert_allclose(line.values["loss"][0, 1], expected, rtol=1e-5)


def test_what_normalizes_the_inputs_is_restored():
    normalization = layers.Normalization()
    normalization.adapt(X)
    model = network(normalization)
    before = model.predict(X, verbose=0)
    with preserved(model):
        # Sets variables, and constants made of them.
        normalization.adapt(10 * X)
    model.predict_function = None
    np.testing.assert_array_equal(model.predict(X, verbose=0), before)


def test_what_refuses_to_be_looked_at_is_passed_over():
    counter = tf.Variable(0.0)
    held = [weakref.proxy(Registry()), counter]
    model = network(loss=lambda y, output: len(held) * ops.mean((y - output) ** 2))
    assert any(variable is counter for variable in variables_of(model))


@pytest.mark.parametrize("kind", MODELS)
def test_every_point_starts_from_the_same_state(kind):
    model = MODELS[kind]()
    shape = model.input_shape
    data, batch_size = ((X[..., np.newaxis], Y), 4) if len(shape) == 3 else ((X, Y), 16)
    # Leaves a state other than the initial one.
    model.evaluate(*data, batch_size=batch_size, verbose=0)
    (direction,) = random_directions(model, seed=0)
    flat = [0 * array for array in direction]

    def losses(**options):
        return evaluate_surface(
            model,
            *data,
            directions=[direction, flat],
            batch_size=batch_size,
            verbose=0,
            **options,
        ).values["loss"]

    whole = losses(number_of_points=(27, 2))
    # Nothing changes along a direction of length 0, however many points there are.
    np.testing.assert_allclose(whole[0], whole[1], rtol=1e-6)
    np.testing.assert_allclose(losses(number_of_points=(3, 2))[0], whole[0, ::13], rtol=1e-5)
    assert np.ptp(whole) > 0


@pytest.mark.parametrize("kind", [kind for kind in MODELS if "own" not in kind and kind != "NumPy"])
def test_later_evaluations_give_what_they_would_have_given(kind):
    histories = []
    for looks in (0, 1):
        keras.utils.set_random_seed(0)
        GLOBAL_COUNTER.assign(0)
        model = MODELS[kind]()
        data = (X[..., np.newaxis], Y) if len(model.input_shape) == 3 else (X, Y)
        model.fit(*data, batch_size=4, shuffle=False, verbose=0)
        for number in (3, 27) * looks:
            evaluate_line(model, *data, number, seed=0, batch_size=4, verbose=0)
        after = [model.evaluate(*data, batch_size=4, verbose=0) for _ in range(2)]
        model.fit(*data, batch_size=4, shuffle=False, verbose=0)
        histories.append([*np.ravel(after), *map(np.sum, model.get_weights())])
    np.testing.assert_array_equal(*histories)


def test_a_global_generator_that_did_not_exist_is_not_left_behind():
    drawn = []
    for looks in (0, 1):
        keras.utils.set_random_seed(0)
        model = network(Noise())
        for _ in range(looks):
            evaluate_line(model, X, Y, 3, seed=0, verbose=0)
        drawn.append([ops.convert_to_numpy(keras.random.normal((3,))), random.getstate()])
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    assert drawn[0][1] == drawn[1][1]


def test_the_generators_of_the_process_are_restored():
    model = network()
    states = random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    with preserved(model):
        random.seed(1)
        np.random.uniform()  # noqa: NPY002
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


@pytest.mark.parametrize("number", [3, 27])
def test_a_state_that_cannot_be_restored_is_reported(number):
    class Noisy(layers.Layer):
        def call(self, inputs):
            # TensorFlow's own counter of random numbers, which nothing can reset.
            return inputs + tf.random.normal(tf.shape(inputs))

    model = network(Noisy())
    with pytest.warns(UserWarning, match=r"'loss' was .* at first and .* at the end"):
        line = evaluate_line(model, X, Y, number, verbose=0)
    assert np.isfinite(line.values["loss"]).all()
    # The values are not lost where warnings are errors, either.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.warns(UserWarning, match="uncertain by that much"):
            evaluate_line(model, X, Y, number, verbose=0)


class BadMetric(keras.metrics.Metric):
    def __init__(self):
        super().__init__(name="bad")
        self.total = self.add_variable((), initializer="zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):  # noqa: ARG002
        self.total.assign_add(1.0)

    def result(self):
        raise TypeError("this metric is broken")


@pytest.mark.parametrize("number", [3, 27])
@pytest.mark.parametrize("was_evaluated", [False, True])
def test_the_error_of_a_metric_is_raised_and_the_model_restored(was_evaluated, number):
    model = network(metrics=["mae", BadMetric()])
    if was_evaluated:
        with pytest.raises(TypeError, match="broken"):
            model.evaluate(X, Y, verbose=0)
    before = model.get_weights()
    with pytest.raises(TypeError, match="this metric is broken"):
        evaluate_line(model, X, Y, number, verbose=0)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert all(variable.shape == () for variable in model.metrics_variables)


def test_one_variable_that_fails_does_not_stop_the_restore(model):
    before = model.get_weights()
    first = model.trainable_variables[0]
    assign = first.assign

    def lose(*_):
        raise RuntimeError("lost device")

    def change():
        with preserved(model):
            model.set_weights([weight + 1 for weight in before])
            first.assign = lose

    with pytest.raises(RuntimeError, match="lost device"):
        change()
    first.assign = assign
    for now, then in zip(model.get_weights()[1:], before[1:], strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_graph_that_keras_evaluates_with_is_restored(model, data):
    evaluate_line(model, *data, 3, verbose=0)
    assert model.test_function is None
    model.evaluate(*data, verbose=0)
    graph = model.test_function
    # Targets of another rank, for which the old graph fails.
    evaluate_line(model, data[0], data[1][:, np.newaxis], 3, verbose=0)
    assert model.test_function is graph


def test_a_fit_on_data_frames_does_not_change_the_loss(model, data):
    pandas = pytest.importorskip("pandas")
    frames = pandas.DataFrame(data[0]), pandas.Series(data[1])
    model.fit(*frames, validation_data=frames, verbose=0)
    expected = model.evaluate(*frames, verbose=0)[0]
    for given in (frames, data):
        line = evaluate_line(model, *given, 3, verbose=0)
        np.testing.assert_allclose(line.center["loss"], expected, rtol=1e-5)
    model.fit(*frames, validation_data=frames, verbose=0)
