"""Measures what a point costs: the naive way, both engines, and the floor.

Run with `make benchmark`; the tables go to `benchmarks/RESULTS.md`. Everything is
measured in one process, the ways in turn, and the median of the rounds counts.
"""

import argparse
import os
import platform
import statistics
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from networks import resnet
from sklearn.datasets import load_digits

from losslandscape import evaluate_line, evaluate_surface, random_directions
from losslandscape.datasets import automatic_batch_size

GENERATOR = np.random.default_rng(0)


def digits_network():
    digits = load_digits()
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return model, (digits.data / 16).astype("float32"), digits.target


def convolutional_network():
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return model, *images(2000, (28, 28, 1))


def images(number, shape):
    x = GENERATOR.uniform(size=(number, *shape)).astype("float32")
    return x, GENERATOR.integers(0, 10, number)


# What is measured, the points per axis for the compiled engine, and for the ways that take long:
# enough to tell what one point costs.
CASES = {
    "(a) MLP 64-32-10, 1,797 digits": (digits_network, 21, 10),
    "(b) convnet of 31k, 2,000 images of 28x28": (convolutional_network, 21, 5),
    "(c) ResNet-20, 1,000 images of 32x32x3": (
        lambda: (resnet(20), *images(1000, (32, 32, 3))),
        7,
        3,
    ),
    "(d) ResNet-56, 500 images of 32x32x3": (lambda: (resnet(56), *images(500, (32, 32, 3))), 5, 3),
}


def naive(model, x, y, directions, points):
    """What one writes first: NumPy weights, and Keras' own batches of 32."""
    start = model.get_weights()
    trainable = {id(weight): index for index, weight in enumerate(model.trainable_variables)}
    for alpha, beta in points:
        moved = list(start)
        for position, weight in enumerate(model.weights):
            if id(weight) in trainable:
                steps = [direction[trainable[id(weight)]] for direction in directions]
                moved[position] = start[position] + alpha * steps[0] + beta * steps[1]
        model.set_weights(moved)
        model.evaluate(x, y, verbose=0)
    model.set_weights(start)


def floor(model, x, y, batch_size):
    """Plain jitted forward passes with loss over the same batches, weights left alone."""
    batches = [
        (tf.constant(x[start : start + batch_size]), tf.constant(y[start : start + batch_size]))
        for start in range(0, len(x), batch_size)
    ]

    # XLA is faster for the dense network, and slower for convolutions on the CPU.
    @tf.function(jit_compile=all(len(weight.shape) <= 2 for weight in model.weights))
    def one_pass(inputs, targets):
        losses = keras.losses.sparse_categorical_crossentropy(
            targets, model(inputs, training=False)
        )
        return tf.reduce_sum(losses)

    def passes(number):
        for _ in range(number):
            total = sum(one_pass(*batch) for batch in batches)
        return float(total)

    passes(1)
    return passes


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure_case(build, per_axis, fewer, rounds):
    keras.utils.set_random_seed(0)
    model, x, y = build()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    # The user has evaluated the model already.
    model.evaluate(x, y, verbose=0)
    directions = random_directions(model, 2, seed=0)
    grid = [(a, b) for b in np.linspace(-1, 1, fewer) for a in np.linspace(-1, 1, fewer)]
    options = {"directions": directions, "verbose": 0}
    passes = floor(model, x, y, automatic_batch_size(model))

    def surface(engine, number):
        return lambda: evaluate_surface(model, x, y, number, engine=engine, **options)

    ways = {
        "naive": (lambda: naive(model, x, y, directions, grid), len(grid)),
        "evaluate": (surface("evaluate", fewer), len(grid)),
        "compiled": (surface("compiled", per_axis), per_axis**2),
        "floor": (lambda: passes(len(grid)), len(grid)),
    }
    seconds = {name: [] for name in ways}
    # A call compiles its graph and measures the center; two by two points tell what that costs.
    starts = {name: [] for name in ("evaluate", "compiled")}
    for _ in range(rounds):
        for name, (way, _) in ways.items():
            seconds[name].append(timed(way))
        for name, times in starts.items():
            times.append(timed(surface(name, 2)))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    per_point, compile_time = {}, {}
    for name, (_, number) in ways.items():
        if name in starts:
            start = statistics.median(starts[name])
            per_point[name] = (medians[name] - start) / (number - 4)
            compile_time[name] = start - 4 * per_point[name]
        else:
            per_point[name] = medians[name] / number
    return per_point, compile_time


