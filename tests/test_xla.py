"""XLA: takes over where it is faster, and the numbers stay those of `model.evaluate`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from losslandscape import evaluate_line, evaluate_surface, xla

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(50, 4)).astype("float32")
Y = GENERATOR.integers(0, 3, 50)
IMAGES = GENERATOR.normal(size=(50, 6, 6, 1)).astype("float32")


@pytest.fixture(autouse=True)
def taken_over(monkeypatch):
    """Lets XLA take over after ten points, and counts the graphs that it gets."""
    functions = []
    original = tf.function

    def counting(function=None, **options):
        # Keras decorates some functions of its own.
        if function is not None and options.get("jit_compile"):
            functions.append(function)
        return original(function, **options)

    monkeypatch.setattr(xla, "MINIMUM", 10)
    monkeypatch.setattr(tf, "function", counting)
    return functions


def network(*inner, shape=(4,), metrics=("accuracy",), loss="sparse_categorical_crossentropy"):
    last = layers.Dense(3, activation="softmax", dtype="float32", name="last")
    model = keras.Sequential([keras.Input(shape), *inner, last])
    model.compile(loss=loss, metrics=list(metrics))
    return model


def dense(**options):
    return network(
        layers.Dense(8, activation="relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        **options,
    )


def surfaces(model, x=X, **options):
    """The same surface, measured by both engines."""
    return [
        evaluate_surface(model, x, Y, 5, seed=0, engine=engine, verbose=0, **options)
        for engine in ("evaluate", "compiled")
    ]


# Of several batches, it would be slower.
@pytest.mark.parametrize(("batch_size", "number"), [(None, 1), (13, 0)])
def test_after_many_points_of_one_batch_xla_takes_over(batch_size, number, taken_over):
    model = dense()
    expected, surface = surfaces(model, batch_size=batch_size)
    assert len(taken_over) == number
    for name, values in expected.values.items():
        np.testing.assert_allclose(surface.values[name], values, rtol=1e-5)


def test_few_points_are_not_worth_it_but_those_of_all_calls_count(taken_over):
    model = dense()
    options = {"seed": 0, "engine": "compiled", "verbose": 0}
    # With the center, which is measured at the beginning and at the end, eight points.
    first = evaluate_line(model, X, Y, 7, **options)
    assert not taken_over
    second, third = (evaluate_line(model, X, Y, 7, **options) for _ in range(2))
    assert len(taken_over) == 1
    for line in (second, third):
        np.testing.assert_allclose(line.values["loss"], first.values["loss"], rtol=1e-5)


def noise():
    return layers.Lambda(lambda x: x + keras.random.normal(keras.ops.shape(x)))


@pytest.mark.parametrize(
    ("inner", "x"),
    [
        # Slower.
        ((layers.Conv2D(2, 3), layers.Flatten()), IMAGES),
        ((layers.MaxPooling2D(), layers.Flatten()), IMAGES),
        ((layers.Dense(70_000),), X),
        # Other random numbers.
        ((noise(),), X),
        # Not rounded.
        ((layers.Dense(8, dtype="mixed_bfloat16"),), X),
    ],
    ids=["convolution", "pooling", "large", "random", "half precision"],
)
def test_xla_is_left_out_where_it_is_slower_or_gives_other_numbers(inner, x, taken_over):
    expected, surface = surfaces(network(*inner, shape=x.shape[1:]), x)
    assert not taken_over
    np.testing.assert_allclose(surface.values["loss"], expected.values["loss"], rtol=1e-5)


def test_what_xla_cannot_compile_is_measured_without_it(taken_over):
    def confidence(_, predicted):
        highest = tf.numpy_function(lambda array: array.max(axis=-1), [predicted], "float32")
        return tf.ensure_shape(highest, [None])

    model = dense(metrics=[confidence])
    expected, surface = surfaces(model)
    assert len(taken_over) == 1
    for name, values in expected.values.items():
        np.testing.assert_allclose(surface.values[name], values, rtol=1e-5)


def test_where_the_loss_is_not_finite_everything_else_is_as_evaluate_reports_it(taken_over):
    model = dense()
    expected, surface = surfaces(model, extent=(-1e20, 1e20))
    assert len(taken_over) == 1
    assert np.isnan(expected.values["loss"]).any()
    for name, values in expected.values.items():
        np.testing.assert_allclose(surface.values[name], values, rtol=1e-5)
