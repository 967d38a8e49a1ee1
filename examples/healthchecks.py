"""Draws the loss around networks that differ in one setting of their training.

Batch size, weight decay and optimizer: does the setting that leads to the
flatter minimum generalize better? Li et al. (2018), section 5, compare such
settings. At full size, on a GPU:

    python examples/healthchecks.py --dataset cifar10

At the size of the figure in the README, on two cores:

    python examples/healthchecks.py --dataset fashion_mnist --size 14 \\
        --samples 10000 --epochs 30 --warmup 3 --no-augmentation --measured 500

An interrupted run resumes where it stopped.
"""

import functools

import numpy as np
from experiment import (
    RISE,
    Setting,
    describe,
    flags,
    measure_lines,
    minutes_of,
    prepare,
    train,
    widths_of,
    write_table,
)
from matplotlib import pyplot as plt
from networks import FAMILIES

from losslandscape import plot_line
from losslandscape.values.comparisons import difference
from losslandscape.values.measures import confidence_interval

CHECKS = {
    "batch size": {"128": Setting(), "2048": Setting(batch_size=2048)},
    "weight decay": {"5e-4": Setting(), "none": Setting(weight_decay=0.0)},
    "optimizer": {"SGD": Setting(), "Adam": Setting(optimizer="Adam")},
}
HEADER = ("network", "seed", "training accuracy", "test accuracy", "half-width", "minutes")
VERDICT_HEADER = (
    "check",
    "difference in half-width",
    "difference in test accuracy",
    "seeds in which the flatter one generalizes better",
)


def main(arguments=None):
    parser = flags(__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="ResNet")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3, help="networks per setting, at least 2")
    arguments = parser.parse_args(arguments)
    data = prepare(arguments)
    settings = dict.fromkeys(setting for pair in CHECKS.values() for setting in pair.values())
    networks = {
        setting: [
            measure(setting._replace(seed=seed), data, arguments) for seed in range(arguments.seeds)
        ]
        for setting in settings
    }
    draw(networks, arguments.output / "healthchecks.png")
    caption = (
        f"{arguments.family} network of {arguments.depth} layers; {describe(arguments, data)} "
        f"Half-width: where the loss has risen by {RISE:g}, with the 95 % interval over "
        f"{arguments.directions} directions through this network."
    )
    rows = [table_row(network) for seeds in networks.values() for network in seeds]
    write_table(arguments.output / "healthchecks.md", caption, HEADER, rows)
    caption = (
        "Second setting minus first, with the 95 % interval over "
        f"{arguments.seeds} trainings each, which count once, as their mean over "
        f"{arguments.directions} directions; each interval by itself."
    )
    verdicts = [verdict(name, pair, networks) for name, pair in CHECKS.items()]
    write_table(arguments.output / "healthchecks-verdict.md", caption, VERDICT_HEADER, verdicts)


def measure(setting, data, arguments):
    trained = train(
        functools.partial(FAMILIES[arguments.family], arguments.depth), setting, data, arguments
    )
    return setting, trained.results, measure_lines(trained, data, arguments)


def draw(networks, path):
    """Both curves of each check, from the networks of the first seed."""
    figure, axes = plt.subplots(
        1, len(CHECKS), figsize=(2.4 * len(CHECKS), 2.6), sharey=True, layout="constrained"
    )
    for ax, (name, pair) in zip(axes, CHECKS.items(), strict=True):
        lines = [networks[setting][0][2] for setting in pair.values()]
        plot_line(lines, ax, labels=list(pair), metric="data_loss", scale="log")
        ax.set_title(name, fontsize="medium")
        ax.label_outer()
    figure.savefig(path, dpi=200)


def table_row(network):
    setting, results, line = network
    return (
        setting,
        setting.seed,
        f"{results['train_accuracy']:.3f}",
        f"{results['test_accuracy']:.3f}",
        confidence_interval(widths_of(line)),
        minutes_of(results),
    )


def verdict(name, pair, networks):
    """How the second setting differs from the first, and whether flatter means better."""
    widths, accuracies = [], []
    for seeds in (networks[setting] for setting in pair.values()):
        widths.append(np.array([widths_of(line) for _, _, line in seeds]))
        accuracies.append(np.array([[results["test_accuracy"]] for _, results, _ in seeds]))
    wider = widths[1].mean(axis=1) - widths[0].mean(axis=1)
    better = (accuracies[1] - accuracies[0])[:, 0]
    agreeing = np.count_nonzero(wider * better > 0)
    first, second = pair
    return (
        f"{name}: {second} minus {first}",
        difference(*widths[::-1], shared=True),
        difference(*accuracies[::-1], shared=True),
        f"{agreeing} of {len(wider)}",
    )


if __name__ == "__main__":
    main()
