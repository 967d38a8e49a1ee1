"""Draws and measures the landscapes of ResNets and of the same networks without shortcuts.

The experiments of Li et al. (2018), section 6: without shortcuts the landscape
turns from nearly convex to chaotic as networks become deeper; with shortcuts, or with
wider layers, it does not. At the paper's size, on a GPU:

    python examples/paper.py --dataset cifar10

At the size of the figures in the README, on two cores:

    python examples/paper.py --dataset fashion_mnist --size 14 --samples 10000 \\
        --epochs 30 --warmup 3 --no-augmentation --measured 500 \\
        --depths 20 56 110 --seeds 2 3 1 --widths 2 4 --mapped 20 56

With all images at their full size, on a GPU, to files of another name:

    python examples/paper.py --dataset fashion_mnist --epochs 15 --warmup 3 \\
        --no-augmentation --depths 20 56 --seeds 1 1 --widths --mapped --no-curvature \\
        --name full-size

An interrupted run resumes where it stopped. What `examples/measured` holds is drawn
without training.
"""

import functools
from typing import NamedTuple

import numpy as np
from experiment import (
    RISE,
    Setting,
    describe,
    flags,
    measure_lines,
    measured,
    measured_numbers,
    minutes_of,
    prepare,
    train,
    widths_of,
    write_table,
)
from matplotlib import pyplot as plt
from networks import FAMILIES

from losslandscape import Hessian, LossSurface, evaluate_surface, plot_levels, plot_surface
from losslandscape.curvature.hessian import evaluate_convexity
from losslandscape.plotting import plot_convexity
from losslandscape.values.measures import confidence_interval, convex_level, non_convexity
from losslandscape.values.topology import number_of_basins

# At the rate of the others the deep networks without shortcuts end up worse than they began; the
# deepest diverges at any rate unless its gradients are clipped.
RECIPES = {
    ("VGG-like", 56): {"rate": 0.02},
    ("VGG-like", 110): {"rate": 0.02, "clipnorm": 1.0},
}
# Losses beyond are cut off: they would use up the colors needed for the comparison.
LEVELS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
STYLE = {"metric": "data_loss", "scale": "log"}
# The loss of guessing among ten classes. Beyond, losses are huge in every direction.
GUESSING = np.log(10)
# Points per axis, coordinates and images of a map of convexity: each point takes dozens of passes.
MAP_POINTS, MAP_EXTENT, MAP_IMAGES = 7, (-0.5, 0.5), 100
# A dent in the surface counts as a basin if it is at least this deep.
DEPTH = 0.1
HEADER = (
    "network",
    "seed",
    "parameters",
    "training accuracy",
    "test accuracy",
    "half-width",
    "share that curves downwards",
    "same, on the plane",
    "convex up to a loss of",
    "basins",
    "λmax",
    "\\|λmin / λmax\\|",
    "same, on the map",
    "training, minutes",
)


class Network(NamedTuple):
    """One of the networks compared."""

    family: str
    depth: int
    width: int = 1
    seed: int = 0

    def __str__(self):
        return f"{self.family} {self.depth}" + f", k = {self.width}" * (self.width > 1)


class Measured(NamedTuple):
    """What is known of a network; `surface` and `convexity`, a map, only for the first seed."""

    results: dict
    line: object
    curvature: dict | None = None
    surface: LossSurface | None = None
    convexity: LossSurface | None = None


def main(arguments=None):
    parser = parser_of(__doc__)
    parser.add_argument("--name", default="paper", help="with which the names of files begin")
    arguments = parser.parse_args(arguments)
    data = prepare(arguments)
    networks = {network: measure(network, data, arguments) for network in choose(arguments)}
    draw(networks, arguments.output / arguments.name)
    rows = [table_row(*pair) for pair in networks.items()]
    # Without curvature, or without maps, their columns are empty.
    used = [index for index, column in enumerate(zip(*rows, strict=True)) if any(map(str, column))]
    header, *rows = ([row[index] for index in used] for row in (HEADER, *rows))
    caption = " ".join([f"{Setting()}. {describe(arguments, data)}", *explain(arguments, networks)])
    write_table(arguments.output / f"{arguments.name}.md", caption, header, rows)


