"""What a drawing shows of a value: where the scale has no place, holes, notes and models."""

from functools import partial

import numpy as np
from matplotlib import tri

from losslandscape.basics.checks import check_choice, check_metric, import_extra

SCALES = ("linear", "log")
# Of contours, which would leave out a basin in equal steps of a loss that spans this ratio.
CONTOUR_SCALES = ("auto", *SCALES)
WIDE_RATIO = 20
# Drawings follow splines where those through every second point, but at least this many per axis,
# predict the others within this part of a step. Grids finer than the last look smooth already.
COARSEST, PREDICTED, FINEST = 4, 0.5, 80
# Beyond this ratio of its sides, a plane drawn to scale would be a strip that nobody can read.
LONGEST_STRIP = 4


def value_label(metric, scale="linear"):
    """The name of a metric's axis."""
    # "Data loss" would sound as if data were lost.
    name = "loss without penalty" if metric == "data_loss" else metric.replace("_", " ")
    return f"{name} (log scale)" if scale == "log" else name


def drawable_values(value, metric, scale):
    """The values of a metric with NaN where the scale has no place for them."""
    check_metric(metric, single=True)
    check_choice("metric", metric, tuple(value.values))
    check_choice("scale", scale, SCALES)
    return on_scale(_filled(value, value.values[metric]), scale)


def contour_scale(surfaces, metric, scale, levels=None):
    """Returns the scale of contours: if none is chosen, a log scale where that shows the basin."""
    check_choice("scale", scale, CONTOUR_SCALES)
    if scale != "auto":
        return scale
    values = np.concatenate(
        [np.ravel(drawable_values(each, metric, "linear")) for each in surfaces]
    )
    values = values[np.isfinite(values)]
    is_chosen = levels is not None and np.ndim(levels)
    if is_chosen or not values.size or values.min() <= 0:
        return "linear"
    # Levels in equal ratios are dense at the low end, so the models must lie there.
    is_low = all(each.center[metric] < values.mean() for each in surfaces)
    return "log" if is_low and values.max() >= WIDE_RATIO * values.min() else "linear"


