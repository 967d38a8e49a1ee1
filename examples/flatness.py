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
HEADER = (
    "half-width along",
    "networks",
    "settings",
    "rank correlation with the test error",
    "95 % interval over settings",
)
RESAMPLES = 2000


def main(arguments=None):
    arguments = flags(__doc__).parse_args(arguments)
    networks = read(arguments.measurements / collection(prepare(arguments), arguments))
    draw(networks, arguments.output / "flatness.png")
    settings = by_setting(networks)
    found = {name: correlation(settings, kind) for kind, name in KINDS.items()}
    found["the first minus the second, paired"] = correlation(settings, *KINDS)
    rows = [
        (name, len(networks), len(settings), f"{value:.2f}", f"{low:.2f} to {high:.2f}")
        for name, (value, low, high) in found.items()
    ]
    caption = (
        "Spearman's rank correlation over settings, each of which counts once: as the mean of its "
        f"trainings, of their mean half-widths over directions. Intervals: {RESAMPLES:,} bootstrap "
        f"samples of settings. Half-width: where the loss has risen by {RISE:g}. Negative: the "
        "flatter a minimum, the lower the test error."
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


def by_setting(networks):
    """The same numbers by setting, as the mean over its trainings."""
    groups = {}
    for name, network in networks.items():
        groups.setdefault(name.rpartition("-seed")[0], []).append(network)
    return {
        setting: {key: np.mean([network[key] for network in group]) for key in group[0]}
        for setting, group in groups.items()
    }


def correlation(settings, kind, other=None):
    """The rank correlation of flatness and error, and the ends of its interval over settings.

    With another kind of directions, the correlation minus that along the other ones. Both are
    resampled together, since they are of the same networks.
    """
    kinds = [kind] if other is None else [kind, other]
    *widths, errors = (
        np.array([setting[name] for setting in settings.values()]) for name in (*kinds, "error")
    )

    def difference(*samples):
        *widths, errors = samples
        first, *rest = (stats.spearmanr(each, errors).statistic for each in widths)
        return first - sum(rest)

    found = stats.bootstrap(
        (*widths, errors),
        difference,
        n_resamples=RESAMPLES,
        paired=True,
        vectorized=False,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    return difference(*widths, errors), *found.confidence_interval


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
