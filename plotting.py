"""Plotting: draws what was measured on Matplotlib axes.

A `LossLine` becomes a curve, a `LossSurface` labeled contours or a shaded
surface in space; several of them share one scale. Nothing here knows of models,
and nothing of the caller's Matplotlib settings is changed.
"""

from pathlib import Path

import numpy as np
from matplotlib import animation, colormaps, colors, ticker, tri
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable

from losslandscape.checks import check_choice

SCALES = ("linear", "log")
# The width of a column in most two-column papers, in inches, and a height that suits it.
PANEL_SIZE = (3.5, 2.8)
PATH_STYLE = {"marker": ".", "color": "black", "linewidth": 1, "markersize": 4}
CENTER_STYLE = {"marker": "o", "c": "tab:red", "edgecolors": "white", "linewidths": 0.8, "s": 32}


def plot_line(lines, ax=None, *, labels=None, metric="loss", scale="linear"):
    """Draws losses along directions as curves.

    The model's own point is marked at α = 0. Where a line holds several
    directions, the curve is their mean and the band one standard deviation to
    both sides (on a log scale, both of the logarithm). Points that are not
    finite, or not positive on a log scale, are left out, and a note counts them.

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

    >>> ax = plot_line([small_batch, large_batch], labels=("128", "2048"), metric="data_loss")
    """
    lines = _as_list(lines)
    labels = _check_labels(labels, lines)
    values = [_drawable(line, metric, scale) for line in lines]
    (ax,) = _panels(1) if ax is None else (ax,)
    for line, curves, label in zip(lines, values, labels, strict=True):
        _draw_curve(ax, line, curves, label, scale)
        _mark_models(ax, line, curves, line.center[metric])
    ax.set(xlabel="α")
    ax.margins(x=0)
    _label_values(ax, metric, scale)
    _note_holes(ax, lines, values, scale)
    _draw_legend(ax, labels, values)
    return ax


