"""Measures memory: whether it grows over many points, and how many copies of weights it holds.

Run with `make benchmark`; the tables go to `benchmarks/MEMORY.md`. With `--billion` also a line
around a transformer of a billion weights, which takes 8 GiB and a quarter of an hour.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits
from speed import table

from losslandscape import evaluate_line, evaluate_surface, random_directions
from losslandscape.measuring import engines

POINTS, FIRST, LIMIT = 2000, 200, 0.05
# Of the network with 100 million weights: layers and units. As in a vision transformer of that
# size, the largest weight is a fortieth of all.
LAYERS, UNITS = 40, 1581
# Of the transformer: vocabulary, blocks, units, heads.
VOCABULARY, BLOCKS, WIDTH, HEADS = 32000, 19, 2048, 16
CALLS = {
    "line": lambda *data: evaluate_line(*data, 3, seed=0, verbose=0),
    "plane": lambda *data: evaluate_surface(*data, 2, seed=0, verbose=0),
    "ten directions": lambda *data: evaluate_line(
        *data, 3, number_of_directions=10, seed=0, verbose=0
    ),
}
WAYS = {"kept": np.inf, "drawn at each point": 0}
RESULTS = Path(__file__).parent / "MEMORY.md"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--billion", action="store_true")
    parser.add_argument("--case", nargs=2, help="one case, measured in this process")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure_case(*arguments.case)))
        return
    growth, report = measure_growth()
    report += report_of_copies()
    if arguments.billion:
        report += report_of_billion()
    RESULTS.write_text(report)
    print(report)
    if growth > LIMIT:
        raise SystemExit("The resident size grows with the number of points.")


def measure_growth():
    """The growth of the resident size over many points, and a page that says so."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    sizes = []
    evaluate = model.evaluate

    def evaluate_and_measure(*arguments, **options):
        results = evaluate(*arguments, **options)
        sizes.append(resident_mebibytes())
        return results

    model.evaluate = evaluate_and_measure
    directions = random_directions(model, seed=0)
    evaluate_line(model, digits.data / 16, digits.target, POINTS, directions=directions, verbose=2)
    gc.collect()
    rows = [(point, f"{sizes[point]:.1f}") for point in (1, FIRST, 500, 1000, 1500, POINTS)]
    growth = sizes[POINTS] / sizes[FIRST] - 1
    return growth, (
        "# Memory\n\n## Over many points\n\n"
        f"Made by `make benchmark`. A 64-32-10 network on the {len(digits.data)} digits, "
        f"{POINTS} points in one call.\n\n{table(('point', 'resident MiB'), rows)}\n\n"
        f"Growth from point {FIRST} to point {POINTS}: {growth:.2%} (limit {LIMIT:.0%}).\n"
    )


def report_of_copies():
    """A table of what each call holds above the loaded model, in copies of its weights."""
    rows = [
        (call, way, f"{copies:.2f}", f"{seconds:.1f}")
        for call in CALLS
        for way in WAYS
        for copies, seconds in [in_another_process(call, way)]
    ]
    header = ("call", "directions", "copies of the weights", "seconds per point")
    return (
        "\n## Large weights\n\n"
        f"The most memory that a call holds above the loaded model after an evaluation, for a "
        f"network of {LAYERS} layers with {LAYERS * UNITS * (UNITS + 1) / 1e6:.0f} million weights "
        "on 64 samples: anonymous memory, which cannot be reclaimed. By default, directions are "
        "kept up to 1 GiB of weights, and drawn at each point beyond; here both ways are forced. "
        "One copy is the state that the user gets back.\n\n"
        f"{table(header, rows)}\n"
    )


def in_another_process(*case):
    """A case in a process of its own, since memory that was freed may stay with the old one."""
    command = [sys.executable, __file__, "--case", *case]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_case(call, way):
    """The most copies of the weights that a call holds, and its seconds per point."""
    engines.LARGE = WAYS[way]
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(UNITS, "relu") for _ in range(LAYERS)]
    model = keras.Sequential([keras.Input((UNITS,)), *stack])
    model.compile(loss="mse")
    data = np.ones((64, UNITS), "float32"), np.zeros((64, UNITS), "float32")
    size = 4 * model.count_params() / 2**20
    most, seconds, value = peak(lambda: CALLS[call](model, *data), lambda: model.evaluate(*data))
    (values,) = value.values.values()
    # The center is measured at the beginning and at the end, besides.
    return most / size, seconds / (values.size + 2)


def report_of_billion():
    """A line of five points around a transformer of a billion weights, in half precision."""
    keras.config.set_dtype_policy("bfloat16")
    tokens = keras.Input((None,), dtype="int32")
    embedding = layers.ReversibleEmbedding(VOCABULARY, WIDTH)
    hidden = embedding(tokens)
    for _ in range(BLOCKS):
        hidden = block(hidden)
    model = keras.Model(tokens, embedding(layers.LayerNormalization()(hidden), reverse=True))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    text = np.random.default_rng(0).integers(0, VOCABULARY, (2, 17))
    data = text[:, :-1], text[:, 1:]
    size = 2 * model.count_params() / 2**20
    most, seconds, line = peak(
        lambda: evaluate_line(model, *data, 5, seed=0, verbose=2), lambda: model.evaluate(*data)
    )
    losses = ", ".join(f"{loss:.3f}" for loss in line.values["loss"][0])
    return (
        "\n## A billion weights\n\n"
        f"A line of 5 points around a transformer of {model.count_params():,} weights in bfloat16 "
        f"({BLOCKS} blocks, {WIDTH} units, at its initial weights), on two texts of 16 tokens: "
        f"{seconds:.0f} s, and {most / size:.2f} copies of the weights above the loaded model. "
        f"The losses: {losses}.\n"
    )


def block(inputs):
    attention = layers.MultiHeadAttention(HEADS, WIDTH // HEADS)
    normalized = layers.LayerNormalization()(inputs)
    hidden = inputs + attention(normalized, normalized, use_causal_mask=True)
    normalized = layers.LayerNormalization()(hidden)
    return hidden + layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, "gelu")(normalized))


def peak(call, prepare):
    """The most MiB that a call takes on top of those after `prepare`, its seconds and value."""
    prepare()
    gc.collect()
    before, most, done = anonymous_mebibytes(), 0.0, threading.Event()

    def watch():
        nonlocal most
        while not done.wait(0.005):
            most = max(most, anonymous_mebibytes() - before)

    watcher, started = threading.Thread(target=watch), time.perf_counter()
    watcher.start()
    try:
        value = call()
    finally:
        done.set()
        watcher.join()
    return most, time.perf_counter() - started, value


def anonymous_mebibytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon")]
    return int(line.split()[1]) / 2**10


def resident_mebibytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
