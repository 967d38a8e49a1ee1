"""Curvature: against full Hessians, in closed form or by automatic differentiation."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from late import late_model
from quadratic import Quadratic, quadratic_model

from losslandscape import (
    Hessian,
    evaluate_line,
    evaluate_surface,
    plot_loss_3D,
    random_directions,
    report,
)
from losslandscape.curvature.gradients import gradient_direction
from losslandscape.curvature.hessian import evaluate_convexity
from losslandscape.values.measures import confidence_interval, half_widths, quadratic_half_widths
from losslandscape.values.surfaces import LayerCurvature

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(50, 4)).astype("float32")
Y = GENERATOR.integers(0, 3, 50)
# The values of a convexity map, except the loss.
CURVATURE = ("convexity", "largest", "smallest")


def make_network():
    """A network of 51 parameters, with a penalty and smooth activations."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01)),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def network():
    """The network of most tests, which leave it as it was."""
    return make_network()


@pytest.fixture(scope="module")
def hessian(network):
    """Its Hessian; tests share the graph, as calls of a user do."""
    return Hessian(network, X, Y)


@pytest.fixture(scope="module")
def scale_free(network):
    """Its Hessian relative to the scales of its filters."""
    return Hessian(network, X, Y, normalize="filter")


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


def unit_directions(shapes):
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
    for unit in np.eye(ends[-1], dtype="float32"):
        parts = np.split(unit, ends[:-1])
        yield [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def linear_model(x, scale=1.0):
    """A mean squared error, whose Hessian is 2/n·xᵀx wherever the weights are."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layers.Dense(1, use_bias=False)])
    model.compile("sgd", lambda target, output: scale * tf.square(target - output))
    return model, np.zeros((len(x), 1), "float32")


def test_a_model_that_makes_weights_when_it_is_called_is_refused_once():
    model = late_model()
    with pytest.raises(ValueError, match="2 weights that has 4 now.*same call again"):
        Hessian(model, (X, Y), verbose=0).trace()
    product = Hessian(model, (X, Y)).product
    rows = []
    for position in range(3):
        direction = [np.zeros(weight.shape) for weight in model.trainable_variables]
        direction[-1][position] = 1.0
        rows.append(product(direction)[-1])
    # The last layer's biases shift the scores, so their Hessian is that of softmax's logarithm.
    shares = keras.ops.softmax(model(X)).numpy()
    expected = np.diag(shares.mean(axis=0)) - shares.T @ shares / len(X)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-6)


def test_products_match_the_whole_hessian(network):
    (direction,) = random_directions(network, ignore=None, seed=0)
    expected = whole_hessian(network, X, Y) @ flat(direction)
    # Whatever the batch size, even with a smaller last batch.
    for batch_size in (50, 7, None):
        product = Hessian(network, X, Y, batch_size=batch_size).product
        np.testing.assert_allclose(flat(product(direction)), expected, rtol=1e-3, atol=1e-6)


def test_products_take_sample_weights_into_account():
    x = np.eye(3, dtype="float32")
    model, y = linear_model(x)
    product = Hessian(model, (x, y, np.array([1.0, 2.0, 6.0]))).product
    moved = product([np.ones((3, 1), "float32")])
    # Keras divides the weighted sum by the number of samples, as `evaluate` does.
    np.testing.assert_allclose(moved[0][:, 0], np.array([2.0, 4.0, 12.0]) / 3, rtol=1e-6)


def test_one_of_two_outputs_may_have_sample_weights():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(1)(inputs)])
    model.compile("sgd", ["mse", "mse"])
    weights = GENERATOR.uniform(size=50)
    # No weights are weights of 1: two linear regressions, each with a bias.
    features = np.column_stack([X, np.ones(50)])
    both = np.stack([weights, np.ones(50)])
    expected = np.sum(2 * both @ features**2) / 50
    data = X, [Y, Y], [weights, None]
    # Vectors of ±1 have the trace as their mean.
    mean, low, high = Hessian(model, data).trace(100, seed=0)
    assert low < expected < high
    assert mean == pytest.approx(expected, rel=0.05)


def test_products_pass_through_embeddings_convolutions_and_normalization():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(5, 4)(inputs)
    x = layers.BatchNormalization()(layers.Conv1D(3, 2, activation="tanh")(x))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    tokens = GENERATOR.integers(0, 5, (20, 6))
    (direction,) = random_directions(model, ignore=None, seed=0)
    product = flat(Hessian(model, tokens, Y[:20]).product(direction))
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


def test_extreme_eigenvalues(network, hessian):
    expected, vectors = np.linalg.eigh(whole_hessian(network, X, Y))
    values, directions = hessian.eigenvalues(3, seed=0)
    np.testing.assert_allclose(values, expected[::-1][:3], rtol=1e-3)
    for value, direction in zip(values, directions, strict=True):
        vector = flat(direction)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        moved = flat(hessian.product(direction))
        np.testing.assert_allclose(moved, value * vector, atol=2e-3 * expected[-1])
    assert abs(flat(directions[0]) @ vectors[:, -1]) == pytest.approx(1, abs=1e-3)
    smallest, _ = hessian.eigenvalues(2, "smallest", seed=0)
    np.testing.assert_allclose(smallest, expected[:2], rtol=1e-3, atol=1e-5)
    by_size = sorted(expected, key=abs, reverse=True)
    greatest, _ = hessian.eigenvalues(2, "magnitude", seed=0)
    np.testing.assert_allclose(greatest, by_size[:2], rtol=1e-3)


def test_eigenvectors_can_be_drawn_along(network, hessian):
    values, directions = hessian.eigenvalues(2, seed=0)
    display = plot_loss_3D(
        network, "levels", X, Y, 3, directions=directions, extent=(-0.05, 0.05), verbose=0
    )
    loss = display.surface.values["loss"]
    second = (loss[1, 0] - 2 * loss[1, 1] + loss[1, 2]) / 0.05**2
    assert second == pytest.approx(values[0], rel=0.02)


def test_both_ends_of_the_spectrum_span_a_plane_ready_to_draw(network, hessian):
    matrix = whole_hessian(network, X, Y)
    expected = np.linalg.eigvalsh(matrix)
    assert expected[0] < -0.01
    values, directions = hessian.eigenvalues(which="both", seed=0)
    np.testing.assert_allclose(values, expected[[-1, 0]], rtol=1e-3)
    assert abs(flat(directions[0]) @ flat(directions[1])) < 1e-3
    four, _ = hessian.eigenvalues(2, "both", seed=0)
    np.testing.assert_allclose(four, expected[[-1, -2, 0, 1]], rtol=1e-3)
    # What a random plane hides, this one shows.
    spectrum = hessian.spectrum(4, 40, seed=0)
    options = {"number_of_points": 3, "extent": (-0.1, 0.1), "verbose": 0}
    hidden = report(evaluate_surface(network, X, Y, seed=0, **options), curvature=spectrum)[-1]
    assert hidden.value == pytest.approx(expected[0], rel=1e-2)
    assert hidden.warning.startswith("The loss curves downwards, but not in this picture")
    surface = evaluate_surface(network, X, Y, directions=directions, **options)
    *_, seen, share = report(surface, curvature=spectrum, directions=directions)
    assert seen.warning is None
    whole = np.trace(matrix)
    assert share.value == pytest.approx(expected[[0, -1]].sum() / whole, rel=0.1)


def test_both_ends_of_a_small_hessian():
    model, y = linear_model(np.diag([1.0, 2.0, 3.0, 4.0]).astype("float32"))
    x = np.diag([1.0, 2.0, 3.0, 4.0]).astype("float32")
    values, _ = Hessian(model, x, y).eigenvalues(2, "both", seed=0)
    np.testing.assert_allclose(values, [8, 4.5, 0.5, 2], rtol=1e-5)
    with pytest.raises(ValueError, match="at most the 4 parameters.*Received 6, from both ends"):
        Hessian(model, x, y).eigenvalues(3, "both")
    _, (first, second) = Hessian(model, 0 * x, y).eigenvalues(which="both", seed=0)
    assert abs(flat(first) @ flat(second)) < 1e-6


def test_more_eigenvalues_than_parameters_are_refused(hessian):
    with pytest.raises(ValueError, match="less than the 51 parameters.*Received 51"):
        hessian.eigenvalues(51)
    with pytest.raises(ValueError, match="`which` must be one of 'largest', 'smallest'"):
        hessian.eigenvalues(which="LA")


def test_the_trace_of_a_diagonal_hessian_is_exact():
    # Vectors of ±1 give the trace of a diagonal matrix without error: 2/4·(1 + 4 + 9 + 16).
    x = np.diag([1.0, 2.0, 3.0, 4.0]).astype("float32")
    model, y = linear_model(x)
    np.testing.assert_allclose(Hessian(model, x, y).trace(2), [15, 15, 15], rtol=1e-5)


def test_the_interval_contains_the_trace(network, hessian):
    expected = np.trace(whole_hessian(network, X, Y))
    mean, low, high = hessian.trace(200, seed=0)
    assert low < expected < high
    assert mean == pytest.approx(expected, rel=0.05)


def test_the_spectrum_has_every_eigenvalue(network, hessian):
    matrix = whole_hessian(network, X, Y)
    expected = np.linalg.eigvalsh(matrix)
    spectrum = hessian.spectrum(number_of_probes=2, steps=51, seed=3)
    for row in spectrum.eigenvalues:
        nearest = np.abs(row[:, np.newaxis] - expected).min(axis=0)
        assert nearest.max() < 1e-3 * expected[-1]
    # The shares are those of the random vector along each eigenvector, so moments are exact.
    vector = np.random.default_rng(3).normal(size=51)
    vector /= np.linalg.norm(vector)
    for power in (0, 1, 2):
        moment = spectrum.shares[0] @ spectrum.eigenvalues[0] ** power
        exact = vector @ np.linalg.matrix_power(matrix, power) @ vector
        np.testing.assert_allclose(moment, exact, rtol=1e-3)


def test_the_spectrum_of_a_few_steps_has_the_right_moments(hessian):
    # Lanczos quadrature with m points is exact up to degree 2m - 1.
    all_steps, few = (
        hessian.spectrum(number_of_probes=1, steps=steps, seed=0) for steps in (51, 4)
    )
    for power in range(8):
        expected, moment = (
            np.sum(spectrum.shares * spectrum.eigenvalues**power) for spectrum in (all_steps, few)
        )
        np.testing.assert_allclose(moment, expected, rtol=1e-3)


def filter_scales(model):
    """‖θ_f‖ / √n_f of each weight in a filter of a stack of dense layers, 0 for biases."""
    scales = []
    for weight in model.get_weights():
        if weight.ndim == 2:
            columns = [np.full(len(c), np.linalg.norm(c) / np.sqrt(len(c))) for c in weight.T]
            scales.append(np.transpose(columns).ravel())
        else:
            scales.append(np.zeros(weight.size))
    return np.concatenate(scales)


def test_scale_free_products_and_eigenvalues_are_those_of_the_scaled_hessian(
    network, hessian, scale_free
):
    scales = filter_scales(network)
    scaled = scales[:, np.newaxis] * whole_hessian(network, X, Y) * scales
    (direction,) = random_directions(network, normalize=None, ignore=None, seed=0)
    moved = scale_free.product(direction)
    np.testing.assert_allclose(flat(moved), scaled @ flat(direction), rtol=1e-3, atol=1e-6)
    moves = scales != 0
    expected = np.linalg.eigvalsh(scaled[np.ix_(moves, moves)])
    for which, those in (("largest", expected[::-1]), ("smallest", expected)):
        values, directions = scale_free.eigenvalues(3, which, seed=0)
        np.testing.assert_allclose(values, those[:3], rtol=1e-3, atol=1e-5)
        # The loss curves by the eigenvalue along each direction, in which biases stay put.
        curvatures = hessian.along(directions)
        np.testing.assert_allclose(curvatures, values, rtol=1e-3, atol=1e-5)
        assert not flat(directions[0])[~moves].any()
    spectrum = scale_free.spectrum(1, seed=0)
    assert spectrum.metadata["parameters"] == np.count_nonzero(moves)
    assert (spectrum.metadata["normalize"], spectrum.metadata["ignore"]) == ("filter", "biasbn")
    np.testing.assert_allclose(spectrum.eigenvalues.max(), expected[-1], rtol=1e-3)
    mean, low, high = scale_free.trace(100, seed=0)
    assert low < np.trace(scaled) < high
    assert mean == pytest.approx(np.trace(scaled), rel=0.1)


@pytest.mark.parametrize(
    ("normalize", "ignore"),
    [("filter", "biasbn"), ("layer", None), ("weight", "biasbn")],
)
def test_the_scale_free_trace_is_the_mean_curvature_along_random_directions(normalize, ignore):
    network = make_network()
    options = {"normalize": normalize, "ignore": ignore, "seed": 0}
    network.layers[0].bias.assign(GENERATOR.normal(size=6))
    directions = np.array([flat(d) for d in random_directions(network, 2000, **options)])
    hessian = whole_hessian(network, X, Y)
    along_each = np.einsum("ki,ij,kj->k", directions, hessian, directions)
    product = Hessian(network, X, Y, normalize=normalize, ignore=ignore).product
    shapes = [weight.shape for weight in network.trainable_variables]
    diagonal = [flat(product(unit))[index] for index, unit in enumerate(unit_directions(shapes))]
    _, low, high = confidence_interval(along_each, 0.99)
    assert low < np.sum(diagonal) < high
    assert high - low < 0.1 * np.sum(np.abs(diagonal))


def test_second_differences_of_lines_have_the_scale_free_trace_as_their_mean(network, hessian):
    scales = filter_scales(network)
    trace = np.sum(scales**2 * np.diag(whole_hessian(network, X, Y)))
    directions = random_directions(network, 300, seed=1)
    step = 0.05
    line = evaluate_line(network, X, Y, 3, directions=directions, extent=(-step, step), verbose=0)
    differences = np.diff(line.values["loss"], 2)[:, 0] / step**2
    _, low, high = confidence_interval(differences)
    assert low < trace < high
    curvatures = hessian.along(directions[:5])
    np.testing.assert_allclose(differences[:5], curvatures, rtol=0.02)


def test_the_scale_of_a_layer_before_batchnorm_moves_the_hessian_but_not_the_scale_free_one():
    dense, norm = layers.Dense(5), layers.BatchNormalization(epsilon=1e-7)
    activation, top = layers.Activation("tanh"), layers.Dense(3, "softmax")
    model = keras.Sequential([keras.Input((4,)), dense, norm, activation, top])
    model.compile("sgd", "sparse_categorical_crossentropy")
    dense.bias.assign(GENERATOR.normal(size=5))
    outputs = dense(X).numpy()

    def spectra(factor):
        dense.set_weights([factor * weight for weight in start])
        # What training on the same data would give.
        norm.moving_mean.assign(factor * outputs.mean(axis=0))
        norm.moving_variance.assign(factor**2 * outputs.var(axis=0))
        return [
            Hessian(model, X, Y, normalize=each).spectrum(1, seed=0) for each in (None, "filter")
        ]

    start = dense.get_weights()
    (plain, free), (moved, still_free) = spectra(1), spectra(3)
    largest = np.abs(free.eigenvalues).max()
    # The same random vector, whose moments the whole spectrum determines.
    for power in (1, 2, 3):
        moments = [
            np.sum(each.shares * (each.eigenvalues / largest) ** power)
            for each in (free, still_free)
        ]
        np.testing.assert_allclose(*moments, rtol=1e-3, atol=1e-5)
    ends = [[each.eigenvalues.min(), each.eigenvalues.max()] for each in (free, still_free)]
    np.testing.assert_allclose(*ends, atol=1e-3 * largest)
    assert moved.eigenvalues.max() < 0.9 * plain.eigenvalues.max()


def test_the_forecast_of_a_half_width_is_exact_for_a_quadratic():
    model = quadratic_model()
    # At the minimum.
    minimum = -np.linalg.solve(Quadratic.MATRIX, Quadratic.SLOPE)
    model.trainable_variables[0].assign(minimum[:, np.newaxis])
    ones = np.ones((4, 1), "float32")
    directions = random_directions(model, 4, normalize=None, seed=0)
    curvatures = Hessian(model, ones, ones).along(directions)
    expected = [d[0][:, 0] @ Quadratic.MATRIX @ d[0][:, 0] for d in directions]
    np.testing.assert_allclose(curvatures, expected, rtol=1e-4)
    forecast = quadratic_half_widths(curvatures, rise=0.1)
    line = evaluate_line(
        model, ones, ones, 601, directions=directions, extent=(-1.5, 1.5), verbose=0
    )
    np.testing.assert_allclose(half_widths(line, rise=0.1), forecast, rtol=1e-3)


def test_unknown_normalizations_are_refused_before_anything_is_computed(network, hessian):
    with pytest.raises(ValueError, match="`normalize` must be one of 'filter'.*'filters'"):
        Hessian(network, X, Y, normalize="filters").trace()
    with pytest.raises(ValueError, match="`ignore` must be one of 'auto', 'biasbn', None.*'bn'"):
        Hessian(network, X, Y, normalize="filter", ignore="bn").eigenvalues()
    with pytest.raises(ValueError, match="`directions` must be a list of directions"):
        hessian.along(None)
    with pytest.raises(ValueError, match="`direction` must be a list of arrays.*Received str"):
        hessian.product("steep")
    with pytest.raises(TypeError, match="`direction` must hold real numbers.*complex64"):
        hessian.product([1j * w.numpy() for w in network.trainable_variables])


def test_each_layer_has_the_curvature_of_its_own_block(network, hessian, scale_free):
    matrix, scales = whole_hessian(network, X, Y), filter_scales(network)
    # Kernel and bias of 24 + 6 and of 18 + 3 parameters.
    spans = slice(0, 30), slice(30, 51)
    blocks = [matrix[span, span] for span in spans]
    first, second = (layer.name for layer in network.layers)
    plain = hessian.by_layer(100, seed=1)
    assert plain.metadata["layers"] == [first, second]
    assert plain.metadata["parameters"] == [30, 21]
    expected = [np.linalg.eigvalsh(block)[-1] for block in blocks]
    np.testing.assert_allclose(plain.largest, expected, rtol=2e-3)
    for (mean, low, high), block in zip(plain.traces, blocks, strict=True):
        assert low < np.trace(block) < high
        assert mean == pytest.approx(np.trace(block), rel=0.1)
    whole = hessian.trace(100, seed=1)
    np.testing.assert_allclose(plain.traces[:, 0].sum(), whole.mean, rtol=1e-6)
    free = scale_free.by_layer(2, seed=0)
    assert free.metadata["parameters"] == [24, 18]
    scaled = scales[:, np.newaxis] * matrix * scales
    expected = [np.linalg.eigvalsh(scaled[span, span])[-1] for span in spans]
    np.testing.assert_allclose(free.largest, expected, rtol=2e-3)


def test_all_curvature_can_be_that_of_some_layers(network):
    block = whole_hessian(network, X, Y)[30:, 30:]
    expected = np.linalg.eigvalsh(block)
    layer = network.layers[1].name
    hessian = Hessian(network, X, Y, layers=layer)
    values, (direction,) = hessian.eigenvalues(seed=0)
    np.testing.assert_allclose(values, expected[-1:], rtol=1e-3)
    assert not flat(direction)[:30].any()
    smallest, _ = hessian.eigenvalues(which="smallest", seed=0)
    np.testing.assert_allclose(smallest, expected[:1], rtol=1e-3, atol=1e-5)
    spectrum = hessian.spectrum(1, seed=0)
    assert (spectrum.metadata["parameters"], spectrum.metadata["layers"]) == (21, [layer])
    np.testing.assert_allclose(spectrum.eigenvalues.max(), expected[-1], rtol=1e-3)
    _, low, high = hessian.trace(100, seed=0)
    assert low < np.trace(block) < high
    ones = [np.ones(weight.shape, "float32") for weight in network.trainable_variables]
    moved = flat(hessian.product(ones))
    np.testing.assert_allclose(moved[30:], block.sum(axis=1), rtol=1e-3, atol=1e-6)
    assert not moved[:30].any()
    with pytest.raises(ValueError, match="Received 'conv'"):
        Hessian(network, X, Y, layers="conv")


def test_biases_can_be_left_out_of_the_plain_hessian(network):
    matrix = whole_hessian(network, X, Y)
    kernels = [*range(24), *range(30, 48)]
    block = np.linalg.eigvalsh(matrix[np.ix_(kernels, kernels)])
    for ignore, expected in (("biasbn", block), ("auto", np.linalg.eigvalsh(matrix))):
        values, _ = Hessian(network, X, Y, ignore=ignore).eigenvalues(which="both", seed=0)
        np.testing.assert_allclose(values, expected[[-1, 0]], rtol=1e-3, atol=1e-5)
    spectrum = Hessian(network, X, Y, ignore="biasbn").spectrum(1, 2, seed=0)
    assert (spectrum.metadata["parameters"], spectrum.metadata["ignore"]) == (42, "biasbn")
    # The center of a map, whose random directions are 0 there.
    zeros = [[np.zeros(weight.shape, "float32") for weight in network.trainable_variables]] * 2
    surface = evaluate_convexity(
        network, X, Y, 2, directions=zeros, ignore="biasbn", tolerance=1e-4, verbose=0
    )
    np.testing.assert_allclose(surface.values["largest"], block[-1], rtol=1e-3)
    np.testing.assert_allclose(surface.values["smallest"], block[0], rtol=1e-3, atol=1e-5)


def test_layers_of_the_same_name_keep_their_own_curvature(tmp_path):
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh", name="twin")], name="a")
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(3, "softmax", name="twin")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    curvature = Hessian(model, X, Y).by_layer(2, seed=0)
    assert len(set(curvature.metadata["layers"])) == len(curvature.largest) == 2
    curvature.save(tmp_path / "layers.h5")
    again = LayerCurvature.load(tmp_path / "layers.h5")
    np.testing.assert_array_equal(again.traces, curvature.traces)
    assert repr(again).startswith(f"LayerCurvature({curvature.metadata['layers'][0]}: λmax ")


def test_the_spectrum_of_equal_eigenvalues_ends_early():
    x = np.eye(6, dtype="float32")
    model, y = linear_model(x, scale=9.0)
    spectrum = Hessian(model, x, y).spectrum(number_of_probes=3, steps=6, seed=0)
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
        network, X, Y, (3, 2), directions=directions, tolerance=1e-3, verbose=0
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


def test_workers_measure_convexity(network):
    options = {"number_of_points": 2, "seed": 0, "verbose": 0}
    with ThreadPoolExecutor(1) as executor:
        shared = evaluate_convexity(network, X, Y, executor=executor, tolerance=0.1, **options)
    serial = evaluate_convexity(network, X, Y, tolerance=0.1, **options)
    for name, values in serial.values.items():
        np.testing.assert_allclose(shared.values[name], values, rtol=1e-3, err_msg=name)
    losses = evaluate_surface(network, X, Y, **options).values["loss"]
    np.testing.assert_allclose(serial.values["loss"], losses, rtol=1e-5)


def test_convexity_of_one_layer_is_that_of_its_block(network):
    # Layers are others in a worker, which has a copy of the model.
    last, options = network.layers[1], {"number_of_points": 2, "seed": 0, "verbose": 0}
    with ThreadPoolExecutor(1) as executor:
        surface = evaluate_convexity(
            network, X, Y, layers=last, executor=executor, tolerance=1e-4, **options
        )
    directions = random_directions(network, 2, layers=last, seed=0)
    for weight, one, other in zip(network.weights, *directions, strict=True):
        weight.assign_sub(one + other)
    expected = np.linalg.eigvalsh(whole_hessian(network, X, Y)[30:, 30:])
    found = [surface.values[name][0, 0] for name in ("smallest", "largest")]
    np.testing.assert_allclose(found, expected[[0, -1]], rtol=1e-3, atol=1e-5)


def test_a_map_of_another_tolerance_is_not_resumed(network, tmp_path):
    options = {"number_of_points": 2, "seed": 0, "checkpoint": tmp_path / "map.h5", "verbose": 0}
    evaluate_convexity(network, X, Y, tolerance=0.1, **options)
    with pytest.raises(ValueError, match="`checkpoint` must be new.* different tolerance"):
        evaluate_convexity(network, X, Y, tolerance=0.2, **options)


def test_a_convexity_map_has_no_automatic_extent(network):
    with pytest.raises(TypeError, match="`extent` must be two numbers.*'auto'"):
        evaluate_convexity(network, X, Y, extent="auto")


def test_the_model_is_left_alone(model, data):
    before = [np.array(v) for v in (*model.variables, *model.metrics_variables)]
    hessian = Hessian(model, *data)
    hessian.eigenvalues(tolerance=0.1)
    hessian.trace(number_of_probes=2)
    evaluate_convexity(model, *data, number_of_points=2, tolerance=0.1, verbose=0)
    for now, then in zip((*model.variables, *model.metrics_variables), before, strict=True):
        np.testing.assert_array_equal(np.array(now), then)


def test_other_backends_are_refused(monkeypatch, network):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(ValueError, match="needs a backend.*'jax', .*Received 'openvino'"):
        Hessian(network, X, Y)


def hessian_by_differences(model, loss, step=2e-3):
    """The Hessian of a function of the model, column by column from its first derivatives."""
    weights = model.trainable_variables

    @tf.function(autograph=False)
    def gradient():
        with tf.GradientTape() as tape:
            value = loss()
        values = [weight.value for weight in weights]
        parts = tape.gradient(value, values, unconnected_gradients="zero")
        return tf.concat([tf.reshape(part, [-1]) for part in parts], 0)

    columns = []
    for weight in weights:
        start = weight.numpy()
        for index in np.ndindex(start.shape):
            ends = []
            for sign in (1, -1):
                moved = start.copy()
                moved[index] += sign * step
                weight.assign(moved)
                ends.append(gradient().numpy().astype(float))
            columns.append((ends[0] - ends[1]) / (2 * step))
        weight.assign(start)
    return np.array(columns)


def hessian_by_products(model, *data, **options):
    product = Hessian(model, *data, **options).product
    shapes = [weight.shape for weight in model.trainable_variables]
    return np.array([flat(product(unit)) for unit in unit_directions(shapes)])


def regression(*parts, loss="mse", **options):
    model = keras.Sequential(list(parts))
    model.compile("sgd", loss, **options)
    return model


FEATURES = GENERATOR.normal(size=(24, 4)).astype("float32")
IMAGES = GENERATOR.normal(size=(9, 4, 4, 2)).astype("float32")
TARGETS = GENERATOR.normal(size=(24, 1)).astype("float32")


def test_products_are_exact_where_tensorflow_loses_second_derivatives():
    model = regression(
        keras.Input((4, 4, 2)),
        layers.Conv2D(4, 2, activation="tanh"),
        layers.LayerNormalization(),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.Resizing(5, 7, interpolation="bicubic"),
        layers.GroupNormalization(2),
        layers.Resizing(4, 6, interpolation="nearest"),
        layers.Resizing(3, 4, antialias=True),
        layers.Conv2D(1, 2, activation="tanh"),
        layers.GlobalAveragePooling2D(),
    )
    x, y = IMAGES, TARGETS[:9]
    expected = hessian_by_differences(model, lambda: tf.reduce_mean(tf.square(model(x) - y)))
    moments, resize = tf.nn.moments, tf.image.resize
    hessian = hessian_by_products(model, x, y, batch_size=4)
    np.testing.assert_allclose(hessian, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-5 * np.abs(expected).max())
    assert (tf.nn.moments, tf.image.resize) == (moments, resize)
    assert not tf.config.functions_run_eagerly()


class StoppedMoments(layers.Layer):
    """Normalizes as custom layers often do: correct to first order only."""

    def call(self, x):
        mean = keras.ops.mean(x, -1, keepdims=True)
        deviation = x - keras.ops.stop_gradient(mean)
        variance = keras.ops.mean(keras.ops.square(deviation), -1, keepdims=True)
        return (x - mean) / keras.ops.sqrt(variance + 1e-3)


class Cube(layers.Layer):
    """Has a custom gradient, which has no gradient itself."""

    def call(self, x):
        @tf.custom_gradient
        def cube(value):
            constant = tf.stop_gradient(value)
            return value**3, lambda upstream: upstream * 3 * constant**2

        return cube(x)


@pytest.mark.parametrize("last", [StoppedMoments(), Cube()], ids=["moments", "custom"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_lost_second_derivatives_are_refused(last, activation):
    # With no weights after it, the Hessian is symmetric, but wrong.
    model = regression(keras.Input((4,)), layers.Dense(20, activation), layers.Dense(4), last)
    with pytest.raises(ValueError, match="Hessian of this model is not.*loses a part"):
        Hessian(model, FEATURES, FEATURES).trace(2)


STOP = keras.ops.stop_gradient


class Reported(layers.Layer):
    """Adds a loss of which it stops the gradient."""

    def call(self, x):
        self.add_loss(keras.ops.mean(STOP(x) ** 4))
        return x


class Reversed(layers.Layer):
    """Turns the gradient around, as in domain-adversarial training."""

    def call(self, x):
        return STOP(2 * x) - x


class Detached(layers.Layer):
    """Has a custom gradient that is right, but a constant to TensorFlow."""

    def call(self, x):
        return tf.custom_gradient(lambda value: (tf.identity(value), tf.stop_gradient))(x)


def saw(_, output):
    """A loss of kinks everywhere: they hide all else from differences of it and its gradients."""
    return 1e-3 * keras.ops.abs(1e5 * output - keras.ops.round(1e5 * output))


def test_asymmetric_hessians_are_refused():
    inputs = keras.Input((4,))
    detached = Detached()(layers.Dense(8, "tanh")(inputs))
    model = keras.Model(inputs, [layers.Dense(8)(detached), layers.Dense(1)(inputs)])
    model.compile("sgd", ["mse", saw])
    with pytest.raises(ValueError, match="Hessian of this model is not symmetric"):
        Hessian(model, FEATURES, [np.zeros((24, 8), "float32"), TARGETS]).trace(2)


class TwoParts(keras.Model):
    """Has a test step that reports more than it differentiates."""

    def test_step(self, data):
        x, y = data
        output = self(x, training=False)
        loss = keras.ops.mean(keras.ops.square(output - y)) + STOP(keras.ops.mean(output**4))
        self._loss_tracker.update_state(loss)
        return self.get_metrics_result()


def squares(target, output):
    return keras.ops.square(target - output)


def fourth_powers_from_outside(target, output):
    outside = tf.numpy_function(lambda array: array**4, [output], tf.float32)
    return squares(target, output) + tf.ensure_shape(outside, output.shape)


OTHER_GRADIENTS = {
    "numpy_function": {"loss": fourth_powers_from_outside},
    "straight through": {
        "loss": lambda y, p: squares(y, p + STOP(keras.ops.round(4 * p) / 4 - p)),
    },
    "stopped target": {"loss": lambda y, p: squares(y, p) + squares(STOP(keras.ops.tanh(p)), p)},
    "add_loss": {"middle": Reported()},
    "reversed": {"middle": Reversed()},
    "penalty": {"penalty": lambda weight: 0.1 * keras.ops.sum(STOP(weight) ** 4)},
    "test_step": {"kind": TwoParts},
}


def other_gradient(activation, kind=keras.Model, loss=squares, middle=None, penalty=None):
    inputs = keras.Input((4,))
    x = layers.Dense(8, activation, kernel_regularizer=penalty)(inputs)
    model = kind(inputs, layers.Dense(1)(x if middle is None else middle(x)))
    if isinstance(middle, Reversed):
        # Reversed for all weights there are, the Hessian is symmetric.
        model.layers[-1].trainable = False
    model.compile("sgd", loss)
    return model


def measure_trace(model, x, y):
    return Hessian(model, x, y).trace()


@pytest.mark.parametrize("name", OTHER_GRADIENTS)
def test_gradients_of_another_function_than_the_reported_loss_are_refused(name):
    # Without kinks, and with them.
    for activation, measure in (("tanh", measure_trace), ("relu", gradient_direction)):
        model = other_gradient(activation, **OTHER_GRADIENTS[name])
        with pytest.raises(ValueError, match="gradient of this model is not that of the loss"):
            measure(model, FEATURES, TARGETS)


class Routed(layers.Layer):
    """Sends each sample to the expert with the highest score, so its loss jumps."""

    def build(self, shape):
        self.scores, self.experts = (
            self.add_weight(shape=(shape[-1], 3), name=name) for name in ("scores", "experts")
        )

    def call(self, x):
        share = keras.ops.softmax(x @ self.scores)
        return keras.ops.one_hot(keras.ops.argmax(share, -1), 3) * share * (x @ self.experts)


def shifted(target, output):
    """A loss of which rounding leaves little."""
    return squares(target, output) + 1e5


@pytest.mark.parametrize(
    ("parts", "loss"),
    [
        ([layers.Dense(30, "relu"), layers.Dense(30, "relu"), layers.Dense(1)], "mae"),
        ([Routed(), layers.Dense(1)], "mse"),
        ([layers.Dense(8, "tanh"), layers.Dense(1)], shifted),
        ([layers.Dense(20, "relu", kernel_regularizer="l1"), layers.Dense(1)], "mse"),
        ([layers.Dense(8, "relu", dtype="mixed_float16"), layers.Dense(1)], "mse"),
        ([layers.Dense(8, "tanh", dtype="bfloat16"), layers.Dense(1)], "mse"),
        ([layers.Dense(8), layers.BatchNormalization(), layers.ReLU(), layers.Dense(1)], "mse"),
    ],
    ids=["kinks", "jumps", "shifted", "penalty", "float16", "bfloat16", "batchnorm"],
)
def test_gradients_of_the_reported_loss_are_not_refused(parts, loss):
    model = regression(keras.Input((4,)), *parts, loss=loss)
    gradient_direction(model, FEATURES, TARGETS)
    if loss == "mse":
        # Where gradients are about to vanish.
        model.compile(keras.optimizers.Adam(0.02), loss)
        # Sixty passes in one epoch, since each epoch takes longer to begin than to run.
        model.fit(np.tile(FEATURES, (60, 1)), np.tile(TARGETS, (60, 1)), batch_size=24, verbose=0)
        gradient_direction(model, FEATURES, TARGETS)


def to_dense(x):
    return x.to_tensor() if isinstance(x, tf.RaggedTensor) else x


def sparse_batches(x):
    return tf.sparse.from_dense(x), x


def ragged_batches(x):
    return tf.RaggedTensor.from_tensor(x[..., np.newaxis], ragged_rank=1), x


@pytest.mark.parametrize("make", [sparse_batches, ragged_batches])
def test_sparse_and_ragged_batches_of_one_size(make):
    given, x = make(np.maximum(FEATURES, 0))
    if make is sparse_batches:
        model = regression(keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(1))
        dense = x
    else:
        # Of one length, so that a dense array says the same.
        model = regression(
            keras.Input((None, 1)),
            layers.Lambda(to_dense),
            layers.Dense(3, "tanh"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        )
        dense = x[..., np.newaxis]
    data = tf.data.Dataset.from_tensor_slices((given, TARGETS)).batch(8)
    found = Hessian(model, data).trace(number_of_probes=2, seed=0)
    expected = Hessian(model, dense, TARGETS).trace(2, seed=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_padded_batches_of_one_size_but_several_lengths():
    lengths = GENERATOR.integers(2, 6, 24)
    samples = [GENERATOR.normal(size=(n, 1)).astype("float32") for n in lengths]

    def generate():
        yield from zip(samples, TARGETS, strict=True)

    signature = tf.TensorSpec([None, 1]), tf.TensorSpec([1])
    data = tf.data.Dataset.from_generator(generate, output_signature=signature).padded_batch(8)
    model = regression(
        keras.Input((None, 1)),
        layers.Dense(3, "tanh"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(1),
    )
    batches = list(data)
    expected = hessian_by_differences(
        model, lambda: sum(tf.reduce_mean(tf.square(model(x) - y)) for x, y in batches) / 3
    )
    hessian = hessian_by_products(model, data)
    np.testing.assert_allclose(hessian, expected, atol=2e-3 * np.abs(expected).max())


def test_rematerialized_layers_have_the_curvature_of_plain_ones():
    traces = []
    for mode in (None, "activations"):
        keras.utils.set_random_seed(0)
        with keras.RematScope(mode=mode):
            model = regression(keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(1))
        traces.append(Hessian(model, FEATURES, TARGETS).trace(2, seed=0))
    np.testing.assert_allclose(*traces, rtol=1e-5)


def test_what_was_rematerialized_beforehand_and_ctc_are_refused_with_a_way_out():
    recomputed = layers.Lambda(keras.remat(keras.ops.tanh))
    model = regression(keras.Input((4,)), layers.Dense(5), recomputed, layers.Dense(1))
    with pytest.raises(ValueError, match="cannot differentiate.*twice.*without `keras.remat`"):
        Hessian(model, FEATURES, TARGETS).trace(2)
    model = regression(keras.Input((6, 4)), layers.Dense(5), loss=keras.losses.CTC())
    x = GENERATOR.normal(size=(4, 6, 4)).astype("float32")
    with pytest.raises(ValueError, match="cannot differentiate.*twice.*`KERAS_BACKEND=jax`"):
        gradient_direction(model, x, GENERATOR.integers(1, 5, (4, 2)))


def test_losses_that_are_python_numbers_are_refused():
    class Number(keras.Model):
        def test_step(self, data):
            x, y = data
            return {"mine": 1.0, "loss": float(keras.ops.mean((self(x) - y) ** 2))}

    inputs = keras.Input((4,))
    model = Number(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="'loss' .* must be a tensor.*Received float .*`float"):
        Hessian(model, FEATURES, TARGETS).trace(2)


@pytest.mark.parametrize("measure", [Hessian, gradient_direction])
def test_missing_targets_are_named(measure):
    model = regression(keras.Input((4,)), layers.Dense(1))
    with pytest.raises(ValueError, match="`y` must be the targets.*Received inputs alone"):
        measure(model, FEATURES)


def test_a_hessian_is_that_of_the_weights_and_the_loss_that_the_model_has_now():
    model = regression(keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(1))
    hessian = Hessian(model, FEATURES, TARGETS)
    hessian.trace(2)
    model.set_weights([2 * weight for weight in model.get_weights()])
    expected = Hessian(model, FEATURES, TARGETS).trace(2, seed=0)
    np.testing.assert_array_equal(hessian.trace(2, seed=0), expected)
    # What neither weights nor `compile` show.
    model.layers[0].activation = keras.ops.sin
    with pytest.raises(ValueError, match="reports a loss of") as error:
        hessian.trace(2)
    assert "They agreed before" in error.value.__notes__[0]
    model.compile("sgd", "mae")
    for call in (hessian.trace, lambda: hessian.product(model.get_weights())):
        with pytest.raises(ValueError, match="was compiled again.*Make a new one"):
            call()
    model.compile("sgd", "mse")
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="trains other weights.*Make a new one"):
        hessian.trace()


def test_a_hessian_that_is_not_finite_is_refused_after_one_product(monkeypatch):
    model = regression(keras.Input((4,)), layers.Dense(3), layers.Dense(1))
    model.layers[0].kernel.assign(np.full((4, 3), np.nan))
    checked = []
    monkeypatch.setattr(
        "losslandscape.curvature.hessian.reported_loss", lambda *_: checked.append(1) or np.nan
    )
    directions = [[np.ones(weight.shape) for weight in model.trainable_variables]] * 3
    hessian = Hessian(model, FEATURES, TARGETS)
    for measure in (
        lambda: hessian.spectrum(steps=9),
        hessian.trace,
        lambda: hessian.along(directions),
    ):
        checked.clear()
        with pytest.raises(ValueError, match="Hessian is not finite"):
            measure()
        assert len(checked) == 1


def test_operations_without_a_second_derivative_are_named():
    model = regression(keras.Input((4,)), layers.Dense(3, "softsign"), layers.Dense(1))
    with pytest.raises(ValueError, match="no second derivative.*SoftsignGrad"):
        Hessian(model, FEATURES, TARGETS).eigenvalues()


@pytest.mark.parametrize("loss", ["mae", "hinge"])
def test_kinks_are_not_mistaken_for_lost_derivatives(loss):
    # Differences of gradients see the kinks, though almost everywhere there is no curvature.
    x, y = GENERATOR.normal(size=(2, 4, 24, 24, 3)).astype("float32")
    convolutions = [layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(2)]
    model = regression(keras.Input((24, 24, 3)), *convolutions, layers.Conv2D(3, 3), loss=loss)
    assert np.isfinite(Hessian(model, x, np.sign(y[:, :9, :9])).trace(2, seed=0)).all()
    linear = regression(keras.Input((24, 24, 3)), layers.Conv2D(3, 1), loss=loss)
    assert Hessian(linear, x, np.sign(y)).trace(2) == (0, 0, 0)


class Physics(keras.Model):
    """Reports a loss with derivatives by the inputs, from a custom test step."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = layers.Dense(4, "tanh"), layers.Dense(1)
        self.tracker = keras.metrics.Mean(name="total")

    @property
    def metrics(self):
        return [self.tracker]

    def call(self, x):
        return self.outer(self.inner(x))

    def total(self, x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = self(x)
        slope = tape.gradient(output, x)
        return tf.reduce_mean((output - y) ** 2) + tf.reduce_mean((slope - output) ** 2)

    @tf.function
    def test_step(self, data):
        self.tracker.update_state(self.total(*data))
        return {"loss": self.tracker.result()}


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_curvature_is_that_of_the_loss_that_a_test_step_reports(run_eagerly):
    x, y = TARGETS, FEATURES[:, :1]
    model = Physics()
    model(x)
    model.compile("sgd", "mse", run_eagerly=run_eagerly)

    def loss():
        # `evaluate` reports the mean over batches, even if the last one is smaller.
        batches = [(x[i : i + 10], y[i : i + 10]) for i in (0, 10, 20)]
        return sum(model.total(tf.constant(a), tf.constant(b)) for a, b in batches) / 3

    expected = hessian_by_differences(model, loss)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    hessian = hessian_by_products(model, data)
    np.testing.assert_allclose(hessian, expected, atol=2e-3 * np.abs(expected).max())
    # The model's own step must not use what was traced in the meantime.
    assert float(model.evaluate(data, verbose=0)) == pytest.approx(float(loss()), rel=1e-5)


def test_a_loss_that_is_not_what_evaluate_reports_is_refused():
    class LastBatch(Physics):
        def test_step(self, data):
            return {"loss": self.total(*data)}

    model = LastBatch()
    model(TARGETS)
    model.compile("sgd")
    whole = Hessian(model, TARGETS, FEATURES[:, :1], batch_size=24).trace(2, seed=0)
    assert np.isfinite(whole).all()
    with pytest.raises(ValueError, match="reports a loss of .* but .* Override `compute_loss`"):
        Hessian(model, TARGETS, FEATURES[:, :1], batch_size=8).trace(2)


def test_random_losses_are_differentiated_with_the_same_numbers():
    class Noisy(layers.Layer):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator(1)

        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)

    model = regression(keras.Input((4,)), layers.Dense(3, "tanh"), Noisy(), layers.Dense(1))
    (direction,) = random_directions(model, ignore=None, seed=0)
    line = []
    start = model.get_weights()
    for coordinate in (-0.1, 0, 0.1):
        model.set_weights([w + coordinate * d for w, d in zip(start, direction, strict=True)])
        model.layers[1].generator.state.assign([1, 0])
        line.append(model.evaluate(FEATURES, TARGETS, batch_size=8, verbose=0))
    second = (line[0] - 2 * line[1] + line[2]) / 0.1**2
    model.set_weights(start)
    model.layers[1].generator.state.assign([1, 0])
    product = flat(Hessian(model, FEATURES, TARGETS, batch_size=8).product(direction))
    assert flat(direction) @ product == pytest.approx(second, rel=0.03)


def test_losses_that_are_not_means_are_refused():
    class Sum(layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.sum(x**2))
            return x

    total = keras.losses.MeanSquaredError(reduction="sum")
    for model in (
        regression(keras.Input((4,)), layers.Dense(1), loss=total),
        regression(keras.Input((4,)), layers.Dense(3), Sum(), layers.Dense(1)),
    ):
        for batch_size in (7, None):
            with pytest.raises(ValueError, match="is not a mean over samples"):
                Hessian(model, FEATURES, TARGETS, batch_size=batch_size).trace(2)


def test_state_that_passes_between_batches_is_refused():
    parts = layers.GRU(3, stateful=True), layers.Dense(1)
    model = regression(keras.Input(batch_shape=(8, 4, 1)), *parts)
    with pytest.raises(ValueError, match="passes from batch to batch.*stateful=False"):
        Hessian(model, FEATURES[..., np.newaxis], TARGETS, batch_size=8).trace(2)


def test_weights_that_the_loss_does_not_reach_have_no_curvature():
    inputs = keras.Input((4,))
    shared = layers.Dense(2, "tanh")(inputs)
    model = keras.Model(inputs, [layers.Dense(1)(shared), layers.Dense(2)(shared)])
    model.compile("sgd", ["mse", None])
    hessian = hessian_by_products(model, FEATURES, [TARGETS, TARGETS])
    expected = hessian_by_differences(
        model, lambda: tf.reduce_mean(tf.square(model(FEATURES)[0] - TARGETS))
    )
    assert not hessian[-6:].any()
    np.testing.assert_allclose(hessian, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 1e-5), ("float64", 1e-5), ("float16", 5e-3), ("mixed_bfloat16", 3e-2)],
)
def test_all_eigenvalues_of_a_few_parameters_in_any_precision(dtype, tolerance):
    model = regression(keras.Input((4,)), layers.Dense(1, use_bias=False, dtype=dtype))
    values, directions = Hessian(model, FEATURES, TARGETS).eigenvalues(4)
    expected = np.linalg.eigvalsh(2 / 24 * FEATURES.T @ FEATURES)[::-1]
    np.testing.assert_allclose(values, expected, rtol=tolerance)
    assert [direction[0].shape for direction in directions] == [(4, 1)] * 4
    with pytest.raises(ValueError, match="at most the 4 parameters.*Received 5"):
        Hessian(model, FEATURES, TARGETS).eigenvalues(5)


