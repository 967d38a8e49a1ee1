"""Plotting: draws what was measured on Matplotlib axes.

A `LossLine` becomes a curve, a `LossSurface` labeled contours or a surface in
space; several of them share one scale. Nothing here knows about models, and
none of the caller's Matplotlib settings change. As in seaborn, figures made
here stay open until they are closed with `plt.close`.
"""

__all__ = [  # noqa: RUF022, in the order of the page
    "plot_line",
    "plot_levels",
    "plot_surface",
    "plot_metrics",
    "plot_path",
    "plot_path_fidelity",
    "animate_path",
    "animate_film",
    "plot_barriers",
    "plot_curve",
    "plot_convexity",
    "plot_spectrum",
    "plot_layers",
    "plot_training_curvature",
    "plot_persistence",
]

import io
import re
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import animation, colormaps, colors, ticker
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike
from PIL import Image, ImageSequence

from losslandscape.basics.checks import (
    check_choice,
    check_integer,
    check_number,
    check_numbers,
    check_pair,
    check_path,
)
from losslandscape.basics.hints import hinted
from losslandscape.basics.types import (
    Call,
    ContourScale,
    Definition,
    Display,
    FilePath,
    Mode,
    Pair,
    PlotType,
    Scale,
)
from losslandscape.drawing.layout import (
    Settled,
    axes_for,
    check_axes,
    check_labels,
    color_bar,
    curve_style,
    finite_limits,
    halo,
    keep_titles_above,
    label_contours,
    legend,
    legend_above,
    letters_along,
    log_ticks,
    make_room_for,
    name_cells,
    name_point,
    named_some,
    names_beyond,
    note,
    number_cells,
    panel_size,
    plain,
    plane_ticks,
    round_levels,
    wrapped,
    write_title,
)
from losslandscape.drawing.shown import (
    CONTOUR_SCALES,
    SCALES,
    between_points,
    contour_scale,
    drawable_values,
    gap_notes,
    interpolation_notes,
    is_strip,
    model_points,
    models_within,
    on_scale,
    point_notes,
    sampling_notes,
    sides_of,
    value_label,
)
from losslandscape.drawing.space import (
    FLOOR,
    HEIGHT,
    bar_beside,
    best_view,
    draw_faces,
    draw_floor,
    fit,
    frame,
    is_covered,
)
from losslandscape.values.comparisons import Comparison
from losslandscape.values.files import replace_file
from losslandscape.values.measures import exceeds_random_walk, loss_barrier
from losslandscape.values.surfaces import (
    LayerCurvature,
    Lines,
    LossBarriers,
    LossFilm,
    LossLine,
    LossSurface,
    LossTrajectory,
    Spectrum,
    Surface,
    Surfaces,
    TrainingCurvature,
    value_of,
    values_of,
)
from losslandscape.values.topology import persistence

# What is long in the names of a path's axes.
LONG_COMPONENT = r"(\d)\w\w principal component"
MEASURE_NAMES = {"scale_free_eigenvalue": "scale-free largest eigenvalue"}
LAYER_METRICS = {"trace": "trace", "largest": "largest eigenvalue"}
PATH_STYLE = {"marker": ".", "color": "black", "linewidth": 1, "markersize": 4}
START_STYLE = {"marker": "s", "markersize": 5, "markerfacecolor": "white", "color": "black"}
CURVE_STYLE = {"color": "black", "linewidth": 1.5, "path_effects": halo()}
CHORD_STYLE = {"color": "black", "linewidth": 1, "linestyle": "--", "path_effects": halo()}
MARK_STYLE = {"marker": "o", "linewidths": 1, "s": 32}
MODEL_COLORS = {"facecolors": "tab:red", "edgecolors": "white"}
# Of a point behind a part of the surface.
COVERED_COLORS = {"facecolors": "none", "edgecolors": "tab:red"}
# Up to this many points are shown one by one: between them, nothing was measured.
FEW_POINTS = 21
# Up to this many rows of a heat map have room for their names and numbers.
MODELS_PER_PANEL = 5
# Points per axis of the finer grids that surfaces and contours are drawn on.
FACES, CONTOURED = 61, 101
# Of a film of a surface that turns.
FRAMES = 90
# Of a picture that is looked at next to others, on a screen.
SMALL_DPI = 150
# The least height of a plane that is wider than high, as a part of its width.
LOWEST_PLANE = 0.5
# From the highest ratio of eigenvalues down to this part of it, colors tell them apart.
MOST_RATIO = 1e4
# The share of the values between the contours of a log scale, which shows the basin; the color of
# the highest contour goes on beyond it.
BULK = 0.95
# What films are written as.
FILMS = (".gif", ".mp4", ".m4v", ".mov", ".mkv", ".avi")
# What other calls write.
OTHER_FILES = {
    ".html": "A web page shows surfaces, as those of `plot_loss_3D`.",
    ".vtp": "A mesh is written by `write_mesh`, from what is returned.",
    ".h5": "Values are saved by `save` of what is returned.",
    ".npz": "Values are saved by `save` of what is returned, as .h5.",
}


def _drawing(function: Call) -> Call:
    """Decorates what draws: it says what is meant by other names."""
    # Settings of the caller such as `np.seterr(all="raise")` would stop Matplotlib.
    return hinted()(np.errstate(all="ignore")(function))


@_drawing
def plot_line(
    lines: Lines,
    ax: Axes | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    metric: str = "loss",
    scale: Scale = "linear",
    figsize: Pair | None = None,
) -> Axes:
    """Draws losses along directions as curves.

    The model's own point is marked at α = 0, and up to 21 measured points on
    each curve. Where a line holds several directions, the curve is their mean
    and the band one standard deviation to both sides (on a log scale, both of
    the logarithm). Points that are not finite, or not positive on a log scale,
    are left out of both, and a note counts them. A hatched band, of lines measured
    with `sampling_error=True`, is two standard errors to both sides: where the bands
    of two datasets are apart, the curves differ by more than the choice of samples.
    The legend goes where there is no curve, or above the axes. Curves differ in color,
    chosen for any color vision, and in line style.

    Example:

    >>> lines = [small_batch_line, large_batch_line]
    >>> ax = plot_line(lines, labels=("128", "2048"), metric="data_loss")
    >>> # One layer at a time, while all others stay put.
    >>> names = [layer.name for layer in model.layers if hasattr(layer, "kernel")]
    >>> lines = [evaluate_line(model, x_test, y_test, layers=name, seed=0) for name in names]
    >>> ax = plot_line(lines, labels=names)

    Args:
        lines: A `LossLine`, or a list of them to compare on the same axes.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        labels: One name per line for the legend; a string for a single line.
            Defaults to `None`.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: `"linear"` (the default) or `"log"`, for the values.
        figsize: Width and height of a new figure, in inches. `None` (the
            default) takes `rcParams["figure.figsize"]` if it was changed, else
            the width of a column, enlarged as the font is.

    Returns:
        The Matplotlib axes.

    Raises:
        TypeError: If anything but lines is given.
        ValueError: If there are not as many labels as lines, or `metric` or
            `scale` is unknown.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 3; for single
        layers, [Zhang et al., 2019](https://arxiv.org/abs/1902.01996) and [Chatterji et
        al., 2020](https://arxiv.org/abs/1912.00528).
    """
    lines = values_of("lines", lines, LossLine)
    labels = check_labels(labels, len(lines))
    values = [drawable_values(line, metric, scale) for line in lines]
    (ax,) = axes_for(ax, figsize=figsize)
    for line, curves, label in zip(lines, values, labels, strict=True):
        mean, color = _draw_curve(ax, line, curves, label, scale)
        if metric in line.errors:
            _draw_sampling_error(ax, line, mean, metric, scale=scale, color=color)
        points = model_points(line, mean, metric, scale)
        _mark(ax, points, facecolors=ax.get_facecolor(), edgecolors=color)
        _name_models(ax, line, points)
        # Also where the curve itself ends earlier.
        ax.update_datalim([(line.alphas[0], 0), (line.alphas[-1], 0)], updatey=False)
    ax.set(xlabel=plain(lines[0].axis_names[0]))
    ax.margins(x=0)
    _label_values(ax, metric, scale)
    numbers = sorted({len(curves) for curves in values if len(curves) > 1})
    means = [f"mean ± s.d. of {' or '.join(map(str, numbers))} directions"] if numbers else []
    note(ax, means + sampling_notes(lines, metric) + point_notes(lines, values, scale))
    if any(label is not None for label in labels):
        legend(ax)
    return ax