def plot_levels(
    surfaces, ax=None, *, labels=None, metric="loss", scale="linear", levels=None, cmap="viridis"
):
    """Draws surfaces as labeled contour lines over a light filled contour.

    The model's own point is marked at the origin. Several surfaces are drawn
    side by side with the same levels and colors. Points that are not finite, or
    not positive on a log scale, are holes, and a note counts them; those that a
    checkpoint has not measured yet are interpolated, and a note says "preview".

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
    values = [_drawable(surface, metric, scale) for surface in _as_list(surfaces)]
    levels = _round_levels(values, scale) if levels is None else _increasing("levels", levels)
    style = {"levels": levels, "norm": _norm(levels[0], levels[-1], scale)}

    def draw(ax, surface):
        heights = _drawable(surface, metric, scale)
        grid = (surface.alphas, surface.betas, np.ma.masked_invalid(heights))
        filled = ax.contourf(*grid, cmap=_lightened(cmap), extend="both", **style)
        lines = ax.contour(*grid, cmap=cmap, linewidths=1, **style)
        ax.clabel(lines, fontsize="x-small", fmt=_short, colors="0.15")
        ax.set(xlabel="α", ylabel="β")
        for alpha, beta in surface.metadata.get("positions", [(0, 0)]):
            if _spans(surface.alphas, alpha) and _spans(surface.betas, beta):
                ax.scatter(alpha, beta, zorder=3, **CENTER_STYLE)
        _note_holes(ax, [surface], [heights], scale)
        return filled, lines

    axes, drawn = _draw_panels(draw, surfaces, ax, labels)
    filled, lines = drawn[0]
    bar = axes[0].figure.colorbar(filled, ax=axes, label=value_label(metric, scale))
    bar.add_lines(lines)
    bar.set_ticks(levels, labels=map(_short, levels))
    return axes if _is_list(surfaces) else axes[0]


def plot_surface(
    surfaces, ax=None, *, labels=None, metric="loss", scale="linear", limits=None, cmap="viridis"
):
    """Draws surfaces shaded in space.

    The model's own point is marked above the origin. Several surfaces are drawn
    side by side with the same height axis and colors. Points that are not
    finite, or not positive on a log scale, are holes, and a note counts them;
    those that a checkpoint has not measured yet are interpolated, and a note
    says "preview".

    Args:
        surfaces: A `LossSurface`, or a list of them to compare.
        ax: Matplotlib axes with `projection="3d"` to draw on, a list of them
            for a list of surfaces. `None` (the default) makes a figure.
        labels: One title per surface. Defaults to `None`.
        metric: Which of the measured values to draw. Defaults to `"loss"`.
        scale: `"linear"` (the default) or `"log"`, for the values.
        limits: Lowest and highest value to draw; what is beyond is cut off.
            `None` (the default) takes those of the surfaces.
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
    values = [_drawable(surface, metric, scale) for surface in _as_list(surfaces)]
    # 3d axes know no log scale, so the logarithm itself is drawn and the ticks are relabeled.
    to_axis = np.log10 if scale == "log" else np.asarray
    limits = _finite_limits(values) if limits is None else _increasing("limits", limits)
    low, high = to_axis(limits)
    ticks = _round_levels([np.array(limits)], scale, number=6)
    tick_labels = [_short(tick) for tick in ticks]
    norm = colors.Normalize(low, high)

    def draw(ax, surface):
        heights = _drawable(surface, metric, scale)
        grid = np.meshgrid(surface.alphas, surface.betas)
        # Every cell is drawn, Matplotlib's own choice would skip some of large surfaces.
        strides = {"rstride": 1, "cstride": 1, "axlim_clip": True}
        edges = {"edgecolor": (0, 0, 0, 0.25), "linewidth": 0.2}
        faces = _shaded(norm(to_axis(heights)), cmap)
        ax.plot_surface(*grid, to_axis(heights), facecolors=faces, shade=False, **strides, **edges)
        center = to_axis(surface.center[metric])
        if _spans(surface.alphas, 0) and _spans(surface.betas, 0) and low <= center <= high:
            ax.scatter(0, 0, center, depthshade=False, zorder=3, **CENTER_STYLE)
        ax.set(xlabel="α", ylabel="β", zlabel=value_label(metric, scale), zlim=(low, high))
        ax.set_zticks(to_axis(ticks), labels=tick_labels)
        # Else the surface would hide the model's own point at its bottom.
        ax.computed_zorder = False
        _note_holes(ax, [surface], [heights], scale)

    axes, _ = _draw_panels(draw, surfaces, ax, labels, projection="3d")
    bar = axes[0].figure.colorbar(ScalarMappable(norm, cmap), ax=axes, shrink=0.6, pad=0.15)
    bar.set_ticks(to_axis(ticks), labels=tick_labels)
    return axes if _is_list(surfaces) else axes[0]


def plot_path(trajectory, ax=None, *, metric="loss", scale="linear", levels=None, cmap="viridis"):
    """Draws the path of training over the contours of its plane.

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
    shares = [f"{share:.1%}" for share in trajectory.explained]
    ax.set(
        xlabel=f"1st principal component ({shares[0]})",
        ylabel=f"2nd principal component ({shares[1]})",
    )
    return ax


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
    _drawable(trajectory, metric, scale)
    (ax,) = _panels(1) if ax is None else (ax,)
    records = np.arange(len(trajectory.path))
    (true,) = ax.plot(records, trajectory.true_values[metric], label="at the recorded weights")
    (seen,) = ax.plot(records, trajectory.plane_values[metric], "--", label="on the plane")
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

    film = animation.FuncAnimation(ax.figure, draw, frames=len(trajectory.path))
    film.save(path, writer="pillow" if path.suffix == ".gif" else "ffmpeg", fps=fps, dpi=150)
    plt.close(ax.figure)


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
    (ax,) = _panels(1) if ax is None else (ax,)
    ax.plot(positions, density)
    # Below one parameter's share the tails of the normal curves say nothing.
    floor = density.max() / (10 * spectrum.metadata["parameters"])
    ax.set(xlabel="eigenvalue of the Hessian", ylabel="density (log scale)", yscale="log")
    ax.set_ylim(floor, 3 * density.max())
    return ax


def plot_convexity(surface, ax=None, *, cmap="viridis"):
    """Draws where a loss is convex: the ratio |λmin / λmax| of its Hessian as a heat map.

    Dark means convex, bright that the loss curves downwards half as much as upwards, or more.

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
    ratios = np.ma.masked_invalid(_drawable(surface, "convexity", "linear"))
    (ax,) = _panels(1) if ax is None else (ax,)
    # The scale of the paper's figure, for all, or two networks could not be compared.
    cells = ax.pcolormesh(surface.alphas, surface.betas, ratios, vmin=0, vmax=0.5, cmap=cmap)
    ax.figure.colorbar(cells, ax=ax, extend="max", label="|λmin / λmax|")
    ax.scatter(0, 0, zorder=3, **CENTER_STYLE)
    ax.set(xlabel="α", ylabel="β")
    return ax


