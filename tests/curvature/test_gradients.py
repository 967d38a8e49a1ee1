"""Gradients: against closed forms, and against all other directions as long."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from quadratic import Quadratic, quadratic_model

from losslandscape import evaluate_line, random_directions
from losslandscape.curvature.gradients import gradient_direction, worst_direction

DATA = np.zeros((4, 1), "float32"), np.zeros((4, 1), "float32")
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(50, 4)).astype("float32")
Y = GENERATOR.integers(0, 3, 50)
POINT = np.array([0.5, -1, 2])
# The scales of the three weights, which are one filter and one layer, by normalization.
RMS = np.sqrt(np.mean(POINT**2))
SCALES = {"filter": [RMS] * 3, "layer": [RMS] * 3, "weight": [0.5, 1, 2], None: [1, 1, 1]}


def quadratic_at(point):
    model = quadratic_model()
    model.layers[0].w.assign(np.reshape(point, (3, 1)))
    return model


def network(scale=1.0):
    """A network whose loss does not depend on a scale that is taken back by the next layer."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, "relu"), layers.Dense(3, "softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    first, last = model.layers
    first.kernel.assign(scale * first.kernel)
    last.kernel.assign(last.kernel / scale)
    return model


def flat(direction):
    return np.concatenate([np.ravel(array) for array in direction])


def highest(model, direction, radius):
    """The loss at a coordinate along a direction."""
    options = {"directions": [direction], "extent": (0, radius), "verbose": 0}
    return evaluate_line(model, X, Y, 2, **options).values["loss"][0, -1]


