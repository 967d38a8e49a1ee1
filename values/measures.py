"""Measures: single numbers that sum up a measured line or surface.

In a picture it is easy to see what one hopes for. These numbers say how wide a
minimum is, how convex its surroundings are, and how certain that is.
"""

__all__ = [  # noqa: RUF022, in the order of the page
    "report",
    "Finding",
    "half_widths",
    "asymmetry",
    "quadratic_half_widths",
    "expected_sigma",
    "worst_sigma",
    "confidence_interval",
    "Estimate",
    "loss_rise",
    "epsilon_sharpness",
    "convex_radius",
    "convex_level",
    "non_convexity",
    "loss_barrier",
]

import collections.abc
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from losslandscape.basics.arrays import dot
from losslandscape.basics.checks import (
    check_choice,
    check_number,
    check_numbers,
    import_extra,
)
from losslandscape.basics.types import Array, Definition, Directions, Display, FloatOrArray, Mode
from losslandscape.values.surfaces import (
    LossBarriers,
    LossLine,
    LossSurface,
    LossTrajectory,
    Spectrum,
    Surface,
    complete_values,
    value_of,
)


class Estimate(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self):
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


LANDSCAPES = LossLine, LossSurface
# The cost without a barrier, at coordinates from 0 to 1 between two models, from their own costs.
REFERENCES = {
    "chord": lambda alphas, start, end: (1 - alphas) * start + alphas * end,
    "mean": lambda _, start, end: (start + end) / 2,
}
# Stands for an infinite rise where rises are averaged.
HIGHEST_RISE = 1e100
# A point below the model hardly shows in a picture if it is lower by less than this fraction of the
# median rise. Around converged networks, points are lower by up to half of that on test data, and
# not at all on training data.
LEAST_DIP = 0.05
# The sign that turns a metric into a cost.
SIGNS = {"min": 1, "max": -1}


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


def report(
    measured: LossLine | LossSurface | Display,
    metric: str = "loss",
    *,
    expected: Mapping[str, float] | None = None,
    directions: Directions | None = None,
    curvature: Spectrum | None = None,
) -> list[Finding]:
    """Checks whether a picture of a line or surface would mislead.

    Example:

    >>> for finding in report(surface, expected=model.evaluate(x, y, return_dict=True)):
    ...     print(finding)
    share of points that are not finite: 0
    lowest point minus the model: -0.01029
    ...

    Args:
        measured: A `LossLine`, `LossSurface` or `LossTrajectory`.
        metric: Which of the measured values to use. Defaults to `"loss"`.
        expected: The result of `model.evaluate(x, y, return_dict=True)`, to
            compare with the center. `None` (the default) skips this check.
        directions: The two directions of a surface, to check the angle between
            them. `None` (the default) skips this check.
        curvature: A `Spectrum` from `Hessian.spectrum` on the same data, to say
            what curvature the picture hides. `None` (the default) skips this
            check.

    Returns:
        A list of `Finding`, each with a warning if there is reason for one.
        Random directions of large networks are nearly at right angles; others
        need not be.

        On test data a model is never quite at the minimum, so a point below the model causes
        a warning only if it is lower by more than 5 % of the median rise in the picture, and
        by more than loss / √n, about the difference that another sample of n data would make
        (n is the `"dataset_size"` in the metadata). With random filter-normalized directions,
        there is another warning if the loss, at a distance of 1, has risen by less than its
        value at the model.

        The path of a single training causes a warning if its plane explains no more of its
        variance than the plane of a random walk would, see `evaluate_trajectory`.

        With `curvature`, the smallest eigenvalue of the Hessian causes a warning
        if it is negative, but the picture does not bend downwards at the model.
        Along a raw random direction d, `E[dᵀHd] = tr H`, so random planes show a
        minimum where the positive eigenvalues outweigh the negative ones.
        For a surface, the list also has the share of the Hessian's trace that lies
        in its plane, if the `directions` are given, or were drawn at random with the
        same `normalize`, `ignore` and `layers` as the spectrum.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `metric` was not measured, or if `curvature` is given and there
            are fewer than 3 points per axis.

    Reference:
        [Böttcher and Wheeler, 2022](https://arxiv.org/abs/2208.13219) compare
        random planes with planes of eigenvectors; for random walks, [Antognini &
        Sohl-Dickstein, 2018](https://arxiv.org/abs/1806.08805).
    """
    measured = value_of("measured", measured, LANDSCAPES)
    if directions is not None:
        _check_pair(directions)
    values = complete_values(measured, metric)
    found = [
        _find_holes(values),
        _find_lower(measured, metric),
        _find_span(values),
        _find_coarseness(measured, metric),
    ]
    if _is_filter_normalized(measured):
        found += _find_shallow(measured, metric)
    if measured.interpolated.any():
        found.append(_find_interpolated(measured, metric))
    if metric in getattr(measured, "errors", {}):
        found.append(_find_uncertain(measured, metric))
    given = {"expected": expected, "directions": directions, "curvature": curvature}
    return [*found, *_find_by_comparison(measured, metric, **given)]