@_drawing
def plot_comparison(
    comparison: Comparison,
    ax: dict[str, Any] | None = None,
    *,
    scale: Scale = "linear",
    figsize: Pair | None = None,
) -> dict[str, Any]:
    """Draws what `compare` measured: curves with bands, and how the labels differ.

    A curve is the mean over the trainings of a label, or over the directions through its
    network if it has one, and the band one standard deviation to both sides. Beside it are
    the differences in half-width and in the metric, with their intervals: see `Comparison`.
    Below, it says what they are over and what is settled. Planes are drawn side by side.

    Example:

    >>> axes = plot_comparison(Comparison.load("batches.h5"))

    Args:
        comparison: A `Comparison`.
        ax: Dict of Matplotlib axes to draw on: `"curves"`, `"half_width"` and `"metric"`,
            as this returns it; for planes, `"levels"` with a list of one per training.
            `None` (the default) makes a figure.
        scale: `"linear"` (the default) or `"log"`, for the values of curves and planes.
        figsize: As in `plot_line`.

    Returns:
        Dict of Matplotlib axes by name.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        TypeError: If `comparison` is not a `Comparison`.
        ValueError: If `scale` is unknown, or `ax` has other names.
    """
    if not isinstance(comparison, Comparison):
        raise TypeError(f"`comparison` must be a `Comparison`. Received {comparison!r}.")
    check_choice("scale", scale, SCALES)
    names = ["levels"] if comparison.surfaces else ["curves", "half_width", "metric"]
    if ax is not None and (not isinstance(ax, dict) or set(ax) != set(names)):
        raise ValueError(f"`ax` must be a dict of axes for {', '.join(names)}. Received {ax!r}.")
    if comparison.surfaces:
        panels = {"levels": _draw_planes(comparison, ax and ax["levels"], scale, figsize)}
        first = panels["levels"][0]
    else:
        panels = ax or _comparison_axes(len(comparison.differences), figsize)
        first = panels["curves"]
        _draw_compared_curves(first, comparison, scale)
        _draw_differences(panels, comparison)
    if ax is None:
        figure = first.get_figure(root=True)
        size = FontProperties(size="small").get_size_in_points()
        letters = int(72 * figure.get_figwidth() / (0.55 * size))
        words = [comparison.notes[1], *(each.verdict for each in comparison.differences)]
        lines = [line for sentence in words for line in textwrap.wrap(sentence, letters)]
        figure.supxlabel(plain("\n".join(lines)), fontsize=size, x=0.02, ha="left")
    return panels


def _comparison_axes(number, figsize):
    """The axes of a new figure: curves at the left, this number of differences at the right."""
    if figsize is not None:
        check_pair("figsize", figsize, above=0)
    width, height = panel_size()
    # Each difference has a name of two lines, and in two panels.
    height = max(height, 0.08 * mpl.rcParams["font.size"] * (number + 2))
    _, axes = plt.subplot_mosaic(
        [["curves", "half_width"], ["curves", "metric"]],
        figsize=figsize or (1.9 * width, 1.2 * height),
        layout="constrained",
    )
    return axes


def _draw_compared_curves(ax, comparison, scale):
    metric, curves = comparison.metadata["metric"], comparison.curves
    values = [drawable_values(line, metric, scale) for line in curves.values()]
    for (label, line), rows in zip(curves.items(), values, strict=True):
        mean, color = _draw_curve(ax, line, rows, label, scale)
        points = model_points(line, mean, metric, scale)
        _mark(ax, points, facecolors=ax.get_facecolor(), edgecolors=color)
    ax.set(xlabel=plain("α"))
    ax.margins(x=0)
    _label_values(ax, metric, scale)
    means = [f"mean ± s.d. of {_averaged(comparison)}"]
    note(ax, means + point_notes(list(curves.values()), values, scale))
    legend(ax)


def _averaged(comparison):
    """What the curves of a comparison are the means of."""
    widths = comparison.half_widths.values()
    trainings = sorted({len(each) for each in widths if len(each) > 1})
    counts = [f"{' or '.join(map(str, trainings))} trainings"] if trainings else []
    if any(len(each) == 1 for each in widths):
        number = next(iter(widths)).shape[1]
        counts.append(f"{number} direction{'s'[: number != 1]} through one network")
    return " or ".join(counts)


def _draw_differences(panels, comparison):
    """Draws a row for every two labels: the difference, and its interval if there is one."""
    found = comparison.differences
    metric = comparison.metadata["metric"]
    estimates = {
        "half_width": ("half-width", [each.width for each in found]),
        "metric": (value_label(metric), [each.metric for each in found]),
    }
    for key, (name, each) in estimates.items():
        ax = panels[key]
        for row, (mean, low, high) in enumerate(each):
            reach = None if np.isnan(low) else [[mean - low], [high - mean]]
            ax.errorbar(mean, row, xerr=reach, fmt="o", color="0.15", capsize=3, markersize=4)
        ax.axvline(0, color="0.5", linewidth=0.8, linestyle="--")
        pairs = [plain(f"{each.first}\n− {each.second}") for each in found]
        ax.set_yticks(range(len(found)), pairs, parse_math=False, fontsize="small")
        ax.set_ylim(len(found) - 0.4, -0.6)
        ax.margins(x=0.15)
        ax.set_xlabel(wrapped(f"difference in {name}", letters_along(ax)), parse_math=False)