def test_a_hessian_of_zeros_has_eigenvalues_of_zero():
    dead = layers.Dense(9, "relu", bias_initializer=keras.initializers.Constant(-50))
    model = regression(keras.Input((4,)), dead, layers.Dense(1), loss="mae")
    values, directions = Hessian(model, FEATURES, TARGETS).eigenvalues(2)
    np.testing.assert_array_equal(values, [0, 0])
    np.testing.assert_allclose([np.linalg.norm(flat(each)) for each in directions], 1)
    surface = evaluate_convexity(model, FEATURES, TARGETS, 2, seed=0, verbose=0)
    for name in CURVATURE:
        np.testing.assert_array_equal(surface.values[name], np.zeros((2, 2)))


def test_non_finite_hessians_are_nan_in_a_map_and_refused_elsewhere():
    parts = layers.Dense(6, "exponential"), layers.Dense(1)
    model = regression(keras.Input((4,)), *parts)
    (alpha, beta) = random_directions(model, 2, seed=0)
    extent = (-400, 0), (-400, 0)
    surface = evaluate_convexity(
        model, FEATURES, TARGETS, 2, directions=[alpha, beta], extent=extent, verbose=0
    )
    for name in CURVATURE:
        missing = np.isnan(surface.values[name])
        np.testing.assert_array_equal(missing, [[True, True], [True, False]])
    model.layers[0].kernel.assign(400 * alpha[0])
    hessian = Hessian(model, FEATURES, TARGETS)
    for measure in (hessian.eigenvalues, hessian.trace, hessian.spectrum):
        with pytest.raises(ValueError, match="Hessian is not finite"):
            measure()
