"""Plotting: draws what was measured on Matplotlib axes.

A `LossLine` becomes a curve, a `LossSurface` labeled contours or a surface in
space; several of them share one scale. Nothing here knows of models, and
nothing of the caller's Matplotlib settings is changed. As in seaborn, figures
made here stay open until they are closed with `plt.close`.
"""

import io
import textwrap
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import animation, colormaps, colors, mathtext, ticker, tri
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from losslandscape.checks import check_choice

SCALES = ("linear", "log")
# The width of a column in most two-column papers, in inches, and a height that suits it.
PANEL_SIZE = (3.5, 2.8)
PATH_STYLE = {"marker": ".", "color": "black", "linewidth": 1, "markersize": 4}
CENTER_STYLE = {"marker": "o", "c": "tab:red", "edgecolors": "white", "linewidths": 0.8, "s": 32}
# A landscape is a bowl, an accuracy a hill: the middle is free at the top or at the bottom.
LEGEND_PLACES = (
    "upper center",
    "lower center",
    "upper left",
    "upper right",
    "lower left",
    "lower right",
)
ROUND_STEPS = [1, 2, 2.5, 5, 10]
# Characters that fit beside an axis.
LINE_LENGTH = 30
# Beyond this ratio of its sides, a plane drawn to scale would be a strip that nobody can read.
LONGEST_STRIP = 4
# Unicode and special characters that LaTeX does not take as they are.
TEX = str.maketrans(
    {
        "α": r"$\alpha$",
        "β": r"$\beta$",
        "λ": r"$\lambda$",
        "±": r"$\pm$",
        "≤": r"$\leq$",
        "|": r"$|$",
        "…": r"\dots{}",
        "\\": r"\textbackslash{}",
        "^": r"\^{}",
        "~": r"\~{}",
        **{character: f"\\{character}" for character in "_%#&${}"},
    }
)
# Settings of the caller such as `np.seterr(all="raise")` would stop Matplotlib.
_tolerant = np.errstate(all="ignore")


@_tolerant
def plot_line(lines, ax=None, *, labels=None, metric="loss", scale="linear"):
    """Draws losses along directions as curves.

    The model's own point is marked at α = 0. Where a line holds several
    directions, the curve is their mean and the band one standard deviation to
    both sides (on a log scale, both of the logarithm). Points that are not
    finite, or not positive on a log scale, are left out of both, and a note
    counts them. Legend and note are put where no curve is; if need be, the axis
    goes on above the curves.

    Args:
        lines: A `LossLine`, or a list of them to compare on the same axes.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        labels: One name per line for the legend; a string for a single line.
            Defaults to `None`.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: `"linear"` (the default) or `"log"`, for the values.

    Returns:
        The Matplotlib axes.

    Raises:
        ValueError: If there are not as many labels as lines, or `metric` or
            `scale` is unknown.

    Example:

    >>> lines = [small_batch_line, large_batch_line]
    >>> ax = plot_line(lines, labels=("128", "2048"), metric="data_loss")
    """
    lines = _as_list(lines)
    labels = _check_labels(labels, lines)
    values = [drawable_values(line, metric, scale) for line in lines]
    (ax,) = _axes(ax)
    for line, curves, label in zip(lines, values, labels, strict=True):
        mean = _draw_curve(ax, line, curves, label, scale)
        _mark(ax, model_points(line, mean, metric, scale))
        # Also where the curve itself ends earlier.
        ax.update_datalim([(line.alphas[0], 0), (line.alphas[-1], 0)], updatey=False)
    ax.set(xlabel=_plain("α"))
    ax.margins(x=0)
    _label_values(ax, metric, scale)
    note = _annotate(ax, point_notes(lines, values, scale))
    legend = _draw_legend(ax, labels, values)
    _keep_clear(ax, note, legend)
    return ax


