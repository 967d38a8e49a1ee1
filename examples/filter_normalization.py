"""Draws why directions have to be normalized: misleading widths, and comparable widths.

Small against large batches, with and without weight decay, along raw and along
filter-normalized directions, as in Li et al. (2018), sections 3 and 4; and one
network against itself with all kernels three times as large, which is the same
function. At full size, on a GPU:

    python examples/filter_normalization.py --dataset cifar10

At the size of the figure in docs/results.md, on two cores:

    python examples/filter_normalization.py --dataset fashion_mnist --size 14 \\
        --samples 10000 --epochs 30 --warmup 3 --no-augmentation --measured 500

An interrupted run resumes where it stopped. The networks are those of
`healthchecks.py`, except one.
"""

import functools

import keras
import numpy as np
from experiment import (
    RISE,
    Setting,
    describe,
    flags,
    measure_lines,
    prepare,
    train,
    widths_of,
    write_table,
)
from keras import layers
from matplotlib import pyplot as plt
from networks import FAMILIES

from losslandscape import plot_line
from losslandscape.values.measures import confidence_interval

DIRECTIONS = {"raw directions": None, "filter-normalized": "filter"}
BATCHES = (128, 2048)
DECAYS = {"no weight decay": 0.0, "weight decay 5e-4": 5e-4}
FACTOR = 3.0
HEADER = ("networks", "half-width along raw directions", "along filter-normalized ones")


def main(arguments=None):
    parser = flags(__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="ResNet")
    parser.add_argument("--depth", type=int, default=20)
    arguments = parser.parse_args(arguments)
    data = prepare(arguments)
    build = functools.partial(FAMILIES[arguments.family], arguments.depth)
    columns = {
        title: {
            f"batch {batch_size}": train(build, Setting(batch_size, decay), data, arguments)
            for batch_size in BATCHES
        }
        for title, decay in DECAYS.items()
    }
    original = train(build, Setting(), data, arguments)
    rescaled = original._replace(
        load=lambda: rescale(original.load(), FACTOR), folder=original.folder / "rescaled"
    )
    columns["the same function"] = {"as trained": original, f"kernels x {FACTOR:g}": rescaled}
    lines = {
        (name, title, label): measure_lines(trained, data, arguments, normalize)
        for name, normalize in DIRECTIONS.items()
        for title, networks in columns.items()
        for label, trained in networks.items()
    }
    draw(lines, columns, arguments.output / "filter-normalization.png")
    rows = [
        (f"{title}, {label}", *(confidence_interval(widths_of(line)) for line in pair))
        for title, networks in columns.items()
        for label in networks
        for pair in [[lines[name, title, label] for name in DIRECTIONS]]
    ]
    caption = (
        f"{arguments.family} network of {arguments.depth} layers, SGD, seed 0; "
        f"{describe(arguments, data)} Half-width: where the loss has "
        f"risen by {RISE:g}, with the 95 % interval over "
        f"{arguments.directions} directions through this network."
    )
    write_table(arguments.output / "filter-normalization.md", caption, HEADER, rows)


def rescale(model, factor):
    """Makes the same function with other weights: larger kernels before BatchNormalization."""
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    for layer in other.layers:
        if isinstance(layer, layers.Conv2D):
            layer.kernel.assign(factor * layer.kernel)
        if isinstance(layer, layers.BatchNormalization):
            variance = layer.moving_variance.numpy()
            # Otherwise the epsilon in the denominator would change the function slightly.
            ratio = (factor**2 * variance + layer.epsilon) / (variance + layer.epsilon)
            layer.gamma.assign(layer.gamma * np.sqrt(ratio) / factor)
            layer.moving_mean.assign(factor * layer.moving_mean)
            layer.moving_variance.assign(factor**2 * variance)
    other.compile("sgd", model.loss, metrics=["accuracy"])
    return other


def draw(lines, columns, path):
    """A row per kind of direction, a column per pair of networks."""
    figure, axes = plt.subplots(
        len(DIRECTIONS),
        len(columns),
        figsize=(3.3 * len(columns), 2.9 * len(DIRECTIONS)),
        sharey=True,
        layout="constrained",
    )
    for row, name in zip(axes, DIRECTIONS, strict=True):
        for ax, (title, networks) in zip(row, columns.items(), strict=True):
            curves = [lines[name, title, label] for label in networks]
            plot_line(curves, ax, labels=list(networks), metric="data_loss", scale="log")
            ax.set_title(f"{title}, {name}", fontsize="medium")
            # The coordinates of the rows differ, so each row keeps its own ticks.
            if ax is not row[0]:
                ax.set_ylabel("")
    figure.savefig(path, dpi=200)


if __name__ == "__main__":
    main()
