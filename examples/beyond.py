"""Draws what lies beyond one point: the path of training, lines between networks, curvature.

Small convolutional networks on Fashion-MNIST; about ten minutes on two cores:

    python examples/beyond.py --dataset fashion_mnist --size 14 --samples 4000 --epochs 20
"""

import tempfile

import keras
from experiment import flags, prepare, write_table
from keras import layers
from matplotlib import pyplot as plt

from losslandscape import (
    WeightHistory,
    animate_path,
    confidence_interval,
    evaluate_convexity,
    evaluate_line,
    evaluate_plane,
    half_widths,
    hessian_eigenvalues,
    hessian_spectrum,
    hessian_trace,
    plot_convexity,
    plot_interpolation,
    plot_levels,
    plot_loss_3D,
    plot_spectrum,
    plot_trajectory,
)

DPI = 200
HEADER = ("network", "test accuracy", "λmax", "λmin", "trace", "half-width")


def main(arguments=None):
    parser = flags(__doc__)
    parser.add_argument("--probes", type=int, default=20, help="random vectors for the trace")
    arguments = parser.parse_args(arguments)
    (x_train, y_train), test = prepare(arguments)
    train = x_train, y_train
    few = x_train[: arguments.measured], y_train[: arguments.measured]
    networks, history = train_networks(train, arguments.epochs)
    first = networks["batch 64"]
    draw_training(first, history, few, arguments)
    draw_ways(networks, (train, test), arguments)
    draw_curvature(first, few, arguments)
    rows = [table_row(name, network, few, test, arguments) for name, network in networks.items()]
    caption = (
        f"{arguments.dataset}, {len(x_train):,} training images of {x_train.shape[1]} pixels, "
        f"{arguments.epochs} epochs; curvature on {len(few[0]):,} of them, with 95 % intervals "
        f"over {arguments.probes} random vectors and 10 directions."
    )
    write_table(arguments.output / "beyond.md", caption, HEADER, rows)


def train_networks(data, epochs):
    """Networks from small batches, large batches and another seed; the history of the first."""
    networks = {}
    settings = {"batch 64": (64, 0), "batch 1024": (1024, 0), "batch 64, other seed": (64, 1)}
    history = WeightHistory(tempfile.mkdtemp())
    for name, (batch_size, seed) in settings.items():
        keras.utils.set_random_seed(seed)
        model = build(data[0].shape[1:])
        callbacks = [] if networks else [history]
        model.fit(*data, batch_size, epochs, callbacks=callbacks, verbose=2)
        networks[name] = model
    return networks, history


def build(input_shape):
    model = keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.AveragePooling2D(2),
            layers.Conv2D(32, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def draw_training(model, history, data, arguments):
    path = arguments.output / "beyond.png"
    display = plot_trajectory(
        model, history, *data, arguments.points, scale="log", path=path, verbose=2
    )
    animate_path(display.surface, arguments.output / "beyond-trajectory.gif", scale="log", fps=4)


def draw_ways(networks, datasets, arguments):
    small, large, _ = networks.values()
    plot_interpolation(
        small,
        large,
        datasets,
        ("training set", "test set"),
        scale="log",
        path=arguments.output / "beyond-interpolation.png",
        verbose=2,
    )
    train, _ = datasets
    few = [part[: arguments.measured] for part in train]
    plane = evaluate_plane(
        list(networks.values()), *few, arguments.points, statistics="estimate", verbose=2
    )
    save(plot_levels(plane, scale="log"), arguments.output / "beyond-plane.png")


def draw_curvature(model, data, arguments):
    spectrum = hessian_spectrum(model, *data, number_of_probes=3, steps=60, seed=0)
    save(plot_spectrum(spectrum), arguments.output / "beyond-spectrum.png")
    values, directions = hessian_eigenvalues(model, *data, 2, seed=0)
    options = {"directions": directions, "extent": (-2, 2), "scale": "log", "verbose": 2}
    display = plot_loss_3D(model, "levels", *data, arguments.points, **options)
    ax = display.axes["levels"]
    ax.set(xlabel=f"α, λ = {values[0]:.3g}", ylabel=f"β, λ = {values[1]:.3g}")
    save(ax, arguments.output / "beyond-eigenvectors.png")
    # Each point needs two eigenvalues, about a hundred passes over the data.
    fewer, number = [part[:300] for part in data], min(arguments.points, 9)
    convexity = evaluate_convexity(model, *fewer, number, seed=0, tolerance=0.05, verbose=2)
    save(plot_convexity(convexity), arguments.output / "beyond-convexity.png")


def table_row(name, model, data, test, arguments):
    (largest, smallest), _ = hessian_eigenvalues(model, *data, which="both", seed=0)
    trace = hessian_trace(model, *data, arguments.probes, seed=0)
    line = evaluate_line(model, *data, 41, number_of_directions=10, seed=0, verbose=2)
    accuracy = model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
    width = confidence_interval(half_widths(line))
    return name, f"{accuracy:.3f}", f"{largest:.3g}", f"{smallest:.3g}", trace, width


def save(ax, path):
    ax.figure.savefig(path, dpi=DPI)
    plt.close(ax.figure)


if __name__ == "__main__":
    main()
