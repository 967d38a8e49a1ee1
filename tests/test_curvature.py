"""Curvature: against whole Hessians, in closed form or by automatic differentiation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from quadratic import Quadratic, quadratic_model

from losslandscape import (
    evaluate_convexity,
    hessian_eigenvalues,
    hessian_product,
    hessian_spectrum,
    hessian_trace,
    plot_loss_3D,
    random_directions,
)

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(50, 4)).astype("float32")
Y = GENERATOR.integers(0, 3, 50)


@pytest.fixture
def network():
    """Fifty-one parameters, with a penalty and smooth activations."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01)),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def whole_hessian(model, x, y):
    """The Hessian of `model.evaluate`'s loss, entry by entry."""
    weights = model.trainable_variables
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            penalty = tf.add_n([tf.convert_to_tensor(loss) for loss in model.losses])
            losses = keras.losses.sparse_categorical_crossentropy(y, model(x))
            loss = tf.reduce_mean(losses) + penalty
        gradient = tf.concat([tf.reshape(g, [-1]) for g in inner.gradient(loss, weights)], axis=0)
    blocks = [tf.reshape(part, [len(gradient), -1]) for part in outer.jacobian(gradient, weights)]
    return np.concatenate(blocks, axis=1).astype(float)


def flat(direction):
    return np.concatenate([np.ravel(array) for array in direction])


