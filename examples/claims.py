"""Says, claim by claim of Li et al. (2018), what the networks trained here show.

The networks are those of `paper.py`, with its flags, and of `healthchecks.py`; the path of
training is that of a small ResNet. What `examples/measured` holds is not trained again.

    python examples/claims.py --dataset fashion_mnist --size 14 --samples 10000 \\
        --epochs 30 --warmup 3 --no-augmentation --measured 500 \\
        --depths 20 56 110 --seeds 3 3 1 --widths 2 4 --mapped 20 56

The unit is the training: a claim is confirmed if it holds over several trainings. If every
network of one kind differs from every one of the other, it is seen in these networks.
"""

import functools
import itertools

import numpy as np
from experiment import (
    Setting,
    collection,
    measure_lines,
    measured_numbers,
    prepare,
    train,
    widths_of,
    write_table,
)
from flatness import KINDS, by_setting, correlation, read
from networks import FAMILIES
from paper import Network, choose, measure, parser_of, shares_of

from losslandscape import evaluate_trajectory
from losslandscape.values.comparisons import difference

HEADER = (
    "section",
    "claim of the paper",
    "measured by",
    "first",
    "second",
    "trainings",
    "second minus first",
    "interval over",
    "verdict",
)
SEEN, NOT_SEEN = "seen in these networks", "not settled"
FLATTER = "flatter minima generalize better"
CLEARER = "filter-normalized directions show it better than raw ones"
NAMES = {shares_of: "share that curves downwards", widths_of: "half-width"}
# Depth of the network whose path of training is measured.
SMALL = 8
# As the paper has it: the share of a path that two dimensions hold at least.
LEAST_SHARE = 0.4
SEEDS = 3


def main(arguments=None):
    arguments = parser_of(__doc__).parse_args(arguments)
    # That of the paper is of other images, and no claim here is on it.
    arguments.no_curvature = True
    data = prepare(arguments)
    networks = {network: measure(network, data, arguments) for network in choose(arguments)}
    rows = [
        *claims_on_training(data, arguments),
        *claims_on_generalization(read(arguments.measurements / collection(data, arguments))),
        *claims_on_architecture(networks),
        claim_on_paths(path_shares(data, arguments)),
    ]
    caption = (
        "Means over trainings, each of which counts once, as its mean over "
        f"{arguments.directions} directions; 95 % intervals of the difference, each by itself "
        f'("-": one training has none). Confirmed: the interval over trainings, or settings, is on '
        f"the side that the paper says. {SEEN.capitalize()}: not so, but every network of one kind "
        "differs from every one of the other, by the interval over directions. Contradicted: the "
        f"interval is on the other side. ResNet {arguments.depths[0]} for batches and weight decay."
        f" Path: the {arguments.epochs} epochs of a ResNet {SMALL}."
    )
    write_table(arguments.output / "claims.md", caption, HEADER, rows)


def claims_on_training(data, arguments):
    """Rows on batches and weight decay."""
    build = functools.partial(FAMILIES["ResNet"], arguments.depths[0])

    def lines(name, setting):
        trained = [
            train(build, setting._replace(seed=seed), data, arguments) for seed in range(SEEDS)
        ]
        return name, [measure_lines(network, data, arguments) for network in trained]

    usual = lines("batch 128, weight decay 5e-4", Setting())
    large = lines("batch 2048", Setting(batch_size=2048))
    free = lines("no weight decay", Setting(weight_decay=0.0))
    return [
        ordered(5, "small batches find flatter minima", widths_of, large, usual, shared=True),
        ordered(5, "weight decay leads to flatter minima", widths_of, free, usual, shared=True),
    ]


