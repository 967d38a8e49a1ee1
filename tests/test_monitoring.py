"""Monitoring: the numbers in the logs, and that training takes no notice of them."""

import csv

import keras
import numpy as np
import pytest
from keras import layers

from losslandscape import (
    LandscapeLogger,
    WeightHistory,
    evaluate_line,
    half_widths,
    hessian_eigenvalues,
    read_history,
)


def train(data, callbacks, epochs=4):
    """Trains a network with everything that draws random numbers or keeps a state."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)

    def disturb(*_):
        # As data augmentation may draw its random numbers.
        model.layers[0].bias.assign_add(np.random.normal(size=6))  # noqa: NPY002

    callbacks = [*callbacks, keras.callbacks.LambdaCallback(on_epoch_begin=disturb)]
    fit = {"batch_size": 16, "validation_data": data, "callbacks": callbacks, "verbose": 0}
    logs = model.fit(*data, epochs=epochs, **fit).history
    # Another fit: what is drawn when it begins must be the same, too.
    model.fit(*data, **fit | {"callbacks": []})
    variables = [*model.variables, *model.optimizer.variables]
    return model, logs, [np.array(variable) for variable in variables]


def sharpness(data):
    return lambda model: hessian_eigenvalues(model, *data, seed=0)[0][0]


def test_numbers_are_those_of_the_records_and_training_is_bit_identical(data, tmp_path):
    def width(model):
        line = evaluate_line(model, *data, 7, extent=(-2, 2), seed=0, verbose=0)
        return half_widths(line, rise=0.1)[0]

    # One draws from the global state of NumPy, since it has no seed.
    measures = {
        "λmax": sharpness(data), "width": width,
        "random": lambda model: evaluate_line(model, *data, 2, verbose=0).values["loss"][0, 0],
    }  # fmt: skip
    _, plain, expected = train(data, [])
    history = WeightHistory(tmp_path / "history")
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    logger = LandscapeLogger(measures, every=2)
    model, logs, variables = train(data, [logger, history, table])
    for found, value in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(found, value)
    assert {name: logs[name] for name in plain} == plain

    _, records = read_history(model, history)
    for epoch in (2, 4):
        model.set_weights(records[epoch])
        for name in ("λmax", "width"):
            assert logs[name][epoch - 1] == pytest.approx(measures[name](model), rel=1e-5)
    for name in measures:
        np.testing.assert_array_equal(np.isnan(logs[name]), [True, False, True, False])
    with (tmp_path / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = [float(row["λmax"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rows, logs["λmax"])


def test_a_failure_to_measure_costs_a_warning_but_not_the_training(data):
    def fail(model):
        model.layers[0].kernel.assign_add([[1.0] * 6] * 4)
        raise FloatingPointError("the Hessian is not finite")

    _, _, expected = train(data, [], epochs=1)
    with pytest.warns(UserWarning, match="not measure 'λmax': FloatingPointError: the Hessian"):
        _, logs, variables = train(data, [LandscapeLogger({"λmax": fail})], epochs=1)
    assert np.isnan(logs["λmax"]).all()
    for found, value in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_unusable_arguments_are_refused(data):
    with pytest.raises(TypeError, match="`measures` must be a dict of functions"):
        LandscapeLogger({"λmax": 3})
    with pytest.raises(ValueError, match="`measures` is empty"):
        LandscapeLogger({})
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        LandscapeLogger({"λmax": sharpness(data)}, every=0)
    with pytest.raises(ValueError, match=r"do not have. Received \['accuracy', 'loss'\]"):
        train(data, [LandscapeLogger({"loss": float, "accuracy": float})], epochs=1)
