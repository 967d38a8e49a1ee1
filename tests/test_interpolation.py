"""Interpolation: ends that are the models themselves, and a way that is told."""

import keras
import numpy as np
import pytest
from keras import layers
from quadratic import Quadratic, quadratic_model

from losslandscape import evaluate_interpolation, evaluate_plane

ONES = np.ones((4, 1), "float32")


@pytest.fixture
def others(model):
    """Two more models like `model`, with weights and normalization statistics of their own."""
    generator = np.random.default_rng(1)
    copies = []
    for _ in range(2):
        copy = keras.models.clone_model(model)
        copy.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        copy.set_weights([generator.uniform(0.1, 2, weight.shape) for weight in copy.weights])
        copies.append(copy)
    return copies


def quadratic_at(*weights):
    model = quadratic_model()
    model.layers[0].w.assign(np.reshape(weights, (3, 1)))
    return model


def loss_at(w):
    return w @ Quadratic.MATRIX @ w / 2 + Quadratic.SLOPE @ w


def test_the_line_through_a_quadratic_is_its_closed_form():
    (line,) = evaluate_interpolation(
        quadratic_at(1, 2, 3), quadratic_at(0, -1, 2), (ONES, ONES), 5, verbose=0
    )
    np.testing.assert_array_equal(line.alphas, [-0.5, 0, 0.5, 1, 1.5])
    start, end = np.array([1.0, 2, 3]), np.array([0.0, -1, 2])
    expected = [loss_at(start + alpha * (end - start)) for alpha in line.alphas]
    np.testing.assert_allclose(line.values["loss"], [expected], rtol=1e-5)


def test_the_ends_are_the_models_with_their_own_statistics(model, others, data):
    other = others[0]
    train, test = evaluate_interpolation(
        model, other, (data, (data[0][:20], data[1][:20])), 5, verbose=0
    )
    for line, (x, y) in ((train, data), (test, (data[0][:20], data[1][:20]))):
        for column, network in ((1, model), (3, other)):
            expected = network.evaluate(x, y, verbose=0, return_dict=True)
            for name, value in expected.items():
                np.testing.assert_allclose(line.values[name][0, column], value, rtol=1e-5)
    assert train.center == pytest.approx(model.evaluate(*data, verbose=0, return_dict=True))


def test_statistics_on_the_way_are_interpolated(model, others, data):
    other = others[0]
    (line,) = evaluate_interpolation(model, other, data, 3, extent=(0, 1), verbose=0)
    half = keras.models.clone_model(model)
    half.compile(loss=model.loss)
    mixed = []
    for weight, a, b in zip(model.weights, model.get_weights(), other.get_weights(), strict=True):
        # The geometric mean of variances, the arithmetic one of all else.
        mixed.append(np.sqrt(a * b) if weight.name == "moving_variance" else (a + b) / 2)
    half.set_weights(mixed)
    np.testing.assert_allclose(
        line.values["loss"][0, 1], half.evaluate(*data, verbose=0)[0], rtol=1e-5
    )


def test_beyond_the_models_nothing_breaks(model, others, data):
    (line,) = evaluate_interpolation(model, others[0], data, 21, extent=(-3, 4), verbose=0)
    assert np.isfinite(line.values["loss"]).all()


def test_statistics_are_estimated_anew_from_the_data(data):
    def network(scale):
        model = keras.Sequential(
            [keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3, activation="softmax")]
        )
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.layers[0].gamma.assign(scale * np.ones(4))
        return model

    first, second = network(1.0), network(2.0)
    (line,) = evaluate_interpolation(
        first, second, data, 3, extent=(0, 1), statistics="estimate", batch_size=32, verbose=0
    )
    # The means over the two batches of 32 of what each batch has.
    halves = data[0].reshape(2, 32, 4)
    mean, variance = halves.mean(axis=1).mean(axis=0), halves.var(axis=1).mean(axis=0)
    for column, model in ((0, first), (2, second)):
        model.layers[0].moving_mean.assign(mean)
        model.layers[0].moving_variance.assign(variance)
        np.testing.assert_allclose(
            line.values["loss"][0, column], model.evaluate(*data, verbose=0), rtol=1e-5
        )
    assert first.layers[0].momentum == 0.99


def test_the_models_are_left_alone(model, others, data):
    networks = [model, *others]
    variables = [
        variable
        for network in networks
        for variable in (*network.variables, *network.metrics_variables)
    ]
    before = [np.array(variable) for variable in variables]
    evaluate_interpolation(model, others[0], data, 3, statistics="estimate", verbose=0)
    evaluate_plane(networks, *data, number_of_points=2, verbose=0)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_the_plane_is_true_to_lengths_and_angles():
    points = np.array([[1.0, 2, 3], [3, 2, 3], [2, 6, 3]])
    surface = evaluate_plane(
        [quadratic_at(*point) for point in points],
        ONES,
        ONES,
        (5, 4),
        extent=((-1, 1), (0, 3)),
        verbose=0,
    )
    # The unit is the distance of 2 between the first two; the third is 1 along it and 4 across.
    np.testing.assert_allclose(surface.metadata["positions"], [[0, 0], [1, 0], [0.5, 2]], atol=1e-6)
    along, across = np.array([2.0, 0, 0]), np.array([0, 2.0, 0])
    expected = [
        [loss_at(points[0] + alpha * along + beta * across) for alpha in surface.alphas]
        for beta in surface.betas
    ]
    np.testing.assert_allclose(surface.values["loss"], expected, rtol=1e-4)


def test_the_plane_has_each_model_where_it_says(model, others, data):
    networks = [model, *others]
    positions = evaluate_plane(networks, *data, number_of_points=2, verbose=0).metadata["positions"]
    for network, (alpha, beta) in zip(networks, positions, strict=True):
        corner = (alpha, alpha + 1), (beta, beta + 1)
        surface = evaluate_plane(networks, *data, number_of_points=2, extent=corner, verbose=0)
        expected = network.evaluate(*data, verbose=0)[0]
        np.testing.assert_allclose(surface.values["loss"][0, 0], expected, rtol=1e-4)


def test_what_cannot_be_mixed_is_refused(model, others, data):
    small = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="`other` must have the architecture of `model`"):
        evaluate_interpolation(model, small, data)
    with pytest.raises(ValueError, match="`statistics` must be one of 'interpolate', 'estimate'"):
        evaluate_interpolation(model, others[0], data, statistics="frozen")
    with pytest.raises(ValueError, match="`metric` must be one of 'loss'.*Received 'f1'"):
        evaluate_interpolation(model, others[0], data, metric="f1")
    with pytest.raises(ValueError, match="list of three models"):
        evaluate_plane([model, others[0]], *data)
    with pytest.raises(ValueError, match="must not lie on one line"):
        evaluate_plane([model, others[0], model], *data)
