"""Graphs: a second call makes none, and no call uses a stale one."""

import copy
import gc
import pickle
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops

from losslandscape import evaluate_line, evaluate_surface, graphs, random_directions

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(20, 4)).astype("float32")
Y = GENERATOR.normal(size=(20, 1)).astype("float32")
ALPHAS = np.linspace(-1, 1, 4)
ENGINES = ["evaluate", "compiled"]
# Not a list: what is in it would count as what the model refers to, which must stay the same.
TRACED = bytearray()
FACTOR = 1.0


class Scale(layers.Layer):
    """Multiplies by a number, an array, a global and a variable that Keras does not track."""

    def __init__(self):
        super().__init__()
        variable = keras.Variable(1.0)
        self.number, self.array, self.hidden = 1.0, np.ones(2), lambda: variable

    def call(self, inputs):
        return inputs * ops.cast(self.number * self.array[0] * FACTOR, "float32") * self.hidden()


class Powered(keras.losses.Loss):
    power = 2.0

    def call(self, y, output):
        return ops.mean(ops.abs(y - output) ** self.power, axis=-1)


class Counting(keras.Model):
    """Counts how often its test step is traced."""

    def test_step(self, *arguments):
        TRACED.append(1)
        return super().test_step(*arguments)


def network():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, activation="tanh", kernel_regularizer="l2", name="hidden")(inputs)
    model = Counting(inputs, layers.Dense(1, name="out")(Scale()(hidden)))
    model.compile("sgd", Powered(), metrics=["mae"])
    return model


def measure(model, engine, data=(X, Y), directions=None):
    directions = directions or random_directions(model, seed=0)
    options = {"directions": directions, "engine": engine, "verbose": 0}
    return evaluate_line(model, *data, len(ALPHAS), **options).values