@_tolerant
def plot_levels(
    surfaces, ax=None, *, labels=None, metric="loss", scale="linear", levels=None, cmap="viridis"
):
    """Draws surfaces as labeled contour lines over a light filled contour.

    The model's own point is marked at the origin. Several surfaces are drawn
    side by side with the same levels and colors. Points that are not finite, or
    not positive on a log scale, are holes, and a note counts them; those that a
    checkpoint has not measured yet are interpolated, and a note says "preview".
    Both axes have the same unit, unless one is more than four times as long.

    Args:
        surfaces: A `LossSurface`, or a list of them to compare.
        ax: Matplotlib axes to draw on, a list of them for a list of surfaces.
            `None` (the default) makes a figure.
        labels: One title per surface. Defaults to `None`.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: `"linear"` (the default), or `"log"` for levels in equal ratios,
            fit for losses that span decades.
        levels: Increasing values to draw contours at. `None` (the default)
            chooses round ones.
        cmap: Matplotlib colormap. Defaults to the perceptually uniform
            `"viridis"`.

    Returns:
        The Matplotlib axes, a list of them for a list of surfaces.

    Raises:
        ValueError: If there are not as many labels or axes as surfaces, or
            `metric` or `scale` is unknown.

    Example:

    >>> ax = plot_levels(LossSurface.load("resnet56.h5"), scale="log")
    >>> axes = plot_levels([resnet, vgg], labels=("ResNet-56", "VGG-like 56"), scale="log")
    """
    drawn, labels = _as_list(surfaces), _check_labels(labels, _as_list(surfaces))
    values = [drawable_values(surface, metric, scale) for surface in drawn]
    levels = _round_levels(values, scale) if levels is None else _limits("levels", levels, scale)
    style = {"levels": levels, "norm": _norm(levels[0], levels[-1], scale)}
    names = dict(zip(levels, _short_names(levels), strict=True))
    light = _lightened(cmap)
    axes = _axes(ax, len(drawn))
    contours = []
    for panel, surface, heights, label in zip(axes, drawn, values, labels, strict=True):
        grid = (surface.alphas, surface.betas, np.ma.masked_invalid(heights))
        filled = panel.contourf(*grid, cmap=light, extend="both", **style)
        lines = panel.contour(*grid, cmap=cmap, linewidths=1, **style)
        panel.clabel(lines, fontsize="x-small", fmt=names, colors="0.15")
        _dress_plane(panel, surface, heights, metric, scale, label=label)
        contours.append((filled, lines))
    filled, lines = contours[0]
    size = _bar_size(drawn)
    shown = levels[:: -(-len(levels) // round(12 * size["shrink"]))]
    for bar in _color_bars(filled, axes, **size):
        bar.set_label(_axis_name(metric, scale), parse_math=False)
        bar.add_lines(lines)
        bar.set_ticks(shown, labels=[names[level] for level in shown])
    return axes if _is_list(surfaces) else axes[0]


@_tolerant
def plot_surface(
    surfaces, ax=None, *, labels=None, metric="loss", scale="linear", limits=None, cmap="viridis"
):
    """Draws surfaces in space.

    Each face has the color of its own height, as the color bar has it: no light
    falls on it, lines along the axes show the relief. The model's own point is
    marked above the origin, and other models where they lie on the surface.
    Several surfaces are drawn side by side with the same height axis and colors.
    Points that are not finite, or not positive on a log scale, are holes, and a
    note counts them; those that a checkpoint has not measured yet are
    interpolated, and a note says "preview".

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

    Returns:
        The Matplotlib axes, a list of them for a list of surfaces.

    Raises:
        ValueError: If there are not as many labels or axes as surfaces, `ax` is
            not 3d, or `metric` or `scale` is unknown.

    Example:

    >>> ax = plot_surface(LossSurface.load("resnet56.h5"), scale="log")
    >>> ax.view_init(elev=20, azim=45)
    """
    drawn, labels = _as_list(surfaces), _check_labels(labels, _as_list(surfaces))
    values = [drawable_values(surface, metric, scale) for surface in drawn]
    limits = _finite_limits(values) if limits is None else _limits("limits", limits, scale)
    # 3d axes know no log scale, so the logarithm itself is drawn and the ticks are relabeled.
    to_axis = np.log10 if scale == "log" else np.asarray
    low, high = to_axis(limits)
    ticks = _round_levels([limits], scale, number=6)
    ticks = {"ticks": to_axis(ticks), "labels": _short_names(ticks)}
    mapped = ScalarMappable(colors.Normalize(low, high), colormaps.get_cmap(cmap))
    axes = _axes(ax, len(drawn), "3d")
    for panel, surface, heights, label in zip(axes, drawn, values, labels, strict=True):
        _draw_faces(panel, surface, to_axis(heights), mapped)
        # Else the surface would hide the model's own point at its bottom.
        panel.computed_zorder = False
        panel.set(zlim=(low, high))
        _label_heights(panel, ticks, _axis_name(metric, scale))
        _dress_plane(panel, surface, heights, metric, scale, label=label)
    for bar in _color_bars(mapped, axes, shrink=0.6, pad=0.2):
        bar.set_ticks(**ticks)
    return axes if _is_list(surfaces) else axes[0]


@_tolerant
def plot_path(trajectory, ax=None, *, metric="loss", scale="linear", levels=None, cmap="viridis"):
    """Draws the path of training over the contours of its plane.

    The axes are named after the share of the path's variance along them. Where
    the path is straight, the second one is a random direction.

    Args:
        trajectory: A `LossTrajectory`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: As in `plot_levels`.
        levels: As in `plot_levels`.
        cmap: As in `plot_levels`.

    Returns:
        The Matplotlib axes.

    Raises:
        ValueError: If `metric` or `scale` is unknown.

    Example:

    >>> plot_path(LossTrajectory.load("training.h5"), scale="log")

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), figure 9.
    """
    ax = plot_levels(trajectory, ax, metric=metric, scale=scale, levels=levels, cmap=cmap)
    ax.plot(*trajectory.path.T, **PATH_STYLE)
    return ax


@_tolerant
def plot_path_fidelity(trajectory, ax=None, *, metric="loss", scale="linear"):
    """Draws how far the picture of a path can be trusted.

    For each record the value at the recorded weights beside the one on the
    plane, where the path seems to be, and how far off the plane the record is.

    Args:
        trajectory: A `LossTrajectory`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: `"linear"` (the default) or `"log"`, for the values.

    Returns:
        The Matplotlib axes of the values; those of the distance share their
        records.

    Raises:
        ValueError: If `metric` or `scale` is unknown.
    """
    drawable_values(trajectory, metric, scale)
    (ax,) = _axes(ax)
    records = np.arange(len(trajectory.path))
    at_records, on_plane = (
        _on_scale(values[metric], scale)
        for values in (trajectory.true_values, trajectory.plane_values)
    )
    (true,) = ax.plot(records, at_records, label="at the recorded weights")
    (seen,) = ax.plot(records, on_plane, "--", label="on the plane")
    beside = ax.twinx()
    off_plane = "distance off the plane"
    (distance,) = beside.plot(records, trajectory.distances, ":", color="0.4", label=off_plane)
    beside.set_ylabel(off_plane)
    beside.set_ylim(bottom=0)
    ax.set(xlabel="record")
    ax.margins(x=0)
    _label_values(ax, metric, scale)
    # Above the axes, since the curves may be anywhere.
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    ax.legend(handles=[true, seen, distance], frameon=False, fontsize="small", **place)
    return ax


@_tolerant
def animate_path(
    trajectory, path, *, metric="loss", scale="linear", levels=None, cmap="viridis", fps=10
):
    """Writes a film of the path as training goes on.

    Args:
        trajectory: A `LossTrajectory`.
        path: Where to write: `.gif` by Pillow, others such as `.mp4` by ffmpeg.
        metric: As in `plot_path`.
        scale: As in `plot_path`.
        levels: As in `plot_path`.
        cmap: As in `plot_path`.
        fps: Records per second. Defaults to 10.

    Raises:
        ValueError: If `metric` or `scale` is unknown, or if ffmpeg is needed
            and not installed.
    """
    path = Path(path)
    if path.suffix != ".gif" and not animation.writers.is_available("ffmpeg"):
        raise ValueError(
            f"`path` must end in .gif where ffmpeg is not installed. Received {str(path)!r}."
        )
    ax = plot_path(trajectory, metric=metric, scale=scale, levels=levels, cmap=cmap)
    (line,) = ax.lines

    def draw(number):
        line.set_data(*trajectory.path[: number + 1].T)
        return [line]

    # A layout made anew for each frame would make the picture tremble.
    ax.figure.draw_without_rendering()
    ax.figure.set_layout_engine("none")
    film = animation.FuncAnimation(ax.figure, draw, frames=len(trajectory.path))
    film.save(path, writer="pillow" if path.suffix == ".gif" else "ffmpeg", fps=fps, dpi=150)
    plt.close(ax.figure)


@_tolerant
def plot_spectrum(spectrum, ax=None, *, width=None):
    """Draws the density of a Hessian's eigenvalues, on a log scale.

    Args:
        spectrum: A `Spectrum`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        width: Standard deviation of the normal curve that each eigenvalue is
            drawn as. `None` (the default) takes 1 % of their range.

    Returns:
        The Matplotlib axes.

    Raises:
        ValueError: If `width` is not positive.

    Example:

    >>> plot_spectrum(hessian_spectrum(model, x_train, y_train, seed=0))
    """
    low, high = spectrum.eigenvalues.min(), spectrum.eigenvalues.max()
    width = width or (high - low or abs(high) or 1.0) / 100
    if not width > 0:
        raise ValueError(f"`width` must be greater than 0. Received {width}.")
    positions = np.linspace(low - 4 * width, high + 4 * width, 2000)
    offsets = (positions - spectrum.eigenvalues[..., np.newaxis]) / width
    curves = np.exp(-(offsets**2) / 2) / (width * np.sqrt(2 * np.pi))
    density = np.einsum("ps,pst->t", spectrum.shares, curves) / len(spectrum.shares)
    (ax,) = _axes(ax)
    ax.plot(positions, density)
    # Below one parameter's share the tails of the normal curves say nothing.
    floor = density.max() / (10 * spectrum.metadata["parameters"])
    ax.set(xlabel="eigenvalue of the Hessian", ylabel="density (log scale)", yscale="log")
    ax.set_ylim(floor, 3 * density.max())
    return ax


@_tolerant
def plot_convexity(surface, ax=None, *, cmap="viridis"):
    """Draws where a loss is convex: the ratio |λmin / λmax| of its Hessian as a heat map.

    Dark means convex, bright that the loss curves downwards half as much as
    upwards, or more. Marks and notes are those of `plot_levels`.

    Args:
        surface: A `LossSurface` from `evaluate_convexity`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a figure.
        cmap: Matplotlib colormap. Defaults to `"viridis"`.

    Returns:
        The Matplotlib axes.

    Raises:
        ValueError: If the surface has no `"convexity"`.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 6, figure 7.
    """
    ratios = drawable_values(surface, "convexity", "linear")
    (ax,) = _axes(ax)
    # The scale of the paper's figure, for all, or two networks could not be compared.
    grid = (surface.alphas, surface.betas, np.ma.masked_invalid(ratios))
    cells = ax.pcolormesh(*grid, vmin=0, vmax=0.5, cmap=cmap)
    _dress_plane(ax, surface, ratios, "convexity", "linear")
    (bar,) = _color_bars(cells, [ax], extend="max", **_bar_size([surface]))
    bar.set_label(_plain("|λmin / λmax|"))
    return ax


@_tolerant
def plot_metrics(lines, *, labels=None, scale="linear"):
    """Draws the loss and each metric of the same lines, one above the other.

    Args:
        lines: A list of `LossLine`.
        labels: As in `plot_line`, for the legend of the loss.
        scale: `"linear"` (the default) or `"log"`, for the loss.

    Returns:
        Dict of Matplotlib axes by metric; `"data_loss"` is left out.
    """
    metrics = [name for name in lines[0].values if name != "data_loss"]
    width, height = PANEL_SIZE
    size = width, height * (1 + 0.75 * (len(metrics) - 1))
    layout = {"sharex": True, "squeeze": False, "figsize": size, "layout": "constrained"}
    _, axes = plt.subplots(len(metrics), **layout)
    drawn = dict(zip(metrics, axes[:, 0], strict=True))
    for metric, ax in drawn.items():
        style = {"labels": labels, "scale": scale} if metric == "loss" else {}
        plot_line(lines, ax, metric=metric, **style)
        ax.label_outer()
    return drawn


def value_label(metric, scale="linear"):
    """The name of a metric's axis."""
    name = metric.replace("_", " ")
    return f"{name} (log scale)" if scale == "log" else name


def drawable_values(value, metric, scale):
    """The values of a metric with NaN where the scale has no place for them."""
    check_choice("metric", metric, tuple(value.values))
    check_choice("scale", scale, SCALES)
    return _on_scale(_filled(value, value.values[metric]), scale)


def point_notes(measured, values, scale):
    """What a drawing does not show: points not measured yet, and those that cannot be drawn."""
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
        notes.append(f"{holes} of {number} points {reason}{_where(measured, are_holes)}")
    return notes


def model_points(value, heights, metric, scale):
    """Coordinates and height of each model that a drawing has a place for, one per row."""
    points = []
    for position in _models_within(value):
        # The grid may miss the center, but that was measured.
        height = _between(value, heights, position) if position.any() else value.center[metric]
        if np.isfinite(_on_scale(height, scale)):
            points.append([*position, height])
    return np.reshape(points, (-1, len(value.axes) + 1))


def check_axes(axes, projection="flat"):
    """Refuses what are no axes, and those in space for a flat drawing or the reverse."""
    for ax in axes:
        if not isinstance(ax, Axes):
            raise TypeError(f"`ax` must be Matplotlib axes. Received {type(ax).__name__}.")
    if any((ax.name == "3d") != (projection == "3d") for ax in axes):
        made = 'add_subplot(projection="3d")' if projection == "3d" else "add_subplot()"
        raise ValueError(
            f"`ax` must be {projection} axes, such as `plt.figure().{made}`. Received "
            f"{[type(ax).__name__ for ax in axes]}."
        )


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
            f"{str(path)!r}."
        )
    trial.text(0, 0, _plain("α"))
    try:
        # Whether there is a TeX or an encoder can only be tried.
        trial.canvas.print_figure(io.BytesIO(), format=suffix)
    except Exception as error:
        raise ValueError(
            f"Matplotlib cannot write .{suffix} figures here, so `path` {str(path)!r} must end in "
            "another suffix, or its settings such as `text.usetex` be changed. It says: "
            f"{type(error).__name__}: {error}"
        ) from error


def _axes(ax, number=1, projection="flat"):
    """The caller's axes, or those of a new figure."""
    if ax is None:
        return _panels(number, projection)
    axes = list(np.ravel(np.array(ax, dtype=object)))
    if len(axes) != number:
        raise ValueError(
            f"`ax` must be one per surface. Received {len(axes)} axes for {number} surfaces."
        )
    check_axes(axes, projection)
    return axes


def _panels(number, projection):
    width, height = PANEL_SIZE
    figure = plt.figure(figsize=(width * number, height), layout="constrained")
    style = {"projection": "3d"} if projection == "3d" else {}
    return [figure.add_subplot(1, number, index + 1, **style) for index in range(number)]


def _draw_curve(ax, line, curves, label, scale):
    """Draws one direction, or the mean and band of several; returns what the curve shows."""
    if str(label).startswith("_"):
        # Matplotlib would leave it out of the legend.
        label = f" {label}"
    if len(curves) == 1:
        ax.plot(line.alphas, curves[0], label=label)
        return curves[0]
    to_axis, from_axis = (np.log, np.exp) if scale == "log" else (np.asarray, np.asarray)
    # Of masked arrays, since NumPy warns where all of a column is NaN.
    finite = np.ma.masked_invalid(to_axis(curves))
    mean = finite.mean(axis=0).filled(np.nan)
    deviation = finite.std(axis=0, ddof=1).filled(np.nan)
    (curve,) = ax.plot(line.alphas, from_axis(mean), label=label)
    if np.isfinite(deviation).any():
        band = from_axis(mean - deviation), from_axis(mean + deviation)
        ax.fill_between(line.alphas, *band, color=curve.get_color(), alpha=0.25, linewidth=0)
    return from_axis(mean)


def _mark(ax, points):
    """Marks points, one per row, that are models."""
    style = CENTER_STYLE | ({"depthshade": False} if ax.name == "3d" else {})
    for point in points:
        ax.scatter(*point, zorder=3, **style)


def _draw_legend(ax, labels, values):
    numbers = sorted({len(curves) for curves in values if len(curves) > 1})
    title = f"mean ± s.d. of {' or '.join(map(str, numbers))} directions" if numbers else None
    if title is None and all(label is None for label in labels):
        return None
    handles = ax.get_legend_handles_labels()[0]
    small = {"fontsize": "small", "title_fontsize": "small"}
    title = title and _plain(title)
    legend = ax.legend(handles=handles, title=title, loc=LEGEND_PLACES[0], frameon=False, **small)
    for text in legend.get_texts():
        _take_literally(text)
    return legend


def _keep_clear(ax, note, legend):
    """Keeps the note and the legend off the curves and each other."""
    taken = []
    if note is not None:
        if _is_over_curves(ax, _roomy(note)):
            _make_room(ax, _roomy(note).height)
        taken.append(_roomy(note))
    if legend is None:
        return
    for place in LEGEND_PLACES:
        legend.set_loc(place)
        box = _roomy(legend)
        if not _is_over_curves(ax, box) and not any(map(box.overlaps, taken)):
            return
    # Nowhere is room: make some above the curves, below the note.
    below = 1 - sum(box.height for box in taken) / ax.bbox.height
    legend.set_loc(LEGEND_PLACES[0])
    legend.set_bbox_to_anchor((0, 0, 1, below), transform=ax.transAxes)
    _make_room(ax, ax.bbox.y1 - _roomy(legend).y0)


def _roomy(artist):
    """The place of an artist and some more, since a layout may still move the axes a little."""
    return artist.get_window_extent().expanded(1.05, 1.25)


def _is_over_curves(ax, box):
    curves = [line.get_transform().transform_path(line.get_path()) for line in ax.lines]
    bands = [
        collection.get_transform().transform_path(path)
        for collection in ax.collections
        if isinstance(collection, PolyCollection)
        for path in collection.get_paths()
    ]
    return any(curve.intersects_bbox(box, filled=False) for curve in curves) or any(
        band.intersects_bbox(box, filled=True) for band in bands
    )


def _make_room(ax, height):
    """Moves the curves down by raising the upper end of the axis, height in pixels."""
    if not ax.get_autoscaley_on():
        # The caller has chosen the limits.
        return
    transform = ax.yaxis.get_transform()
    low, high = transform.transform(ax.get_ylim())
    share = min(height / ax.bbox.height, 0.6)
    top = transform.inverted().transform(low + (high - low) / (1 - share))
    # The axis still adapts to what the caller draws later.
    ax.set_ylim(top=top, auto=None)


def _draw_faces(ax, surface, heights, mapped):
    """Draws each cell of the grid between the limits in the color of its height."""
    low, high = mapped.norm.vmin, mapped.norm.vmax
    faces = _faces(surface.alphas, surface.betas, heights, low, high)
    if faces:
        shades = _shaded(mapped.norm([face[:, 2].mean() for face in faces]), mapped.cmap)
        # The finer the grid, the lighter its lines, or they would darken the whole surface.
        darkness = 0.35 * min(1, 20 / max(heights.shape))
        style = {"facecolors": shades, "edgecolors": shades * (1 - darkness), "linewidths": 0.3}
        ax.add_collection3d(Poly3DCollection(faces, **style))
    ax.auto_scale_xyz(surface.alphas[[0, -1]], surface.betas[[0, -1]], [low, high])
    # Else it would cover what the panel beside writes on its height axis.
    ax.patch.set_visible(False)


def _label_heights(ax, ticks, name):
    ax.set_zticks(**ticks)
    # Matplotlib leaves room for short numbers and one line only.
    excess = max(0, max(map(len, ticks["labels"])) - 4)
    ax.tick_params(axis="z", pad=mpl.rcParams["ytick.major.pad"] + 2.5 * excess)
    ax.set_zlabel(name, labelpad=4 + 5 * excess + 8 * name.count("\n"), parse_math=False)


def _faces(alphas, betas, heights, low, high):
    """Corners of the grid's cells, cut where they leave the limits."""
    grid = np.dstack([*np.meshgrid(alphas, betas), heights])
    corners = [grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]]
    cells = np.stack(corners, axis=2).reshape(-1, 4, 3)
    cells = cells[np.isfinite(cells).all(axis=(1, 2))]
    is_whole = ((cells[..., 2] >= low) & (cells[..., 2] <= high)).all(axis=1)
    faces = [
        cell if whole else _cut(_cut(cell, low, 1), high, -1)
        for cell, whole in zip(cells, is_whole, strict=True)
    ]
    return [face for face in faces if len(face) > 2]


