"""What two models must have in common, so that the weights of one can be put into the other."""

import dataclasses
import functools
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from losslandscape import (
    direction_between,
    evaluate_barriers,
    evaluate_curve,
    evaluate_interpolation,
    evaluate_plane,
    fit_curve,
)
from losslandscape.basics.architecture import check_same_settings
from losslandscape.paths.alignment import match_weights
from losslandscape.paths.trajectory import read_history

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
WORDS = np.array([["a"], ["b"]] * 8)


def network(*front, activation="tanh", inputs=(4,), back=(), **options):
    ends = [layers.Flatten(), layers.Dense(3, activation, **options), *back, layers.Dense(1)]
    model = keras.Sequential([keras.Input(inputs), *front, *ends])
    model.compile("sgd", "mse")
    return model


def words(layer, adapted=None):
    if adapted is not None:
        layer.adapt(adapted)
    front = [layer, layers.Embedding(8, 3)]
    return keras.Sequential([keras.Input((1,), dtype="string"), *front, layers.Dense(1)])


def lookup(vocabulary):
    return words(layers.StringLookup(vocabulary=vocabulary))


class Tempered(layers.Layer):
    """A layer whose configuration leaves out what it computes with."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def get_config(self):
        return layers.Layer.get_config(self)

    def call(self, x):
        return x


@dataclasses.dataclass(slots=True)
class Options:
    temperature: float


class Subclassed(keras.Model):
    def __init__(self, temperature, kind):
        super().__init__()
        self.dense = layers.Dense(1)
        self._options = kind(temperature=temperature)
        self(X)

    def call(self, x):
        return self.dense(x) / self._options.temperature


def functional(*, skips=False, factor=2.0):
    inputs = keras.Input((4,))
    hidden = layers.Dense(4, "tanh")(inputs)
    outputs = layers.Dense(4)(hidden) + factor * (inputs if skips else hidden)
    return keras.Model(inputs, outputs)


def sliced(start=0):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1)(inputs[:, start : start + 2]))


def table(values):
    keys = tf.constant(["a", "b"])
    initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.constant(values))
    return tf.lookup.StaticHashTable(initializer, 0)


def tempered(**attributes):
    return network(Tempered(**attributes))


def times(factor):
    return lambda x: factor * x


DIFFERENT = {
    "activation": (network, {"activation": "relu"}, "'activation'.*relu instead of tanh"),
    "regularizer": (network, {"kernel_regularizer": "l2"}, "'kernel_regularizer'"),
    "precision": (network, {"dtype": "float16"}, "'dtype'.*'float16' instead of 'float32'"),
    "constant": (
        lambda scale=1.0: network(layers.Rescaling(scale)),
        {"scale": 0.5},
        "'scale' in layer 'rescaling.*: 0.5 instead of 1.0",
    ),
    "epsilon": (
        lambda epsilon=1e-3: network(back=[layers.BatchNormalization(epsilon=epsilon)]),
        {"epsilon": 1.0},
        "'epsilon' in layer 'batch_norm",
    ),
    "salt": (lambda salt=1: words(layers.Hashing(8, salt=salt)), {"salt": 2}, "'salt'"),
    "bins": (
        lambda edge=1.0: network(layers.Discretization([edge, 2.0])),
        {"edge": 0.5},
        r"'bin_boundaries'.*\[0.5, 2.0\]",
    ),
    "vocabulary": (
        lambda *vocabulary: lookup(vocabulary or ["a", "b"]),
        ("b", "a"),
        "'vocabulary'.*'b', 'a'.*instead of.*'a', 'b'",
    ),
    "adapted vocabulary": (
        lambda *text: words(layers.StringLookup(), [*text, "a", "b", "b"]),
        ("a", "a"),
        "'vocabulary' in layer 'string_lookup",
    ),
    "lambda": (
        lambda number=2: network(layers.Lambda(eval(f"lambda x: {number} * x"))),  # noqa: S307
        {"number": 3},
        "'function' in layer 'lambda",
    ),
    "closure": (
        lambda factor=1.0: network(layers.Lambda(times(factor))),
        {"factor": 2.0},
        "'function' in layer 'lambda",
    ),
    "array": (lambda value=1.0: tempered(t=np.full(3, value)), {"value": 2.0}, "'t'.*instead of"),
    "tensor": (lambda value=1.0: tempered(t=ops.full([3], value)), {"value": 2.0}, "'t' in layer"),
    "untracked variable": (lambda value=1.0: tempered(t=tf.Variable(value)), {"value": 2.0}, "'t'"),
    "table": (lambda *values: tempered(t=table(values or [1, 2])), (2, 1), "'t' in layer"),
    "partial": (
        lambda factor=1: tempered(t=functools.partial(times, factor)),
        {"factor": 2},
        "'t' in layer",
    ),
    "object": (
        lambda temperature=1.0: Subclassed(temperature, types.SimpleNamespace),
        {"temperature": 2.0},
        "'_options' in layer 'subclassed",
    ),
    "slots": (
        lambda temperature=1.0: Subclassed(temperature, Options),
        {"temperature": 2.0},
        "'_options' in layer 'subclassed",
    ),
    "number between layers": (functional, {"factor": 3.0}, "other connections"),
    "slice": (
        lambda start=0: keras.Model(
            x := keras.Input((4,)), layers.Dense(1)(x[:, start : start + 2])
        ),
        {"start": 2},
        "other connections",
    ),
    "connection": (functional, {"skips": True}, "other connections"),
    "layer": (
        lambda kind=layers.ReLU: network(back=[kind()]),
        {"kind": layers.ELU},
        r"layer 'elu.*' \(ELU\) in the place of layer 're_lu.*' \(ReLU\)",
    ),
    "one layer more": (network, {"back": [layers.ReLU()]}, "layer 're_lu.*in the place of layer"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_named(case):
    make, change, message = DIFFERENT[case]
    model, twin = make(), make()
    other = make(**change) if isinstance(change, dict) else make(*change)
    check_same_settings(model, twin)
    with pytest.raises(ValueError, match=f"`other` must have.*Received .*{message}.*set_weights"):
        check_same_settings(model, other)


def test_names_seeds_and_how_weights_began_may_differ():
    def make(seed, *, is_other=False):
        first = layers.Dense(3, kernel_initializer="zeros" if is_other else "ones")
        first.trainable = not is_other
        inputs = keras.Input((4,), batch_size=2 if is_other else None)
        parts = [inputs, first, layers.Dropout(0.5, seed=seed), layers.Dense(1)]
        return keras.Sequential(parts, name=f"network-{seed}")

    check_same_settings(make(1), make(2, is_other=True))


def test_a_model_that_is_part_of_another_is_the_same():
    model, other = functional(), functional()
    keras.Model(other.input, layers.Dense(1)(other.output))
    keras.Model(other.input, other.layers[1].output)
    check_same_settings(model, other)


@pytest.mark.parametrize("make", [functional, network, lambda: lookup(["a", "b"])])
def test_a_model_read_from_a_file_is_the_same(make, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    check_same_settings(model, keras.saving.load_model(tmp_path / "model.keras"))
    check_same_settings(model, keras.models.clone_model(model))


def test_a_sequential_model_is_the_same_as_its_graph():
    model = network()
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, "tanh")(layers.Flatten()(inputs))
    check_same_settings(model, keras.Model(inputs, layers.Dense(1)(hidden)))


def test_every_call_that_mixes_models_refuses_other_ones(tmp_path):
    model, twin, other = network(), network(), network(activation="relu")
    other.save(tmp_path / "other.keras")
    y = np.zeros((16, 1), "float32")
    for call in (
        lambda: evaluate_interpolation(model, other, (X, y)),
        lambda: evaluate_plane([model, twin, other], X, y),
        lambda: evaluate_barriers([model, twin, other], X, y),
        lambda: evaluate_curve(model, twin, other, (X, y)),
        lambda: fit_curve(model, other, X, y),
        lambda: match_weights(model, other),
        lambda: direction_between(model, other),
        lambda: read_history(model, [other]),
        lambda: read_history(model, [tmp_path / "other.keras"]),
    ):
        with pytest.raises(ValueError, match=re.escape("relu instead of tanh")):
            call()