def _draw_planes(comparison, ax, scale, figsize):
    """Draws the planes of all trainings with one scale; names those of one label by number."""
    names = comparison.metadata["labels"]
    labels = [
        f"{name}, {names[:place].count(name) + 1}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]
    style = {"metric": comparison.metadata["metric"], "scale": scale, "figsize": figsize}
    return plot_levels(comparison.surfaces, ax, labels=labels, **style)


@_drawing
def plot_levels(
    surfaces: Surfaces,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    metric: str = "loss",
    scale: ContourScale = "auto",
    levels: ArrayLike | None = None,
    cmap: str | Colormap = "viridis",
    figsize: Pair | None = None,
) -> Any:
    """Draws surfaces as labeled contour lines over a light filled contour.

    The model's own point is marked at the origin. Several surfaces are drawn
    side by side with the same levels and colors. Points that are not finite, or
    not positive on a log scale, are holes, and a note counts them; those that a
    checkpoint has not measured yet are interpolated, and a note says "preview".
    Both axes have the same unit, unless one is more than four times as long.
    Contours that the color bar names have a label wherever one fits in the frame,
    clear of other labels and marks.

    Between measured points, contours follow splines, and a note says so. They run
    straight where splines through every second point fail to predict the others
    within half a level, where there are holes, and without SciPy (the extra
    `analysis`).

    Example:

    >>> ax = plot_levels(LossSurface.load("resnet56.h5"), scale="log")
    >>> axes = plot_levels([resnet, vgg], labels=("ResNet-56", "VGG-like 56"), scale="log")

    Args:
        surfaces: A `LossSurface`, or a list of them to compare.
        ax: Matplotlib axes to draw on, a list of them for a list of surfaces.
            `None` (the default) makes a figure.
        labels: One title per surface. Defaults to `None`.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: `"linear"`, or `"log"` for levels in equal ratios. `"auto"` (the
            default) takes a log scale where equal steps would hide the basin:
            where all values are positive, the highest is at least 20 times the
            lowest, and the models lie at the low end. The color bar names it.
        levels: Increasing values to draw contours at, with colors in equal
            steps, or how many round ones to draw at most. `None` (the default) draws
            about 12 to 20; on a log scale, none among the highest 5 % of the values.
        cmap: Matplotlib colormap. Defaults to the perceptually uniform
            `"viridis"`.
        figsize: As in `plot_line`.

    Returns:
        The Matplotlib axes, a list of them for a list of surfaces.

    Raises:
        TypeError: If anything but surfaces is given.
        ValueError: If there are not as many labels or axes as surfaces, or
            `metric` or `scale` is unknown.
    """
    drawn = values_of("surfaces", surfaces, LossSurface)
    labels = check_labels(labels, len(drawn))
    style = {"metric": metric, "scale": scale, "levels": levels, "cmap": cmap, "figsize": figsize}
    axes, contours, names = _draw_levels(drawn, ax, **style)
    for panel, label in zip(axes, labels, strict=True):
        write_title(panel, label)
    _label_levels(drawn, axes, contours, names)
    return axes if _is_list(surfaces) or len(axes) > 1 else axes[0]


@_drawing
def plot_surface(
    surfaces: Surfaces,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    metric: str = "loss",
    scale: Scale = "linear",
    limits: Pair | None = None,
    cmap: str | Colormap = "viridis",
    view: Pair | None = None,
    axes: bool = True,
    figsize: Pair | None = None,
) -> Any:
    """Draws surfaces in space.

    Faces have the color of their height, as in the color bar, without lighting. Where
    splines through every second point predict the others, the surface follows splines,
    and a note says so. Contours are on the floor of the box.
    The model's own point is marked above the origin, and other models where they lie
    on the surface. A mark is hollow where a part of the surface is in front of it.
    Several surfaces are drawn side by side with the same height axis and colors.
    Points that are not finite, or not positive on a log scale, are holes, and a
    note counts them; those that a checkpoint has not measured yet are
    interpolated, and a note says "preview".

    Example:

    >>> ax = plot_surface(LossSurface.load("resnet56.h5"), scale="log", view=(20, 45))
    >>> ax = plot_surface(surface, limits=(0, 2.5), axes=False)  # the paper's first figure

    Args:
        surfaces: A `LossSurface`, or a list of them to compare.
        ax: Matplotlib axes with `projection="3d"` to draw on, a list of them
            for a list of surfaces. `None` (the default) makes a figure.
        labels: One title per surface. Defaults to `None`.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: `"linear"` (the default) or `"log"`, for the values.
        limits: Lowest and highest value to draw; faces that go beyond are cut
            along the limit. `None` (the default) takes those of the surfaces.
        cmap: Matplotlib colormap. Defaults to the perceptually uniform
            `"viridis"`.
        view: Elevation and azimuth to look from, in degrees, the same for all
            surfaces. `None` (the default) looks where nothing hides the lowest
            point, from at most 52 degrees.
        axes: Whether to draw axes, notes, contours and a color bar. Without them, as in
            the paper's first figure, only the surface is left. Defaults to `True`.
        figsize: As in `plot_line`.

    Returns:
        The Matplotlib axes, a list of them for a list of surfaces.

    Raises:
        TypeError: If anything but surfaces is given.
        ValueError: If there are not as many labels or axes as surfaces, `ax` is
            not 3d, or `metric` or `scale` is unknown.
    """
    drawn = values_of("surfaces", surfaces, LossSurface)
    labels = check_labels(labels, len(drawn))
    check_choice("scale", scale, SCALES)
    check_style(scale, limits=limits, cmap=cmap, view=view, axes=axes, figsize=figsize)
    values = [drawable_values(surface, metric, scale) for surface in drawn]
    limits = finite_limits(values) if limits is None else _limits("limits", limits, scale)
    # 3d axes know no log scale, so the logarithm itself is drawn and the ticks are relabeled.
    to_axis = np.log10 if scale == "log" else np.asarray
    low, high = to_axis(limits)
    levels = round_levels([limits], scale)
    mapped = ScalarMappable(colors.Normalize(low, high), colormaps.get_cmap(cmap))
    if view is None:
        view = best_view(list(map(to_axis, values)), (low, high), list(map(sides_of, drawn)))
    panels = axes_for(ax, len(drawn), "3d", figsize)
    # The more from above, the closer they are.
    few = round_levels([limits], scale, number=max(2, round(6 * np.cos(np.deg2rad(view[0])))))
    names, offset = names_beyond(few)
    ticks = {"ticks": to_axis(few), "labels": names}
    are_smooth = []
    for panel, surface, each, label in zip(panels, drawn, values, labels, strict=True):
        step = (high - low) / len(levels)
        fine = between_points(surface, to_axis(each), step, FACES, (low, high))
        are_smooth.append(fine is not None)
        grid = fine or (surface.alphas, surface.betas, to_axis(each))
        frame(panel, surface, sides_of(surface), (low, high), view)
        _dress_plane(panel, surface)
        write_title(panel, label)
        panel.set_zticks(**ticks)
        draw_faces(panel, grid, mapped)
        if axes:
            draw_floor(panel, grid, to_axis(levels), mapped)
        points = _within(model_points(surface, each, metric, scale), limits, to_axis)
        for point in points:
            starts, spans = zip(*((axis[0], np.ptp(axis)) for axis in surface.axes), strict=True)
            position = (point[:2] - starts) / spans
            place = (to_axis(each), (low, high), sides_of(surface), position, view)
            style = COVERED_COLORS if is_covered(*place) else MODEL_COLORS
            _mark(panel, [point], depthshade=False, **style)
    if not axes:
        _bare(panels)
        return panels if _is_list(surfaces) else panels[0]
    _note_planes(panels, drawn, values, scale, _splines(drawn, are_smooth, "surface"))
    if any(np.isfinite(each).any() for each in values):
        bar = bar_beside(panels[-1], mapped)
        bar.set_ticks(**ticks)
        bar.set_label(_axis_name(panels[-1], metric, scale, offset), parse_math=False)
        if ax is None:
            fit(panels[-1].figure)
        else:
            make_room_for(bar, panels)
    return panels if _is_list(surfaces) or len(panels) > 1 else panels[0]


@_drawing
def plot_path(
    trajectory: LossTrajectory | Display,
    ax: Axes | None = None,
    *,
    metric: str = "loss",
    scale: ContourScale = "auto",
    levels: ArrayLike | None = None,
    cmap: str | Colormap = "viridis",
    figsize: Pair | None = None,
) -> Axes:
    """Draws the path of training over the contours of its plane.

    A square marks where training starts, the model's mark where it ends. Several runs
    differ in color, with a point where each ends. The names of the
    axes give the share of the paths' variance along them; a note gives that of a
    random walk, and says so if the path's is no greater. Where the path is straight,
    the second axis may be a random direction.

    Example:

    >>> plot_path(LossTrajectory.load("training.h5"), scale="log")

    Args:
        trajectory: A `LossTrajectory`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: As in `plot_levels`.
        levels: As in `plot_levels`.
        cmap: As in `plot_levels`.
        figsize: As in `plot_line`.

    Returns:
        The Matplotlib axes.

    Raises:
        TypeError: If `trajectory` is not a `LossTrajectory`.
        ValueError: If `metric` or `scale` is unknown.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), figure 9.
    """
    trajectory = value_of("trajectory", trajectory, LossTrajectory)
    style = {"metric": metric, "scale": scale, "levels": levels, "cmap": cmap, "figsize": figsize}
    (ax,), contours, names = _draw_levels([trajectory], ax, **style)
    if len(trajectory.runs) > 1:
        _draw_runs(ax, trajectory)
    else:
        ax.plot(*trajectory.path.T, **PATH_STYLE)
        ax.plot(*trajectory.path[0], **START_STYLE)
    # The layout of a new figure decides where the name fits.
    ax.get_figure(root=True).draw_without_rendering()
    name_point(ax, "start", trajectory.path[0])
    _label_levels([trajectory], [ax], contours, names)
    return ax


@_drawing
def plot_curve(
    surface: Surface,
    ax: Axes | None = None,
    *,
    metric: str = "loss",
    scale: ContourScale = "auto",
    levels: ArrayLike | None = None,
    cmap: str | Colormap = "viridis",
    figsize: Pair | None = None,
) -> Axes:
    """Draws a curve between two models over the contours of its plane.

    The dashed line is the straight one between the models.

    Example:

    >>> control = fit_curve(small_batch, large_batch, x_train, y_train, epochs=5)
    >>> ax = plot_curve(evaluate_plane([small_batch, large_batch, control], x_test, y_test))

    Args:
        surface: A `LossSurface` from `evaluate_plane` of three models: both ends of the
            curve, then its control point, as from `fit_curve`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: As in `plot_levels`.
        levels: As in `plot_levels`.
        cmap: As in `plot_levels`.
        figsize: As in `plot_line`.

    Returns:
        The Matplotlib axes.

    Raises:
        TypeError: If `surface` is not a `LossSurface`.
        ValueError: If it is not the plane of three models, or `metric` or `scale` is
            unknown.

    Reference:
        [Garipov et al., 2018](https://arxiv.org/abs/1802.10026), figure 1.
    """
    surface = value_of("surface", surface, LossSurface)
    if len(surface.models) != 3:
        raise ValueError(
            "`surface` must be the plane of both ends of a curve and its control point, as from "
            f"`evaluate_plane`. Received {surface!r} with {len(surface.models)} models."
        )
    style = {"metric": metric, "scale": scale, "levels": levels, "cmap": cmap, "figsize": figsize}
    (ax,), contours, names = _draw_levels([surface], ax, **style)
    start, end, control = surface.models
    times = np.linspace(0, 1, 101)[:, np.newaxis]
    curve = (1 - times) ** 2 * start + 2 * times * (1 - times) * control + times**2 * end
    ax.plot(*np.stack([start, end]).T, **CHORD_STYLE)
    ax.plot(*curve.T, **CURVE_STYLE)
    _label_levels([surface], [ax], contours, names)
    return ax


@_drawing
def plot_path_fidelity(
    trajectory: LossTrajectory | Display,
    ax: Axes | None = None,
    *,
    metric: str = "loss",
    scale: Scale = "linear",
    figsize: Pair | None = None,
) -> Axes:
    """Draws how far the picture of a path can be trusted.

    For each record it shows the value at the recorded weights, the one on the
    plane, where the path seems to be, and how far off the plane the record is.
    Each of several runs has a color of its own.

    Args:
        trajectory: A `LossTrajectory`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: `"linear"` (the default) or `"log"`, for the values.
        figsize: As in `plot_line`.

    Returns:
        The Matplotlib axes of the values, over epochs, steps or records; those of
        the distance share this axis.

    Raises:
        TypeError: If `trajectory` is not a `LossTrajectory`.
        ValueError: If `metric` or `scale` is unknown.
    """
    trajectory = value_of("trajectory", trajectory, LossTrajectory)
    drawable_values(trajectory, metric, scale)
    (ax,) = axes_for(ax, figsize=figsize)
    at_records, on_plane = (
        on_scale(values[metric], scale)
        for values in (trajectory.true_values, trajectory.plane_values)
    )
    beside, off_plane = ax.twinx(), "distance off the plane"
    curves = [
        (ax, at_records, {"linestyle": "-", "label": "at the records"}),
        (ax, on_plane, {"linestyle": "--", "label": "on the plane"}),
        (beside, trajectory.distances, {"linestyle": ":", "color": "0.4", "label": off_plane}),
    ]
    handles = _draw_fidelity(trajectory, curves)
    beside.set_ylabel(off_plane)
    beside.set_ylim(bottom=0)
    ax.set(xlabel=trajectory.unit)
    ax.xaxis.set_major_locator(ticker.MaxNLocator("auto", integer=True))
    ax.margins(x=0)
    _label_values(ax, metric, scale)
    legend_above(ax, handles)
    return ax


@_drawing
def animate_path(
    trajectory: LossTrajectory | Display,
    path: FilePath,
    *,
    metric: str = "loss",
    scale: ContourScale = "auto",
    levels: ArrayLike | None = None,
    cmap: str | Colormap = "viridis",
    fps: float = 10,
) -> None:
    """Writes a film of the path as training proceeds, with a count of its epochs or steps.

    Args:
        trajectory: A `LossTrajectory`.
        path: Where to write: `.gif` by Pillow, others such as `.mp4` by ffmpeg.
        metric: As in `plot_path`.
        scale: As in `plot_path`.
        levels: As in `plot_path`.
        cmap: As in `plot_path`.
        fps: Frames per second, one for each epoch or step recorded. Defaults to 10.

    Raises:
        ValueError: If `metric` or `scale` is unknown, or if ffmpeg is needed
            and not installed.
    """
    path = check_film(path, fps)
    ax = plot_path(trajectory, metric=metric, scale=scale, levels=levels, cmap=cmap)
    trajectory = value_of("trajectory", trajectory, LossTrajectory)
    runs, times = list(trajectory.runs.values()), trajectory.times
    frames = np.unique(times)
    lines = ax.lines[: len(runs)]
    counter = ax.set_title("", loc="right", fontsize="small")

    def draw(time):
        for line, records in zip(lines, runs, strict=True):
            line.set_data(*trajectory.path[records][times[records] <= time].T)
        counter.set_text(f"{trajectory.unit} {time:g} of {frames[-1]:g}")
        return [*lines, counter]

    draw(frames[-1])
    _write_film(ax.figure, draw, frames, path, fps)


@_drawing
def animate_surface(
    surface: LossSurface | Display,
    path: FilePath,
    *,
    metric: str = "loss",
    scale: Scale = "linear",
    limits: Pair | None = None,
    cmap: str | Colormap = "viridis",
    axes: bool = True,
    fps: int = 20,
) -> None:
    """Writes a film of a surface that turns once around.

    Args:
        surface: A `LossSurface`.
        path: Where to write: `.gif` by Pillow, others such as `.mp4` by ffmpeg.
        metric: As in `plot_surface`.
        scale: As in `plot_surface`.
        limits: As in `plot_surface`.
        cmap: As in `plot_surface`.
        axes: As in `plot_surface`.
        fps: Frames per second; there are 90. Defaults to 20.

    Raises:
        TypeError: If `surface` is not a `LossSurface`.
        ValueError: If an argument is unknown, or if ffmpeg is needed and not installed.

    Example:

    >>> animate_surface(surface, "landscape.gif", scale="log", axes=False)
    """
    path = check_film(path, fps)
    surface = value_of("surface", surface, LossSurface)
    style = {"metric": metric, "scale": scale, "limits": limits, "cmap": cmap, "axes": axes}
    ax = plot_surface(surface, **style)

    def draw(turn):
        ax.view_init(ax.elev, turn)
        return [ax]

    _write_film(ax.figure, draw, ax.azim + np.linspace(0, 360, FRAMES, endpoint=False), path, fps)


@_drawing
def animate_film(
    film: LossFilm,
    path: FilePath,
    plot_type: PlotType = "levels",
    *,
    metric: str = "loss",
    scale: ContourScale = "auto",
    fps: float = 4,
    **style: Any,
) -> None:
    """Writes a film of the landscape as training proceeds, with one scale for all frames.

    The title of each frame says which record it is drawn around.

    Example:

    >>> film = evaluate_film(small_batch, small_history, x_train, y_train, 5, seed=0)
    >>> animate_film(film, "training.gif", "3d", scale="log")

    Args:
        film: A `LossFilm`.
        path: Where to write: `.gif` by Pillow, others such as `.mp4` by ffmpeg.
        plot_type: `"levels"` (the default) for contours, as `plot_levels` draws them, or
            `"3d"` for surfaces in space, as `plot_surface` does.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: `"linear"` or `"log"`, for the values. `"auto"` (the default) is linear in
            space, and for contours as in `plot_levels`.
        fps: Frames per second, one for each record. Defaults to 4.
        **style: Further keyword arguments of `plot_levels` or `plot_surface`, such as
            `cmap`, `levels`, `limits` or `view`.

    Raises:
        TypeError: If `film` is not a `LossFilm`.
        ValueError: If an argument is unknown, or if ffmpeg is needed and not installed.
    """
    path = check_film(path, fps)
    film = value_of("film", film, LossFilm)
    check_choice("plot_type", plot_type, tuple(SHARED_STYLE))
    surfaces = film.surfaces
    style = {"metric": metric} | SHARED_STYLE[plot_type](surfaces, metric, scale, style)
    frames = list(zip(surfaces, film.labels, strict=True))

    def plot(surface, label, ax=None):
        return PLOT_TYPES[plot_type](surface, ax, labels=label, **style)

    place = _common_place(plot, frames)
    ax = plot(*frames[0])
    ax.figure.set_layout_engine(PlaceHolderLayoutEngine(True, False))
    ax.set_position(place)

    def draw(frame):
        ax.clear()
        return [plot(*frame, ax)]

    _write_film(ax.figure, draw, frames, path, fps)


def _common_place(plot, frames):
    """The place of axes that leaves room for what is written beside them in any frame."""
    corners = []
    for surface, label in frames:
        ax = plot(surface, label)
        ax.figure.draw_without_rendering()
        corners.append(ax.get_position(original=True).get_points())
        plt.close(ax.figure)
    lower, upper = np.swapaxes(corners, 0, 1)
    return Bbox([lower.max(axis=0), upper.min(axis=0)])


def _shared_levels(surfaces, metric, scale, style):
    """The style of contours, with the scale and the levels of all surfaces together."""
    chosen = style.get("levels")
    scale = contour_scale(surfaces, metric, scale, chosen)
    values = [drawable_values(surface, metric, scale) for surface in surfaces]
    levels, _ = _levels(chosen, values, scale, style.get("cmap", "viridis"))
    return style | {"scale": scale, "levels": levels}


def _shared_limits(surfaces, metric, scale, style):
    """The style in space, with the limits of all surfaces together, and a view of each of them."""
    scale = "linear" if scale == "auto" else scale
    values = [drawable_values(surface, metric, scale) for surface in surfaces]
    limits = finite_limits(values) if style.get("limits") is None else style["limits"]
    to_axis = np.log10 if scale == "log" else np.asarray
    view = best_view(list(map(to_axis, values)), to_axis(limits), list(map(sides_of, surfaces)))
    return {"view": view} | style | {"scale": scale, "limits": limits}


PLOT_TYPES = {"levels": plot_levels, "3d": plot_surface}
SHARED_STYLE = {"levels": _shared_levels, "3d": _shared_limits}


def check_film(path, fps=1):
    """Returns the path of a film; refuses one that cannot be written here."""
    check_number("fps", fps, above=0, below=np.inf)
    path = check_path("path", path)
    if path.suffix != ".gif" and not animation.writers.is_available("ffmpeg"):
        raise ValueError(
            f"`path` must end in .gif where ffmpeg is not installed. Received {str(path)!r}."
        )
    if path.suffix not in FILMS:
        raise ValueError(
            f"`path` must end in one of {', '.join(FILMS)}. Received {str(path)!r}. "
            f"{OTHER_FILES.get(path.suffix, '')}".rstrip()
        )
    return path


def _write_film(figure, draw, frames, path, fps):
    """Writes what a function draws for each frame, whole or not at all; closes the figure."""
    # A new layout for each frame would make the picture jitter.
    figure.draw_without_rendering()
    figure.set_layout_engine(PlaceHolderLayoutEngine(True, False))
    film = animation.FuncAnimation(figure, draw, frames=frames)
    try:
        # Elsewhere first: ffmpeg needs a file of its own, and may fail halfway.
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, path.name)
            if path.suffix == ".gif":
                whole = part.with_suffix(".png")
                film.save(whole, writer="pillow", fps=fps, dpi=SMALL_DPI)
                _write_gif(whole, part)
            else:
                film.save(part, writer="ffmpeg", fps=fps, dpi=SMALL_DPI)
            replace_file(path, part.read_bytes())
    finally:
        plt.close(figure)