def exceeds_random_walk(trajectory):
    """Whether a plane explains more of the path's variance than that of a random walk would."""
    # Summed up, because the more the first axis explains, the less is left for the second.
    explained = np.cumsum(trajectory.explained)
    return bool((explained > np.cumsum(trajectory.metadata["random_walk"])).any())


def half_widths(line: LossLine | Display, rise: float = 1.0, metric: str = "loss") -> Array:
    """Measures the distance within which the loss rises by a given amount.

    The larger the distance, the flatter the minimum. With filter-normalized
    directions 0.5 means half the length of the weights, so networks can be
    compared.

    Example:

    >>> line = evaluate_line(model, x, y, 41, number_of_directions=10, seed=0)
    >>> print(confidence_interval(half_widths(line, rise=0.1)))
    0.413 [0.391, 0.435]

    Args:
        line: A `LossLine` that extends to both sides of 0.
        rise: How far the loss must rise above that of the model, greater than
            0. Defaults to 1.0; for comparison, the loss of guessing among ten
            classes is 2.3.
        metric: Which of the measured values to use. Defaults to `"loss"`.

    Returns:
        Float array of shape `(k,)`, one half-width per direction: the mean of
        both sides, interpolated linearly between points; inf unless the loss
        rises that far on both sides. Non-finite losses count as infinite.

    Raises:
        ValueError: If the line does not extend to both sides of 0, `rise` is not
            positive, or `metric` was not measured.
    """
    return _half_widths_by_side(line, rise, metric).mean(axis=1)


def asymmetry(line: LossLine | Display, rise: float = 1.0, metric: str = "loss") -> Array:
    """Measures how much farther the loss stays low on one side of the model than on the other.

    This is `(right − left) / (right + left)` of the two half-widths on each line. The sign
    of a random direction says nothing, so take the mean of absolute values over several.

    He et al. call a direction asymmetric if, within some radius, the loss rises less
    steeply than p on one side and more steeply than c·p on the other, for a chosen slope p
    and ratio c > 1. Two sides with the constant slopes p and c·p have half-widths in the
    ratio c, and so an asymmetry of ±(c − 1) / (c + 1). Half-widths compare the mean slopes
    up to the same rise, the only constant to choose; they do not say how the slopes vary.

    Example:

    >>> print(confidence_interval(abs(asymmetry(line, rise=0.1))))
    0.127 [0.089, 0.165]

    Args:
        line: As in `half_widths`.
        rise: As in `half_widths`.
        metric: As in `half_widths`.

    Returns:
        Float array of shape `(k,)`, one per direction, from -1 to 1: 0 if both sides
        are equally wide, positive if the loss stays low farther on the right; ±1 where
        the loss rises that far on one side only, NaN where it does so on neither.

    Raises:
        ValueError: As in `half_widths`.

    Reference:
        [He et al., 2019](https://arxiv.org/abs/1902.00744), section 3.
    """
    left, right = _half_widths_by_side(line, rise, metric).T
    with np.errstate(invalid="ignore"):
        share = (right - left) / (right + left)
    one_sided = np.isinf(left) != np.isinf(right)
    return np.where(one_sided, np.where(np.isinf(right), 1.0, -1.0), share)


