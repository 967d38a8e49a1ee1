"""Internals: the private names of Keras still mean what this library expects."""

import keras
import numpy as np
from keras import layers

from losslandscape import internals


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


def test_the_global_generator_is_made_on_first_use_and_can_be_dropped():
    keras.utils.set_random_seed(0)
    assert not internals.has_global_seed_generator()
    keras.random.normal((1,))
    assert internals.has_global_seed_generator()
    generator = internals.global_seed_generator()
    state = np.array(generator.state)
    keras.random.normal((1,))
    assert not np.array_equal(state, np.array(generator.state))
    internals.drop_global_seed_generator()
    assert not internals.has_global_seed_generator()
