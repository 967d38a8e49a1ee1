"""Reproducibility: the same call gives the same bits, whatever came before and however it ran."""

import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras, numpy as np
from keras import layers
from losslandscape import evaluate_line, evaluate_surface, evaluation
from losslandscape.measuring import engines

folder, *names = sys.argv[1:]
keras.utils.set_random_seed(0)
generator = np.random.default_rng(0)
x, y = generator.normal(size=(50, 4)).astype("float32"), generator.integers(0, 3, 50)
model = keras.Sequential([
    keras.Input((4,)), layers.Dense(8, "tanh", kernel_regularizer="l2"),
    layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3),
])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("sgd", loss, metrics=["accuracy"])

# Points per axis. One by one, each point is measured alike, so fewer show the same.
NUMBERS = {"compiled": 25, "evaluate": 11}

def surface(engine, **options):
    options = {"seed": 0, "engine": engine, "verbose": 0} | options
    return evaluate_surface(model, x, y, NUMBERS[engine], **options)

def interrupted(number, engine, **options):
    "Measures some points, until Ctrl-C."
    advance, done = evaluation.Progress.advance, []
    def counting(progress, points, value):
        advance(progress, points, value)
        done.append(points)
        if sum(done) >= number:
            raise KeyboardInterrupt
    evaluation.Progress.advance = counting
    try:
        surface(engine, **options)
    except KeyboardInterrupt:
        return
    finally:
        evaluation.Progress.advance = advance
    raise AssertionError

def in_pieces(engine):
    options = {"checkpoint": Path(folder, f"{engine}.h5")}
    number = NUMBERS[engine] ** 2
    patience, engines.PATIENCE = engines.PATIENCE, 0.0
    # One point at a time, then as many as fit, in workers, and so on.
    interrupted(0.3 * number, engine, **options)
    engines.PATIENCE = 1e9
    with ThreadPoolExecutor(2) as executor:
        interrupted(0.4 * number, engine, executor=executor, **options)
    engines.PATIENCE = patience
    interrupted(0.2 * number, engine, **options)
    # A few points are left.
    found = surface(engine, **options)
    assert not found.metadata.get("missing")
    return found

def other_calls():
    model.evaluate(x[:9], y[:9], verbose=0)
    for engine in ("evaluate", "compiled"):
        evaluate_line(model, x[:9], y[:9], 26, seed=1, engine=engine, verbose=0)

for name in names:
    if name == "others":
        other_calls()
        continue
    way, engine = name.split("-")
    found = {"whole": surface, "pieces": in_pieces}[way](engine)
    assert found.metadata["engine"] == engine
    measured = {metric: values.ravel() for metric, values in found.values.items()}
    np.savez(Path(folder, name), **measured, center=list(found.center.values()))
"""
# What a fresh process does, one after the other.
NAMES = ("whole-compiled", "whole-evaluate", "others", "pieces-evaluate", "pieces-compiled")


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_same_call_gives_the_same_bits(backend, tmp_path):
    environment = os.environ | {"KERAS_BACKEND": backend}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), *NAMES]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for engine in ("compiled", "evaluate"):
        whole, pieces = (np.load(tmp_path / f"{way}-{engine}.npz") for way in ("whole", "pieces"))
        assert whole["loss"].size == {"compiled": 625, "evaluate": 121}[engine]
        assert np.ptp(whole["loss"]) > 0
        for name in whole.files:
            np.testing.assert_array_equal(pieces[name], whole[name], err_msg=f"{engine}: {name}")
