"""Measures: single numbers that sum up a measured line or surface.

In a picture it is easy to see what one hopes for. These numbers say how wide a
minimum is, how convex its surroundings are, and how certain that is.
"""

from typing import NamedTuple

import numpy as np

from losslandscape.checks import import_extra
from losslandscape.surfaces import LossLine, LossSurface, value_of


class Estimate(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self):
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


LANDSCAPES = LossLine, LossSurface


class Finding(NamedTuple):
    """One check of a report.

    Attributes:
        check: What was checked.
        value: The number found.
        warning: How a picture would mislead, or `None` if it would not.
    """

    check: str
    value: float
    warning: str | None = None

    def __str__(self):
        return f"{self.check}: {self.value:.4g}" + (f"\n  ! {self.warning}" if self.warning else "")


def report(measured, metric="loss", *, expected=None, directions=None):
    """Checks whether a picture of a line or surface would mislead.

    Args:
        measured: A `LossLine` or `LossSurface`.
        metric: Which of the measured values to use. Defaults to `"loss"`.
        expected: The result of `model.evaluate(x, y, return_dict=True)`, to
            compare with the center. `None` (the default) skips this check.
        directions: The two directions of a surface, to check the angle between
            them. `None` (the default) skips this check.

    Returns:
        A list of `Finding`, each with a warning if there is reason for one.
        Random directions of large networks are nearly at right angles; others
        need not be.

    Raises:
        ValueError: If `metric` was not measured.

    Example:

    >>> for finding in report(surface, expected=model.evaluate(x, y, return_dict=True)):
    ...     print(finding)
    share of points that are not finite: 0
    lowest point minus the model: -0.01029
      ! The loss is lower elsewhere: the model is no minimum of what is drawn.
    ...
    """
    measured = value_of("measured", measured, LANDSCAPES)
    values = _values(measured, metric)
    findings = [
        _find_holes(values),
        _find_lower(values, measured.center[metric]),
        _find_span(values),
        _find_coarseness(measured, metric),
    ]
    if expected is not None:
        findings.append(_find_difference(measured.center[metric], expected[metric]))
    if directions is not None:
        findings.append(_find_angle(*directions))
    return findings


def half_widths(line, rise=1.0, metric="loss"):
    """Measures the distance within which the loss rises by a given amount.

    The larger the distance, the flatter the minimum. With filter-normalized
    directions 0.5 means half the length of the weights, so networks can be
    compared.

    Args:
        line: A `LossLine` that extends to both sides of 0.
        rise: How far the loss must rise above that of the model, greater than
            0. Defaults to 1.0; for comparison, the loss of guessing among ten
            classes is 2.3.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        Float array of shape `(k,)`, one half-width per direction: the mean of
        both sides, interpolated linearly between points; inf where the loss
        does not rise that far on both sides. Non-finite losses count as infinite.

    Raises:
        ValueError: If the line does not extend to both sides of 0, `rise` is not
            positive, or `metric` was not measured.

    Example:

    >>> line = evaluate_line(model, x, y, 41, number_of_directions=10, seed=0)
    >>> print(confidence_interval(half_widths(line, rise=0.1)))
    0.413 [0.391, 0.435]
    """
    return _half_widths_by_side(line, rise, metric).mean(axis=1)


def confidence_interval(values, confidence=0.95):
    """Computes the mean of independent values and its confidence interval.

    Args:
        values: Array of at least 2 numbers, for example one per direction.
        confidence: How often such an interval contains the true mean. Defaults
            to 0.95.

    Returns:
        An `Estimate(mean, low, high)`, by Student's t distribution. If a value
        is not finite, neither is the mean, and the interval is unknown: NaN.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        ValueError: If there are fewer than 2 values.

    Example:

    >>> mean, low, high = confidence_interval(half_widths(line))
    """
    stats = import_extra("scipy.stats", "analysis")
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        raise ValueError(
            f"`values` must be at least 2 numbers, to show how they vary. Received {values.size}."
        )
    if not np.isfinite(values).all():
        return Estimate(float(values.mean()), float("nan"), float("nan"))
    reach = stats.t.ppf((1 + confidence) / 2, values.size - 1) * stats.sem(values, axis=None)
    return Estimate(values.mean(), values.mean() - reach, values.mean() + reach)


