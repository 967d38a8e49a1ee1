"""Measures the time per point: a naive loop, both engines, and the floor.

Run with `make benchmark`; the tables go to `benchmarks/RESULTS.md`. Times are taken in
one process, alternating between the methods; the median over the rounds counts.
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import layers
from networks import LOSS, resnet
from sklearn.datasets import load_digits

from losslandscape import (
    Hessian,
    WeightHistory,
    evaluate_line,
    evaluate_surface,
    random_directions,
)
from losslandscape.measuring.datasets import read_dataset

GENERATOR = np.random.default_rng(0)
FOLDER = Path(__file__).parent


def digits_network():
    digits = load_digits()
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(10),
        ]
    )
    return model, (digits.data / 16).astype("float32"), digits.target


def convolutional_network(units=32):
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(units, activation="relu"),
            layers.Dense(10),
        ]
    )
    return model, *images(2000, (28, 28, 1))


def wide_network():
    hidden = [layers.Dense(4096, activation="relu") for _ in range(4)]
    model = keras.Sequential([keras.Input((4096,)), *hidden, layers.Dense(10)])
    return model, *images(64, (4096,))


def images(number, shape):
    x = GENERATOR.uniform(size=(number, *shape)).astype("float32")
    return x, GENERATOR.integers(0, 10, number)


def resnet20_on_images():
    return resnet(20), *images(1000, (32, 32, 3))


def resnet56_on_images():
    return resnet(56), *images(500, (32, 32, 3))


# For each case: the network, the points per axis, and those for the methods without a startup cost,
# where fewer are enough.
CASES = {
    "(a) MLP 64-32-10, 1,797 digits": (digits_network, 21, 10),
    "(b) convnet of 31k, 2,000 images of 28x28": (convolutional_network, 21, 5),
    "(c) ResNet-20, 1,000 images of 32x32x3": (resnet20_on_images, 7, 3),
    "(d) ResNet-56, 500 images of 32x32x3": (resnet56_on_images, 5, 3),
}


def naive(model, x, y, directions, points):
    """What one would write first: NumPy weights, and Keras' default batches of 32."""
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
    """Plain jitted forward passes with the loss over the same batches, at fixed weights."""
    batches = [
        (tf.constant(x[start : start + batch_size]), tf.constant(y[start : start + batch_size]))
        for start in range(0, len(x), batch_size)
    ]

    # On the CPU, XLA is faster for the dense network, but slower for convolutions.
    @tf.function(jit_compile=all(len(weight.shape) <= 2 for weight in model.weights))
    def one_pass(inputs, targets):
        outputs = model(inputs, training=False)
        return len(inputs) * LOSS(targets, outputs)

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
    model.compile("sgd", LOSS, metrics=["accuracy"])
    # As if the user had already evaluated the model.
    model.evaluate(x, y, verbose=0)
    directions = random_directions(model, 2, seed=0)
    grid = [(a, b) for b in np.linspace(-1, 1, fewer) for a in np.linspace(-1, 1, fewer)]
    options = {"directions": directions, "verbose": 0}
    passes = floor(model, x, y, read_dataset(model, (x, y)).batch_size)

    def surface(engine, number):
        return lambda: evaluate_surface(model, x, y, number, engine=engine, **options)

    ways = {
        "naive": (lambda: naive(model, x, y, directions, grid), len(grid)),
        "evaluate": (surface("evaluate", per_axis), per_axis**2),
        "compiled": (surface("compiled", per_axis), per_axis**2),
        "floor": (lambda: passes(len(grid)), len(grid)),
    }
    surface("compiled", 2)()
    seconds = {name: [] for name in ways}
    # A call makes its graph; a call with 2x2 points shows what that costs.
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
            # The center is one more point if the grid misses it, as 2x2 points do.
            per_point[name] = (medians[name] - start) / (number - 5)
            compile_time[name] = start - 5 * per_point[name]
        else:
            per_point[name] = medians[name] / number
    return per_point, compile_time


def medians(rounds, function, *arguments):
    """The median of each of the numbers that a function returns."""
    return np.median([function(*arguments) for _ in range(rounds)], axis=0).tolist()


def evaluated(build):
    """A model that its user has evaluated."""
    model, x, y = build()
    model.compile("sgd", LOSS, metrics=["accuracy"])
    model.evaluate(x, y, verbose=0)
    return model, x, y, random_directions(model, 2, seed=0)


def few_points(build):
    """For 5 points on a line and for 5x5: the time of the naive way, and of a first call."""
    ends = np.linspace(-1, 1, 5)
    model, x, y, directions = evaluated(build)
    slow_line = timed(lambda: naive(model, x, y, directions, [(a, 0) for a in ends]))
    options = {"directions": directions[:1], "verbose": 0}
    fast_line = timed(lambda: evaluate_line(model, x, y, 5, **options))
    other, x, y, directions = evaluated(build)
    grid = [(a, b) for b in ends for a in ends]
    slow = timed(lambda: naive(other, x, y, directions, grid))
    options = {"directions": directions, "verbose": 0}
    return slow_line, fast_line, slow, timed(lambda: evaluate_surface(other, x, y, 5, **options))