def stacked_axes(number):
    """Makes a figure with one above the other, for curves over the same coordinate."""
    width, height = PANEL_SIZE
    _, axes = plt.subplots(
        number,
        sharex=True,
        squeeze=False,
        figsize=(width, height * (1 + 0.75 * (number - 1))),
        layout="constrained",
    )
    return list(axes[:, 0])


def value_label(metric, scale="linear"):
    """The name of a metric's axis."""
    name = metric.replace("_", " ")
    return f"{name} (log scale)" if scale == "log" else name


def _draw_panels(draw, surfaces, ax, labels, projection=None):
    """Draws each surface on axes of its own; returns the axes and what `draw` did."""
    surfaces = _as_list(surfaces)
    labels = _check_labels(labels, surfaces)
    axes = _panels(len(surfaces), projection) if ax is None else _as_list(ax)
    if len(axes) != len(surfaces):
        raise ValueError(
            f"`ax` must be one per surface. Received {len(axes)} axes for {len(surfaces)} surfaces."
        )
    if projection is not None and any(panel.name != projection for panel in axes):
        raise ValueError(
            f"`ax` must be {projection} axes, such as "
            f'`plt.figure().add_subplot(projection="{projection}")`. Received '
            f"{[type(panel).__name__ for panel in axes]}."
        )
    drawn = [draw(panel, surface) for panel, surface in zip(axes, surfaces, strict=True)]
    for panel, label in zip(axes, labels, strict=True):
        if label is not None:
            panel.set_title(label, fontsize="medium")
    return axes, drawn


def _draw_curve(ax, line, curves, label, scale):
    if len(curves) == 1:
        ax.plot(line.alphas, curves[0], label=label)
        return
    to_axis, from_axis = (np.log, np.exp) if scale == "log" else (np.asarray, np.asarray)
    mean, deviation = to_axis(curves).mean(axis=0), to_axis(curves).std(axis=0, ddof=1)
    (curve,) = ax.plot(line.alphas, from_axis(mean), label=label)
    band = from_axis(mean - deviation), from_axis(mean + deviation)
    ax.fill_between(line.alphas, *band, color=curve.get_color(), alpha=0.25, linewidth=0)


def _mark_models(ax, line, curves, center):
    """Marks the model's own point, and the other's where a line leads to one."""
    for position in line.metadata.get("positions", [0]):
        # The grid may miss the center, but that was measured.
        height = center if position == 0 else np.interp(position, line.alphas, curves.mean(axis=0))
        if _spans(line.alphas, position) and np.isfinite(height):
            ax.scatter(position, height, zorder=3, **CENTER_STYLE)


def _draw_legend(ax, labels, values):
    numbers = sorted({len(curves) for curves in values if len(curves) > 1})
    title = f"mean ± s.d. of {' or '.join(map(str, numbers))} directions" if numbers else None
    if title or any(label is not None for label in labels):
        handles = ax.get_legend_handles_labels()[0]
        # A landscape is a bowl: its middle is the free place at the top.
        ax.legend(
            handles=handles,
            title=title,
            loc="upper center",
            frameon=False,
            fontsize="small",
            title_fontsize="small",
        )


def _panels(number, projection=None):
    width, height = PANEL_SIZE
    figure = plt.figure(figsize=(width * number, height), layout="constrained")
    return [
        figure.add_subplot(1, number, index + 1, projection=projection) for index in range(number)
    ]