def _cut(face, limit, side):
    """What of a face lies above a height (`side` is 1) or below it (-1)."""
    is_kept = side * (face[:, 2] - limit) >= 0
    kept = []
    for start, end, start_is_kept, end_is_kept in zip(
        face, np.roll(face, -1, axis=0), is_kept, np.roll(is_kept, -1), strict=True
    ):
        if start_is_kept:
            kept.append(start)
        if start_is_kept != end_is_kept:
            # A new corner where the edge crosses the limit.
            share = (limit - start[2]) / (end[2] - start[2])
            kept.append([*(start + share * (end - start))[:2], limit])
    return np.array(kept).reshape(-1, 3)


def _dress_plane(ax, surface, values, metric, scale, *, label=None):
    """Puts on a plane what all drawings of one share: names, ticks, marks, notes and title."""
    # In space Matplotlib leaves no room for long names.
    names = ("α", "β") if ax.name == "3d" else surface.axis_names
    ax.set(xlabel=_plain(names[0]), ylabel=_plain(names[1]))
    sides = _sides(surface)
    for axis, side in zip((ax.xaxis, ax.yaxis), sides, strict=True):
        # As many as there is room for, the same number where the sides are as long.
        axis.set_major_locator(ticker.MaxNLocator(max(2, round(5 * side)), steps=ROUND_STEPS))
    if ax.name == "3d":
        # Matplotlib's own box is 4 by 4 by 3.
        ax.set_box_aspect((*(4 * sides), 3))
        _mark(ax, _points_in_box(ax, model_points(surface, values, metric, scale), scale))
    else:
        ax.set_aspect("auto" if _is_strip(surface) else "equal")
        _mark(ax, _models_within(surface))
    _annotate(ax, point_notes([surface], [values], scale))
    if label is not None:
        _take_literally(ax.set_title(label, fontsize="medium"))