def expected_sigma(line: LossLine | Display, rise: float = 0.1, metric: str = "loss") -> Estimate:
    """Measures how large random perturbations may be before the loss rises, on average.

    This is the largest σ up to which `E[L(θ + σu)] - L(θ) ≤ rise`, where the u are the
    random directions of the line, to both sides. With `normalize=None` their entries are
    independent and standard normal, as in PAC-Bayes flatness; with `"weight"` they are
    relative to each weight, as in its magnitude-aware version; with `"filter"`, to each
    filter. At the minimum of a quadratic loss with the Hessian H, σ² is
    `2·rise / tr(H)`, or `2·rise / tr(T·H·T)` with the scales T of the directions.

    Example:

    >>> directions = random_directions(model, 10, normalize="weight", ignore=None, seed=0)
    >>> line = evaluate_line(model, x, y, 41, directions=directions)
    >>> print(expected_sigma(line))
    0.413 [0.391, 0.435]

    Args:
        line: A `LossLine` along at least 2 random directions, to both sides of 0.
        rise: How far the loss may rise on average, greater than 0. Defaults to 0.1, the
            paper's choice for the training error.
        metric: Which of the measured values to use. Defaults to `"loss"`; it must be one
            that rises as the model gets worse.

    Returns:
        An `Estimate(mean, low, high)` of σ: where the mean over directions reaches the
        rise, interpolated linearly between points, and where the ends of its 95% confidence
        interval do; inf where the line ends before.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        ValueError: If there are fewer than 2 directions, or as in `half_widths`.

    Reference:
        [Jiang et al., 2020](https://arxiv.org/abs/1912.02178), appendix C: σ of PAC-Bayes
        flatness, whose measure is 1/σ².
    """
    stats = import_extra("scipy.stats", "analysis")
    alphas, risen = _risen(line, rise, metric)
    number = len(risen)
    # Infinite values cannot be interpolated.
    risen = np.minimum(risen, HIGHEST_RISE)
    if number < 2:
        raise ValueError(
            "`line` must hold at least 2 directions, to show how they vary. Received 1: pass "
            "`number_of_directions=10` to `evaluate_line`."
        )
    distances = np.unique(np.abs(alphas[alphas != 0]))
    distances = distances[distances <= min(-alphas[0], alphas[-1])]
    # Both sides of a direction are one sample, since they are not independent.
    sides = [[np.interp(sign * distances, alphas, row) for row in risen] for sign in (-1, 1)]
    samples = np.mean(sides, axis=0)
    mean = samples.mean(axis=0)
    reach = stats.t.ppf(0.975, number - 1) * samples.std(axis=0, ddof=1) / np.sqrt(number)
    return Estimate(*(_crossing(distances, mean + k * reach, rise) for k in (0, 1, -1)))


def worst_sigma(line: LossLine | Display, rise: float = 0.1, metric: str = "loss") -> float:
    """Measures how large a perturbation may be before the loss rises, in the worst direction.

    This is the largest coordinate σ up to which the loss has risen no further than `rise`,
    to either side of any direction of the line. Along the result d of `worst_direction` it
    estimates the largest σ with `max L(θ + u) - L(θ) ≤ rise` over all u with
    `‖T⁻¹u‖ ≤ √N·σ`, a ball in units of the scales T of the N entries that move. The
    paper's box, `|u_i| ≤ σ·T_i`, lies within the ball and touches it with its corners, so
    the paper's σ is at least as large. At the minimum of a quadratic loss σ² is
    `2·rise / (N·λmax(T·H·T))`.

    Worse directions may be missed in the search, so the result is an upper bound of the σ
    of the ball. Several searches with different seeds, as below, make the bound tighter.

    Example:

    >>> directions = [worst_direction(model, x, y, 0.2, seed=seed) for seed in range(3)]
    >>> line = evaluate_line(model, x, y, 41, directions=directions, extent=(-0.5, 0.5))
    >>> sigma = worst_sigma(line)

    Args:
        line: A `LossLine` to both sides of 0, usually along `worst_direction`.
        rise: As in `expected_sigma`. Defaults to 0.1.
        metric: As in `expected_sigma`.

    Returns:
        Float: σ, interpolated linearly between points; inf if the line ends before.

    Raises:
        ValueError: As in `half_widths`.

    Reference:
        [Jiang et al., 2020](https://arxiv.org/abs/1912.02178), appendix C: the largest
        perturbation of sharpness flatness, and of its magnitude-aware version.
    """
    alphas, risen = _risen(line, rise, metric)
    return float(min(min(_crossings(alphas, row, rise)) for row in risen))