def _write_gif(film, path):
    """Writes an animated PNG as a GIF, in which small marks keep their colors.

    By default Pillow shares out the 256 colors of a frame by area, and a mark is too small for one.
    """
    by_range = {"method": Image.Quantize.MAXCOVERAGE, "kmeans": 2}
    with Image.open(film) as frames:
        first, *others = [
            # For transparent frames, Pillow has another way, which keeps them, too.
            each.quantize(**by_range) if each.mode == "RGB" else each.copy()
            for each in ImageSequence.Iterator(frames)
        ]
        duration = frames.info["duration"]
    first.save(path, save_all=True, append_images=others, duration=duration, loop=0)


@_drawing
def plot_spectrum(
    spectrum: Spectrum,
    ax: Axes | None = None,
    *,
    width: float | None = None,
    figsize: Pair | None = None,
) -> Axes:
    """Draws the density of a Hessian's eigenvalues, on a log scale.

    Args:
        spectrum: A `Spectrum`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        width: Standard deviation of the normal curve that each eigenvalue is
            drawn as. `None` (the default) takes 1 % of their range.
        figsize: As in `plot_line`.

    Returns:
        The Matplotlib axes.

    Raises:
        TypeError: If `spectrum` is not a `Spectrum`.
        ValueError: If `width` is not positive.

    Example:

    >>> plot_spectrum(Hessian(model, x_train, y_train).spectrum(seed=0))
    """
    spectrum = value_of("spectrum", spectrum, Spectrum)
    low, high = spectrum.eigenvalues.min(), spectrum.eigenvalues.max()
    if width is None:
        width = (high - low or abs(high) or 1.0) / 100
    check_number("width", width, above=0, below=np.inf)
    positions = np.linspace(low - 4 * width, high + 4 * width, 2000)
    offsets = (positions - spectrum.eigenvalues[..., np.newaxis]) / width
    curves = np.exp(-(offsets**2) / 2) / (width * np.sqrt(2 * np.pi))
    density = np.einsum("ps,pst->t", spectrum.shares, curves) / len(spectrum.shares)
    (ax,) = axes_for(ax, figsize=figsize)
    ax.plot(positions, density, **curve_style(ax))
    # Below one parameter's share the tails of the normal curves say nothing.
    floor = density.max() / (10 * spectrum.metadata["parameters"])
    ax.set(xlabel="eigenvalue of the Hessian", ylabel="density (log scale)", yscale="log")
    ax.set_ylim(floor, 3 * density.max())
    return ax