def claims_on_generalization(networks):
    """Rows on flatness and test error, over all networks that were measured."""
    settings = by_setting(networks)
    cells = {kind: f"{KINDS[kind]}: {correlation(settings, kind)[0]:.2f}" for kind in KINDS}
    trainings = f"{len(networks)} of {len(settings)} settings"
    quantity = "rank correlation of half-width and test error"
    rows = []
    for claim, first, kinds in (
        (FLATTER, "no relation: 0", ["filter"]),
        (CLEARER, cells["raw"], ["filter", "raw"]),
    ):
        value, low, high = correlation(settings, *kinds)
        found = f"{value:.2f} [{low:.2f}, {high:.2f}]"
        # The lower, the closer is the relation that the paper claims.
        verdict = verdict_of(-high, -low)
        rows.append(
            (5, claim, quantity, first, cells["filter"], trainings, found, "settings", verdict)
        )
    return rows


def claims_on_architecture(networks):
    """Rows on depth, shortcuts and width, as pairs of networks of which the first has less."""
    sizes = {(network.depth, network.width) for network in networks}
    depths = sorted(depth for depth, width in sizes if width == 1)
    plain = [("VGG-like", depth, 1) for depth in depths]
    pairs = [
        ("without shortcuts, deeper is less convex", shares_of, *pair)
        for pair in itertools.pairwise(plain)
    ]
    for size in [(depth, 1) for depth in depths[1:]]:
        twins = [("ResNet", *size), ("VGG-like", *size)]
        pairs.append(("shortcuts keep the landscape convex", shares_of, *twins))
        pairs.append(("shortcuts keep minima wide", widths_of, *reversed(twins)))
    for width in sorted(width for _, width in sizes if width > 1):
        for family in FAMILIES:
            pair = [(family, depths[0], 1), (family, depths[0], width)]
            pairs.append(("wider layers make minima wider", widths_of, *pair))

    def lines(group):
        found = [of.line for network, of in networks.items() if network[:3] == group]
        return str(Network(*group)), found

    return [ordered(6, claim, quantity, *map(lines, groups)) for claim, quantity, *groups in pairs]


def ordered(section, claim, quantity, lower, higher, *, shared=False):
    """A row on whether a quantity is lower along some lines than along others, given by name."""
    first, second = (np.array([quantity(line) for line in lines]) for _, lines in (lower, higher))
    found = difference(second, first, shared=shared)
    over, verdict = "trainings", verdict_of(found.low, found.high)
    if min(len(first), len(second)) == 1:
        if len(first) == len(second):
            over, verdict = "directions", NOT_SEEN
        else:
            over, found = "-", f"{found.mean:.3g}"
    if verdict == NOT_SEEN and are_apart(first, second, shared):
        verdict = SEEN
    return (
        section,
        claim,
        NAMES[quantity],
        f"{lower[0]}: {first.mean():.3g}",
        f"{higher[0]}: {second.mean():.3g}",
        f"{len(first)} and {len(second)}",
        found,
        over,
        verdict,
    )


def are_apart(first, second, shared):
    """Whether each training of the second is above each of the first, over directions."""
    return all(
        difference([above], [below], shared=shared).low > 0 for below in first for above in second
    )


def path_shares(data, arguments):
    """The shares of the path's variance in its plane, and of that of a random walk."""
    build = functools.partial(FAMILIES["ResNet"], SMALL)
    trained = train(build, Setting(), data, arguments)
    x, y = (part[: arguments.measured] for part in data[0])

    def measure_path():
        path = evaluate_trajectory(trained.load(), trained.records, x, y, 2, verbose=2)
        return {"path": sum(path.explained), "random walk": sum(path.metadata["random_walk"])}

    return measured_numbers(trained.folder / "path.json", measure_path)


def claim_on_paths(shares):
    """A row on how much of a path two dimensions hold."""
    return (
        7,
        "paths of training lie in few dimensions",
        f"share of the variance along two components; the paper: at least {LEAST_SHARE:g}",
        f"random walk: {shares['random walk']:.2f}",
        f"path: {shares['path']:.2f}",
        "1",
        f"{shares['path'] - shares['random walk']:.2f}",
        "-",
        SEEN if shares["path"] >= LEAST_SHARE else NOT_SEEN,
    )


def verdict_of(low, high):
    """What an interval says of a difference that the paper has above 0."""
    return "confirmed" if low > 0 else "contradicted" if high < 0 else NOT_SEEN


if __name__ == "__main__":
    main()