def short_line(build, rounds):
    """A line of five points on a model that was evaluated before, compiling counted."""
    model, x, y = build()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.evaluate(x, y, verbose=0)
    directions = random_directions(model, 2, seed=0)
    line = [(alpha, 0) for alpha in np.linspace(-1, 1, 5)]
    slow, fast = [], []
    for _ in range(rounds):
        slow.append(timed(lambda: naive(model, x, y, directions, line)))
        fast.append(
            timed(lambda: evaluate_line(model, x, y, 5, directions=directions[:1], verbose=0))
        )
    return statistics.median(slow), statistics.median(fast)


def growth(rounds):
    """The compiled engine against the number of points and of samples, on the digits."""
    model, x, y = digits_network()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    directions = random_directions(model, 2, seed=0)

    def seconds(samples, per_axis):
        x_part, y_part = np.resize(x, (samples, 64)), np.resize(y, samples)
        options = {"directions": directions, "engine": "compiled", "verbose": 0}
        return statistics.median(
            timed(lambda: evaluate_surface(model, x_part, y_part, per_axis, **options))
            for _ in range(rounds)
        )

    by_points = [(n * n, f"{seconds(len(x), n):.2f}") for n in (5, 11, 21, 31, 51)]
    by_samples = [(n, f"{seconds(n, 21):.2f}") for n in (2000, 4000, 8000, 16000)]
    return by_points, by_samples


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default="abcd", help="which of the cases, such as ab")
    arguments = parser.parse_args()
    rows, starts, lines = [], [], []
    for name, case in CASES.items():
        if name[1] not in arguments.cases:
            continue
        per_point, compile_time = measure_case(*case, arguments.rounds)
        rows.append(point_row(name, per_point))
        starts.append(start_row(name, per_point, compile_time))
        slow, fast = short_line(case[0], arguments.rounds)
        lines.append((name, f"{slow:.2f}", f"{fast:.2f}", f"{slow / fast:.1f}"))
        print(rows[-1], starts[-1], lines[-1], sep="\n", flush=True)
    by_points, by_samples = growth(arguments.rounds)
    sections = (
        HEAD.format(
            machine=f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
            versions=f"TensorFlow {tf.__version__}, Keras {keras.__version__}",
            rounds=arguments.rounds,
        ),
        "## One point, in milliseconds",
        table(POINT_HEADER, rows),
        "## What a call costs before its first point, in seconds",
        table(START_HEADER, starts),
        '## A line of five points with `engine="auto"`, all counted, in seconds',
        table(("case", "naive", "auto", "ratio"), lines),
        "## Growth of the compiled engine, case (a), in seconds for a whole call",
        table(("points", "seconds"), by_points),
        table(("samples", "seconds for 441 points"), by_samples),
    )
    report = "\n\n".join(sections) + "\n"
    (Path(__file__).parent / "RESULTS.md").write_text(report)
    print(report)


HEAD = """# Speed

Made by `make benchmark` on {machine}; {versions}. One process, the ways in turn, medians of
{rounds} rounds. *naive* is `set_weights` with NumPy and `model.evaluate` on NumPy arrays; *floor*
the same number of jitted forward passes with loss over the same batches, called one by one with the
weights left alone."""
POINT_HEADER = (
    "case",
    "naive",
    "evaluate",
    "compiled",
    "floor",
    "naive / evaluate",
    "naive / compiled",
    "compiled / floor",
)
START_HEADER = ("case", "evaluate", "compiled", "points from which compiled is faster")


def point_row(name, per_point):
    slow, evaluated, compiled, least = per_point.values()
    milliseconds = [f"{1000 * seconds:.3g}" for seconds in per_point.values()]
    ratios = f"{slow / evaluated:.1f}", f"{slow / compiled:.1f}", f"{compiled / least:.2f}"
    return [name, *milliseconds, *ratios]


def start_row(name, per_point, compile_time):
    saved = per_point["evaluate"] - per_point["compiled"]
    more = compile_time["compiled"] - compile_time["evaluate"]
    break_even = f"{max(1, more / saved):.0f}" if saved > 0 else "none"
    return [name, *(f"{seconds:.2f}" for seconds in compile_time.values()), break_even]


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main()