@_drawing
def plot_layers(
    curvature: LayerCurvature,
    ax: Axes | None = None,
    *,
    metric: Literal["trace", "largest"] = "trace",
    figsize: Pair | None = None,
) -> Axes:
    """Draws the curvature of the loss in each layer as bars, the first layer on top.

    Args:
        curvature: A `LayerCurvature` from `Hessian.by_layer`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        metric: `"trace"` (the default), with 95% confidence intervals, or
            `"largest"`, the largest eigenvalue.
        figsize: As in `plot_line`, but for many layers the default is higher.

    Returns:
        The Matplotlib axes.

    Raises:
        TypeError: If `curvature` is not a `LayerCurvature`.
        ValueError: If `metric` is unknown.

    Example:

    >>> plot_layers(Hessian(model, x_train, y_train).by_layer(seed=0), metric="largest")
    """
    curvature = value_of("curvature", curvature, LayerCurvature)
    check_choice("metric", metric, tuple(LAYER_METRICS))
    rows = np.arange(len(curvature.largest))
    if metric == "trace":
        values, low, high = curvature.traces.T
        style = {"xerr": [values - low, high - values], "error_kw": {"capsize": 2, "lw": 1}}
    else:
        values, style = curvature.largest, {}
    if figsize is None:
        width, height = panel_size()
        figsize = width, max(height, 0.02 * mpl.rcParams["font.size"] * (len(rows) + 4))
    (ax,) = axes_for(ax, figsize=figsize)
    ax.barh(rows, values, height=0.7, color=curve_style(ax).get("color"), **style)
    ax.axvline(0, color="0.15", linewidth=0.8)
    ax.set_yticks(rows, [plain(name) for name in curvature.metadata["layers"]], parse_math=False)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    matrix = "scale-free Hessian" if "normalize" in curvature.metadata else "Hessian"
    ax.set_xlabel(wrapped(f"{LAYER_METRICS[metric]} of the {matrix}", letters_along(ax)))
    return ax


@_drawing
def plot_training_curvature(
    curvature: TrainingCurvature, ax: Mapping[str, Axes] | None = None, *, scale: Scale = "linear"
) -> dict[str, Axes]:
    """Draws what was measured in the course of training, one panel above the other.

    Where the learning rate is known, a dashed line shows the eigenvalue above which
    gradient descent is unstable. Bands are 95% confidence intervals. Values that are
    not finite are left out.

    Example:

    >>> logger = LandscapeLogger("largest_eigenvalue", x_train, y_train)
    >>> model.fit(x_train, y_train, epochs=3, callbacks=[logger], verbose=0)
    >>> axes = plot_training_curvature(logger.curvature, scale="log")

    Args:
        curvature: A `TrainingCurvature` from `training_curvature`, or the attribute of
            a `LandscapeLogger`.
        ax: Dict of Matplotlib axes to draw on by name, one for each measure, as this
            returns it. `None` (the default) makes a figure.
        scale: `"linear"` (the default) or `"log"`, for all but the trace, which may be
            negative.

    Returns:
        Dict of Matplotlib axes by name: every measure, and `"loss"` if it was measured.

    Raises:
        TypeError: If `curvature` is not a `TrainingCurvature`.
        ValueError: If `scale` is unknown, or `ax` has other names.

    Reference:
        [Cohen et al., 2021](https://arxiv.org/abs/2103.00065), figure 1.
    """
    curvature = value_of("curvature", curvature, TrainingCurvature)
    check_choice("scale", scale, SCALES)
    if ax is None:
        ax = dict(zip(curvature.measures, _stacked(len(curvature.measures)), strict=True))
    if not isinstance(ax, dict) or set(ax) != set(curvature.measures):
        raise ValueError(
            f"`ax` must be a dict of axes for {', '.join(curvature.measures)}. Received "
            f"{sorted(ax) if isinstance(ax, dict) else type(ax).__name__}."
        )
    check_axes(list(ax.values()))
    for name, panel in ax.items():
        _draw_measure(panel, curvature, name, "linear" if name == "trace" else scale)
        panel.label_outer()
    return ax


def show_again(figure, shown=None):
    """Shows a figure that has changed: in a notebook, or in a window, if there are any.

    Args:
        figure: A Matplotlib figure.
        shown: What this returned for the same figure before. Defaults to `None`.

    Returns:
        What to pass the next time.
    """
    if "inline" in mpl.get_backend():
        if shown is not None:
            shown.update(figure)
            return shown
        # The notebook would show it once more at the end of the cell.
        plt.close(figure)
        return import_module("IPython.display").display(figure, display_id=True)
    if shown is None and figure.canvas.required_interactive_framework is not None:
        figure.show()
    figure.canvas.draw_idle()
    figure.canvas.flush_events()
    return figure


