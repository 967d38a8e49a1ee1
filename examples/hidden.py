r"""Draws what a single picture hides: layers, steep directions, saddles, barriers and ways around.

Small convolutional networks on scikit-learn's digits; about two minutes on two cores:

    python examples/hidden.py --dataset digits --epochs 15 --points 21 --measured 500 \
        --directions 5
"""

import tempfile

import keras
from beyond import save
from experiment import flags, prepare, write_table
from keras import layers

from losslandscape import (
    Hessian,
    WeightHistory,
    evaluate_barriers,
    evaluate_line,
    evaluate_plane,
    evaluate_surface,
    evaluate_trajectory,
    fit_curve,
    plot_barriers,
    plot_levels,
    plot_line,
    plot_path,
    random_directions,
    report,
)
from losslandscape.curvature.gradients import gradient_direction, worst_direction
from losslandscape.plotting import plot_curve, plot_layers, plot_persistence

RUNS = {
    "SGD": keras.optimizers.SGD(0.3),
    "momentum": keras.optimizers.SGD(0.05, momentum=0.9),
    "Adam": keras.optimizers.Adam(0.005),
}
HEADER = ("plane", "what `report` finds", "value", "warning")


def main(arguments=None):
    parser = flags(__doc__)
    arguments = parser.parse_args(arguments)
    train, _ = prepare(arguments)
    data = [part[: arguments.measured] for part in train]
    networks, histories = train_networks(train, arguments.epochs)
    model = networks["momentum"]
    draw_layers(model, data, arguments)
    draw_worst(model, data, arguments)
    draw_saddle(model, data, arguments)
    others = [train_network(train, "momentum", arguments.epochs, seed=seed) for seed in (1, 2)]
    draw_barriers([model, *others], data, arguments)
    draw_curve([model, others[0]], train, data, arguments)
    runs = evaluate_trajectory(model, histories, *data, arguments.points, verbose=2)
    save(plot_path(runs, scale="log"), arguments.output / "hidden-runs.png")


def train_networks(data, epochs):
    """One network per optimizer, all from the same weights, and their histories."""
    histories = {name: WeightHistory(tempfile.mkdtemp()) for name in RUNS}
    networks = {
        name: train_network(data, name, epochs, callbacks=[history])
        for name, history in histories.items()
    }
    return networks, histories


def train_network(data, optimizer, epochs, seed=0, callbacks=()):
    keras.utils.set_random_seed(seed)
    model = build(data[0].shape[1:], f"seed-{seed}")
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(RUNS[optimizer]))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*data, 64, epochs, callbacks=list(callbacks), verbose=2)
    return model


def build(input_shape, name):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="first"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.AveragePooling2D(2),
            layers.Conv2D(32, 3, padding="same", use_bias=False, name="second"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax", name="classifier"),
        ],
        name=name,
    )


def draw_layers(model, data, arguments):
    """The curvature in each layer, and the loss where only that layer moves."""
    curvature = Hessian(model, *data, normalize="filter").by_layer(seed=0)
    save(plot_layers(curvature), arguments.output / "hidden-layers.png")
    names = curvature.metadata["layers"]
    number = arguments.directions
    lines = [
        line(model, data, arguments, layers=name, number_of_directions=number, seed=0)
        for name in names
    ]
    save(plot_line(lines, labels=names), arguments.output / "hidden-one-layer.png")


def draw_worst(model, data, arguments):
    """Random directions beside those in which the loss rises most, all of the same length."""
    radius = 0.3
    directions = {
        "random": random_directions(model, arguments.directions, seed=0),
        "gradient": [gradient_direction(model, *data)],
        "worst": [worst_direction(model, *data, radius, seed=0)],
    }
    lines = [
        line(model, data, arguments, directions=each, extent=(-radius, radius))
        for each in directions.values()
    ]
    ax = plot_line(lines, labels=list(directions), scale="log")
    save(ax, arguments.output / "hidden-worst.png")


def line(model, data, arguments, **options):
    return evaluate_line(model, *data, 2 * arguments.points - 1, **options, verbose=2)


def draw_saddle(model, data, arguments):
    """A random plane, which shows no saddle, and that of the extreme eigenvalues."""
    hessian = Hessian(model, *data, normalize="filter")
    spectrum = hessian.spectrum(3, 40, seed=0)
    values, extremes = hessian.eigenvalues(which="both", tolerance=1e-2, seed=0)
    planes = {"random": random_directions(model, 2, seed=0), "eigenvectors": extremes}
    rows = []
    for name, directions in planes.items():
        surface = evaluate_surface(model, *data, arguments.points, directions=directions, verbose=2)
        ax = plot_levels(surface, scale="log")
        if name == "eigenvectors":
            ax.set(xlabel=f"α, λ = {values[0]:.3g}", ylabel=f"β, λ = {values[1]:.3g}")
        save(ax, arguments.output / f"hidden-{name}.png")
        finding = report(surface, curvature=spectrum)[-1]
        rows.append((name, finding.check, f"{finding.value:.3g}", finding.warning or "-"))
    caption = f"{arguments.dataset}, {len(data[0]):,} training images, {arguments.epochs} epochs."
    write_table(arguments.output / "hidden.md", caption, HEADER, rows)


def draw_barriers(networks, data, arguments):
    barriers = evaluate_barriers(networks, *data, statistics="estimate", verbose=2)
    labels = [f"seed {seed}" for seed in range(len(networks))]
    save(plot_barriers(barriers, labels=labels), arguments.output / "hidden-barriers.png")


def draw_curve(networks, train, data, arguments):
    """The curve of low loss between two networks, and the basins of the plane it is in."""
    control = fit_curve(*networks, *train, epochs=arguments.epochs, seed=0, verbose=2)
    models = [*networks, control]
    plane = evaluate_plane(models, *data, arguments.points, statistics="estimate", verbose=2)
    save(plot_curve(plane, scale="log"), arguments.output / "hidden-curve.png")
    save(plot_persistence(plane), arguments.output / "hidden-basins.png")


if __name__ == "__main__":
    main()