def quadratic_half_widths(curvatures: ArrayLike, rise: float = 1.0) -> Array:
    """Predicts half-widths from curvature, as if the loss were quadratic.

    Along a direction d, a quadratic loss rises by `½·dᵀHd·α²`, that is, by `rise`
    at `α = √(2·rise / dᵀHd)`. Where `half_widths` finds a larger distance, the
    loss rises more slowly than its curvature at the model suggests; where it finds
    a smaller one, the curvature at the model hides how steep the surroundings are.

    Example:

    >>> directions = random_directions(model, 10, seed=0)
    >>> curvatures = Hessian(model, x, y).along(directions)
    >>> predicted = quadratic_half_widths(curvatures, rise=0.1)
    >>> line = evaluate_line(model, x, y, 41, directions=directions)
    >>> (half_widths(line, rise=0.1) / predicted).shape
    (10,)

    Args:
        curvatures: One or several numbers dᵀHd, as `Hessian.along` returns;
            for the typical random direction, the mean that `Hessian.trace` returns.
        rise: As in `half_widths`. Defaults to 1.0.

    Returns:
        Float array of the shape of `curvatures`; inf where a curvature is not positive.

    Raises:
        ValueError: If `rise` is not positive.
    """
    _check_rise(rise)
    curvatures = check_numbers("curvatures", curvatures)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(curvatures <= 0, np.inf, np.sqrt(2 * rise / curvatures))


