"""Claims: a model is measured by one thread at a time, and nothing of it is changed for that."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers

from losslandscape import Hessian, evaluate_line, random_directions
from losslandscape.basics.claims import CLAIMS
from losslandscape.curvature.gradients import gradient_direction
from losslandscape.measuring.state import preserved

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = X[:, :1] * X[:, 1:2]
CALLS = {
    "line": lambda model: evaluate_line(model, X, Y, 3, seed=0, verbose=0),
    "trace": lambda model: Hessian(model, X, Y, verbose=0).trace(2, seed=0),
    "gradient": lambda model: gradient_direction(model, X, Y),
    "directions": lambda model: random_directions(model, seed=0),
    "preserved": lambda model: preserved(model).__enter__(),
}


def shared_layers():
    """Two models that share a layer, and one that shares none."""
    first, inputs = layers.Dense(4, "tanh", kernel_regularizer="l2"), keras.Input((3,))
    shared = first(inputs)
    models = [keras.Model(inputs, layers.Dense(1)(shared)) for _ in range(2)]
    models.append(keras.Sequential([keras.Input((3,)), layers.Dense(1)]))
    for model in models:
        model.compile("sgd", "mse")
    return models


def in_another_thread(function, *args):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function, *args).result()


def test_a_model_that_is_being_measured_is_refused_in_other_threads():
    model, sharing, other = shared_layers()
    with preserved(model):
        for call in CALLS.values():
            for each in (model, sharing):
                with pytest.raises(RuntimeError, match="is being measured by another thread"):
                    in_another_thread(call, each)
        # The thread itself may measure it, and all others another model.
        CALLS["line"](model)
        in_another_thread(CALLS["line"], other)
    for name in ("line", "trace", "gradient"):
        in_another_thread(CALLS[name], sharing)


def test_a_claim_ends_with_its_call_even_if_that_fails():
    model, *_ = shared_layers()
    with pytest.raises(ValueError, match="`extent`"):
        evaluate_line(model, X, Y, 3, extent="far")
    with pytest.raises(KeyboardInterrupt), preserved(model):
        raise KeyboardInterrupt
    assert len(CLAIMS) == 0
    in_another_thread(CALLS["line"], model)


def test_a_call_that_reads_weights_before_it_measures_holds_the_model_all_the_time():
    model, *_ = shared_layers()
    entered, go_on = threading.Event(), threading.Event()

    class Slow:
        """Data that are read only when another thread says so."""

        def __len__(self):
            return 1

        def __iter__(self):
            entered.set()
            assert go_on.wait(60)
            yield X, Y

    with ThreadPoolExecutor(1) as executor:
        line = executor.submit(evaluate_line, model, Slow(), None, 3, seed=0, verbose=0)
        assert entered.wait(60)
        try:
            with pytest.raises(RuntimeError, match="measured by another thread"):
                evaluate_line(model, X, Y, 3, seed=0, verbose=0)
        finally:
            go_on.set()
        np.testing.assert_array_equal(
            line.result().values["loss"], CALLS["line"](model).values["loss"]
        )


def test_measuring_writes_nothing_to_regularized_weights():
    model, *_ = shared_layers()
    weights, seen = model.trainable_variables, []
    expected = [weight.regularizer for weight in weights]

    def loss(target, output):
        # Called while the step is traced, or run.
        seen.append([weight.regularizer for weight in weights])
        return keras.ops.square(target - output)

    model.compile("sgd", loss)
    line = evaluate_line(model, X, Y, 3, seed=0, engine="compiled", verbose=0)
    assert seen
    assert all(found == expected for found in seen)
    center = line.center
    penalty = float(expected[0](weights[0]))
    data_loss = np.mean(np.square(model(X) - Y))
    np.testing.assert_allclose(center["data_loss"], data_loss, rtol=1e-5)
    np.testing.assert_allclose(center["loss"], data_loss + penalty, rtol=1e-5)