def non_convexity(surface, metric="loss"):
    """Measures the share of a surface that curves downwards in some direction.

    Args:
        surface: A `LossSurface` of at least 3 points per axis.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        Float from 0 to 1: the share of inner grid points at which the discrete
        2-D Hessian, from central differences, has a negative eigenvalue. Points
        next to a non-finite value are left out; NaN if none remain.

    Raises:
        ValueError: If the surface has fewer points, or `metric` was not measured.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 6, argues
        from the same eigenvalues of the full Hessian: if a plane curves
        downwards, so does the loss.
    """
    bends = _bends(value_of("surface", surface, LossSurface), metric)
    known = bends[~np.isnan(bends)]
    return float(known.mean()) if known.size else float("nan")


def convex_level(surface, metric="loss"):
    """Measures the loss up to which the basin around the model is convex.

    The basin of a level is the region at or below it that is connected to the
    model's own point. It counts as convex if it contains every grid point inside
    its convex hull.

    Args:
        surface: A `LossSurface` whose extent includes the model.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        Float: the highest level up to which every basin is convex. It is one of
        the surface's values: the highest, if all basins are convex.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        ValueError: If the model is outside the extent, or `metric` was not
            measured.
    """
    ndimage = import_extra("scipy.ndimage", "analysis")
    surface = value_of("surface", surface, LossSurface)
    values = _values(surface, metric)
    for name, axis in zip(("alpha", "beta"), surface.axes, strict=True):
        if not axis[0] <= 0 <= axis[-1]:
            raise ValueError(
                f"`surface` must have the model inside its extent. Received {name} from "
                f"{axis[0]:g} to {axis[-1]:g}."
            )
    values = np.where(np.isfinite(values), values, np.inf)
    center = np.abs(surface.betas).argmin(), np.abs(surface.alphas).argmin()
    reached = float(values[center])
    for level in np.unique(values[np.isfinite(values) & (values >= reached)]):
        # Diagonal neighbors are connected, too.
        parts, _ = ndimage.label(values <= level, np.ones((3, 3)))
        if not _is_convex(parts == parts[center]):
            break
        reached = float(level)
    return reached


def epsilon_sharpness(measured, epsilon=0.1, metric="loss"):
    """Measures the highest relative rise of the loss within a box, in percent.

    `100·(max L - L0) / (1 + L0)` over the measured points whose coordinates are
    at most `epsilon` in size. The original takes the maximum over all
    directions, which can only be higher.

    Args:
        measured: A `LossLine` or `LossSurface` whose extent includes the model.
        epsilon: The largest coordinate; with filter-normalized directions, as a
            fraction of the length of the weights. Defaults to 0.1.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        Float for a surface, array of shape `(k,)` for a line.

    Raises:
        ValueError: If no measured point except the center lies that close, or
            `metric` was not measured.

    Reference:
        [Keskar et al., 2017](https://arxiv.org/abs/1609.04836), metric 2.1.
    """
    measured = value_of("measured", measured, LANDSCAPES)
    rise = _highest_rise(measured, _box_distances(measured), "epsilon", epsilon, metric)
    return 100 * rise / (1 + measured.center[metric])


def loss_rise(measured, radius=0.1, metric="loss"):
    """Measures the highest rise of the loss within a radius, as in sharpness-aware training.

    Args:
        measured: A `LossLine` or `LossSurface` whose extent includes the model.
        radius: Distance from the model in the units of the axes. Defaults to 0.1.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        `max L - L0` over the measured points within the radius: a float for a
        surface, an array of shape `(k,)` for a line. In other directions the
        loss may rise higher.

    Raises:
        ValueError: If no measured point except the center lies that close, or
            `metric` was not measured.

    Reference:
        [Foret et al., 2021](https://arxiv.org/abs/2010.01412), equation 1.
    """
    measured = value_of("measured", measured, LANDSCAPES)
    return _highest_rise(measured, _distances(measured), "radius", radius, metric)


def convex_radius(measured, metric="loss"):
    """Measures the radius around the model within which the loss curves upwards.

    Args:
        measured: A `LossLine` or `LossSurface` of at least 3 points per axis.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        The distance from the model to the nearest inner point at which the
        discrete second derivative (for a surface, an eigenvalue of the 2-D
        Hessian) is negative; inf if there is none. A float for a surface, an
        array of shape `(k,)` for a line.

    Raises:
        ValueError: If there are fewer points, or `metric` was not measured.
    """
    measured = value_of("measured", measured, LANDSCAPES)
    distances = _distances(measured)
    inner = distances[(slice(1, -1),) * distances.ndim]
    bent = np.where(_bends(measured, metric) == 1, inner, np.inf)
    return float(bent.min()) if inner.ndim == 2 else bent.min(axis=-1)