def _points_in_box(ax, points, scale):
    """The points that lie between the limits of the height axis, in its units."""
    *position, heights = points.T
    heights = np.log10(heights) if scale == "log" else heights
    low, high = ax.get_zlim()
    return np.stack([*position, heights], axis=1)[(low <= heights) & (heights <= high)]


def _sides(surface):
    """How long the sides of a plane are drawn, the longer one as 1: both have the same unit."""
    spans = np.array([np.ptp(surface.alphas), np.ptp(surface.betas)])
    return np.ones(2) if _is_strip(surface) else spans / spans.max()


def _is_strip(surface):
    """Whether a plane is so much longer than wide that it cannot be drawn to scale."""
    spans = np.ptp(surface.alphas), np.ptp(surface.betas)
    return max(spans) > LONGEST_STRIP * min(spans)


def _bar_size(surfaces):
    """A color bar as high as the planes beside it, and as wide as any."""
    width, height = np.max([_sides(surface) for surface in surfaces], axis=0)
    share = min(1, height / width)
    return {"shrink": share, "aspect": 20 * share}


def _color_bars(mappable, axes, **style):
    """One bar for all axes, or one each where `tight_layout` could not move a common one."""
    engine = axes[0].figure.get_layout_engine()
    has_common = engine is not None and not engine.colorbar_gridspec
    bars = [
        part[0].figure.colorbar(mappable, ax=part if has_common else part[0], **style)
        for part in ([axes] if has_common else [[ax] for ax in axes])
    ]
    for bar in bars:
        # Clean in vector formats, too: no pixels, and no white lines between colors.
        bar.solids.set(rasterized=False, edgecolor="face")
    return bars


