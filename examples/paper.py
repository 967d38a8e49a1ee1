"""Draws the loss landscapes of ResNets and of the same networks without shortcuts.

The depth experiment of Li et al. (2018), section 5: without shortcuts the
landscape turns from nearly convex to chaotic as networks become deeper; with
shortcuts it does not. At the paper's size, on a GPU:

    python examples/paper.py --dataset cifar10

At the size of the figures in the README, on two cores:

    python examples/paper.py --dataset fashion_mnist --size 14 --samples 10000 \\
        --epochs 15 --points 25

An interrupted run resumes where it stopped.
"""

import functools

import numpy as np
from experiment import Setting, describe, flags, measured, prepare, train, write_table
from matplotlib import pyplot as plt
from networks import resnet, vgg_like

from losslandscape import (
    LossSurface,
    convex_level,
    evaluate_surface,
    non_convexity,
    plot_levels,
    plot_surface,
)

FAMILIES = {"ResNet": resnet, "VGG-like": vgg_like}
# Losses beyond are cut off: they would use up the colors needed for the comparison.
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
STYLE = {"metric": "data_loss", "scale": "log"}
HEADER = (
    "network",
    "parameters",
    "training accuracy",
    "test accuracy",
    "loss at the center",
    "share of points that curve downwards",
    "convex up to a loss of",
    "training, minutes",
    "surface, minutes",
)


def main():
    parser = flags(__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 56, 110])
    arguments = parser.parse_args()
    data = prepare(arguments)
    surfaces, rows = {}, []
    for depth in arguments.depths:
        for family, build in FAMILIES.items():
            name = f"{family} {depth}"
            trained = train(functools.partial(build, depth), Setting(), data, arguments)
            surfaces[name] = measure(trained, data, arguments)
            rows.append(table_row(name, trained, surfaces[name]))
            draw_one(name, surfaces[name], arguments.output)
    draw_all(surfaces, arguments.output)
    caption = (
        f"{Setting()}, seed 0. {describe(arguments, data)} {arguments.points} points per axis from "
        "-1 to 1."
    )
    write_table(arguments.output / "paper.md", caption, HEADER, rows)


def measure(trained, data, arguments):
    x, y = (part[: arguments.measured] for part in data[0])
    path = trained.folder / f"surface-{arguments.points}-{len(x)}.h5"
    return measured(
        path,
        LossSurface,
        lambda: evaluate_surface(trained.model, x, y, arguments.points, seed=0, verbose=2),
    )


def table_row(name, trained, surface):
    results = trained.results
    return (
        name,
        f"{trained.model.count_params():,}",
        f"{results['train_accuracy']:.3f}",
        f"{results['test_accuracy']:.3f}",
        f"{surface.center['data_loss']:.3f}",
        f"{non_convexity(surface, 'data_loss'):.2f}",
        f"{convex_level(surface, 'data_loss'):.3g}",
        f"{results['seconds'] / 60:.1f}",
        f"{surface.metadata['seconds'] / 60:.1f}",
    )


def draw_one(name, surface, folder):
    stem = f"paper-{name.lower().replace(' ', '-')}"
    save(plot_levels(surface, labels=name, **STYLE).figure, folder / f"{stem}-levels.png")
    save(plot_surface(surface, labels=name, **STYLE).figure, folder / f"{stem}-3d.png")


def draw_all(surfaces, folder):
    """One figure per plot type: a row per family, a column per depth, one scale for all."""
    names = sorted(surfaces, key=lambda name: name.split()[0])
    ordered = [surfaces[name] for name in names]
    # Start just below the model with the lowest loss.
    lowest = np.nanmin([surface.center["data_loss"] for surface in ordered])
    levels = LEVELS[max(0, np.searchsorted(LEVELS, lowest) - 1) :]
    figure, axes = panels(len(names), None)
    plot_levels(ordered, axes, labels=names, levels=levels, **STYLE)
    save(figure, folder / "paper-levels.png")
    figure, axes = panels(len(names), "3d")
    plot_surface(ordered, axes, labels=names, limits=(levels[0], levels[-1]), **STYLE)
    save(figure, folder / "paper-3d.png")


def panels(number, projection):
    rows, columns = len(FAMILIES), number // len(FAMILIES)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.2 * columns, 2.9 * rows),
        layout="constrained",
        squeeze=False,
        subplot_kw={"projection": projection},
    )
    return figure, axes.ravel()


def save(figure, path):
    figure.savefig(path, dpi=200)
    plt.close(figure)


if __name__ == "__main__":
    main()