def _find_holes(values):
    share = float(np.mean(~np.isfinite(values)))
    warning = "Holes are drawn there; the loss is infinite or undefined."
    return Finding("share of points that are not finite", share, warning if share else None)


def _find_lower(values, center):
    lower = float(np.min(values, where=np.isfinite(values), initial=center) - center)
    warning = "The loss is lower elsewhere: the model is no minimum of what is drawn."
    # A smaller difference would not show in a color or a line.
    is_seen = lower < -0.001 * abs(center)
    return Finding("lowest point minus the model", lower, warning if is_seen else None)


def _find_span(values):
    positive = values[np.isfinite(values) & (values > 0)]
    span = float(np.log10(positive.max() / positive.min())) if positive.size else 0.0
    warning = 'A linear scale shows only the highest: draw it with `scale="log"`.'
    return Finding("decades from lowest to highest", span, warning if span > 2 else None)


def _find_coarseness(measured, metric):
    """The rise of the loss to the nearest points, as a share of its whole rise."""
    distances = _distances(measured)
    nearest = distances[distances > 0].min()
    values, center = _values(measured, metric), measured.center[metric]
    rise = np.where(np.isfinite(values), values, np.nan) - center
    highest = np.nanmax(rise, initial=0)
    step = np.nanmax(rise[..., distances <= 1.001 * nearest], initial=0)
    part = float(step / highest) if highest else 0.0
    warning = "The minimum is narrower than the grid: take more points or a smaller extent."
    return Finding(
        "rise to the nearest points, of the whole", part, warning if part > 0.5 else None
    )


def _find_difference(center, expected):
    difference = abs(center - expected) / max(abs(expected), 1e-12)
    warning = "The center is not the model's own loss: other data or another model was measured."
    return Finding(
        "relative difference of the center to `model.evaluate`",
        difference,
        warning if difference > 1e-4 else None,
    )


def _find_angle(first, second):
    def product(one, other):
        return sum(np.vdot(np.asarray(a, float), b) for a, b in zip(one, other, strict=True))

    lengths = np.sqrt(product(first, first) * product(second, second))
    cosine = float(product(first, second) / lengths)
    warning = "The axes are not at right angles: shapes are skewed."
    return Finding("cosine between the axes", cosine, warning if abs(cosine) > 0.1 else None)


def _values(measured, metric):
    if metric not in measured.values:
        accepted = ", ".join(map(repr, measured.values))
        raise ValueError(f"`metric` must be one of {accepted}. Received {metric!r}.")
    missing = np.count_nonzero(measured.missing)
    if missing:
        raise ValueError(
            f"The values must be complete, but {missing} points are missing in {measured!r}. "
            "Repeat the call that began this checkpoint, to resume it."
        )
    return measured.values[metric]


def _crossings(alphas, risen, rise):
    """The distances from 0, left and right, at which the loss has risen that far."""
    left, right = alphas < 0, alphas > 0
    return [
        _crossing(-alphas[left][::-1], risen[left][::-1], rise),
        _crossing(alphas[right], risen[right], rise),
    ]


def _crossing(distances, risen, rise):
    distances, risen = np.append(0.0, distances), np.append(0.0, risen)
    above = np.flatnonzero(risen >= rise)
    if not above.size:
        return np.inf
    around = slice(above[0] - 1, above[0] + 1)
    (before, after), (near, far) = risen[around], distances[around]
    return near + (rise - before) / (after - before) * (far - near)


def _distances(measured):
    """The distance of each measured point from the model."""
    return np.hypot.reduce(np.abs(np.meshgrid(*measured.axes)))


def _box_distances(measured):
    """The largest of each point's coordinates."""
    return np.max(np.abs(np.meshgrid(*measured.axes)), axis=0)


def _highest_rise(measured, distances, name, limit, metric):
    values = _values(measured, metric)
    near = (distances <= limit) & (distances > 0)
    if not near.any():
        nearest = distances[distances > 0].min()
        raise ValueError(
            f"`{name}` must reach measured points, the nearest of which is at {nearest:.3g}. "
            f"Received {limit}. Measure more points, or a smaller extent."
        )
    # Non-finite losses count as infinitely high.
    rise = np.where(np.isfinite(values), values - measured.center[metric], np.inf)
    highest = np.maximum(rise[..., near].max(axis=-1), 0)
    return float(highest) if distances.ndim == 2 else highest