def linear_model(x, scale=1.0):
    """A mean squared error, whose Hessian is 2/n·xᵀx wherever the weights are."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layers.Dense(1, use_bias=False)])
    model.compile("sgd", lambda target, output: scale * tf.square(target - output))
    return model, np.zeros((len(x), 1), "float32")


def test_products_are_those_of_the_whole_hessian(network):
    (direction,) = random_directions(network, ignore=None, seed=0)
    expected = whole_hessian(network, X, Y) @ flat(direction)
    # However the data are cut, and with a last batch that is smaller.
    for batch_size in (50, 7, None):
        product = hessian_product(network, X, Y, batch_size=batch_size)
        np.testing.assert_allclose(flat(product(direction)), expected, rtol=1e-3, atol=1e-6)


def test_products_take_sample_weights_into_account():
    x = np.eye(3, dtype="float32")
    model, y = linear_model(x)
    product = hessian_product(model, (x, y, np.array([1.0, 2.0, 6.0])))
    moved = product([np.ones((3, 1), "float32")])
    # Keras divides the weighted sum by the number of samples, as `evaluate` does.
    np.testing.assert_allclose(moved[0][:, 0], np.array([2.0, 4.0, 12.0]) / 3, rtol=1e-6)


def test_products_pass_through_embeddings_convolutions_and_normalization():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(5, 4)(inputs)
    x = layers.BatchNormalization()(layers.Conv1D(3, 2, activation="tanh")(x))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    tokens = GENERATOR.integers(0, 5, (20, 6))
    (direction,) = random_directions(model, ignore=None, seed=0)
    product = flat(hessian_product(model, tokens, Y[:20])(direction))
    start = model.get_weights()

    def gradient_at(coordinate):
        for weight, step in zip(model.trainable_variables, direction, strict=True):
            weight.assign_add(coordinate * step)
        with tf.GradientTape() as tape:
            outputs = model(tokens, training=False)
            losses = keras.losses.sparse_categorical_crossentropy(Y[:20], outputs)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.set_weights(start)
        return flat([tf.convert_to_tensor(gradient) for gradient in gradients])

    # A difference of gradients in single precision.
    expected = (gradient_at(0.01) - gradient_at(-0.01)) / 0.02
    np.testing.assert_allclose(product, expected, atol=0.02 * np.abs(expected).max())


def test_extreme_eigenvalues(network):
    expected, vectors = np.linalg.eigh(whole_hessian(network, X, Y))
    values, directions = hessian_eigenvalues(network, X, Y, 3, seed=0)
    np.testing.assert_allclose(values, expected[::-1][:3], rtol=1e-3)
    for value, direction in zip(values, directions, strict=True):
        vector = flat(direction)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        moved = flat(hessian_product(network, X, Y)(direction))
        np.testing.assert_allclose(moved, value * vector, atol=2e-3 * expected[-1])
    assert abs(flat(directions[0]) @ vectors[:, -1]) == pytest.approx(1, abs=1e-3)
    smallest, _ = hessian_eigenvalues(network, X, Y, 2, "smallest", seed=0)
    np.testing.assert_allclose(smallest, expected[:2], rtol=1e-3, atol=1e-5)
    by_size = sorted(expected, key=abs, reverse=True)
    greatest, _ = hessian_eigenvalues(network, X, Y, 2, "magnitude", seed=0)
    np.testing.assert_allclose(greatest, by_size[:2], rtol=1e-3)


def test_eigenvectors_are_directions_to_draw(network):
    values, directions = hessian_eigenvalues(network, X, Y, 2, seed=0)
    display = plot_loss_3D(
        network, "levels", X, Y, 3, directions=directions, extent=(-0.05, 0.05), verbose=0
    )
    loss = display.surface.values["loss"]
    second = (loss[1, 0] - 2 * loss[1, 1] + loss[1, 2]) / 0.05**2
    assert second == pytest.approx(values[0], rel=0.02)


def test_more_eigenvalues_than_parameters_are_refused(network):
    with pytest.raises(ValueError, match="less than the 51 parameters.*Received 51"):
        hessian_eigenvalues(network, X, Y, 51)
    with pytest.raises(ValueError, match="`which` must be one of 'largest', 'smallest'"):
        hessian_eigenvalues(network, X, Y, which="LA")


def test_the_trace_of_a_diagonal_hessian_is_exact():
    # Vectors of ±1 give a diagonal matrix' trace without error: 2/4·(1 + 4 + 9 + 16).
    x = np.diag([1.0, 2.0, 3.0, 4.0]).astype("float32")
    model, y = linear_model(x)
    np.testing.assert_allclose(hessian_trace(model, x, y, 2), [15, 15, 15], rtol=1e-5)


def test_the_trace_lies_in_its_interval(network):
    expected = np.trace(whole_hessian(network, X, Y))
    mean, low, high = hessian_trace(network, X, Y, 200, seed=0)
    assert low < expected < high
    assert mean == pytest.approx(expected, rel=0.05)


def test_the_spectrum_has_every_eigenvalue(network):
    hessian = whole_hessian(network, X, Y)
    expected = np.linalg.eigvalsh(hessian)
    spectrum = hessian_spectrum(network, X, Y, number_of_probes=2, steps=51, seed=3)
    for row in spectrum.eigenvalues:
        nearest = np.abs(row[:, np.newaxis] - expected).min(axis=0)
        assert nearest.max() < 1e-3 * expected[-1]
    # The shares are those of the random vector along each eigenvector, so that moments are exact.
    vector = np.random.default_rng(3).normal(size=51)
    vector /= np.linalg.norm(vector)
    for power in (0, 1, 2):
        moment = spectrum.shares[0] @ spectrum.eigenvalues[0] ** power
        exact = vector @ np.linalg.matrix_power(hessian, power) @ vector
        np.testing.assert_allclose(moment, exact, rtol=1e-3)


def test_the_spectrum_of_a_few_steps_has_the_moments_of_all(network):
    # Lanczos' quadrature with m points is exact up to degree 2m - 1.
    all_steps, few = (
        hessian_spectrum(network, X, Y, number_of_probes=1, steps=steps, seed=0)
        for steps in (51, 4)
    )
    for power in range(8):
        expected, moment = (
            np.sum(spectrum.shares * spectrum.eigenvalues**power) for spectrum in (all_steps, few)
        )
        np.testing.assert_allclose(moment, expected, rtol=1e-3)


def test_the_spectrum_of_equal_eigenvalues_ends_early():
    x = np.eye(6, dtype="float32")
    model, y = linear_model(x, scale=9.0)
    spectrum = hessian_spectrum(model, x, y, number_of_probes=3, steps=6, seed=0)
    np.testing.assert_allclose(spectrum.eigenvalues, 3.0, rtol=1e-5)
    np.testing.assert_allclose(spectrum.shares.sum(axis=1), 1, rtol=1e-6)


def test_convexity_of_quadratics_is_exact():
    model = quadratic_model()
    largest, smallest = np.linalg.eigvalsh(Quadratic.MATRIX)[[-1, 0]]
    ones = np.ones((4, 1), "float32")
    surface = evaluate_convexity(model, ones, ones, 3, seed=0, verbose=0)
    assert surface.values["convexity"].shape == (3, 3)
    np.testing.assert_allclose(surface.values["largest"], largest, rtol=1e-3)
    np.testing.assert_allclose(surface.values["smallest"], smallest, rtol=1e-3)
    assert smallest > 0
    assert not surface.values["convexity"].any()


def test_convexity_is_the_ratio_of_the_extreme_eigenvalues(network):
    directions = random_directions(network, 2, seed=0)
    surface = evaluate_convexity(
        network, X, Y, (2, 3), directions=directions, tolerance=1e-4, verbose=0
    )
    weights = network.get_weights()
    for i, beta in enumerate(surface.betas):
        for j, alpha in enumerate(surface.alphas):
            moved = [w + alpha * a + beta * b for w, a, b in zip(weights, *directions, strict=True)]
            network.set_weights(moved)
            eigenvalues = np.linalg.eigvalsh(whole_hessian(network, X, Y))
            expected = abs(eigenvalues[0] / eigenvalues[-1])
            assert eigenvalues[0] < 0
            np.testing.assert_allclose(surface.values["convexity"][i, j], expected, rtol=5e-3)


def test_the_model_is_left_alone(model, data):
    before = [np.array(v) for v in (*model.variables, *model.metrics_variables)]
    hessian_eigenvalues(model, *data)
    hessian_trace(model, *data, number_of_probes=2)
    evaluate_convexity(model, *data, number_of_points=2, verbose=0)
    for now, then in zip((*model.variables, *model.metrics_variables), before, strict=True):
        np.testing.assert_array_equal(np.array(now), then)


def test_other_backends_are_told_what_to_do(network, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="needs the TensorFlow backend.*Received 'torch'"):
        hessian_product(network, X, Y)
