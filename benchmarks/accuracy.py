"""Measures what `accuracy=0.01` costs on 60,000 images, and how large its true error is.

Run with `make benchmark-accuracy`; the tables go to `benchmarks/ACCURACY.md`, network by network
as they are done: `python benchmarks/accuracy.py ResNet` measures one of them anew. The truth is the
loss on all samples, at some of the points, drawn at random.
"""

import argparse
import functools
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from experiment import Setting, flags, prepare, train
from images import load_images
from keras import layers
from networks import LOSS, resnet, vgg_like
from speed import table

from losslandscape import LossLine, evaluate_surface
from losslandscape.evaluation import Evaluation, Plan
from losslandscape.measuring.grids import line
from losslandscape.measuring.options import AROUND, DEFAULTS

ACCURACY, POINTS = 0.01, 49
# With as many samples alone, at all points.
SUBSAMPLES = 6000, 20000
RESULTS = Path(__file__).parent / "ACCURACY.md"
HEADER = (
    *("seed", "points on 500", "on 3,000", "on all", "sample evaluations", "error found"),
    *("largest error", "of logarithms", *(f"{size:,} samples alone" for size in SUBSAMPLES)),
)


# What the page begins with.
INTRODUCTION = (
    "# Cost of accuracy\n\n"
    f"Made by `make benchmark-accuracy`: surfaces of {POINTS}x{POINTS} points with "
    f"`accuracy={ACCURACY}` around trained networks, evaluated on Fashion-MNIST's 60,000 training "
    "images. Errors are shares of the range (of the values, and of their logarithms), at points "
    "drawn at random; sample evaluations are a share of those of all samples at all points, checks "
    "included. Beside it, the largest error of the surface of a random part of the samples, for 1 "
    "in 10 and 1 in 3 of the evaluations; refinement on all samples takes about 1 in 5.\n"
)
# Of the networks in `examples/measured`.
FLAGS = (
    *("--dataset", "fashion_mnist", "--size", "14", "--samples", "10000", "--epochs", "30"),
    *("--warmup", "3", "--no-augmentation"),
)


class Case(NamedTuple):
    """A network, and at how many points for how many seeds the truth is measured."""

    name: str
    trained: object
    size: int
    seeds: int
    points: int


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help="beginnings of names; default: all")
    parser.add_argument("--seeds", type=int, help="of each network; default: as in the table")
    arguments = parser.parse_args()
    for case in CASES:
        if case.name.startswith(tuple(arguments.networks) or ""):
            write_section(case, range(arguments.seeds or case.seeds))


def write_section(case, seeds):
    """Measures one network, and puts it in its place among the sections of the page."""
    data, _ = load_images("fashion_mnist", case.size)
    model, training = case.trained(*data)
    rows = [measure(model, *data, seed, case.points) for seed in seeds]
    text = RESULTS.read_text() if RESULTS.exists() else ""
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    sections[case.name] = (
        f"\n{model.count_params():,} weights, {training}; errors at {case.points} points.\n\n"
        f"{table(HEADER, rows)}\n"
    )
    names = [each.name for each in CASES if each.name in sections]
    RESULTS.write_text(INTRODUCTION + "".join(f"\n## {name}\n{sections[name]}" for name in names))


def briefly_trained(build, x, y, epochs=3):
    """A network after a few epochs on all images, and how it was trained."""
    keras.utils.set_random_seed(0)
    model = build(x.shape[1:])
    model.compile("adam", LOSS)
    model.fit(x, y, batch_size=128, epochs=epochs, verbose=0)
    return model, f"{epochs} epochs of Adam"


def trained_as_measured(build, *_):
    """A network of `examples/measured`, trained again if it is not at hand, and how."""
    arguments = flags("").parse_args(FLAGS)
    model = train(build, Setting(), prepare(arguments), arguments).load()
    return model, f"trained as in `examples/measured`: {Setting()}, 30 epochs of 10,000 images"


def perceptron(shape):
    return keras.Sequential(
        [keras.Input(shape), layers.Flatten(), layers.Dense(48, "relu"), layers.Dense(10)]
    )


def convnet(shape):
    return keras.Sequential(
        [
            *(keras.Input(shape), layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Conv2D(16, 3, activation="relu"), layers.Flatten(), layers.Dense(10)),
        ]
    )


CASES = (
    Case("Perceptron", functools.partial(briefly_trained, perceptron), 28, 20, 200),
    Case("Convolutional network", functools.partial(briefly_trained, convnet), 14, 20, 100),
    *(
        Case(
            f"{name} of 8 layers",
            functools.partial(trained_as_measured, functools.partial(network, 8)),
            *(14, 3, 60),
        )
        for name, network in (("ResNet", resnet), ("VGG-like network", vgg_like))
    ),
)


def measure(model, x, y, seed, number):
    """A row of the table: what one surface cost, and how far off it was."""
    surface = evaluate_surface(model, x, y, POINTS, accuracy=ACCURACY, seed=seed, verbose=0)
    generator = np.random.default_rng(seed)
    chosen = generator.choice(POINTS**2, number, replace=False)
    truth = losses_at(model, x, y, seed, chosen)
    parts = [generator.choice(len(x), size, replace=False) for size in SUBSAMPLES]
    subsampled = [losses_at(model, x[part], y[part], seed, chosen) for part in parts]
    found, told = surface.values["loss"], surface.metadata
    counts = [*told["few_samples"], [len(x), np.count_nonzero(~surface.interpolated)]]
    cost = sum(size / len(x) * points for size, points in counts) / POINTS**2
    span, spans = np.ptp(found), np.ptp(np.log(found))
    values = found.ravel()[chosen]
    return (
        *(seed, *(points for _, points in counts), f"1 in {1 / cost:.0f}"),
        f"{told['interpolation_errors']['loss']:.2%}",
        f"{np.abs(values - truth).max() / span:.2%}",
        f"{np.abs(np.log(values / truth)).max() / spans:.2%}",
        *(f"{np.abs(values - truth).max() / span:.2%}" for values in subsampled),
    )


def losses_at(model, x, y, seed, chosen):
    """The losses at some points of the same surface, measured on all of the given samples."""
    axis = np.linspace(-1, 1, POINTS)
    points = np.stack([axis[chosen % POINTS], axis[chosen // POINTS]], axis=1)
    options = {**DEFAULTS, **AROUND, "seed": seed, "verbose": 0}
    call = Evaluation(model, [(x, y)], LossLine, options)
    directions, origin = call.choose(2, exactly=True)
    plan = Plan([(directions, points)], {"coordinates": points})
    (measured,) = call.along(plan, functools.partial(line, np.arange(len(points))), origin)
    return measured.values["loss"][0]


if __name__ == "__main__":
    main()