def _bends(measured, metric):
    """Whether the loss curves downwards at each inner point: 1, 0, or NaN next to a hole."""
    values = _values(measured, metric)
    if min(map(len, measured.axes)) < 3:
        raise ValueError(
            f"There must be at least 3 points per axis. Received values of shape {values.shape}."
        )
    steps = [np.diff(axis).mean() for axis in measured.axes]
    curve = _smaller_eigenvalues if len(steps) == 2 else _second_derivatives
    with np.errstate(invalid="ignore"):
        curvatures = curve(values, *steps)
    inner = values[(..., *[slice(1, -1)] * len(steps))]
    # How far single precision may put a difference of equal values from 0.
    rounding = 4 * np.finfo("float32").eps * np.abs(inner) / min(steps) ** 2
    return np.where(np.isfinite(curvatures), curvatures < -rounding, np.nan)


def _second_derivatives(values, step):
    return np.diff(values, 2, axis=1) / step**2


def _smaller_eigenvalues(values, step_a, step_b):
    inner = values[1:-1, 1:-1]
    along_a = (values[1:-1, 2:] - 2 * inner + values[1:-1, :-2]) / step_a**2
    along_b = (values[2:, 1:-1] - 2 * inner + values[:-2, 1:-1]) / step_b**2
    corners = values[2:, 2:] - values[2:, :-2] - values[:-2, 2:] + values[:-2, :-2]
    mixed = corners / (4 * step_a * step_b)
    return (along_a + along_b) / 2 - np.hypot((along_a - along_b) / 2, mixed)


def _is_convex(region):
    """Whether every grid point inside the region's convex hull belongs to it."""
    spatial = import_extra("scipy.spatial", "analysis")
    # Small squares instead of points, since points on one line have no hull.
    square = 1e-4 * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    corners = (np.argwhere(_row_ends(region))[:, np.newaxis] + square).reshape(-1, 2)
    sides = spatial.ConvexHull(corners).equations
    others = np.argwhere(~region)
    is_inside = (others @ sides[:, :2].T + sides[:, 2] <= 0).all(axis=1)
    return not is_inside.any()


def _row_ends(region):
    """The first and the last point of each row, which have the same hull as the whole region."""
    first = region & (region.cumsum(axis=1) == 1)
    last = region & (region[:, ::-1].cumsum(axis=1)[:, ::-1] == 1)
    return first | last


def asymmetry(line, rise=1.0, metric="loss"):
    """Measures how much farther the loss stays low on one side of the model than on the other.

    This is `(right − left) / (right + left)` of the two half-widths on each line. A
    valley with slopes p and c·p has an asymmetry of ±(c − 1) / (c + 1). The sign of a
    random direction says nothing, so take the mean of absolute values over several.

    Args:
        line: As in `half_widths`.
        rise: As in `half_widths`.
        metric: As in `half_widths`.

    Returns:
        Float array of shape `(k,)`, one per direction, from -1 to 1: 0 if both
        sides are as wide, positive if the loss stays low farther on the right. It is
        ±1 where the loss rises that far on one side only, and NaN where on neither.

    Raises:
        ValueError: As in `half_widths`.

    Example:

    >>> print(confidence_interval(abs(asymmetry(line, rise=0.1))))
    0.127 [0.089, 0.165]

    Reference:
        [He et al., 2019](https://arxiv.org/abs/1902.00744), who compare the slopes of
        both sides instead of half-widths.
    """
    left, right = _half_widths_by_side(line, rise, metric).T
    with np.errstate(invalid="ignore"):
        share = (right - left) / (right + left)
    one_sided = np.isinf(left) != np.isinf(right)
    return np.where(one_sided, np.where(np.isinf(right), 1.0, -1.0), share)


def _half_widths_by_side(line, rise, metric):
    """Array of shape `(k, 2)`: the distances, left and right, at which the loss has risen."""
    line = value_of("line", line, LossLine)
    values = _values(line, metric)
    if not line.alphas[0] < 0 < line.alphas[-1]:
        raise ValueError(
            "`line` must extend to both sides of 0. Received one with an extent of "
            f"({line.alphas[0]:g}, {line.alphas[-1]:g})."
        )
    if not rise > 0:
        raise ValueError(f"`rise` must be greater than 0. Received {rise}.")
    risen = np.where(np.isfinite(values), values - line.center[metric], np.inf)
    return np.array([_crossings(line.alphas, row, rise) for row in risen])