def start_of_call(build):
    """What a call takes before its first point, each time.

    With a few samples, since next to many of them the start would be lost in the noise.
    """
    model, x, y, directions = evaluated(build)
    x, y = x[:8], y[:8]
    options = {"directions": directions, "engine": "compiled", "verbose": 0}
    # The first makes what Keras and the backend make only once.
    _, short, longer = (
        timed(lambda: evaluate_surface(model, x, y, number, **options))  # noqa: B023, it runs at once
        for number in (2, 2, 4)
    )
    # With the center at the beginning and at the end, 2x2 points are six.
    return short - 6 * (longer - short) / 12


def trained_digits():
    model, x, y = digits_network()
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(x, y, epochs=30, verbose=0)
    return model, x, y


def with_accuracy(accuracy, rounds):
    """49x49 points of the trained digits network: points measured, largest error, speed-up."""
    model, x, y = trained_digits()

    def surface(accuracy):
        return evaluate_surface(model, x, y, 49, accuracy=accuracy, seed=0, verbose=0)

    whole, some = surface(None), surface(accuracy)
    errors = np.abs(some.values["loss"] - whole.values["loss"]) / np.ptp(whole.values["loss"])
    slow, fast = medians(
        rounds,
        lambda: [timed(lambda: surface(each)) for each in (None, accuracy)],  # noqa: B023
    )
    measured = np.count_nonzero(~some.interpolated)
    return accuracy, f"{measured} of 2,401", f"{errors.max():.2g}", f"{slow / fast:.1f}"


def hessian_product(build):
    """The time for one product with the Hessian, and for one gradient, on all data."""
    model, x, y = build()
    model.compile("sgd", LOSS)
    inputs, targets = tf.constant(x), tf.constant(y)

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=targets, y_pred=model(inputs, training=False))
        return tape.gradient(loss, model.trainable_variables)

    gradient()
    # The first call traces.
    Hessian(model, x, y).trace(2, seed=0)
    few = timed(lambda: Hessian(model, x, y).trace(2, seed=0))
    many = timed(lambda: Hessian(model, x, y).trace(8, seed=0))
    return (many - few) / 6, timed(gradient)


def peak_memory(build, engine):
    """The size of the weights and the peak memory of a first surface, both in MiB."""
    model, x, y = build()
    model.compile("sgd", LOSS, metrics=["accuracy"])
    # As if the user had already evaluated the model, so TensorFlow is fully loaded.
    model.evaluate(x, y, verbose=0)
    weights = sum(weight.numpy().nbytes for weight in model.weights)
    before = resident("VmRSS")
    # Resets the peak resident size to the current one.
    Path("/proc/self/clear_refs").write_text("5")
    evaluate_surface(model, x, y, 3, engine=engine, seed=0, verbose=0)
    return weights / 2**20, resident("VmHWM") - before


def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def in_fresh_process(function, *arguments):
    """In the same process, memory kept from an earlier measurement would not be counted."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def recording(rounds):
    """The time to record ResNet-20's weights and that of a training step, in milliseconds."""
    model, x, y = resnet20_on_images()
    model.compile("sgd", LOSS)
    model.train_on_batch(x[:128], y[:128])
    with tempfile.TemporaryDirectory() as folder:
        history = WeightHistory(folder)
        history.set_model(model)
        history.on_train_begin()
        epochs = iter(range(rounds))
        ways = {
            "a record": lambda: history.on_epoch_end(next(epochs)),
            "a step of 128 images": lambda: model.train_on_batch(x[:128], y[:128]),
        }
        times = {name: [timed(way) for _ in range(rounds)] for name, way in ways.items()}
    return [(name, f"{1000 * statistics.median(each):.1f}") for name, each in times.items()]


def growth(rounds):
    """The seconds of a later call by number of points and by number of samples, on the digits."""
    model, x, y = digits_network()
    model.compile("sgd", LOSS, metrics=["accuracy"])
    directions = random_directions(model, 2, seed=0)

    def seconds(samples, per_axis, engine="compiled"):
        x_part, y_part = np.resize(x, (samples, 64)), np.resize(y, samples)
        options = {"directions": directions, "engine": engine, "verbose": 0}
        evaluate_surface(model, x_part, y_part, 2, **options)
        return statistics.median(
            timed(lambda: evaluate_surface(model, x_part, y_part, per_axis, **options))
            for _ in range(rounds)
        )

    ways = ("compiled", "evaluate")
    by_points = [
        (n * n, *(seconds(len(x), n, engine) for engine in ways)) for n in (5, 11, 21, 31, 51)
    ]
    by_samples = [(n, *(seconds(n, 11, e) for e in ways)) for n in (2000, 4000, 8000, 16000)]
    return by_points, by_samples