@_drawing
def plot_persistence(
    surface: Surface, ax: Axes | None = None, *, metric: str = "loss", figsize: Pair | None = None
) -> Axes:
    """Draws the barcode of a surface: a bar per basin, from its minimum to where it merges.

    The deepest basin is at the top; an arrow marks those that never merge into a
    deeper one. One long bar means a single basin, short ones are ripples.

    Args:
        surface: A `LossSurface`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        metric: Which of the measured values to use. Defaults to `"loss"`.
        figsize: As in `plot_line`.

    Returns:
        The Matplotlib axes.

    Raises:
        TypeError: If `surface` is not a `LossSurface`.
        ValueError: If `metric` was not measured.

    Example:

    >>> plot_persistence(surface)
    """
    basins = persistence(surface, metric)
    values = value_of("surface", surface, LossSurface).values[metric]
    low, high = finite_limits([values])
    births, deaths = (np.array([basin[part] for basin in basins], float) for part in (0, 1))
    merged = deaths[np.isfinite(deaths)]
    if merged.size:
        # An arrow goes on anyway, and the highest value may be so high that nothing else is seen.
        high = min(high, low + 1.2 * (merged.max() - low))
    numbers, last = np.arange(1, len(basins) + 1), np.minimum(deaths, high)
    (ax,) = axes_for(ax, figsize=figsize)
    color = curve_style(ax).get("color")
    ax.hlines(numbers, births, last, colors=color, linewidth=min(4, 1 + 30 / (len(basins) + 1)))
    endless = deaths == np.inf
    ax.plot(last[endless], numbers[endless], ">", color=color, clip_on=False, markersize=6)
    # A basin of almost no depth has almost no bar.
    ax.plot(births, numbers, "o", color=color, markersize=5)
    margin = 0.6 + 0.03 * len(basins)
    ax.set(ylim=(len(basins) + margin, 1 - margin), ylabel="basin, the deepest first")
    ax.set_xlabel(value_label(metric), parse_math=False)
    ax.set_xlim(low - 0.03 * (high - low), high)
    ticks = ticker.MaxNLocator(6, integer=True).tick_values(1, len(basins))
    ax.set_yticks(ticks[(ticks >= 1) & (ticks <= len(basins))])
    return ax


@_drawing
def plot_convexity(
    surfaces: Surfaces,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    cmap: str | Colormap = "viridis",
    figsize: Pair | None = None,
) -> Axes:
    """Draws where a loss is convex: the ratio |λmin / λmax| of its Hessian as heat maps.

    Dark is convex; where it is bright, the loss curves downwards almost as much as upwards.
    The scale is logarithmic, and the same for all. Marks and notes are those of `plot_levels`.

    Args:
        surfaces: A `LossSurface` from `evaluate_convexity`, or a list of them to compare.
        ax: Matplotlib axes to draw on, a list of them for a list of surfaces. `None` (the
            default) makes a figure.
        labels: One title per surface. Defaults to `None`.
        cmap: Matplotlib colormap. Defaults to `"viridis"`.
        figsize: As in `plot_line`.

    Returns:
        The Matplotlib axes, a list of them for a list of surfaces.

    Raises:
        TypeError: If anything but surfaces is given.
        ValueError: If a surface has no `"convexity"`.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 6, figure 7.
    """
    drawn = values_of("surfaces", surfaces, LossSurface)
    labels = check_labels(labels, len(drawn))
    ratios = [drawable_values(surface, "convexity", "linear") for surface in drawn]
    check_style("linear", cmap=cmap, figsize=figsize)
    norm = _ratio_norm(ratios)
    axes = axes_for(ax, len(drawn), figsize=figsize)
    for panel, surface, each, label in zip(axes, drawn, ratios, labels, strict=True):
        _dress_plane(panel, surface)
        write_title(panel, label)
        grid = (surface.alphas, surface.betas, np.ma.masked_invalid(each))
        cells = panel.pcolormesh(*grid, norm=norm, cmap=cmap)
        points = models_within(surface)
        _mark(panel, points, **MODEL_COLORS)
        _name_models(panel, surface, points)
    _note_planes(axes, drawn, ratios, "linear")
    bar = color_bar(axes[-1], cells, sides_of(drawn[-1])[0], extend="min")
    log_ticks(bar.ax.yaxis)
    bar.set_label(plain("|λmin / λmax| (log scale)"))
    make_room_for(bar, axes)
    return axes if _is_list(surfaces) else axes[0]


def _ratio_norm(ratios):
    """The colors of ratios from the data's own lowest to their highest, on a log scale."""
    low, high = finite_limits([np.where(each > 0, each, np.nan) for each in ratios])
    return colors.LogNorm(max(low, high / MOST_RATIO), high, clip=False)


@_drawing
def plot_barriers(
    barriers: LossBarriers,
    ax: Axes | None = None,
    *,
    labels: Sequence[str] | None = None,
    metric: str = "loss",
    definition: Definition = "chord",
    mode: Mode = "min",
    cmap: str | Colormap = "viridis",
    figsize: Pair | None = None,
) -> Axes:
    """Draws the barriers between every two of several models as a heat map.

    Cells show their number if they are large enough. Barriers that are not finite have no
    color, and a note counts them.

    Example:

    >>> barriers = evaluate_barriers([model, small_batch, large_batch], x_test, y_test)
    >>> ax = plot_barriers(barriers, labels=("32", "16", "100"))

    Args:
        barriers: A `LossBarriers`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        labels: One name per model. Defaults to `None`, the models' own names.
        metric: Which of the measured values to use. Defaults to `"loss"`.
        definition: As in `loss_barrier`.
        mode: As in `loss_barrier`: `"max"` for an accuracy.
        cmap: Matplotlib colormap. Defaults to `"viridis"`.
        figsize: As in `plot_line`, but larger by default for more than five models.

    Returns:
        The Matplotlib axes.

    Raises:
        TypeError: If `barriers` is not a `LossBarriers`.
        ValueError: If there are not as many labels as models, or another argument is
            unknown.
    """
    barriers = value_of("barriers", barriers, LossBarriers)
    labels = barriers.names if labels is None else check_labels(labels, len(barriers.names))
    heights = loss_barrier(barriers, metric, definition=definition, mode=mode)
    check_style("linear", cmap=cmap, figsize=figsize)
    if figsize is None:
        figsize = [side * max(1, len(heights) / MODELS_PER_PANEL) for side in panel_size()]
    (ax,) = axes_for(ax, figsize=figsize)
    finite = np.ma.masked_invalid(heights)
    numbers = np.arange(len(heights))
    # Barriers are never negative, and those of two figures compare best from 0.
    cells = ax.pcolormesh(numbers, numbers, finite, vmin=0, vmax=finite.max() or 1.0, cmap=cmap)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    ax.grid(visible=False)
    holes = np.count_nonzero(np.triu(finite.mask))
    note(ax, [f"{holes} of {len(barriers.pairs)} barriers not finite"] if holes else [])
    bar = color_bar(ax, cells, 1)
    name_cells(ax, labels)
    side = {"min": "above", "max": "below"}[mode]
    name = f"{value_label(metric)} barrier, {side} the {definition}"
    bar.set_label(wrapped(name, letters_along(ax, "y")), parse_math=False)
    make_room_for(bar, [ax])
    number_cells(ax, heights, cells)
    return ax


def to_png(ax):
    """Returns the figure of some axes as the bytes of a small picture, and closes it."""
    figure, content = ax.get_figure(root=True), io.BytesIO()
    figure.savefig(content, format="png", dpi=SMALL_DPI)
    plt.close(figure)
    return content.getvalue()


@_drawing
def plot_metrics(
    lines: Lines, *, labels: str | Sequence[str] | None = None, scale: Scale = "linear"
) -> dict[str, Axes]:
    """Draws the loss and each metric of the same lines, one above the other.

    Args:
        lines: A `LossLine`, or a list of them.
        labels: As in `plot_line`, for the legend of the loss.
        scale: `"linear"` (the default) or `"log"`, for the loss.

    Returns:
        Dict of Matplotlib axes by metric; `"data_loss"` is left out.

    Raises:
        TypeError: If anything but lines is given.
    """
    lines = values_of("lines", lines, LossLine)
    metrics = [name for name in lines[0].values if name != "data_loss"]
    drawn = dict(zip(metrics, _stacked(len(metrics)), strict=True))
    for metric, ax in drawn.items():
        style = {"labels": labels, "scale": scale} if metric == "loss" else {}
        plot_line(lines, ax, metric=metric, **style)
        ax.label_outer()
    return drawn


