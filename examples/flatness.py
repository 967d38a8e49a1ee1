"""Draws whether flat minima generalize better, over all networks that were measured.

Reads what `paper.py` and `healthchecks.py`, with the same flags, left in
`examples/measured`; nothing is trained. Li et al. (2018), section 5, argue that only
filter-normalized directions show it, since raw ones depend on the scale of the weights.

    python examples/flatness.py --dataset fashion_mnist --size 14 --samples 10000 \\
        --epochs 30 --warmup 3 --no-augmentation
"""

import json

import numpy as np
from experiment import RISE, collection, flags, prepare, widths_of, write_table
from matplotlib import pyplot as plt
from matplotlib import ticker
from scipy import stats

from losslandscape import LossLine

KINDS = {"filter": "filter-normalized directions", "raw": "raw directions"}
HEADER = ("half-width along", "networks", "rank correlation with the test error", "95 % interval")
RESAMPLES = 2000


def main(arguments=None):
    arguments = flags(__doc__).parse_args(arguments)
    networks = read(arguments.measurements / collection(prepare(arguments), arguments))
    draw(networks, arguments.output / "flatness.png")
    rows = [
        (name, len(networks), f"{value:.2f}", f"{low:.2f} to {high:.2f}")
        for kind, name in KINDS.items()
        for value, low, high in [correlation(networks, kind)]
    ]
    caption = (
        "Spearman's rank correlation over networks, with its interval from "
        f"{RESAMPLES:,} bootstrap samples. Half-width: where the loss has risen by {RISE:g}, mean "
        "over directions. Negative: the flatter a minimum, the lower the test error."
    )
    write_table(arguments.output / "flatness.md", caption, HEADER, rows)


def read(folder):
    """The test error and the mean half-widths of each network of a collection, by its folder."""
    networks = {}
    for results in sorted(folder.glob("*/results.json")):
        lines = {kind: list(results.parent.glob(f"lines-{kind}-*.h5")) for kind in KINDS}
        if all(lines.values()):
            networks[results.parent.name] = {
                "error": 1 - json.loads(results.read_text())["test_accuracy"],
                **{kind: widths_of(LossLine.load(path)).mean() for kind, (path,) in lines.items()},
            }
    return networks


def correlation(networks, kind):
    """The rank correlation of flatness and error, and the ends of its interval over networks."""
    widths, errors = (
        np.array([network[name] for network in networks.values()]) for name in (kind, "error")
    )
    generator = np.random.default_rng(0)
    samples = generator.integers(0, len(errors), (RESAMPLES, len(errors)))
    resampled = [stats.spearmanr(widths[few], errors[few]).statistic for few in samples]
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    return stats.spearmanr(widths, errors).statistic, low, high


def draw(networks, path):
    """The test error over the half-width, a panel per kind of direction, a marker per family."""
    figure, axes = plt.subplots(1, len(KINDS), figsize=(7, 3), sharey=True, layout="constrained")
    families = sorted({family_of(name) for name in networks})
    for ax, (kind, title) in zip(axes, KINDS.items(), strict=True):
        for family, marker in zip(families, "osD^vP*X<>", strict=False):
            members = [of for name, of in networks.items() if family_of(name) == family]
            widths = [network[kind] for network in members]
            ax.plot(widths, [of["error"] for of in members], marker, label=family, alpha=0.7)
        ax.set(xlabel="half-width", title=title)
    axes[0].set_yscale("log")
    axes[0].yaxis.set(
        major_locator=ticker.LogLocator(subs=(1, 1.5, 2, 3, 5)),
        major_formatter=ticker.ScalarFormatter(),
        minor_locator=ticker.NullLocator(),
    )
    axes[0].set_ylabel("test error")
    axes[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.savefig(path, dpi=200)
    plt.close(figure)


def family_of(name):
    network, *_ = name.split("-")
    return network.replace("resnet", "ResNet ").replace("vgg_like", "VGG-like ").replace("x", " × ")


if __name__ == "__main__":
    main()
