"""Sampling: errors are those of another draw of samples, and only means over samples have one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from losslandscape import (
    evaluate_barriers,
    evaluate_line,
    random_directions,
    report,
)
from losslandscape.curvature.hessian import evaluate_convexity
from losslandscape.measuring.sampling import Blocks, ErrorOf, errors_of

# Sorted by class; the last of the batches of 10 is smaller.
NUMBER, BATCH = 603, 10


@pytest.fixture(scope="module")
def sorted_data():
    generator = np.random.default_rng(0)
    classes = np.sort(generator.integers(0, 2, NUMBER))
    inputs = generator.normal(size=(NUMBER, 4)).astype("float32")
    inputs[:, 0] += classes
    return inputs, classes[:, np.newaxis].astype("float32")


@pytest.fixture
def binary():
    network = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "relu", kernel_regularizer="l2"),
            layers.Dense(1, "sigmoid"),
        ]
    )
    metrics = ["accuracy", keras.metrics.AUC(name="area")]
    weighted = [keras.metrics.BinaryCrossentropy(name="weighted")]
    network.compile("adam", "binary_crossentropy", metrics=metrics, weighted_metrics=weighted)
    return network


def along(model, direction, alphas):
    """Moves a model, and gives it back in the end."""
    weights = [keras.ops.copy(weight) for weight in model.trainable_variables]
    for alpha in alphas:
        for weight, center, step in zip(model.trainable_variables, weights, direction, strict=True):
            weight.assign(center + alpha * step)
        yield
    for weight, center in zip(model.trainable_variables, weights, strict=True):
        weight.assign(center)


def standard_error(values, weights=1.0):
    """Of a ratio of two sums over samples, in the closed form."""
    weights = np.broadcast_to(weights, values.shape)
    mean = np.average(values, weights=weights)
    deviations = weights * (values - mean) / weights.mean()
    return np.sqrt(np.mean(deviations**2) / (len(values) - 1))


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_errors_are_those_of_the_losses_of_single_samples(binary, sorted_data, engine):
    inputs, targets = sorted_data
    weights = np.random.default_rng(1).uniform(0.2, 2, NUMBER)
    (direction,) = random_directions(binary, 1, seed=0)
    data, options = (inputs, targets, weights), {"directions": [direction], "engine": engine}
    line = evaluate_line(binary, data, None, 3, batch_size=BATCH, sampling_error=True, **options)
    expected = {name: [] for name in ("loss", "data_loss", "accuracy", "weighted")}
    for _ in along(binary, direction, line.alphas):
        outputs = binary.predict(inputs, verbose=0)
        losses = -np.log(np.where(targets == 1, outputs, 1 - outputs))[:, 0]
        expected["loss"].append(standard_error(weights * losses))
        expected["accuracy"].append(standard_error(((outputs > 0.5) == targets)[:, 0] * 1.0))
        expected["weighted"].append(standard_error(losses, weights))
    expected["data_loss"] = expected["loss"]
    # Errors from 61 blocks scatter by 1 / √120.
    assert line.errors.keys() == expected.keys()
    for name, errors in expected.items():
        np.testing.assert_allclose(line.errors[name], [errors], rtol=3 / np.sqrt(120), err_msg=name)
    found = line.metadata["sampling_error"]
    assert found["blocks"] == 61
    assert found["shuffled"]
    assert found["not_means"] == ["area"]
    error = found["center"]["loss"]
    np.testing.assert_allclose(error, line.errors["loss"][0, 1])
    (finding,) = (each for each in report(line) if "over samples" in each.check)
    assert finding.value == error
    # The shuffled samples are the same, so are their values.
    plain = evaluate_line(binary, data, None, 3, **options)
    for name in plain.values:
        np.testing.assert_allclose(line.values[name], plain.values[name], rtol=2e-5)
    assert plain.errors == {}


def test_batches_keep_their_order_and_are_the_blocks(binary, sorted_data):
    batches = tf.data.Dataset.from_tensor_slices(sorted_data).batch(50)
    line = evaluate_line(binary, batches, None, 2, extent=(0, 1), seed=0, sampling_error=True)
    parts = [binary.evaluate(*batch, verbose=0, return_dict=True) for batch in batches]
    sizes = np.array([len(targets) for _, targets in batches])
    assert line.metadata["sampling_error"]["blocks"] == len(sizes) == 13
    assert not line.metadata["sampling_error"]["shuffled"]
    for name in ("loss", "accuracy"):
        means, shares = np.array([part[name] for part in parts]), sizes / sizes.sum()
        squares = shares**2 * (means - np.average(means, weights=sizes)) ** 2
        expected = np.sqrt(squares.sum() / (1 - np.sum(shares**2)))
        np.testing.assert_allclose(line.errors[name][0, 0], expected, rtol=1e-3)
    # In the order of the classes, blocks differ by more than chance.
    shuffled = evaluate_line(binary, *sorted_data, 2, extent=(0, 1), seed=0, sampling_error=True)
    assert line.errors["accuracy"][0, 0] > 2 * shuffled.errors["accuracy"][0, 0]


def test_errors_are_the_scatter_of_means_over_other_samples():
    generator = np.random.default_rng(0)
    sizes = np.array([20] * 19 + [7])
    # As skewed as losses are.
    draws = generator.exponential(size=(2000, sizes.sum()))
    ends = np.cumsum(sizes)
    running = np.cumsum(draws, axis=1)[:, ends - 1] / ends
    blocks = Blocks({"samples": sizes}, means={"loss": "samples"})
    errors = errors_of(blocks, {"loss": running})[ErrorOf("loss")]
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2)), np.std(running[:, -1]), rtol=0.05)
    scores = (running[:, -1] - 1) / errors
    # Of Student's t with 19 degrees of freedom.
    assert abs(np.std(scores) - np.sqrt(19 / 17)) < 0.06


def test_losses_of_outputs_whose_batches_count_the_same_have_errors():
    inputs = keras.Input((3,))
    network = keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(2)(inputs)])
    network.compile(loss=["mse", "mae"], steps_per_execution=4)
    values = np.random.default_rng(0).normal(size=(45, 3))
    targets = [values[:, :1], values[:, 1:]]
    line, other = (
        evaluate_line(
            network, values, targets, 3, seed=0, engine=engine, sampling_error=True, batch_size=4
        )
        for engine in ("evaluate", "compiled")
    )
    assert network.steps_per_execution == 4
    assert line.errors.keys() == other.errors.keys() == line.values.keys()
    for name in line.errors:
        np.testing.assert_allclose(line.errors[name], other.errors[name], rtol=1e-4)
        assert (line.errors[name] > 0).all()


class Alone(keras.Sequential):
    """Returns the loss of each batch alone; Keras reports the mean over all batches."""

    def test_step(self, data):
        logs = super().test_step(data)
        return logs | {"loss": self.compute_loss(*data, self(data[0]))}


def test_values_of_single_batches_have_no_errors(sorted_data):
    network = Alone([keras.Input((4,)), layers.Dense(1, "sigmoid")])
    network.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    line = evaluate_line(network, *sorted_data, 2, seed=0, sampling_error=True)
    assert list(line.errors) == ["accuracy"]
    assert line.metadata["sampling_error"]["not_means"] == ["loss"]


TOO_FEW = {
    "samples": (lambda data: [part[:19] for part in data], {}, "at least 20 samples.*Received 19"),
    "arrays": (lambda data: data, {"batch_size": 100}, r"Received 7.*100.*pass `batch_size=31`"),
    "batches": (
        lambda data: [tf.data.Dataset.from_tensor_slices(data).batch(80)],
        {},
        "at least 10 batches.*Received 8, of up to 80 samples: batch it by 31 samples",
    ),
}


@pytest.mark.parametrize("name", TOO_FEW)
def test_too_few_samples_or_batches_are_refused(binary, sorted_data, name):
    choose, options, message = TOO_FEW[name]
    before = binary.get_weights()
    with pytest.raises(ValueError, match=message):
        evaluate_line(binary, *choose(sorted_data), sampling_error=True, **options)
    np.testing.assert_equal(binary.get_weights(), before)


def test_calls_whose_values_are_no_means_over_samples_refuse_them(binary, sorted_data):
    message = "`sampling_error` is for lines and surfaces.*LossBarriers.*Leave it out"
    with pytest.raises(ValueError, match=message):
        evaluate_barriers([binary, binary], *sorted_data, 3, sampling_error=True)
    with pytest.raises(ValueError, match="means over samples.*the engine hessian. Leave it out"):
        evaluate_convexity(binary, *sorted_data, 2, sampling_error=True, verbose=0)
    with pytest.raises(ValueError, match="`sampling_error` must be one of False, True"):
        evaluate_line(binary, *sorted_data, sampling_error=20)