def check_backend():
    """Refuses a Matplotlib backend that cannot make figures here."""
    try:
        # Loads the backend, as making a figure would.
        plt.draw_if_interactive()
    except ImportError as error:
        raise ImportError(
            f"Matplotlib can make no figure here: {error}. Choose another backend, such as "
            '`matplotlib.use("Agg")`, which draws into files only.'
        ) from error


def check_format(path=None):
    """Refuses a file, or text on the screen, that Matplotlib could not write here."""
    trial = Figure(figsize=(1, 1))
    formats = trial.canvas.get_supported_filetypes()
    suffix = "png" if path is None else path.suffix[1:].lower()
    if suffix not in formats:
        raise ValueError(
            f"`path` must end in one of {', '.join(f'.{name}' for name in formats)}. Received "
            f"{str(path)!r}. {OTHER_FILES.get(path.suffix, '')}".rstrip()
        )
    trial.text(0, 0, plain("α"))
    try:
        # Whether there is a TeX or an encoder can only be tried.
        trial.canvas.print_figure(io.BytesIO(), format=suffix)
    except Exception as error:
        other = "" if path is None else f"`path` {str(path)!r} must end in another suffix, or "
        raise ValueError(
            f"Matplotlib cannot write .{suffix} figures here, so {other}settings such as "
            f"`text.usetex` must change. Matplotlib says: {type(error).__name__}: {error}"
        ) from error


def check_style(
    scale, *, levels=None, limits=None, cmap="viridis", view=None, axes=True, figsize=None
):
    """Refuses options of plots that nothing could be drawn with."""
    check_choice("scale", scale, CONTOUR_SCALES)
    if not isinstance(axes, bool):
        raise TypeError(f"`axes` must be True or False. Received {axes!r}.")
    if isinstance(levels, int):
        check_integer("levels", levels, minimum=2)
    elif levels is not None:
        _limits("levels", levels, scale)
    if limits is not None and len(_limits("limits", limits, scale)) != 2:
        raise ValueError(f"`limits` must be two numbers, low and high. Received {limits!r}.")
    if view is not None:
        check_pair("view", view)
    if figsize is not None:
        check_pair("figsize", figsize, above=0)
    try:
        colormaps.get_cmap(cmap)
    except (TypeError, ValueError) as error:
        raise type(error)(
            "`cmap` must be a Matplotlib colormap or the name of one, such as 'viridis'. Received "
            f"{cmap!r}."
        ) from error


def _draw_levels(drawn, ax, *, metric, scale, levels, cmap, figsize):
    """Draws contours; returns the axes, the contours, and the names of their levels."""
    check_style(scale, levels=levels, cmap=cmap, figsize=figsize)
    scale = contour_scale(drawn, metric, scale, levels)
    values = [drawable_values(surface, metric, scale) for surface in drawn]
    levels, norm = _levels(levels, values, scale, cmap)
    axes = axes_for(ax, len(drawn), figsize=figsize or _plane_size(drawn))
    style = {"levels": levels, "norm": norm}
    light, contours, are_smooth = _lightened(cmap), [], []
    for panel, surface, heights in zip(axes, drawn, values, strict=True):
        fine = _fine(surface, heights, levels, scale)
        are_smooth.append(fine is not None)
        grid = fine or (surface.alphas, surface.betas, np.ma.masked_invalid(heights))
        _dress_plane(panel, surface)
        filled = panel.contourf(*grid, cmap=light, extend="both", **style)
        contours.append(panel.contour(*grid, cmap=cmap, linewidths=1, **style))
        _mark(panel, models_within(surface), **MODEL_COLORS)
    _note_planes(axes, drawn, values, scale, _splines(drawn, are_smooth))
    names, offset = names_beyond(levels)
    named = dict(zip(levels, names, strict=True))
    if any(np.isfinite(heights).any() for heights in values):
        side, height = sides_of(drawn[-1])
        bar = color_bar(axes[-1], filled, side)
        bar.set_label(_axis_name(axes[-1], metric, scale, offset, height), parse_math=False)
        bar.add_lines(contours[-1])
        part = named_some(names, max(2, round(12 * height**1.3)))
        bar.set_ticks(levels[part], labels=names[part])
        bar.ax.minorticks_off()
        named = dict(zip(levels[part], names[part], strict=True))
        make_room_for(bar, axes)
    return axes, contours, named


def _plane_size(drawn):
    """The size of a figure that has no empty margins around planes that are not square."""
    width, height = panel_size()
    across, up = np.max([sides_of(surface) for surface in drawn], axis=0)
    # What stands beside a plane keeps its size.
    beside, below = 0.4 * width, 0.28 * height
    return (
        len(drawn) * (beside + (width - beside) * across),
        below + (height - below) * max(up, LOWEST_PLANE),
    )


def _fine(surface, heights, levels, scale):
    """A finer grid for contours, or `None` where they should be straight between points."""
    to_axis, from_axis = (np.log, np.exp) if scale == "log" else (np.asarray, np.asarray)
    step = np.median(np.diff(to_axis(levels))) if len(levels) > 1 else np.inf
    fine = between_points(surface, to_axis(heights), step, CONTOURED)
    return fine and (*fine[:2], from_axis(fine[2]))


def _splines(drawn, are_smooth, what="lines"):
    """The note on what follows splines, and through how many points."""
    sizes = {
        " × ".join(str(len(axis)) for axis in surface.axes)
        for surface, is_smooth in zip(drawn, are_smooth, strict=True)
        if is_smooth
    }
    some = "some " * (not all(are_smooth) and what == "lines")
    return [f"{some}{what}: splines through {' or '.join(sorted(sizes))} points"] if sizes else []


def _note_planes(axes, drawn, values, scale, notes=()):
    """Writes what the drawings do not show: above each its own, above the first what all share."""
    shared, heights = interpolation_notes(drawn) + list(notes), []
    if shared and len(drawn) > 1:
        # There is little room above one of several panels.
        shared = ["partly interpolated"]
    for ax, surface, each in zip(axes, drawn, values, strict=True):
        own = gap_notes([surface], [each], scale)
        if ax.name != "3d":
            own += _path_notes(surface)
        heights.append(note(ax, shared * (ax is axes[0]) + own))
    for ax, height in zip(axes, heights, strict=True):
        if height < max(heights):
            # The titles of a row are in a row, although only some have notes below.
            keep_titles_above(ax, max(heights))


def _label_levels(drawn, axes, grids, names):
    """Writes the names of models and levels, where nothing else has been drawn."""
    # The layout of a new figure decides where they fit.
    axes[0].get_figure(root=True).draw_without_rendering()
    for surface, panel, contours in zip(drawn, axes, grids, strict=True):
        _name_models(panel, surface, models_within(surface))
        label_contours(panel, contours, names)


def _draw_curve(ax, line, curves, label, scale):
    """Draws one direction, or mean and band of several; returns what it shows, and its color."""
    if str(label).startswith("_"):
        # Matplotlib would leave it out of the legend.
        label = f" {label}"
    style = {"label": label} | curve_style(ax)
    if len(line.alphas) <= FEW_POINTS:
        style |= {"marker": ".", "markersize": 4}
    if len(curves) == 1:
        (curve,) = ax.plot(line.alphas, curves[0], **style)
        return curves[0], curve.get_color()
    to_axis, from_axis = (np.log, np.exp) if scale == "log" else (np.asarray, np.asarray)
    # With masked arrays, since NumPy warns where all of a column is NaN.
    finite = np.ma.masked_invalid(to_axis(curves))
    mean = finite.mean(axis=0).filled(np.nan)
    deviation = finite.std(axis=0, ddof=1).filled(np.nan)
    (curve,) = ax.plot(line.alphas, from_axis(mean), **style)
    if np.isfinite(deviation).any():
        band = from_axis(mean - deviation), from_axis(mean + deviation)
        ax.fill_between(line.alphas, *band, color=curve.get_color(), alpha=0.25, linewidth=0)
    return from_axis(mean), curve.get_color()


def _draw_sampling_error(ax, line, mean, metric, *, scale, color):
    """Draws two standard errors to both sides of a curve; on a log scale, of the logarithm."""
    # The same samples are measured along all directions, so their errors do not average out.
    reach = 2 * np.ma.masked_invalid(line.errors[metric]).mean(axis=0).filled(np.nan)
    if scale == "log":
        band = mean * np.exp(-reach / mean), mean * np.exp(reach / mean)
    else:
        band = mean - reach, mean + reach
    style = {"facecolor": "none", "edgecolor": color, "hatch": "/////", "linewidth": 0.5}
    ax.fill_between(line.alphas, *band, alpha=0.6, **style)