def _on_scale(values, scale):
    values = np.asarray(values, dtype=float)
    return np.where(np.isfinite(values) & ((values > 0) | (scale == "linear")), values, np.nan)


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


def _annotate(ax, notes):
    if not notes:
        return None
    return ax.annotate(
        _plain("\n".join(notes)),
        (0.02, 0.98),
        xycoords="axes fraction",
        verticalalignment="top",
        fontsize="x-small",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )


def _finite_limits(values):
    finite = np.concatenate([array[np.isfinite(array)] for array in values])
    if finite.size == 0:
        return np.array([1.0, 10.0])
    low, high = finite.min(), finite.max()
    # A flat surface still needs an axis to lie on; what differs by rounding only is flat.
    if high - low <= 1e-13 * max(abs(low), abs(high)):
        low, high = low - abs(low) / 10, high + abs(high) / 10 or 1.0
    return np.array([low, high])


def _round_levels(values, scale, number=11):
    """At most `number` round values inside the limits, in equal ratios on a log scale."""
    low, high = _finite_limits(values)
    if scale == "linear" or high < 5 * low:
        levels = ticker.MaxNLocator(number, steps=ROUND_STEPS).tick_values(low, high)
        return levels[(levels >= low) & (levels <= high)]
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.floor(np.log10(high)) + 1)
    for parts in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        levels = np.outer(decades, parts).ravel()
        levels = levels[(levels >= low) & (levels <= high)]
        if len(levels) <= number:
            return levels
    return levels[:: -(-len(levels) // number)]


def _norm(low, high, scale):
    return (colors.LogNorm if scale == "log" else colors.Normalize)(low, high)


def _lightened(cmap):
    """The colormap halfway to white, so that lines and labels stand out on it."""
    shades = colormaps.get_cmap(cmap)(np.linspace(0, 1, 256))
    return colors.ListedColormap((shades + 1) / 2)


def _shaded(heights, cmap):
    """Colors of heights from 0 to 1: the color bar's own, light would make other values of them."""
    return colormaps.get_cmap(cmap)(heights)[..., :3]


def _short_names(values):
    """As many digits as tell neighbors apart, at least three; 1e6 instead of 1e+06."""
    gaps = np.diff(values) if len(values) > 1 else np.abs(values)
    for digits in range(3, 18):
        names = [f"{value:.{digits}g}" for value in values]
        # A name may be off by a small part of the way to its neighbor.
        if (np.abs(np.array(names, dtype=float) - values) <= 0.05 * gaps.min()).all():
            break
    return [name.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-") for name in names]


class _LogTicks(ticker.LogLocator):
    """Two to eight round ticks, however short or long a log axis is; Matplotlib's may have none."""

    @_tolerant
    def tick_values(self, vmin, vmax):
        return _round_levels([np.array([vmin, vmax])], "log", number=8)


class _ShortNames(ticker.Formatter):
    """Names ticks as those of all other axes are named."""

    def __call__(self, x, pos=None):  # noqa: ARG002, the signature is Matplotlib's
        return _short_names([x])[0]

    def format_ticks(self, values):
        return _short_names(values)


def _take_literally(text):
    """Lets the caller's label mean its letters where it is no mathtext, such as "$x_$"."""
    try:
        mathtext.MathTextParser("path").parse(text.get_text())
    except ValueError:
        text.set_parse_math(False)


def _plain(text):
    """A text that means just its letters, for LaTeX, too, where the caller's settings use it."""
    return text.translate(TEX) if mpl.rcParams["text.usetex"] else text


def _axis_name(metric, scale):
    """The name of a metric's axis, on at most three lines."""
    name = textwrap.wrap(value_label(metric, scale), LINE_LENGTH, max_lines=3, placeholder="…")
    return _plain("\n".join(name))


def _label_values(ax, metric, scale):
    """Names the axis of the values, and gives a log scale readable ticks."""
    ax.set_yscale(scale)
    ax.set_ylabel(_axis_name(metric, scale), parse_math=False)
    if scale == "log":
        ax.yaxis.set_major_locator(_LogTicks())
        ax.yaxis.set_major_formatter(_ShortNames())
        ax.yaxis.set_minor_formatter(ticker.NullFormatter())


def _models_within(value):
    """The coordinates of the models that lie within the axes, one per row."""
    low, high = ([axis[end] for axis in value.axes] for end in (0, -1))
    return value.models[((low <= value.models) & (value.models <= high)).all(axis=1)]


def _between(value, values, position):
    """The value at a position, interpolated linearly between points of the grid."""
    # Alpha runs along the last dimension, beta along the one that is last then.
    for axis, coordinate in zip(value.axes, position, strict=True):
        values = np.apply_along_axis(partial(np.interp, coordinate, axis), -1, values)
    return values


def _check_labels(labels, values):
    labels = [labels] if isinstance(labels, str) else labels
    if labels is None:
        return [None] * len(values)
    if len(labels) != len(values):
        raise ValueError(
            f"`labels` must be one per value drawn. Received {len(labels)} labels for "
            f"{len(values)} values."
        )
    return list(labels)


def _limits(name, values, scale):
    """The caller's values to draw at or between, checked."""
    values = np.asarray(values, dtype=float)
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


def _as_list(value):
    return list(value) if _is_list(value) else [value]
