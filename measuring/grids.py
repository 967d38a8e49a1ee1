"""Grids: how far a line or a plane reaches, where its points lie, and in what order they come.

A grid also turns the measured values, a flat array per metric, into what is saved and
drawn.
"""

import dataclasses
import functools
import math
import numbers

import numpy as np

from losslandscape.basics.checks import check_integer, check_memory, check_not_data
from losslandscape.values.surfaces import LossLine, LossSurface

# What a point takes: its coordinates, its place in the order, a few values, and copies of these.
BYTES = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The points of a plane.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates along the first axis.
        betas: Float array of shape `(m,)`, the coordinates along the second axis.
    """

    alphas: np.ndarray
    betas: np.ndarray

    @classmethod
    def of(cls, number_of_points, extent):
        """Makes the grid that a call asks for.

        Args:
            number_of_points: Points per axis, or a pair for alpha and beta.
            extent: First and last coordinate, or a pair of such pairs.

        Returns:
            A `Grid`.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If there are fewer than two points, or the extent is empty or infinite.
        """
        pairs = list(zip(*_per_axis(number_of_points, extent), strict=True))
        if all(isinstance(number, numbers.Integral) for number, _ in pairs):
            check_points(math.prod(int(number) for number, _ in pairs))
        return cls(*(coordinates(number, ends) for number, ends in pairs))

    @property
    def axes(self):
        """The coordinates of alpha and of beta."""
        return [self.alphas, self.betas]

    @property
    def shape(self):
        """The shape of the values: beta runs along the rows, alpha along the columns."""
        return len(self.betas), len(self.alphas)

    @functools.cached_property
    def points(self):
        """The points, row by row: an array of shape `(m·n, 2)`."""
        return np.stack([axis.ravel() for axis in np.meshgrid(*self.axes)], axis=1)

    @property
    def order(self):
        """The indices of the points, from coarse to fine.

        The corners come first, then the midpoints between them, and so on, so that
        the first few already show the whole plane.
        """
        rows, columns = map(_ranks, self.shape)
        return np.argsort(np.maximum.outer(rows, columns), axis=None, kind="stable")

    def scaled(self, factor):
        """Returns the same grid, scaled by a factor."""
        return Grid(factor * self.alphas, factor * self.betas)

    def surface(self, values, center, metadata):
        """Makes a `LossSurface` from a dict of arrays with a value per point."""
        values = {name: array.reshape(self.shape) for name, array in values.items()}
        return LossSurface(*self.axes, values, center, metadata)


def coordinates(number_of_points, extent):
    """Returns the points along one axis.

    Args:
        number_of_points: How many, at least 2.
        extent: First and last coordinate.

    Returns:
        A float array of shape `(number_of_points,)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there are fewer than two points, or the extent is empty or infinite.
    """
    check_not_data("number_of_points", number_of_points)
    check_integer("number_of_points", number_of_points, minimum=2)
    check_points(int(number_of_points))
    is_pair = isinstance(extent, (tuple, list, np.ndarray)) and len(extent) == 2
    if not is_pair or not all(isinstance(end, numbers.Real) for end in extent):
        raise TypeError(f"`extent` must be two numbers, such as (-1, 1). Received {extent!r}.")
    if not np.isfinite(extent).all() or extent[0] >= extent[1]:
        raise ValueError(
            "`extent` must be two finite numbers, the smaller first, such as (-1, 1). Received "
            f"{extent!r}."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        points = np.linspace(*extent, number_of_points)
        # In which most models compute.
        is_usable = np.isfinite(points.astype("float32")).all() and (np.diff(points) > 0).all()
    if not is_usable:
        raise ValueError(
            f"`extent` must be two numbers in single precision, with {number_of_points} different "
            f"points in between. Received {extent!r}."
        )
    return points


def levels(number):
    """Halves an axis again and again: first its ends, then the midpoint too, and so on.

    Args:
        number: How many points the axis has.

    Returns:
        A list with the indices of the points at each level, from coarse to fine; the last one has
        all of them.
    """
    found = []
    while not found or len(found[-1]) < number:
        ends = np.linspace(0, number - 1, 2 ** len(found) + 1)
        found.append(np.unique(np.round(ends).astype(int)))
    return found


def highest_low(is_low, start, ends, halvings):
    """Finds how far to go from the center until something is no longer low.

    Args:
        is_low: A function of the exponent of a distance, a power of 2.
        start: The exponent to begin with, from which it goes up or down in steps of 1.
        ends: The lowest and the highest exponent.
        halvings: How many times to halve the last step.

    Returns:
        The highest exponent that was found low; the lower end if none was.
    """
    # Where the search turns around, it asks for an exponent again.
    is_low = functools.cache(is_low)
    lowest, highest = ends
    exponent = start
    while exponent < highest and is_low(exponent):
        exponent += 1
    while exponent > lowest and not is_low(exponent):
        exponent -= 1
    for halving in range(1, halvings + 1):
        step = 2.0**-halving
        exponent += step * (exponent < highest and is_low(exponent + step))
    return exponent


def check_points(number, name="number_of_points"):
    """Refuses more points than memory can hold; `name` is the argument that asks for them."""
    check_memory(name, number, BYTES)


def line(alphas, values, center, metadata):
    """Makes a `LossLine` from a dict of flat arrays, one direction after the other."""
    values = {name: array.reshape(-1, len(alphas)) for name, array in values.items()}
    return LossLine(alphas, values, center, metadata)


def _per_axis(number_of_points, extent):
    """The number of points and the extent of alpha and of beta."""
    is_single = isinstance(number_of_points, numbers.Integral)
    numbers_of_points = [number_of_points] * 2 if is_single else number_of_points
    if np.size(number_of_points) > 2:
        check_not_data("number_of_points", number_of_points)
    extents = extent if np.ndim(extent) == 2 else [extent] * 2
    for name, one, value in (
        ("number_of_points", "an integer", numbers_of_points),
        ("extent", "two numbers", extents),
    ):
        if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
            raise TypeError(
                f"`{name}` must be {one} for both axes, or a pair of these for alpha and beta. "
                f"Received {value!r}."
            )
    return numbers_of_points, extents


def _ranks(number):
    """For each point of an axis, the first level that has it."""
    ranks = np.empty(number, int)
    for rank, level in reversed([*enumerate(levels(number))]):
        ranks[level] = rank
    return ranks