def between_points(surface, heights, step, number, limits=(-np.inf, np.inf)):
    """Returns a finer grid by splines through all points, if these tell what is between them.

    Args:
        surface: A `LossSurface`.
        heights: Array of shape `(m, n)`, in units of the scale; NaN where there is a hole.
        step: The distance of two contours.
        number: About how many points per axis the finer grid has.
        limits: Lowest and highest height that is drawn. Defaults to all.

    Returns:
        Alphas, betas and heights; `None` where splines would show what was not measured.
    """
    betas, alphas = axes = surface.betas, surface.alphas
    factors = [max(2, (number - 1) // (len(axis) - 1)) for axis in axes]
    coarse = [np.union1d(np.arange(0, len(axis), 2), len(axis) - 1) for axis in axes]
    is_whole = np.isfinite(heights).all() and not surface.missing.any()
    if not is_whole or max(map(len, axes)) > FINEST or min(map(len, coarse)) < COARSEST:
        return None
    try:
        spline = import_extra("scipy.interpolate", "analysis").RectBivariateSpline
    except ImportError:
        return None
    # Splines of what spans decades would swing; those of the logarithms do not.
    is_wide = 0 < WIDE_RATIO * heights.min() < heights.max()
    to_spline, from_spline = (np.log, np.exp) if is_wide else (np.asarray, np.asarray)
    splined = to_spline(heights)
    trial = spline(betas[coarse[0]], alphas[coarse[1]], splined[np.ix_(*coarse)])
    is_drawn = (limits[0] <= heights) & (heights <= limits[1])
    errors = np.abs(from_spline(trial(betas, alphas)) - heights)[is_drawn]
    if errors.max(initial=0) > PREDICTED * step:
        return None
    fine_betas, fine_alphas = (
        np.interp(np.arange(factor * (len(axis) - 1) + 1) / factor, np.arange(len(axis)), axis)
        for factor, axis in zip(factors, axes, strict=True)
    )
    between = from_spline(spline(betas, alphas, splined)(fine_betas, fine_alphas))
    # Nothing is lower or higher than what was measured.
    return fine_alphas, fine_betas, between.clip(heights.min(), heights.max())


def on_scale(values, scale):
    """Values with NaN where a scale has no place for them."""
    values = np.asarray(values, dtype=float)
    return np.where(np.isfinite(values) & ((values > 0) | (scale == "linear")), values, np.nan)


def point_notes(measured, values, scale):
    """What a drawing does not show: points that were not measured, and those it cannot show."""
    return interpolation_notes(measured) + gap_notes(measured, values, scale)


def interpolation_notes(measured):
    """How many points of all surfaces or lines together were interpolated."""
    number = sum(value.interpolated.size for value in measured)
    interpolated = sum(np.count_nonzero(value.interpolated) for value in measured)
    if not interpolated:
        return []
    accuracy = max(value.metadata.get("accuracy", 0) for value in measured)
    within = f", within {accuracy:.2g}" if accuracy else ""
    notes = [f"{interpolated} of {number} points interpolated{within}"]
    few = [level[0] for value in measured for level in value.metadata.get("few_samples", [])]
    return [*notes, f"shape from {min(few):,} samples"] if few else notes


def sampling_notes(lines, metric):
    """What the band of the choice of samples is, or why there is none."""
    lines = [line for line in lines if line.errors]
    sizes = {line.metadata.get("dataset_size", 0) for line in lines if metric in line.errors}
    if sizes:
        numbers = " or ".join(f"{size:,}" for size in sorted(sizes))
        return [f"hatched: ±2 standard errors of {numbers} samples"]
    return [f"no band: {value_label(metric)} is no mean over samples"] if lines else []


def gap_notes(measured, values, scale):
    """Where nothing was measured yet, and how many points the scale has no place for."""
    are_holes = [
        np.isnan(array) & ~value.missing for value, array in zip(measured, values, strict=True)
    ]
    number = sum(array.size for array in values)
    missing = sum(np.count_nonzero(value.missing) for value in measured)
    holes = sum(map(np.count_nonzero, are_holes))
    notes = []
    if missing:
        notes.append(f"preview: {number - missing} of {number} points")
    if holes:
        reason = "not finite" if scale == "linear" else "not finite or ≤ 0"
        holes = "nothing drawn: all points" if holes == number else f"{holes} of {number} points"
        notes.append(f"{holes} {reason}{_where(measured, are_holes)}")
    return notes


def model_points(value, heights, metric, scale):
    """Coordinates and height of each model that a drawing has a place for, one per row."""
    points = []
    for position in models_within(value):
        # The grid may miss the center, but that was measured.
        height = _between(value, heights, position) if position.any() else value.center[metric]
        if np.isfinite(on_scale(height, scale)):
            points.append([*position, height])
    return np.reshape(points, (-1, len(value.axes) + 1))


def models_within(value):
    """The coordinates of the models that lie within the axes, one per row."""
    low, high = ([axis[end] for axis in value.axes] for end in (0, -1))
    return value.models[((low <= value.models) & (value.models <= high)).all(axis=1)]


def sides_of(surface):
    """How long the sides of a plane are drawn, the longer one as 1: both have the same unit."""
    spans = np.array([np.ptp(surface.alphas), np.ptp(surface.betas)])
    return np.ones(2) if is_strip(surface) else spans / spans.max()


def is_strip(surface):
    """Whether a plane is so much longer than wide that it cannot be drawn to scale."""
    spans = np.ptp(surface.alphas), np.ptp(surface.betas)
    return max(spans) > LONGEST_STRIP * min(spans)


def _filled(value, values):
    """Values of a surface, with those not measured yet interpolated between the others."""
    if not value.missing.any() or len(value.axes) == 1:
        return values
    alphas, betas = np.meshgrid(*value.axes)
    is_known = ~value.missing & np.isfinite(values)
    if min(len(np.unique(axis[is_known])) for axis in (alphas, betas)) < 2:
        return values
    mesh = tri.Triangulation(alphas[is_known], betas[is_known])
    between = tri.LinearTriInterpolator(mesh, values[is_known])(alphas, betas)
    return np.where(value.missing, between.filled(np.nan), values)


def _where(measured, are_holes):
    """In how many of several directions there are holes."""
    if len(measured[0].axes) == 2 or max(map(len, are_holes)) == 1:
        return ""
    affected = np.concatenate([holes.any(axis=1) for holes in are_holes])
    return f",\nin {np.count_nonzero(affected)} of {len(affected)} directions"


def _between(value, values, position):
    """The value at a position, interpolated linearly between points of the grid."""
    # Alpha runs along the last dimension, beta along the one that is last then.
    for axis, coordinate in zip(value.axes, position, strict=True):
        values = np.apply_along_axis(partial(np.interp, coordinate, axis), -1, values)
    return values