def explain(arguments, networks):
    """What the caption says of the columns."""
    yield (
        f"Half-width: where the loss has risen by {RISE:g}; share that curves downwards: of the "
        f"points below the loss of guessing. Both with the 95 % interval over "
        f"{arguments.directions} directions through this network. Planes of {arguments.points} "
        f"points per axis from -1 to 1; basins at least {DEPTH:g} deep."
    )
    if not arguments.no_curvature:
        yield (
            "λmax and λmin: of the Hessian of the loss with penalty, at the minimum, between "
            "filter-normalized directions."
        )
    if any(of.convexity is not None for of in networks.values()):
        yield (
            f"Map: the median over {MAP_POINTS}x{MAP_POINTS} points from {MAP_EXTENT[0]:g} to "
            f"{MAP_EXTENT[1]:g}, on {MAP_IMAGES} images, with the eigenvalues of the weights as "
            "they are."
        )
    recipes = other_recipes(networks)
    if recipes:
        yield f"Other first learning rates: {', '.join(recipes)}."


def parser_of(description):
    """The flags of all experiments, and those that choose networks."""
    parser = flags(description)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 56, 110])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 2, 1], help="for each depth")
    parser.add_argument(
        "--widths", type=int, nargs="*", default=[2, 4], help="k, at the first depth"
    )
    parser.add_argument(
        "--mapped", type=int, nargs="*", default=[20, 56], help="depths whose convexity is mapped"
    )
    parser.add_argument("--no-curvature", action="store_true", help="no eigenvalues at minima")
    return parser


def other_recipes(networks):
    """The first learning rates of networks that are trained differently."""
    trained = {(network.family, network.depth) for network in networks}
    recipes = []
    for (family, depth), recipe in RECIPES.items():
        if (family, depth) in trained:
            recipes.append(f"{recipe['rate']:g} for {family} {depth}")
            if "clipnorm" in recipe:
                recipes[-1] += f" (each gradient clipped to a norm of {recipe['clipnorm']:g})"
    return recipes


def choose(arguments):
    networks = [
        Network(family, depth, seed=seed)
        for depth, seeds in zip(arguments.depths, arguments.seeds, strict=True)
        for seed in range(seeds)
        for family in FAMILIES
    ]
    wide = [
        Network(family, arguments.depths[0], width)
        for width in arguments.widths
        for family in FAMILIES
    ]
    return networks + wide


def measure(network, data, arguments):
    build = functools.partial(FAMILIES[network.family], network.depth, width=network.width)
    recipe = RECIPES.get((network.family, network.depth), {})
    setting = Setting(seed=network.seed, **recipe)
    trained = train(build, setting, data, arguments)
    line = measure_lines(trained, data, arguments)
    # For the comparison of both kinds of directions over all networks.
    measure_lines(trained, data, arguments, normalize=None)
    x, y = (part[: arguments.measured] for part in data[0])
    found = Measured(trained.results, line)
    if not arguments.no_curvature:
        path = trained.folder / f"curvature-{len(x)}.json"
        curvature = measured_numbers(path, lambda: extremes(trained.load(), x, y))
        found = found._replace(curvature=curvature)
    if network.seed == 0:
        surface = plane(trained, evaluate_surface, (x, y), arguments.points, accuracy=0.01)
        found = found._replace(surface=surface)
    if network.seed == 0 and network.depth in arguments.mapped and network.width == 1:
        few, options = (x[:MAP_IMAGES], y[:MAP_IMAGES]), {"extent": MAP_EXTENT, "tolerance": 0.1}
        convexity = plane(trained, evaluate_convexity, few, MAP_POINTS, **options)
        found = found._replace(convexity=convexity)
    return found


