"""Draws what lies beyond one point: the path of training, lines between networks, curvature.

ResNets of 8 layers on small images, from small batches, large batches and another seed; about
half an hour on two cores:

    python examples/beyond.py --dataset fashion_mnist --size 14 --samples 10000 --epochs 30 \\
        --warmup 3 --no-augmentation --measured 500 --points 21
"""

import functools

from experiment import Setting, flags, measure_lines, prepare, train, widths_of, write_table
from matplotlib import pyplot as plt
from networks import FAMILIES

from losslandscape import (
    Hessian,
    animate_path,
    evaluate_interpolation,
    evaluate_plane,
    plot_levels,
    plot_loss_3D,
    plot_metrics,
    plot_trajectory,
)
from losslandscape.curvature.hessian import evaluate_convexity
from losslandscape.plotting import plot_convexity, plot_spectrum
from losslandscape.values.measures import confidence_interval

DPI = 200
SETTINGS = {
    "batch 128": Setting(),
    "batch 2048": Setting(batch_size=2048),
    "batch 128, other seed": Setting(seed=1),
}
HEADER = ("network", "accuracy, training / test", "λmax", "λmin", "trace", "half-width")
# A network with weight penalties is drawn without them, as in the paper.
STYLE = {"metric": "data_loss", "scale": "log"}


def main(arguments=None):
    parser = flags(__doc__)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--probes", type=int, default=20, help="random vectors for the trace")
    arguments = parser.parse_args(arguments)
    data = prepare(arguments)
    build = functools.partial(FAMILIES["ResNet"], arguments.depth)
    networks = {name: train(build, setting, data, arguments) for name, setting in SETTINGS.items()}
    few = tuple(part[: arguments.measured] for part in data[0])
    first = networks["batch 128"]
    draw_training(first, few, arguments)
    draw_ways({name: of.load() for name, of in networks.items()}, few, data[1], arguments)
    draw_curvature(first.load(), few, arguments)
    rows = [table_row(name, network, data, arguments) for name, network in networks.items()]
    caption = (
        f"ResNet of {arguments.depth} layers; {arguments.dataset}, {len(data[0][0]):,} training "
        f"images of {data[0][0].shape[1]} pixels, {arguments.epochs} epochs; measured on "
        f"{len(few[0]):,} of them. λmax, λmin and trace: of the Hessian of the loss with penalty, "
        f"between filter-normalized directions. 95 % intervals over {arguments.probes} random "
        f"vectors and {arguments.directions} directions."
    )
    write_table(arguments.output / "beyond.md", caption, HEADER, rows)


def draw_training(trained, data, arguments):
    path = arguments.output / "beyond.png"
    options = {"path": path, "verbose": 2, **STYLE}
    display = plot_trajectory(trained.load(), trained.records, *data, arguments.points, **options)
    animate_path(display.surface, arguments.output / "beyond-trajectory.gif", fps=4, **STYLE)


def draw_ways(networks, few, test, arguments):
    names, models = list(networks), list(networks.values())
    options = {"statistics": "estimate", "verbose": 2}
    lines = evaluate_interpolation(*models[:2], (few, test), **options)
    plane = evaluate_plane(models, *few, arguments.points, **options)
    # All models have the name of their architecture.
    for value in (*lines, plane):
        value.metadata["models"] = names[: len(value.models)]
    axes = plot_metrics(lines, labels=("training set", "test set"), scale="log")
    save(axes["loss"], arguments.output / "beyond-interpolation.png")
    save(plot_levels(plane, **STYLE), arguments.output / "beyond-plane.png")


def draw_curvature(model, data, arguments):
    hessian = Hessian(model, *data)
    spectrum = hessian.spectrum(number_of_probes=3, steps=60, seed=0)
    save(plot_spectrum(spectrum), arguments.output / "beyond-spectrum.png")
    values, directions = hessian.eigenvalues(2, seed=0)
    options = {"directions": directions, "extent": (-1, 1), "verbose": 2, **STYLE}
    display = plot_loss_3D(model, "levels", *data, arguments.points, **options)
    ax = display.axes["levels"]
    ax.set(xlabel=f"α, λ = {values[0]:.3g}", ylabel=f"β, λ = {values[1]:.3g}")
    save(ax, arguments.output / "beyond-eigenvectors.png")
    # Each point needs two eigenvalues, about a hundred passes over the data.
    fewer, number = [part[:100] for part in data], min(arguments.points, 7)
    convexity = evaluate_convexity(model, *fewer, number, seed=0, tolerance=0.05, verbose=2)
    save(plot_convexity(convexity), arguments.output / "beyond-convexity.png")


def table_row(name, trained, data, arguments):
    few = tuple(part[: arguments.measured] for part in data[0])
    hessian = Hessian(trained.load(), *few, normalize="filter")
    (largest, smallest), _ = hessian.eigenvalues(which="both", tolerance=0.05, seed=0)
    trace = hessian.trace(arguments.probes, seed=0)
    accuracy = " / ".join(
        f"{trained.results[f'{part}_accuracy']:.3f}" for part in ("train", "test")
    )
    width = confidence_interval(widths_of(measure_lines(trained, data, arguments)))
    return name, accuracy, f"{largest:.2g}", f"{smallest:.2g}", trace, width


def save(ax, path):
    ax.figure.savefig(path, dpi=DPI)
    plt.close(ax.figure)


if __name__ == "__main__":
    main()