def confidence_interval(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Computes the mean of independent values and its confidence interval.

    Args:
        values: Array of at least 2 numbers, for example one per direction.
        confidence: How often such an interval contains the true mean. Defaults
            to 0.95.

    Returns:
        An `Estimate(mean, low, high)`, by Student's t distribution. If a value
        is not finite, the mean is not finite either, and the ends are NaN.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        TypeError: If an argument is not numbers.
        ValueError: If there are fewer than 2 values, or `confidence` is not between 0 and 1.

    Example:

    >>> mean, low, high = confidence_interval(half_widths(line))
    """
    stats = import_extra("scipy.stats", "analysis")
    values = check_numbers("values", values)
    check_number("confidence", confidence, above=0, below=1)
    if values.size < 2:
        raise ValueError(
            f"`values` must be at least 2 numbers, to show how they vary. Received {values.size}."
        )
    if not np.isfinite(values).all():
        return Estimate(float(values.mean()), float("nan"), float("nan"))
    reach = stats.t.ppf((1 + confidence) / 2, values.size - 1) * stats.sem(values, axis=None)
    return Estimate(values.mean(), values.mean() - reach, values.mean() + reach)


def non_convexity(
    measured: LossLine | LossSurface | Display, metric: str = "loss", *, below: float | None = None
) -> FloatOrArray:
    """Measures the fraction of points at which the loss curves downwards.

    Args:
        measured: A `LossLine` or `LossSurface` of at least 3 points per axis.
        metric: Which of the measured values to use. Defaults to `"loss"`.
        below: Float, the level above which points do not count. Far away, losses
            are huge in every direction, and say little about the basin around the
            model. `None` (the default) counts all points.

    Returns:
        From 0 to 1: the fraction of inner points at which the discrete second
        derivative (for a surface, an eigenvalue of the 2-D Hessian), from
        central differences, is negative. Points next to a non-finite value are
        left out; NaN if none remain. A float for a surface, an array of shape
        `(k,)` for a line.

    Raises:
        ValueError: If there are fewer than 3 points per axis, or `metric` was not
            measured.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 6, argues
        from the same eigenvalues of the full Hessian: if a plane curves
        downwards, so does the loss.
    """
    measured = value_of("measured", measured, LANDSCAPES)
    if below is not None:
        check_number("below", below)
    bends = _bends(measured, metric)
    axes = tuple(range(-len(measured.axes), 0))
    inner = complete_values(measured, metric)[(..., *[slice(1, -1)] * len(axes))]
    is_counted = ~np.isnan(bends)
    if below is not None:
        is_counted &= inner <= below
    with np.errstate(invalid="ignore"):
        fractions = np.sum(bends, axes, where=is_counted) / np.sum(is_counted, axes)
    return float(fractions) if fractions.ndim == 0 else fractions


def convex_level(surface: Surface, metric: str = "loss") -> float:
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
    values = complete_values(surface, metric)
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


def epsilon_sharpness(
    measured: LossLine | LossSurface | Display, epsilon: float = 0.1, metric: str = "loss"
) -> FloatOrArray:
    """Measures the highest relative rise of the loss within a box, in percent.

    `100·(max L - L0) / (1 + L0)` over the measured points whose coordinates lie
    between `-epsilon` and `epsilon`. The original takes the maximum over all
    directions, which can only be higher.

    Args:
        measured: A `LossLine` or `LossSurface` whose extent includes the model.
        epsilon: The largest coordinate; with filter-normalized directions, a
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


def loss_rise(
    measured: LossLine | LossSurface | Display, radius: float = 0.1, metric: str = "loss"
) -> FloatOrArray:
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


def loss_barrier(
    measured: LossLine | LossBarriers | Display,
    metric: str = "loss",
    *,
    definition: Definition = "chord",
    mode: Mode = "min",
) -> FloatOrArray:
    """Measures the barrier between two models, or between each pair of several.

    Along the line between two models with the losses L(0) and L(1),

    - `"chord"` is the highest rise above the straight line that joins both losses,
      `max L(α) - ((1 - α)·L(0) + α·L(1))`: the "barrier" of Entezari et al.;
    - `"mean"` is the highest loss minus the mean of both,
      `max L(α) - (L(0) + L(1)) / 2`: the "instability" of Frankle et al.

    Neither is ever negative, since the models themselves count. If both models have the
    same loss, the two definitions agree; otherwise, `"mean"` is at least half the difference
    of the losses, even if the loss never rises between the models.

    Example:

    >>> (line,) = evaluate_interpolation(small_batch, large_batch, (x_test, y_test))
    >>> rise_of_loss = loss_barrier(line)
    >>> rise_of_error = loss_barrier(line, "accuracy", mode="max")

    Args:
        measured: A `LossLine` that leads from one model to another, as from
            `evaluate_interpolation`, or the `LossBarriers` of several models.
        metric: Which of the measured values to use. Defaults to `"loss"`.
        definition: `"chord"` (the default) or `"mean"`.
        mode: As in Keras' callbacks: `"min"` (the default) if lower values of the metric
            are better, `"max"` if higher ones are. For an accuracy `"max"` measures the
            barrier of the error, which is 1 minus the accuracy.

    Returns:
        Float: the barrier, at the measured points between the models. It is inf if the
        loss is not finite at one of them, and NaN if it is not finite at a model. The value
        of a model that lies between two points is interpolated linearly. For several
        models, a symmetric array of shape `(models, models)`, 0 on its diagonal.

    Raises:
        TypeError: If `measured` is neither of these.
        ValueError: If the line does not hold both models, or `metric`, `definition` or
            `mode` is unknown.

    Reference:
        [Entezari et al., 2022](https://arxiv.org/abs/2110.06296), definition 2.1;
        [Frankle et al., 2020](https://arxiv.org/abs/1912.05671), section 2.
    """
    measured = value_of("measured", measured, (LossLine, LossBarriers))
    check_choice("definition", definition, tuple(REFERENCES))
    check_choice("mode", mode, tuple(SIGNS))
    costs = SIGNS[mode] * complete_values(measured, metric)
    if isinstance(measured, LossBarriers):
        return _symmetric(measured, _barriers(measured.alphas, costs, definition))
    start, end = _ends(measured)
    inside = measured.alphas[(start < measured.alphas) & (measured.alphas < end)]
    points = np.array([start, *inside, end])
    alphas = (points - start) / (end - start)
    return float(_barriers(alphas, np.interp(points, measured.alphas, costs[0]), definition))


def convex_radius(measured: LossLine | LossSurface | Display, metric: str = "loss") -> FloatOrArray:
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
        ValueError: If there are fewer than 3 points per axis, or `metric` was not
            measured.
    """
    measured = value_of("measured", measured, LANDSCAPES)
    distances = _distances(measured)
    inner = distances[(slice(1, -1),) * distances.ndim]
    bent = np.where(_bends(measured, metric) == 1, inner, np.inf)
    return float(bent.min()) if inner.ndim == 2 else bent.min(axis=-1)


def _half_widths_by_side(line, rise, metric):
    """Array of shape `(k, 2)`: the distances, left and right, at which the loss has risen."""
    alphas, risen = _risen(line, rise, metric)
    return np.array([_crossings(alphas, row, rise) for row in risen])


def _risen(line, rise, metric):
    """The coordinates of a line, and how far each value is above the model's own."""
    line = value_of("line", line, LossLine)
    values = complete_values(line, metric)
    if not line.alphas[0] < 0 < line.alphas[-1]:
        raise ValueError(
            "`line` must extend to both sides of 0. Received one with an extent of "
            f"({line.alphas[0]:g}, {line.alphas[-1]:g})."
        )
    _check_rise(rise)
    # Values that are not finite count as infinite.
    return line.alphas, np.where(np.isfinite(values), values - line.center[metric], np.inf)


def _find_by_comparison(measured, metric, *, expected, directions, curvature):
    """Yields the findings of a report that need more than the measured values."""
    if expected is not None:
        _check_expected(expected, metric)
        yield _find_difference(measured.center[metric], expected[metric])
    if directions is not None:
        yield _find_angle(*directions)
    if isinstance(measured, LossTrajectory) and "random_walk" in measured.metadata:
        yield _find_random_walk(measured)
    if curvature is not None:
        spectrum = value_of("curvature", curvature, Spectrum)
        yield _find_hidden_saddle(measured, metric, spectrum)
        gram = _gram(measured, spectrum, directions)
        if gram is not None:
            yield _find_share_of_trace(measured, metric, spectrum, gram)


def _find_holes(values):
    share = float(np.mean(~np.isfinite(values)))
    warning = "Holes are drawn there; the loss is infinite or undefined."
    return Finding("share of points that are not finite", share, warning if share else None)


def _find_interpolated(measured, metric):
    share = float(np.mean(measured.interpolated))
    told = measured.metadata
    error = told.get("interpolation_errors", {}).get(metric, np.nan)
    checked = told.get("interpolation_checks", 0)
    few = ", ".join(f"{points} on {size:,}" for size, points in told.get("few_samples", []))
    warning = (
        f"They were not measured; {checked} that were, as a check, are off by up to {error:.2g} of "
        "the range."
    ) + f" Of {told.get('dataset_size', 0):,} samples, others were measured: {few}." * bool(few)
    return Finding("share of points that are interpolated", share, warning)


def _find_uncertain(measured, metric):
    error = measured.metadata.get("sampling_error", {}).get("center", {}).get(metric, np.nan)
    return Finding(f"standard error of the model's {metric} over samples", error)


def _find_lower(measured, metric):
    values, center = complete_values(measured, metric), measured.center[metric]
    lowest = float(np.min(values, where=np.isfinite(values), initial=center))
    rise = float(np.median(np.where(np.isfinite(values), values, np.inf))) - lowest
    # On test data some points are always a little lower: training minimized the loss on other
    # data, and these are only a sample.
    size = measured.metadata.get("dataset_size", np.inf)
    matters = center - lowest > max(LEAST_DIP * rise, abs(center) / np.sqrt(size))
    warning = (
        "The loss is lower elsewhere: the model is not a minimum of what is drawn. Training has "
        "not converged, or it was on another loss or other data; to these it may have overfitted."
    )
    return Finding("lowest point minus the model", lowest - center, warning if matters else None)


def _find_span(values):
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    span = float(np.log10(positive.max() / positive.min())) if positive.size else 0.0
    warning = 'A linear scale shows only the highest: draw it with `scale="log"`.'
    # The lowest tenth of a linear scale is one color, which hides nothing if few points lie in it.
    is_hidden = span > 2 and np.mean(finite <= finite.min() + np.ptp(finite) / 10) > 0.5
    return Finding("decades from lowest to highest", span, warning if is_hidden else None)


def _is_filter_normalized(measured):
    """Whether a distance of 1 means that every filter moves by as much as its own length."""
    origin = measured.metadata
    return origin.get("normalize") == "filter" and "layers" not in origin


def _find_shallow(measured, metric):
    """Yields the rise where the weights have moved by their own length, relative to the loss."""
    distances, center = _distances(measured), measured.center[metric]
    values = complete_values(measured, metric)[..., abs(distances - 1) < 0.1]
    if not values.size or not np.isfinite(center):
        return
    rise = float(np.median(np.where(np.isfinite(values), values, np.inf))) - center
    part = rise / abs(center) if center else np.inf
    warning = (
        "A change as large as the weights raises the loss by less than what it is: training has "
        "not got far, or was on another loss or other data, or moving statistics lag behind."
    )
    yield Finding(
        "rise at a distance of 1, relative to the loss", part, warning if part < 1 else None
    )


def _find_coarseness(measured, metric):
    """The rise of the loss to the nearest points, as a share of its whole rise."""
    distances = _distances(measured)
    nearest = distances[distances > 0].min()
    values, center = complete_values(measured, metric), measured.center[metric]
    rise = np.where(np.isfinite(values), values, np.nan) - center
    highest = np.nanmax(rise, initial=0)
    step = np.nanmax(rise[..., distances <= 1.001 * nearest], initial=0)
    part = float(step / highest) if highest else 0.0
    warning = "The minimum is narrower than the grid: take more points or a smaller extent."
    return Finding(
        "rise to the nearest points, relative to the whole", part, warning if part > 0.5 else None
    )


def _find_difference(center, expected):
    difference = abs(center - expected) / max(abs(expected), 1e-12)
    warning = "The center is not the model's own loss: other data or another model was measured."
    return Finding(
        "relative difference of the center to `model.evaluate`",
        difference,
        warning if difference > 1e-4 else None,
    )


def _find_random_walk(trajectory):
    first, second = trajectory.metadata["random_walk"]
    warning = (
        f"A random walk in many dimensions would explain as much, {first:.1%} and {second:.1%}: "
        "that this plane holds most of the path says nothing about the landscape."
    )
    share = float(np.sum(trajectory.explained))
    is_null = not exceeds_random_walk(trajectory)
    return Finding(
        "share of the path's variance in this plane", share, warning if is_null else None
    )


def _find_angle(first, second):
    lengths = np.sqrt(dot(first, first) * dot(second, second))
    cosine = float(dot(first, second) / lengths)
    warning = "The axes are not at right angles: shapes are skewed."
    return Finding("cosine between the axes", cosine, warning if abs(cosine) > 0.1 else None)


def _find_hidden_saddle(measured, metric, spectrum):
    smallest, largest = spectrum.eigenvalues.min(), spectrum.eigenvalues.max()
    bends_down = (_at_model(measured, _bends(measured, metric)) == 1).any()
    warning = (
        "The loss curves downwards, but not in this picture: the model is not at a minimum. Draw "
        'the plane of the directions that `Hessian.eigenvalues` returns with `which="both"`.'
    )
    # A negative eigenvalue that is smaller, relative to the largest one, may be a rounding error.
    is_hidden = smallest < -1e-3 * abs(largest) and not bends_down
    return Finding(
        "smallest eigenvalue of the Hessian", float(smallest), warning if is_hidden else None
    )


def _find_share_of_trace(measured, metric, spectrum, gram):
    steps = [np.diff(axis).mean() for axis in measured.axes]
    along_a, along_b, mixed = (
        _at_model(measured, part)
        for part in _second_differences(complete_values(measured, metric), *steps)
    )
    in_plane = np.trace(np.linalg.solve(gram, [[along_a, mixed], [mixed, along_b]]))
    means = np.sum(spectrum.shares * spectrum.eigenvalues, axis=1)
    share = in_plane / (spectrum.metadata["parameters"] * means.mean())
    return Finding("share of the Hessian's trace in this plane", float(share))


def _gram(measured, spectrum, directions):
    """Dot products of the axes of a surface, in the units of a spectrum; `None` if unknown."""
    if not isinstance(measured, LossSurface):
        return None
    units = spectrum.metadata
    if directions is not None and "normalize" not in units:
        return np.array([[dot(one, other) for other in directions] for one in directions])
    drawn = measured.metadata
    kind = ("normalize", "ignore", "layers")
    if drawn.get("directions") == "random" and all(drawn.get(k) == units.get(k) for k in kind):
        # In these units a filter of n entries has length √n, and random axes are nearly orthogonal.
        return units["parameters"] * np.eye(2)
    return None


def _at_model(measured, inner):
    """The value of each curve at the inner point that is nearest to the model."""
    distances = _distances(measured)
    distances = distances[(slice(1, -1),) * distances.ndim]
    return inner[(..., *np.unravel_index(distances.argmin(), distances.shape))]


def _check_pair(directions):
    """Refuses anything but two lists of arrays of the same shapes."""
    is_pair = isinstance(directions, (list, tuple)) and len(directions) == 2
    if not is_pair or not all(isinstance(each, (list, tuple)) for each in directions):
        received = [type(each).__name__ for each in directions] if is_pair else type(directions)
        raise ValueError(
            "`directions` must be the two directions of a surface, each a list of arrays. Received "
            f"{received}."
        )
    shapes = [[np.shape(array) for array in each] for each in directions]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`directions` must be the two directions of a surface, lists of arrays of the same "
            f"shapes. Received shapes {shapes}."
        )