def naive(model, data=(X, Y)):
    """The losses from `model.evaluate` alone, with a new graph."""
    model.make_test_function(force=True)
    (direction,), center = random_directions(model, seed=0), model.get_weights()
    steps = {
        id(weight): step for weight, step in zip(model.trainable_weights, direction, strict=True)
    }
    losses = []
    for alpha in ALPHAS:
        moved = zip(model.weights, center, strict=True)
        model.set_weights([value + alpha * steps.get(id(weight), 0) for weight, value in moved])
        losses.append(model.evaluate(*data, verbose=0, return_dict=True)["loss"])
    model.set_weights(center)
    model.test_function = None
    return [losses]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_call_traces_nothing(engine):
    model = network()
    first = measure(model, engine)
    number = len(TRACED)
    second = measure(model, engine)
    np.testing.assert_array_equal(second["loss"], first["loss"])
    # Nor do another number of directions, other values and another fit need a new trace.
    model.set_weights([weight / 2 for weight in model.get_weights()])
    surface = evaluate_surface(model, X[::-1], Y + 1, 3, engine=engine, seed=0, verbose=0)
    assert len(TRACED) == number
    expected = model.evaluate(X[::-1], Y + 1, verbose=0, return_dict=True)
    np.testing.assert_allclose(surface.values["loss"][1, 1], expected["loss"], rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_fitting_evaluating_and_predicting_in_between_costs_no_trace(engine):
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, activity_regularizer="l1")(layers.Dropout(0.5)(inputs))
    model = Counting(inputs, layers.BatchNormalization()(layers.Dense(1)(hidden)))
    model.compile("sgd", "mse", metrics=["mae"])
    measure(model, engine)
    model.fit(X, Y, validation_data=(X, Y), verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    number = len(TRACED)
    values = measure(model, engine)
    assert len(TRACED) == number
    np.testing.assert_allclose(values["loss"], naive(model), rtol=1e-5)


def fit(model):
    model.fit(X, Y, verbose=0)


def recompile(model):
    model.compile("sgd", "mae")


def freeze(model):
    model.get_layer("hidden").trainable = False


def regularize(model):
    model.get_layer("out").kernel.regularizer = keras.regularizers.L2(0.3)


def replace_global(_):
    global FACTOR  # noqa: PLW0603, it is what a notebook would do
    FACTOR = 0.7


def scale(model):
    return next(layer for layer in model.layers if isinstance(layer, Scale))


CHANGES = {
    "weights": fit,
    "an argument of the loss": lambda model: setattr(model.loss, "power", 1.5),
    "another loss": recompile,
    "what is trainable": freeze,
    "the penalty of a weight": regularize,
    "an activation": lambda model: setattr(model.get_layer("hidden"), "activation", ops.sin),
    "a number": lambda model: setattr(scale(model), "number", 2.0),
    "an array in place": lambda model: scale(model).array.__setitem__(0, 3.0),
    "a hidden variable": lambda model: scale(model).hidden().assign(1.5),
    "a global": replace_global,
}


def test_no_change_of_the_model_is_missed(monkeypatch):
    monkeypatch.setitem(globals(), "FACTOR", 1.0)
    model = network()
    before = [measure(model, engine)["loss"] for engine in ENGINES]
    for name, change in CHANGES.items():
        change(model)
        now, expected = [measure(model, engine)["loss"] for engine in ENGINES], naive(model)
        for found, then in zip(now, before, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
            assert np.abs(found - then).max() > 1e-3, name
        before = now


def test_a_method_that_is_replaced_is_not_missed():
    class Local(Counting):
        def test_step(self, *arguments):
            return super().test_step(*arguments)

    model = network()
    model.__class__ = Local
    measure(model, "compiled")
    Local.compute_loss = lambda *_, **__: ops.convert_to_tensor(7.0)
    np.testing.assert_array_equal(measure(model, "compiled")["loss"], np.full((1, 4), 7.0))


@pytest.mark.parametrize("engine", ENGINES)
def test_other_data_are_never_missed(engine):
    model, x, y = network(), X.copy(), Y.copy()
    others = [(X[:13], Y[:13]), (X.astype("float64"), Y > 0), (X, np.repeat(Y, 2, axis=1))]
    measured = [measure(model, engine, data)["loss"] for data in ((x, y), *others)]
    # The same arrays, with other values.
    x *= 2
    y[3] = 9
    measured.append(measure(model, engine, (x, y))["loss"])
    for found, data in zip(measured, ((X, Y), *others, (x, y)), strict=True):
        np.testing.assert_allclose(found, naive(model, data), rtol=1e-5)


def test_random_numbers_without_a_seed_are_the_same_with_a_kept_graph():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", lambda y, output: (y - output) ** 2 + keras.random.uniform(ops.shape(y)))
    runs = []
    for _ in range(3):
        keras.utils.set_random_seed(3)
        runs.append([measure(model, engine)["loss"] for engine in ENGINES])
    np.testing.assert_array_equal(runs[1], runs[0])
    np.testing.assert_array_equal(runs[2], runs[0])
    keras.utils.set_random_seed(4)
    assert np.abs(measure(model, "compiled")["loss"] - runs[0][1]).max() > 1e-3


def test_a_deleted_model_takes_its_graphs_along():
    model = network()
    for engine in ENGINES:
        measure(model, engine)
    references = [weakref.ref(model), weakref.ref(graphs.kept_with(model))]
    del model
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_only_the_latest_graphs_are_kept(monkeypatch):
    monkeypatch.setattr(graphs, "LIMIT", 2)
    model = network()
    for number in (5, 6, 7):
        measure(model, "compiled", (X[:number], Y[:number]))
    assert len(graphs.kept_with(model).graphs) == 2
    number = len(TRACED)
    measure(model, "compiled", (X[:6], Y[:6]))
    assert len(TRACED) == number
    measure(model, "compiled", (X[:5], Y[:5]))
    assert len(TRACED) > number


def test_a_model_with_graphs_is_saved_and_copied_without_them(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    for engine in ENGINES:
        measure(model, engine)
    model.save(tmp_path / "model.keras")
    copies = [
        keras.models.load_model(tmp_path / "model.keras"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        keras.models.clone_model(model),
    ]
    for each in copies[:3]:
        for mine, others in zip(each.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, others)
    assert all(graphs.KEPT not in vars(each) for each in copies)


@pytest.mark.parametrize("number", [18, 20])
def test_the_graph_of_an_earlier_evaluation_is_used(number):
    model, data = network(), (X[:number], Y[:number])
    # Batches of 6, 6 and 6, or of 6, 6, 6 and 2.
    model.evaluate(*data, batch_size=6, verbose=0)
    traced = len(TRACED)
    evaluate_line(model, *data, 3, batch_size=6, engine="evaluate", verbose=0)
    assert len(TRACED) == traced
