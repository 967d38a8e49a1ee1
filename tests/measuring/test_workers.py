"""Workers: every kind of executor gives the serial numbers, and a lost worker is reported."""

import multiprocessing
import os
import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from losslandscape import (
    LossSurface,
    evaluate_line,
    evaluate_lines,
    evaluate_surface,
    evaluation,
)
from losslandscape.measuring import workers

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def processes():
    # One: threads show that several share the points, and a process takes seconds to start.
    with ProcessPoolExecutor(1, mp_context=SPAWN) as executor:
        yield executor


@pytest.fixture(params=["threads", "processes"])
def executor(request):
    if request.param == "processes":
        yield request.getfixturevalue("processes")
    else:
        with ThreadPoolExecutor(2) as threads:
            yield threads


def assert_same(one, other):
    np.testing.assert_equal(one.values, other.values)
    np.testing.assert_equal(one.errors, other.errors)
    np.testing.assert_equal(one.center, other.center)
    assert one.metadata["engine"] == other.metadata["engine"]


# Of 35 points, "auto" compiles those of this model.
@pytest.mark.parametrize("engine", ["evaluate", "auto"])
def test_workers_give_the_serial_surface_bit_for_bit(engine, executor, model, data):
    options = {"number_of_points": (7, 5), "seed": 0, "engine": engine, "verbose": 0}
    options["sampling_error"] = True
    before = model.get_weights()
    shared = evaluate_surface(model, *data, executor=executor, **options)
    assert list(shared.errors) == ["loss", "accuracy"]
    assert_same(shared, evaluate_surface(model, *data, **options))
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_workers_measure_several_directions_and_datasets(executor, model, data):
    irregular = tf.data.Dataset.from_generator(
        lambda: ((data[0][:n], data[1][:n]) for n in (3, 7, 5)),
        output_signature=(tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64)),
    )
    datasets = (data, irregular)
    options = {"number_of_points": 9, "number_of_directions": 3, "seed": 0, "verbose": 0}
    for shared, serial in zip(
        evaluate_lines(model, datasets, executor=executor, **options),
        evaluate_lines(model, datasets, **options),
        strict=True,
    ):
        assert_same(shared, serial)


class Counting(Executor):
    """Runs tasks immediately in this thread, and keeps what was sent."""

    def __init__(self):
        self.sent = []

    def submit(self, function, /, *arguments):
        self.sent.append(arguments)
        future = Future()
        future.set_result(function(*arguments))
        return future


def test_the_model_is_sent_once_to_each_worker(model, data):
    executor = Counting()
    evaluate_surface(model, *data, 11, seed=0, executor=executor, verbose=0)
    contents = [arguments[1] for arguments in executor.sent]
    assert len(contents) > 100
    assert sum(content is not None for content in contents) == 1


class Counted(ThreadPoolExecutor):
    """Counts the tasks that carry the model, data and directions."""

    def __init__(self):
        super().__init__(1)
        self.heavy = []

    def submit(self, function, /, *arguments):
        if arguments[1] is not None:
            self.heavy.append(arguments[0])
        return super().submit(function, *arguments)


def test_two_calls_at_once_share_a_worker_that_serves_both(model, data):
    other = keras.models.clone_model(model)
    other.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    options = {"number_of_points": 7, "seed": 0, "engine": "evaluate", "verbose": 0}
    with Counted() as executor, ThreadPoolExecutor(2) as callers:
        calls = [
            callers.submit(evaluate_surface, each, *data, executor=executor, **options)
            for each in (model, other)
        ]
        shared = [call.result() for call in calls]
        assert len(executor.heavy) == 2
        # A third forgets both.
        evaluate_surface(model, *data, 3, executor=executor, verbose=0)
        assert executor.submit(lambda *_: len(vars(workers._received)), None, None).result() == 1
    for one, each in zip(shared, (model, other), strict=True):
        assert_same(one, evaluate_surface(each, *data, **options))


@pytest.fixture
def after(monkeypatch):
    """Runs an action after some points."""

    def plan(number, action):
        advance, done = evaluation.Progress.advance, []

        def advance_and_act(progress, *arguments):
            done.append(arguments)
            advance(progress, *arguments)
            if len(done) == number:
                action()

        monkeypatch.setattr(evaluation.Progress, "advance", advance_and_act)

    return plan