def draw_growth(by_points, by_samples, path):
    """Draws the time against points and samples."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    labels = ("points, 1,797 samples", "samples, 121 points")
    for ax, rows, label in zip(axes, (by_points, by_samples), labels, strict=True):
        numbers, compiled, evaluated = zip(*rows, strict=True)
        ax.loglog(numbers, evaluated, "s--", label="evaluate")
        ax.loglog(numbers, compiled, "o-", label="compiled")
        ax.set_xticks(numbers, [f"{number:,}" for number in numbers])
        ax.set_xticks([], minor=True)
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("seconds of a later call")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default="abcd", help="which of the cases, for example ab")
    arguments = parser.parse_args()
    rows, starts, lines, products = [], [], [], []
    for name, case in CASES.items():
        if name[1] not in arguments.cases:
            continue
        per_point, compile_time = measure_case(*case, arguments.rounds)
        rows.append(point_row(name, per_point))
        starts.append(start_row(name, per_point, compile_time))
        times = medians(arguments.rounds, few_points, case[0])
        ratios = [f"{times[0] / times[1]:.1f}", f"{times[2] / times[3]:.1f}"]
        few = [f"{each:.2f}" for each in times]
        lines.append((name, *few[:2], ratios[0], *few[2:], ratios[1]))
        product, slope = medians(arguments.rounds, hessian_product, case[0])
        products.append(
            (name, f"{1000 * product:.3g}", f"{1000 * slope:.3g}", f"{product / slope:.1f}")
        )
        print(rows[-1], starts[-1], lines[-1], products[-1], sep="\n", flush=True)
    by_points, by_samples = growth(arguments.rounds)
    draw_growth(by_points, by_samples, FOLDER / "growth.png")
    accuracies = [with_accuracy(each, arguments.rounds) for each in (0.01, 0.001)]
    recorded = recording(arguments.rounds)
    builds = {name: case[0] for name, case in CASES.items() if name[1] in arguments.cases}
    builds["four layers of 4,096 neurons, 64 samples"] = wide_network
    memory = [memory_row(name, build) for name, build in builds.items()]
    sections = (
        HEAD.format(
            machine=f"{platform.machine()}, {os.cpu_count()} cores, {gpus()}",
            versions=f"TensorFlow {tf.__version__}, Keras {keras.__version__}",
            rounds=arguments.rounds,
        ),
        "## One point, in milliseconds",
        table(POINT_HEADER, rows),
        "## What a call costs before its first point, in seconds",
        table(START_HEADER, starts),
        '## First calls for few points with `engine="auto"`, everything included, in seconds',
        table(FEW_HEADER, lines),
        "## 49x49 points of the trained network (a) with `accuracy=`",
        table(("accuracy", "measured", "largest error, of the range", "times as fast"), accuracies),
        "## One product with the Hessian, in milliseconds",
        table(("case", "product", "gradient", "product / gradient"), products),
        "## Peak memory of a first surface above the loaded model and data, in MiB",
        table(("case", "weights", "evaluate", "compiled"), memory),
        "## Recording the weights of ResNet-20 with `WeightHistory`, in milliseconds",
        table(("", "milliseconds"), recorded),
        "## Growth, case (a), in seconds for a whole later call",
        "![Time against points and samples](growth.png)",
        table(("points", "compiled", "evaluate"), rounded(by_points)),
        table(("samples, for 121 points", "compiled", "evaluate"), rounded(by_samples)),
    )
    report = "\n\n".join(sections) + "\n"
    (FOLDER / "RESULTS.md").write_text(report)
    print(report)


HEAD = """# Speed

Made by `make benchmark` on {machine}; {versions}. One process, alternating methods, medians;
rounds: {rounds}. *naive* is `set_weights` with NumPy and `model.evaluate` on NumPy arrays;
*floor* is the same number of jitted forward passes with the loss over the same batches, called
one by one at fixed weights."""
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
FEW_HEADER = (
    "case",
    "naive, line of 5",
    "auto",
    "naive / auto",
    "naive, 5x5",
    "auto",
    "naive / auto",
)


def gpus():
    names = [
        tf.config.experimental.get_device_details(device).get("device_name", "GPU")
        for device in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join(names) or "no GPU"


def rounded(rows):
    return [(number, *(f"{seconds:.3g}" for seconds in others)) for number, *others in rows]


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


def memory_row(name, build):
    peaks = [in_fresh_process(peak_memory, build, engine) for engine in ("evaluate", "compiled")]
    return [name, f"{peaks[0][0]:.1f}", *(f"{peak:.0f}" for _, peak in peaks)]


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main()