@pytest.mark.parametrize("normalize", SCALES)
def test_directions_are_those_of_the_closed_form(normalize):
    direction = gradient_direction(quadratic_at(POINT), *DATA, normalize=normalize)
    gradient = Quadratic.MATRIX @ POINT + Quadratic.SLOPE
    scales = np.array(SCALES[normalize])
    expected = np.sqrt(3) * scales**2 * gradient / np.linalg.norm(scales * gradient)
    np.testing.assert_allclose(flat(direction), expected, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_the_gradient_is_that_of_the_mean_loss_over_all_data(batch_size):
    model, weights = network(), GENERATOR.uniform(0, 2, 50).astype("float32")
    model.layers[0].kernel.regularizer = keras.regularizers.L2(0.1)
    direction = gradient_direction(model, (X, Y, weights), normalize=None, batch_size=batch_size)
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(Y, model(X))
        loss = tf.reduce_mean(weights * losses)
        loss += 0.1 * tf.reduce_sum(tf.square(model.layers[0].kernel.value))
    gradient = flat(tape.gradient(loss, [each.value for each in model.trainable_variables]))
    # The perturbation of SAM with a radius of 0.05.
    found = 0.05 / np.sqrt(gradient.size) * flat(direction)
    expected = 0.05 * gradient / np.linalg.norm(gradient)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_no_random_direction_rises_as_fast():
    model, step = network(), 1e-3
    steepest = gradient_direction(model, X, Y)
    others = random_directions(model, 20, seed=0)
    line = evaluate_line(
        model, X, Y, 2, directions=[steepest, *others], extent=(-step, step), verbose=0
    )
    slopes = np.diff(line.values["loss"])[:, 0] / (2 * step)
    assert slopes[0] > 2 * np.abs(slopes[1:]).max()
    # All are as long, in units of the filters.
    norms = [np.linalg.norm(kernel, axis=0) / np.sqrt(len(kernel)) for kernel in
             model.get_weights()[::2]]  # fmt: skip
    for direction in (steepest, *others):
        units = [part / norm for part, norm in zip(direction[::2], norms, strict=True)]
        assert np.linalg.norm(flat(units)) == pytest.approx(np.sqrt(4 * 6 + 6 * 3), rel=1e-5)
        assert not flat(direction[1::2]).any()


@pytest.mark.parametrize("search", [gradient_direction, worst_direction])
def test_what_does_not_change_the_network_does_not_change_the_loss_along_it(search):
    one, other = network(), network(scale=5)
    losses = [highest(model, search(model, X, Y), 0.3) for model in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("normalize", ["filter", "weight", None])
def test_the_worst_rise_at_a_minimum_is_that_of_the_largest_eigenvalue(normalize):
    minimum = -np.linalg.solve(Quadratic.MATRIX, Quadratic.SLOPE)
    model, radius = quadratic_at(minimum), 0.2
    direction = worst_direction(model, *DATA, radius, 20, normalize=normalize, seed=0)
    line = evaluate_line(
        model, *DATA, 3, directions=[direction], extent=(-radius, radius), verbose=0
    )
    rise = line.values["loss"][0, -1] - line.center["loss"]
    rms = np.full(3, np.sqrt(np.mean(minimum**2)))
    scales = {"filter": rms, "weight": np.abs(minimum), None: np.ones(3)}[normalize]
    matrix = scales[:, np.newaxis] * Quadratic.MATRIX * scales
    # At the coordinate 1, the radius is √3.
    expected = 3 * radius**2 * np.linalg.eigvalsh(matrix)[-1] / 2
    assert rise == pytest.approx(expected, rel=1e-3)


def test_the_worst_direction_is_worse_than_the_gradient_and_random_ones():
    model, radius = network(), 0.5
    worst = worst_direction(model, X, Y, radius)
    others = [gradient_direction(model, X, Y), *random_directions(model, 10, seed=0)]
    found, *losses = (highest(model, direction, radius) for direction in (worst, *others))
    assert found > max(losses)
    # A single step is that of SAM and ASAM.
    first = worst_direction(model, X, Y, radius, steps=1)
    np.testing.assert_array_equal(flat(first), flat(others[0]))


def test_the_search_ends_where_the_loss_overflows():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.compile("sgd", loss=lambda _, output: keras.ops.mean(keras.ops.exp(output)))
    model.layers[0].kernel.assign([[1.0]])
    direction = worst_direction(model, np.ones((4, 1)), np.ones((4, 1)), 200.0)
    np.testing.assert_array_equal(flat(direction), [1])


def test_the_search_keeps_the_worst_if_it_ends_where_the_gradient_is_not_finite():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    # From 1 it leads up to 2, where the slope leads down to 0: there it is infinite, the loss 0.
    model.compile("sgd", loss=lambda _, w: keras.ops.mean(keras.ops.sqrt(w) * (4 - w)))
    model.layers[0].kernel.assign([[1.0]])
    direction = worst_direction(model, np.ones((4, 1)), np.ones((4, 1)), 1.0)
    np.testing.assert_array_equal(flat(direction), [1])


def test_a_gradient_of_zero_has_no_direction_but_a_worst_one_is_searched():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(2, use_bias=False)])
    model.compile("sgd", "mse", jit_compile=False)
    zeros = np.zeros((4, 1), "float32"), np.zeros((4, 2), "float32")
    with pytest.raises(ValueError, match="The gradient of `model` is 0.*`worst_direction`"):
        gradient_direction(model, *zeros)
    first, second = (worst_direction(model, *zeros, steps=1, seed=seed) for seed in (0, 1))
    assert flat(first).any()
    assert (flat(first) != flat(second)).any()


def test_the_model_is_left_alone(model, data):
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [np.array(variable) for variable in variables]
    worst_direction(model, *data, steps=2)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_unusable_arguments_are_refused():
    model = quadratic_at(POINT)
    with pytest.raises(ValueError, match="`radius` must be greater than 0 and finite. Received 0"):
        worst_direction(model, *DATA, 0)
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        worst_direction(model, *DATA, steps=0)
    with pytest.raises(ValueError, match="`normalize` must be one of 'filter'"):
        gradient_direction(model, *DATA, normalize="kernel")
    with pytest.raises(ValueError, match="no filter to move.*`ignore=None`"):
        gradient_direction(quadratic_at(np.zeros(3)), *DATA)
    with pytest.raises(ValueError, match="not finite at the weights of `model`"):
        gradient_direction(quadratic_at([np.inf, 0, 0]), *DATA, normalize=None)


def test_losses_that_are_not_means_are_refused():
    model = network()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(reduction="sum"))
    with pytest.raises(ValueError, match="not a mean over samples"):
        gradient_direction(model, X, Y)
