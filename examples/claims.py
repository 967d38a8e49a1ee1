"""Says, claim by claim of Li et al. (2018), what the networks trained here show.

The networks are those of `paper.py`, with its flags, and of `healthchecks.py`; the path of
training is that of a small ResNet. What `examples/measured` holds is not trained again.

    python examples/claims.py --dataset fashion_mnist --size 14 --samples 10000 \\
        --epochs 30 --warmup 3 --no-augmentation --measured 500 \\
        --depths 20 56 110 --seeds 2 2 1 --widths 2 4 --mapped 20 56
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
from flatness import KINDS, correlation, read
from networks import FAMILIES
from paper import Network, choose, measure, parser_of, shares_of

from losslandscape import evaluate_trajectory
from losslandscape.values.measures import confidence_interval

HEADER = ("section", "claim of the paper", "measured by", "first", "second", "verdict")
FLATTER = "flatter minima generalize better"
CLEARER = "filter-normalized directions show it better than raw ones"
NAMES = {shares_of: "share that curves downwards", widths_of: "half-width"}
# Depth of the network whose path of training is measured.
SMALL = 8
# As the paper has it: the share of a path that two dimensions hold at least, and the size of the
# negative curvature, of the positive one, at most.
LEAST_SHARE, MOST_NEGATIVE = 0.4, 0.01
SEEDS = 3


def main(arguments=None):
    arguments = parser_of(__doc__).parse_args(arguments)
    data = prepare(arguments)
    networks = {network: measure(network, data, arguments) for network in choose(arguments)}
    rows = [
        *claims_on_training(data, arguments),
        *claims_on_generalization(read(arguments.measurements / collection(data, arguments))),
        *claims_on_architecture(networks),
        *([] if arguments.no_curvature else [claim_on_curvature(networks)]),
        claim_on_paths(path_shares(data, arguments)),
    ]
    caption = (
        "Means with 95 % intervals over all directions and seeds; the correlations' over networks. "
        "Confirmed: the first is lower, and the intervals do not overlap; or the first is as the "
        f"paper says. Contradicted: the first is higher. ResNet {arguments.depths[0]} for batches "
        f"and weight decay, with {SEEDS} seeds each. Path: the {arguments.epochs} epochs of a "
        f"ResNet {SMALL}."
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
        ordered(5, "small batches find flatter minima", widths_of, large, usual),
        ordered(5, "weight decay leads to flatter minima", widths_of, free, usual),
    ]


def claims_on_generalization(networks):
    """Rows on flatness and test error, over all networks that were measured."""
    found = {kind: correlation(networks, kind) for kind in KINDS}
    cells = {
        kind: f"{KINDS[kind]}: {value:.2f} [{low:.2f}, {high:.2f}]"
        for kind, (value, low, high) in found.items()
    }
    (_, _, high), (_, raw_low, _) = found["filter"], found["raw"]
    quantity = "rank correlation of half-width and test error"
    return [
        (5, FLATTER, quantity, cells["filter"], "no relation: 0", verdict_of(high < 0)),
        (5, CLEARER, quantity, cells["filter"], cells["raw"], verdict_of(high < raw_low)),
    ]


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


def ordered(section, claim, quantity, lower, higher):
    """A row on whether a quantity is lower along some lines than along others, given by name."""
    first, second = (
        confidence_interval(np.concatenate([quantity(line) for line in lines]))
        for _, lines in (lower, higher)
    )
    verdict = "not confirmed"
    if first.high < second.low:
        verdict = "confirmed"
    elif second.high < first.low:
        verdict = "contradicted"
    return (
        section,
        claim,
        NAMES[quantity],
        f"{lower[0]}: {first}",
        f"{higher[0]}: {second}",
        verdict,
    )


def claim_on_curvature(networks):
    """A row on the negative curvature at the minima, which the landscape's look should tell."""
    ratios = {
        family: max(
            abs(of.curvature["smallest"] / of.curvature["largest"])
            for network, of in networks.items()
            if network.family == family
        )
        for family in FAMILIES
    }
    return (
        6,
        "where a surface looks convex, negative curvature is small",
        f"largest \\|λmin / λmax\\| at a minimum; the paper: {MOST_NEGATIVE:g}",
        *(f"{family}: {ratio:.2g}" for family, ratio in ratios.items()),
        verdict_of(ratios["ResNet"] <= MOST_NEGATIVE),
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
        f"path: {shares['path']:.2f}",
        f"random walk: {shares['random walk']:.2f}",
        verdict_of(shares["path"] >= LEAST_SHARE),
    )


def verdict_of(is_confirmed):
    return "confirmed" if is_confirmed else "not confirmed"


if __name__ == "__main__":
    main()