def _check_rise(rise):
    check_number("rise", rise, above=0, below=np.inf)


def _check_expected(expected, metric):
    if not isinstance(expected, collections.abc.Mapping):
        raise TypeError(
            "`expected` must be a dict of numbers by metric, as `model.evaluate(x, y, "
            f"return_dict=True)` returns. Received {expected!r}."
        )
    if metric not in expected:
        raise ValueError(f"`expected` must have {metric!r}. Received only {sorted(expected)}.")
    check_numbers("expected", expected[metric])


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


def _ends(line):
    """The coordinates of both models of a line."""
    positions = sorted(line.models[:, 0].tolist())
    (rows,) = {len(values) for values in line.values.values()}
    if rows != 1 or len(positions) != 2:
        raise ValueError(
            "`measured` must be one line between two models, as from `evaluate_interpolation`. "
            f"Received {line!r} with models at {positions}."
        )
    if not line.alphas[0] <= positions[0] < positions[1] <= line.alphas[-1]:
        raise ValueError(
            f"`measured` must hold both models, at {positions[0]:g} and {positions[1]:g}. Received "
            f"one with an extent of ({line.alphas[0]:g}, {line.alphas[-1]:g})."
        )
    return positions


def _barriers(alphas, costs, definition):
    """The barrier in each row of costs, which begins and ends at a model."""
    start, end = costs[..., :1], costs[..., -1:]
    are_models_finite = np.isfinite(start + end)[..., 0]
    with np.errstate(invalid="ignore"):
        rises = costs - REFERENCES[definition](alphas, start, end)
    # Non-finite losses count as infinitely high.
    highest = np.where(np.isfinite(costs), rises, np.inf).max(axis=-1)
    return np.where(are_models_finite, highest, np.nan)


