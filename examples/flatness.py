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
from matplotlib import colormaps
from matplotlib import pyplot as plt
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
MARKERS = {"ResNet": "o", "VGG-like": "s"}
COLORS = colormaps["tab20"].colors


def main(arguments=None):
    arguments = flags(__doc__).parse_args(arguments)
    networks = read(arguments.measurements / collection(prepare(arguments), arguments))
    settings = by_setting(networks)
    found = {name: correlation(settings, kind) for kind, name in KINDS.items()}
    draw(networks, found, arguments.output / "flatness.png")
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


def draw(networks, found, path):
    """The test error over the half-width, a panel per kind of direction, and what was found."""
    figure, axes = plt.subplots(1, len(KINDS), figsize=(7, 4), sharey=True, layout="constrained")
    groups = sorted({group_of(name) for name in networks})
    # Networks that fail would take most of the axis; their errors are written at its end.
    highest = 1.15 * np.quantile([network["error"] for network in networks.values()], 0.93)
    for ax, (kind, title) in zip(axes, KINDS.items(), strict=True):
        for (family, setting), color in zip(groups, COLORS, strict=False):
            members = [of for name, of in networks.items() if group_of(name) == (family, setting)]
            style = {"color": color, "marker": MARKERS[family], "linestyle": "none", "alpha": 0.8}
            inside = [of for of in members if of["error"] <= highest]
            label = f"{family} {setting}"
            ax.plot(
                [of[kind] for of in inside], [of["error"] for of in inside], **style, label=label
            )
            for network in (of for of in members if of["error"] > highest):
                # Below the frame, on a line with its half-width.
                text = f"{label}:\n{network['error']:.2f} ↑"
                ax.annotate(text, (network[kind], highest), va="top", fontsize="small")
        value, low, high = found[title]
        ax.set(xlabel="half-width", title=f"{title}\nρ = {value:.2f} ({low:.2f} to {high:.2f})")
        ax.title.set_fontsize("medium")
        ax.update_datalim(
            [(network[kind], highest) for network in networks.values()], updatey=False
        )
        ax.margins(x=0.08)
    axes[0].set(ylabel="test error", ylim=(None, highest))
    handles, labels = axes[0].get_legend_handles_labels()
    shown = [pair for pair in zip(handles, labels, strict=True) if len(pair[0].get_xdata())]
    figure.legend(
        *zip(*shown, strict=True),
        fontsize="small",
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    figure.savefig(path, dpi=200)
    plt.close(figure)


def group_of(name):
    """The architecture of a network and, if its setting is not that of the others, what differs."""
    network, optimizer, batch, *_, decay, _ = name.split("-")
    family = "ResNet" if network.startswith("resnet") else "VGG-like"
    size = network.removeprefix("resnet").removeprefix("vgg_like").replace("x", ", k = ")
    others = {
        "Adam": optimizer != "SGD",
        f"batch {batch}": batch != "128",
        "no decay": decay == "decay0",
    }
    return family, " ".join([size, *(name for name, differs in others.items() if differs)])


if __name__ == "__main__":
    main()