def _drawable(value, metric, scale):
    """The values of a metric with NaN where the scale has no place for them."""
    check_choice("metric", metric, tuple(value.values))
    check_choice("scale", scale, SCALES)
    values = _filled(value, value.values[metric])
    shown = np.isfinite(values) & ((values > 0) | (scale == "linear"))
    return np.where(shown, values, np.nan)


def _filled(value, values):
    """Values of a surface, with those not measured yet interpolated between the others."""
    is_missing = _missing(value, values)
    if not is_missing.any() or not hasattr(value, "betas"):
        return values
    alphas, betas = np.meshgrid(value.alphas, value.betas)
    is_known = ~is_missing & np.isfinite(values)
    if min(len(np.unique(axis[is_known])) for axis in (alphas, betas)) < 2:
        return values
    mesh = tri.Triangulation(alphas[is_known], betas[is_known])
    between = tri.LinearTriInterpolator(mesh, values[is_known])(alphas, betas)
    return np.where(is_missing, between.filled(np.nan), values)


def _missing(value, values):
    """Which of a checkpoint's values are not measured yet."""
    is_missing = np.zeros(values.size, bool)
    positions = np.array(value.metadata.get("missing", []), int)
    # The points of a path come after those of the surface.
    is_missing[positions[positions < values.size]] = True
    return is_missing.reshape(values.shape)


def _note_holes(ax, measured, values, scale):
    """Notes how many points are not measured yet, and how many cannot be drawn."""
    is_missing = np.concatenate(
        [_missing(*pair).ravel() for pair in zip(measured, values, strict=True)]
    )
    holes = np.isnan(np.concatenate([array.ravel() for array in values])) & ~is_missing
    notes = []
    if is_missing.any():
        known = is_missing.size - np.count_nonzero(is_missing)
        notes.append(f"preview: {known} of {is_missing.size} points")
    if holes.any():
        reason = "not finite" if scale == "linear" else "not finite or ≤ 0"
        notes.append(f"{np.count_nonzero(holes)} of {holes.size} points {reason}")
    if not notes:
        return
    ax.annotate(
        "\n".join(notes),
        (0.02, 0.98),
        xycoords="axes fraction",
        verticalalignment="top",
        fontsize="x-small",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )


def _finite_limits(values):
    finite = np.concatenate([array[np.isfinite(array)] for array in values])
    if finite.size == 0:
        return 1.0, 10.0
    low, high = finite.min(), finite.max()
    # A flat surface still needs an axis to lie on.
    return (low, high) if low < high else (low - abs(low) / 10, high + abs(high) / 10 or 1.0)


def _round_levels(values, scale, number=11):
    """At most `number` round values inside the limits, in equal ratios on a log scale."""
    low, high = _finite_limits(values)
    if scale == "linear" or high < 5 * low:
        levels = ticker.MaxNLocator(number, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
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
    """Colors of a surface of heights from 0 to 1, lit from the upper left."""
    flat = colormaps.get_cmap(cmap)(heights)[..., :3]
    rows, columns = heights.shape
    light = colors.LightSource(azdeg=225, altdeg=50)
    # Holes are not drawn, but would spread to their neighbors' slopes.
    filled = np.where(np.isnan(heights), 1, heights)
    return light.shade_rgb(flat, filled, blend_mode="soft", dx=1 / columns, dy=1 / rows)


def _short(value):
    """Three digits at most, 1e6 instead of 1e+06."""
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def _label_values(ax, metric, scale):
    """Names the axis of the values, and gives a log scale readable ticks."""
    ax.set(ylabel=value_label(metric, scale), yscale=scale)
    if scale == "log":
        ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda value, _: _short(value))
        ax.yaxis.set_minor_formatter(ticker.NullFormatter())


def _spans(coordinates, position):
    return coordinates[0] <= position <= coordinates[-1]


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


def _increasing(name, values):
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not (np.diff(values) > 0).all():
        raise ValueError(f"`{name}` must be increasing numbers. Received {values.tolist()}.")
    return values


def _is_list(value):
    return isinstance(value, (list, tuple, np.ndarray))


def _as_list(value):
    return list(value) if _is_list(value) else [value]
