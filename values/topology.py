"""Topology: the basins of a measured surface, and how deep each of them is.

Raise a water level from below: a basin is born at each local minimum, and where two
basins meet, at a saddle, the one with the higher minimum dies (the elder rule). The depth of a
basin is the height from its birth to its death. It tells basins from ripples, however the
surface is turned, stretched or drawn.
"""

__all__ = ["Basin", "number_of_basins", "persistence", "saddle_minimum_distance"]

from typing import NamedTuple

import numpy as np

from losslandscape.basics.checks import check_number
from losslandscape.values.surfaces import LossSurface, Surface, complete_values, value_of


class Basin(NamedTuple):
    """A local minimum of a surface, and the levels at which its basin begins and ends.

    Attributes:
        birth: The value at the minimum.
        death: The level of the saddle at which the basin merges into an older one;
            inf if it never does, like the oldest basin.
        position: Tuple of alpha and beta of the minimum.
        saddle: The level of the lowest saddle around the basin, where it first meets
            another one; at most `death`.
    """

    birth: float
    death: float
    position: tuple
    saddle: float

    @property
    def depth(self) -> float:
        """The persistence, `death - birth`."""
        return self.death - self.birth


def persistence(surface: Surface, metric: str = "loss") -> list[Basin]:
    """Finds the local minima of a surface and the depth of their basins.

    This is the persistence of the sublevel sets in dimension 0. Each point has eight
    neighbors, as in `convex_level`; a plateau counts as one point.

    Args:
        surface: A `LossSurface`.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        A list of `Basin`, the deepest first. The first has the lowest minimum and
        never dies. Non-finite values belong to no basin; if they divide the
        surface, one basin of each part never dies.

    Raises:
        ValueError: If `metric` was not measured.

    Example:

    >>> for basin in persistence(surface):
    ...     print(basin.position, basin.depth)

    Reference:
        [Edelsbrunner & Harer, 2010](https://doi.org/10.1090/mbk/069), section VII.1.
    """
    surface = value_of("surface", surface, LossSurface)
    values = complete_values(surface, metric)
    basins = [_basin(surface, values, minimum, *levels) for minimum, levels in _merges(values)]
    return sorted(basins, key=lambda basin: (-basin.depth, basin.birth))


def number_of_basins(surface: Surface, depth: float = 0.0, metric: str = "loss") -> int:
    """Counts the basins of a surface that are deeper than a threshold.

    Args:
        surface: A `LossSurface`.
        depth: How far the level must rise from a minimum until its basin merges into
            a deeper one. Defaults to 0.0, which counts all local minima.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        Int: at least 1, the basin of the lowest minimum, unless no value is finite.

    Raises:
        ValueError: If `depth` is negative, or `metric` was not measured.

    Example:

    >>> number_of_basins(surface, depth=0.1)
    1
    """
    check_number("depth", depth, minimum=0)
    return sum(basin.depth > depth for basin in persistence(surface, metric))


def saddle_minimum_distance(surface: Surface, metric: str = "loss") -> float:
    """Measures the Saddle-Minimum Average Distance (SMAD): how rugged a surface is.

    It is the mean, over all local minima, of the height from the minimum to the first
    saddle above it, where its basin meets another one: the mean length of the edges
    of the merge tree that end in a minimum. Unlike the depth in `persistence`, it
    counts the lowest minimum, too.

    Args:
        surface: A `LossSurface`.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        Float: 0 if there is only one basin.

    Raises:
        ValueError: If `metric` was not measured.

    Reference:
        [Chen et al., 2026](https://arxiv.org/abs/2602.07135), as their package
        computes it by default. It connects the points of a grid differently.
    """
    basins = persistence(surface, metric)
    heights = [basin.saddle - basin.birth for basin in basins if np.isfinite(basin.saddle)]
    return float(np.mean(heights)) if heights else 0.0


def _basin(surface, values, minimum, death, saddle):
    row, column = np.unravel_index(minimum, values.shape)
    position = float(surface.alphas[column]), float(surface.betas[row])
    return Basin(float(values[row, column]), death, position, saddle)


def _merges(values):
    """Pairs the number of each minimum with the levels of its basin's death and first saddle.

    Points are added from the lowest to the highest. Each basin is a tree of points whose
    root is its minimum; where basins merge, the root of the eldest becomes that of all.
    """
    flat = values.ravel().tolist()
    roots, deaths, saddles = {}, {}, {}
    for point in np.argsort(values, axis=None, kind="stable").tolist():
        level = flat[point]
        if not np.isfinite(level):
            continue
        around = {_root(roots, each) for each in _neighbors(point, values.shape) if each in roots}
        roots[point] = elder = min(around, key=lambda root: (flat[root], root), default=point)
        # A root at this very level belongs to the same plateau as the point: no other basin.
        met = [root for root in around if flat[root] < level]
        saddles.update((root, level) for root in met if len(met) > 1 and root not in saddles)
        deaths.update((root, level) for root in around - {elder})
        roots.update((root, elder) for root in around)
    minima = [p for p, root in roots.items() if p == root or deaths.get(p, -np.inf) > flat[p]]
    return [(p, (deaths.get(p, np.inf), saddles.get(p, np.inf))) for p in minima]


def _root(roots, point):
    while roots[point] != point:
        # Shortens the chain for the next call.
        roots[point] = roots[roots[point]]
        point = roots[point]
    return point


def _neighbors(point, shape):
    row, column = divmod(point, shape[1])
    return [
        r * shape[1] + c
        for r in range(max(row - 1, 0), min(row + 2, shape[0]))
        for c in range(max(column - 1, 0), min(column + 2, shape[1]))
        if (r, c) != (row, column)
    ]