def plane(trained, evaluate, data, points, **options):
    """What one of the functions that measure planes finds around a network."""
    name = f"{evaluate.__name__.removeprefix('evaluate_')}-{points}-{len(data[0])}.h5"

    def measure_plane(checkpoint):
        extra = {"checkpoint": checkpoint, "seed": 0, "verbose": 2}
        return evaluate(trained.load(), *data, points, **extra, **options)

    return measured(trained.folder / name, LossSurface, measure_plane)


def extremes(model, x, y):
    """The largest and the smallest eigenvalue, which show whether the minimum is one."""
    # In batches, since second derivatives of large images and deep networks take much memory.
    hessian = Hessian(model, x, y, normalize="filter", batch_size=250)
    eigenvalues, _ = hessian.eigenvalues(which="both", tolerance=0.01, seed=0)
    return dict(zip(("largest", "smallest"), map(float, eigenvalues), strict=True))


def shares_of(line):
    return non_convexity(line, "data_loss", below=GUESSING)


def table_row(network, of):
    plane, curvature, around = ("", "", ""), ("", ""), ""
    if of.curvature is not None:
        largest, smallest = of.curvature["largest"], of.curvature["smallest"]
        curvature = f"{largest:.3g}", f"{abs(smallest / largest):.2g}"
    if of.convexity is not None:
        around = f"{np.nanmedian(of.convexity.values['convexity']):.2g}"
    if of.surface is not None:
        plane = (
            f"{non_convexity(of.surface, 'data_loss', below=GUESSING):.2f}",
            f"{convex_level(of.surface, 'data_loss'):.3g}",
            number_of_basins(of.surface, DEPTH, "data_loss"),
        )
    return (
        network,
        network.seed,
        f"{of.results['parameters']:,}",
        f"{of.results['train_accuracy']:.3f}",
        f"{of.results['test_accuracy']:.3f}",
        confidence_interval(widths_of(of.line)),
        confidence_interval(shares_of(of.line)),
        *plane,
        *curvature,
        around,
        minutes_of(of.results),
    )


def draw(networks, path):
    """Draws all networks side by side, in files whose names begin like `path`."""
    surfaces = {network: of.surface for network, of in networks.items() if of.surface is not None}
    draw_surfaces(surfaces, path)
    maps = {network: of.convexity for network, of in networks.items() if of.convexity is not None}
    if maps:
        draw_maps(maps, path)


def draw_maps(maps, path):
    names = by_family(maps)
    size = (2.6 * len(names) + 0.8, 3)
    axes = plot_convexity([maps[name] for name in names], labels=map(str, names), figsize=size)
    save(axes[0].figure, f"{path}-convexity.png")


def by_family(networks):
    return sorted(networks, key=lambda network: (network.family, network.depth, network.width))


def draw_surfaces(surfaces, path):
    """One figure per plot type: a column per family, a row per size, one scale for all."""
    names = by_family(surfaces)
    ordered = [surfaces[name] for name in names]
    # Start just below the model with the lowest loss.
    lowest = np.nanmin([surface.center["data_loss"] for surface in ordered])
    levels = LEVELS[max(0, np.searchsorted(LEVELS, lowest) - 1) :]
    labels = list(map(str, names))
    figure, axes = panels(len(names), None)
    plot_levels(ordered, axes, labels=labels, levels=levels, **STYLE)
    save(figure, f"{path}-levels.png")
    figure, axes = panels(len(names), "3d")
    plot_surface(ordered, axes, labels=labels, limits=(levels[0], levels[-1]), **STYLE)
    save(figure, f"{path}-3d.png")


def panels(number, projection):
    rows, columns = number // len(FAMILIES), len(FAMILIES)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.2 * columns, 2.9 * rows),
        layout="constrained",
        squeeze=False,
        subplot_kw={"projection": projection},
    )
    return figure, axes.T.ravel()


def save(figure, path):
    figure.savefig(path, dpi=200)
    plt.close(figure)


if __name__ == "__main__":
    main()