def test_a_dead_worker_is_reported_and_the_finished_points_are_kept(model, data, after, tmp_path):
    options = {"number_of_points": 7, "seed": 0, "verbose": 0, "checkpoint": tmp_path / "s.h5"}
    with ProcessPoolExecutor(1, mp_context=SPAWN) as executor:
        after(5, lambda: os.kill(next(iter(executor._processes)), signal.SIGKILL))
        with pytest.raises(BrokenProcessPool) as caught:
            evaluate_surface(model, *data, executor=executor, **options)
    assert "the finished points are there" in caught.value.__notes__[0]
    assert len(LossSurface.load(tmp_path / "s.h5").metadata["missing"]) <= 49 - 5
    resumed = evaluate_surface(model, *data, **options)
    del options["checkpoint"]
    assert_same(resumed, evaluate_surface(model, *data, **options))


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_ends_the_call_but_not_the_workers(executor, model, data, after):
    options = {"number_of_points": 7, "seed": 0, "verbose": 0}
    after(5, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        evaluate_surface(model, *data, executor=executor, **options)
    assert_same(
        evaluate_surface(model, *data, executor=executor, **options),
        evaluate_surface(model, *data, **options),
    )


@keras.saving.register_keras_serializable("test_workers")
class Forgetful(keras.losses.Loss):
    """Forgets an argument when it is saved, so that a copy of it is a different loss."""

    def __init__(self, factor=1.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


@keras.saving.register_keras_serializable("test_workers")
class ForgetfulLayer(layers.Layer):
    def __init__(self, factor=1.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, inputs):
        return self.factor * inputs

    def get_config(self):
        return {"name": self.name}


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
@pytest.mark.parametrize("forgets", ["loss", "layer"])
def test_a_model_that_is_different_in_a_worker_is_refused(forgets, engine, data):
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    if forgets == "layer":
        network = keras.Sequential([keras.Input((4,)), ForgetfulLayer(0.5), *network.layers])
    network.compile("sgd", Forgetful(3.0 if forgets == "loss" else 1.0))
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(ValueError, match="`executor` has a worker whose model is different"),
    ):
        evaluate_surface(network, *data, 3, executor=executor, engine=engine, verbose=0)


def test_an_engine_that_does_not_apply_is_refused_before_anything_is_sent(model, data):
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    executor = Counting()
    with pytest.raises(ValueError, match="does not apply: the model runs eagerly"):
        evaluate_line(model, *data, engine="compiled", executor=executor, verbose=0)
    assert not executor.sent


@keras.saving.register_keras_serializable("test_workers")
class Homebound(layers.Layer):
    """Cannot be loaded in a worker: in a process it is not known, in a thread it refuses."""

    def call(self, inputs):
        return inputs

    @classmethod
    def from_config(cls, _):
        raise ValueError("it stays at home")


def test_an_error_in_a_worker_is_raised_here(executor, data):
    network = keras.Sequential([keras.Input((4,)), Homebound(), layers.Dense(3, "softmax")])
    network.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises((TypeError, ValueError), match="Homebound|stays at home") as caught:
        evaluate_line(network, *data, executor=executor, verbose=0)
    assert any("A worker of `executor` failed" in note for note in caught.value.__notes__)


def test_executors_that_cannot_work_are_refused(model, data):
    with pytest.raises(TypeError, match="`executor` must be a `concurrent.futures.Executor`"):
        evaluate_line(model, *data, executor=2)
    fork = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(1, mp_context=fork) as executor,
        pytest.raises(ValueError, match="must not fork.*'spawn'"),
    ):
        evaluate_line(model, *data, executor=executor)


def test_dask_gives_the_serial_surface(model, data):
    from distributed import Client, LocalCluster  # noqa: PLC0415, slow and only for this

    options = {"number_of_points": 5, "seed": 0, "verbose": 0}
    # Its workers are threads of this process, since others would take half a minute to start.
    local = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**local) as cluster, Client(cluster) as client:
        shared = evaluate_surface(model, *data, executor=client.get_executor(), **options)
    assert_same(shared, evaluate_surface(model, *data, **options))