def _symmetric(measured, barriers):
    """The symmetric matrix of the barriers between the models."""
    matrix = np.zeros((len(measured.names), len(measured.names)))
    for (first, second), barrier in zip(measured.pairs, barriers, strict=True):
        matrix[first, second] = matrix[second, first] = barrier
    return matrix


def _box_distances(measured):
    """The largest absolute coordinate of each point."""
    return np.max(np.abs(np.meshgrid(*measured.axes)), axis=0)


def _highest_rise(measured, distances, name, limit, metric):
    check_number(name, limit, above=0)
    values = complete_values(measured, metric)
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
    values = complete_values(measured, metric)
    if min(map(len, measured.axes)) < 3:
        raise ValueError(
            f"There must be at least 3 points per axis. Received values of shape {values.shape}."
        )
    steps = [np.diff(axis).mean() for axis in measured.axes]
    curve = _smaller_eigenvalues if len(steps) == 2 else _second_derivatives
    with np.errstate(invalid="ignore"):
        curvatures = curve(values, *steps)
    inner = values[(..., *[slice(1, -1)] * len(steps))]
    # In single precision, the second difference of equal values may be this far from 0.
    rounding = 4 * np.finfo("float32").eps * np.abs(inner) / min(steps) ** 2
    return np.where(np.isfinite(curvatures), curvatures < -rounding, np.nan)


def _second_derivatives(values, step):
    return np.diff(values, 2, axis=1) / step**2


def _smaller_eigenvalues(values, step_a, step_b):
    along_a, along_b, mixed = _second_differences(values, step_a, step_b)
    return (along_a + along_b) / 2 - np.hypot((along_a - along_b) / 2, mixed)


def _second_differences(values, step_a, step_b):
    """The second derivatives along α and β and the mixed one, at each inner point."""
    inner = values[1:-1, 1:-1]
    along_a = (values[1:-1, 2:] - 2 * inner + values[1:-1, :-2]) / step_a**2
    along_b = (values[2:, 1:-1] - 2 * inner + values[:-2, 1:-1]) / step_b**2
    corners = values[2:, 2:] - values[2:, :-2] - values[:-2, 2:] + values[:-2, :-2]
    return along_a, along_b, corners / (4 * step_a * step_b)


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