def _stacked(number):
    """The axes of a new figure, one above the other."""
    width, height = panel_size()
    size = width, height * (1 + 0.75 * (number - 1))
    layout = {"sharex": True, "squeeze": False, "figsize": size, "layout": Settled()}
    return plt.subplots(number, **layout)[1][:, 0]


def _draw_measure(ax, curvature, name, scale):
    """Draws one measure in the course of training, and its interval or threshold."""
    times, values = curvature.times, on_scale(curvature.values[name], scale)
    style = curve_style(ax) | {"marker": "." if len(times) <= FEW_POINTS else None}
    (curve,) = ax.plot(times, values, markersize=4, **style)
    ends = [f"{name}_low", f"{name}_high"]
    if all(end in curvature.values for end in ends):
        band = [on_scale(curvature.values[end], scale) for end in ends]
        ax.fill_between(times, *band, color=curve.get_color(), alpha=0.25, linewidth=0)
    if name == "largest_eigenvalue" and np.isfinite(curvature.thresholds).any():
        limit = {"color": "0.3", "linestyle": "--", "linewidth": 1, "label": "limit of stability"}
        ax.plot(times, curvature.thresholds, **limit)
    ax.set(xlabel=curvature.metadata["unit"])
    ax.margins(x=0.02)
    ax.xaxis.set_major_locator(ticker.MaxNLocator("auto", integer=True))
    _label_values(ax, MEASURE_NAMES.get(name, name), scale)
    if len(ax.lines) > 1:
        # At the end from which the curve is farther away.
        found = np.flatnonzero(np.isfinite(curvature.thresholds))
        distances = np.nan_to_num(np.abs(values - curvature.thresholds)[found])
        # A name is about as long as a third of the axis.
        third = -(-len(found) // 3)
        end = found[0 if distances[:third].min() > distances[-third:].min() else -1]
        name_point(ax, "limit of stability", (times[end], curvature.thresholds[end]))


def _draw_runs(ax, trajectory):
    """Draws the paths of several runs, with the starts hollow and the ends full."""
    style = {name: value for name, value in PATH_STYLE.items() if name != "color"}
    drawn = []
    for run, records in trajectory.runs.items():
        drawn += ax.plot(*trajectory.path[records].T, **style | curve_style(ax) | {"label": run})
    for line in drawn:
        color, path = line.get_color(), line.get_xydata()
        ax.plot(*path[0], **START_STYLE | {"color": color})
        _mark(ax, path[-1:], facecolors=color, edgecolors="white")
    legend_above(ax, drawn)


def _draw_fidelity(trajectory, curves):
    """Draws curves over the times of one or several runs; returns the handles of a legend."""
    times, runs = trajectory.times, trajectory.runs
    if len(runs) == 1:
        return [ax.plot(times, values, **style)[0] for ax, values, style in curves]
    (ax, first, _), *others = curves
    # The first curves before all others, for the colors that `plot_path` has.
    drawn = [
        ax.plot(
            times[records], first[records], **curve_style(ax) | {"label": run, "linestyle": "-"}
        )[0]
        for run, records in runs.items()
    ]
    for beside, values, style in others:
        for line, records in zip(drawn, runs.values(), strict=True):
            color = {"color": line.get_color()}
            beside.plot(times[records], values[records], **style | color)
    styles = [ax.plot([], **style | {"color": "0.4"})[0] for ax, _, style in curves]
    return [*styles, *drawn]


def _path_notes(surface):
    """What a random walk would explain, to compare with the names of the axes."""
    if "random_walk" not in surface.metadata or not isinstance(surface, LossTrajectory):
        return []
    first, second = surface.metadata["random_walk"]
    relation = "" if exceeds_random_walk(surface) else ", no less than here"
    return [f"a random walk's axes would hold {first:.1%} and {second:.1%}{relation}"]


def _mark(ax, points, **style):
    """Marks points, one per row, that are models."""
    for point in points:
        ax.scatter(*point, zorder=3, **MARK_STYLE | style)


def _name_models(ax, value, points):
    """Names the models of a line or plane between several, as far as they are on it."""
    names = value.metadata.get("models", [])
    if len(names) != len(value.models):
        return
    for name, position in zip(names, value.models, strict=True):
        for point in points:
            if np.array_equal(point[: len(position)], position):
                name_point(ax, name, point)


def _levels(levels, values, scale, cmap):
    """Levels to draw at, and the norm that colors them."""
    if levels is None or isinstance(levels, int):
        most = {} if levels is None else {"number": levels}
        if scale == "linear":
            levels = round_levels(values, scale, **most)
            return levels, colors.Normalize(levels[0], levels[-1])
        levels = round_levels(_bulk(values), scale, **most)
        # Below and above, Matplotlib extends the colors to these.
        levels = levels[(levels > 1e-250) & (levels < 1e250)]
        return levels, colors.LogNorm(levels[0], levels[-1])
    levels = _limits("levels", levels, scale)
    shades = colormaps.get_cmap(cmap).N
    if len(levels) >= shades:
        return levels, colors.Normalize(levels[0], levels[-1])
    # However uneven they are, each interval has a color of its own.
    return levels, colors.BoundaryNorm(levels, shades, extend="both")


def _bulk(values):
    """The finite values, less the highest, which would leave few contours for all others."""
    finite = np.concatenate([each[np.isfinite(each)] for each in values])
    return [finite[finite <= np.quantile(finite, BULK)] if finite.size else finite]


def _lightened(cmap):
    """The colormap halfway to white, so that lines and labels stand out on it."""
    shades = colormaps.get_cmap(cmap)(np.linspace(0, 1, 256))
    return colors.ListedColormap((shades + 1) / 2)


def _dress_plane(ax, surface):
    """Puts on a plane what all drawings of one share: names and ticks."""
    sides = sides_of(surface)
    if ax.name == "3d":
        # In space Matplotlib leaves no room for long names.
        ax.set(xlabel=plain("α"), ylabel=plain("β"))
    else:
        lengths, names = [letters_along(ax, axis) for axis in "xy"], surface.axis_names
        short = [re.sub(LONG_COMPONENT, r"PC \1", name) for name in names]
        if any(
            len(name) > length and name != other
            for name, other, length in zip(names, short, lengths, strict=True)
        ):
            names = short
        for axis, name, length in zip("xy", names, lengths, strict=True):
            ax.set(**{f"{axis}label": wrapped(name, length)})
        ax.set_aspect("auto" if is_strip(surface) else "equal")
        # The caller's grid would lie over the contours.
        ax.grid(visible=False)
    plane_ticks(ax, sides)


def _bare(panels):
    """Leaves nothing but surfaces, as large as there is room for."""
    for panel in panels:
        panel.set_axis_off()
        low, high = panel.get_zlim()
        panel.set_zlim(high - (high - low) * HEIGHT / (HEIGHT + FLOOR), high)
        width, depth, _ = panel.get_box_aspect()
        panel.set_box_aspect((width, depth, 0.75 * width), zoom=1.3)


def _within(points, limits, to_axis):
    """The points that lie between the limits of the height axis, in its units."""
    *position, heights = points.T
    is_within = (limits[0] <= heights) & (heights <= limits[1])
    return np.stack([*position, to_axis(heights)], axis=1)[is_within]


def _axis_name(ax, metric, scale, offset="", height=1.0):
    """The name of a metric's axis, less what its ticks leave out; `height` is its part of `ax`."""
    rest = f" + {offset[1:]}" if offset.startswith("-") else f" − {offset}" * bool(offset)
    name = value_label(metric) + rest
    length, kind = int(height * letters_along(ax, "y")), " (log scale)" * (scale == "log")
    if len(name + kind) <= length:
        return plain(name + kind)
    return "\n".join([wrapped(name, length), *filter(None, [kind.strip()])])


def _label_values(ax, metric, scale):
    """Names the axis of the values, and gives a log scale readable ticks."""
    ax.set_yscale(scale)
    ax.set_ylabel(_axis_name(ax, metric, scale), parse_math=False)
    if scale == "log":
        log_ticks(ax.yaxis)


def _limits(name, values, scale):
    """The caller's values to draw at or between, checked."""
    values = check_numbers(name, values)
    is_increasing = values.ndim == 1 and len(values) > 1 and (np.diff(values) > 0).all()
    if not is_increasing or not np.isfinite(values).all():
        raise ValueError(f"`{name}` must be increasing numbers. Received {values.tolist()}.")
    if scale == "log" and values[0] <= 0:
        raise ValueError(
            f"`{name}` must be greater than 0 on a log scale. Received {values.tolist()}."
        )
    return values


def _is_list(value):
    return isinstance(value, (list, tuple, np.ndarray))
