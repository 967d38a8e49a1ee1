"""Internals: the private names of Keras still mean what this library expects."""

import threading

import keras
import numpy as np
from keras import layers

from losslandscape.basics import internals


def test_layers_are_flattened_at_any_depth_and_once():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="deep")])
    outer = keras.Sequential([keras.Input((2,)), inner, inner])
    names = [layer.name for layer in internals.flatten_layers(outer)]
    assert names.count("deep") == 1
    assert names[0] == outer.name


def test_a_layers_own_weights_exclude_those_of_its_sublayers():
    wrapper = layers.Bidirectional(layers.LSTM(2))
    wrapper.build((None, 3, 1))
    assert internals.own_trainable_variables(wrapper) == []
    dense = layers.Dense(2)
    dense.build((None, 3))
    assert internals.own_trainable_variables(dense) == [dense.kernel, dense.bias]


def test_metrics_are_built_without_computing():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, activation="softmax")])
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    assert len(model.metrics_variables) == 2
    internals.build_symbolically(model, (np.ones((4, 2), "float32"), np.zeros(4)))
    assert len(model.metrics_variables) == 4


class Numbers(keras.utils.PyDataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return np.full((2, 1), index), np.zeros(2)


def test_a_dataset_is_read_anew_each_time_and_its_workers_end_with_the_pass():
    dataset = Numbers(workers=2)
    first, _ = next(internals.batches_of(dataset))
    assert np.all(first == 0)
    assert [int(x[0, 0]) for x, _ in internals.batches_of(dataset)] == [*range(20)]
    assert not any(thread.name.startswith("Worker_") for thread in threading.enumerate())


def test_the_global_generator_is_made_on_first_use_and_can_be_replaced():
    keras.utils.set_random_seed(0)
    assert not internals.has_global_seed_generator()
    keras.random.normal((1,))
    assert internals.has_global_seed_generator()
    generator = internals.global_seed_generator()
    state = np.array(generator.state)
    keras.random.normal((1,))
    assert not np.array_equal(state, np.array(generator.state))
    internals.set_global_seed_generator(None)
    assert not internals.has_global_seed_generator()
    internals.set_global_seed_generator(generator)
    assert internals.global_seed_generator() is generator


def test_only_models_that_do_what_their_graph_says_have_one():
    class WithOwnCall(keras.Model):
        def call(self, inputs):
            return -super().call(inputs)

    class WithOwnStep(keras.Model):
        def test_step(self, data):
            raise NotImplementedError

    inputs = keras.Input((2,))
    outputs = layers.Dense(3)(inputs)
    assert internals.has_graph(keras.Sequential([inputs, layers.Dense(3)]))
    assert internals.has_graph(keras.Model(inputs, outputs))
    assert internals.has_graph(WithOwnStep(inputs, outputs))
    assert not internals.has_graph(WithOwnCall(inputs, outputs))
    assert not internals.has_graph(layers.Dense(3))
    assert not internals.has_graph(keras.Sequential([layers.Dense(3)]))


def test_calls_come_in_order_each_with_the_tensors_it_joins():
    inputs = keras.Input((2,), name="inputs")
    dense = layers.Dense(2, name="shared")
    outputs = layers.Add(name="sum")([dense(dense(inputs)), inputs])
    # A call in another model is not one of this.
    dense(keras.Input((2,)))
    model = keras.Model(inputs, outputs)
    found = list(internals.calls(model))
    assert [operation.name for operation, _, _ in found] == ["inputs", "shared", "shared", "sum"]
    (_, _, start), (_, first_in, first_out), (_, second_in, second_out), (_, ends, end) = found
    assert [first_in[0], second_in[0], ends[1], end[0]] == [
        start[0],
        first_out[0],
        start[0],
        outputs,
    ]
    assert ends[0] is second_out[0]
    names = [each.name for each, _, _ in internals.calls(keras.Sequential([inputs, dense]))]
    assert names == ["inputs", "shared"]


def test_a_learning_rate_comes_from_a_schedule_or_is_a_number():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert internals.schedule_of(keras.optimizers.SGD(schedule)) is schedule
    assert internals.schedule_of(keras.optimizers.SGD(0.1)) is None


def test_weight_penalties_can_be_left_out_without_changing_the_model():
    inputs = keras.Input((2,))
    penalized = layers.Dense(2, kernel_regularizer="l2", activity_regularizer="l2")
    model = keras.Model(inputs, penalized(inputs))
    same = internals.without_penalties(model)
    same(np.ones((1, 2)))
    assert len(model.losses) == 2
    assert len(same.losses) == 1
    assert isinstance(same, keras.Model)
    assert vars(same) is vars(model)
    assert type(model) is not type(same)
