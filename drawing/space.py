"""Space: a surface in three dimensions, and the view from which it can be read."""

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.transforms import Bbox
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

# Of the surface in its box, and how far the floor is below: as wide as Matplotlib's own box.
WIDTH, HEIGHT, FLOOR = 4, 2.4, 1.2
ZOOM = 1.05
# Grids of at least this many points per axis look like a surface without edges.
FINE = 41
# Where to look from, in degrees: the first is Matplotlib's own, and wins where all are as good.
# From all of them the height axis is at the right, where the color bar is.
AZIMUTHS = (-60, -30, 120, 150)
LOWEST, HIGHEST = 28, 52
# Degrees above the angle from which the lowest point just comes into sight.
CLEARANCE = 8
# How far out a line of sight is followed, and in how many steps.
STEPS = np.linspace(0.02, 1.5, 75)
# A panel that moves by less, as a part of its figure, has found its place.
STILL = 3e-3


def draw_faces(ax, grid, mapped):
    """Draws each cell of a grid between the limits in the color of its height.

    Args:
        ax: Matplotlib axes in space.
        grid: Alphas, betas, and heights of shape `(m, n)` in units of the axis; NaN makes a hole.
        mapped: Matplotlib's `ScalarMappable`, which has limits and colors.
    """
    faces = _faces(*grid, mapped.norm.vmin, mapped.norm.vmax)
    if faces:
        # The color bar's own colors: light would turn them into those of other values.
        shades = colormaps.get_cmap(mapped.cmap)(mapped.norm([f[:, 2].mean() for f in faces]))
        # Dark edges show that a grid is coarse.
        darkness = 0.35 if max(grid[2].shape) < FINE else 0
        edges = shades[..., :3] * (1 - darkness)
        style = {"facecolors": shades[..., :3], "edgecolors": edges, "linewidths": 0.3}
        ax.add_collection3d(Poly3DCollection(faces, zorder=2, **style))


def draw_floor(ax, grid, levels, mapped):
    """Draws contours on the floor of the box, below the surface.

    Args:
        ax: Matplotlib axes in space, with their limits.
        grid: As in `draw_faces`.
        levels: Increasing heights.
        mapped: As in `draw_faces`.
    """
    heights = np.ma.masked_invalid(grid[2])
    if heights.count():
        style = {"cmap": mapped.cmap, "norm": mapped.norm, "linewidths": 0.8, "zorder": 1}
        ax.contour(*grid[:2], heights, levels, zdir="z", offset=ax.get_zlim()[0], **style)


def frame(ax, surface, sides, limits, view):
    """Gives axes in space a box that holds the surface, the view, and room for the letters below.

    Args:
        ax: Matplotlib axes in space.
        surface: A `LossSurface`.
        sides: How long the sides of its plane are drawn, the longer one as 1.
        limits: Lowest and highest value of the surface, in units of the axis.
        view: Elevation and azimuth in degrees.
    """
    low, high = limits
    floor = low - FLOOR / HEIGHT * (high - low)
    ax.set(xlim=surface.alphas[[0, -1]], ylim=surface.betas[[0, -1]], zlim=(floor, high))
    ax.view_init(*view)
    ax.set_box_aspect((*(WIDTH * sides), HEIGHT + FLOOR), zoom=ZOOM)
    ax.tick_params(axis="both", pad=_excess() / 2 - 3)
    ax.tick_params(axis="z", pad=_excess() / 2)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.labelpad = 1.5 * _excess() - 6
        axis.set_pane_color((0.5, 0.5, 0.5, 0.06))
    # Otherwise it would cover what the next panel writes on its height axis.
    ax.patch.set_visible(False)
    # Otherwise the surface would hide the model's own point at its bottom.
    ax.computed_zorder = False


def _excess():
    """Points by which letters are larger than those that Matplotlib leaves room for in space."""
    return max(0, mpl.rcParams["font.size"] - 8)


def bar_beside(ax, mappable):
    """Puts a color bar beside the height axis, wherever a layout or the view moves that."""

    def locate(_, renderer):
        box, (low, high) = ax.get_window_extent(renderer), (0.15, 0.85)
        left = ax.zaxis.get_tightbbox(renderer).x1 + 0.04 * box.width
        place = Bbox.from_extents(
            left, box.y0 + low * box.height, left + 0.05 * box.width, box.y0 + high * box.height
        )
        return place.transformed(ax.get_figure(root=False).transSubfigure.inverted())

    place = ax.inset_axes([1.2, 0.15, 0.05, 0.7])
    place.set_axes_locator(locate)
    bar = ax.figure.colorbar(mappable, cax=place)
    bar.solids.set(rasterized=False, edgecolor="face")
    return bar


def fit(figure):
    """Moves the panels of a figure made here until nothing written beside them is cut off."""
    notes = [text.get_window_extent().y1 - ax.bbox.y1 for ax in figure.axes for text in ax.texts]
    figure.subplots_adjust(top=figure.subplotpars.top - max([0, *notes]) / figure.bbox.height)
    # More than once, since smaller panels stay in the middle of their places.
    for _ in range(4):
        figure.draw_without_rendering()
        box = Bbox.union([ax.get_tightbbox() for ax in figure.axes])
        box, places = box.transformed(figure.transFigure.inverted()), figure.subplotpars
        steps = max(0, 0.01 - box.x0), max(0, 0.01 - box.y0), 0.99 - box.x1
        left, bottom, right = np.add(steps, [places.left, places.bottom, places.right])
        figure.subplots_adjust(left=left, bottom=bottom, right=right)
        if np.abs(steps).max() < STILL:
            return


def best_view(heights, limits, sides):
    """Chooses where to look from, so that nothing hides the lowest point of any surface.

    A surface that slopes is seen from its lower side, since from the upper one it would be
    seen edge-on.

    Args:
        heights: List of arrays of shape `(m, n)`, in units of the height axis.
        limits: Lowest and highest value on this axis.
        sides: List of how long the sides of each plane are drawn, the longer one as 1.

    Returns:
        Elevation and azimuth in degrees.
    """
    scaled = [HEIGHT * (each - limits[0]) / (limits[1] - limits[0]) for each in heights]
    scaled = [np.clip(each, 0, HEIGHT) for each in scaled]
    boxes = [(each, WIDTH * side) for each, side in zip(scaled, sides, strict=True)]
    boxes = [(each, side) for each, side in boxes if np.isfinite(each).any()]
    views = []
    for azimuth in AZIMUTHS:
        needed = max((_elevation_needed(*box, azimuth) for box in boxes), default=0)
        elevation = np.clip(needed + CLEARANCE, LOWEST, HIGHEST)
        seen = min((_facing(*box, elevation, azimuth) for box in boxes), default=1)
        # In quarters, since small differences should not turn a surface.
        quality = round(4 * min(seen, 0.5)), -round(max(needed, LOWEST) / 5)
        views.append((quality, (elevation, azimuth)))
    return max(views, key=lambda pair: pair[0])[1]


def is_covered(heights, limits, sides, position, view):
    """Whether a part of the surface is between a point on it and the viewer.

    Args:
        heights: Array of shape `(m, n)`, in units of the height axis.
        limits: Lowest and highest value that is drawn.
        sides: As in `frame`.
        position: Where the point is along both axes, each from 0 to 1.
        view: Elevation and azimuth in degrees.
    """
    is_drawn = (limits[0] <= heights) & (heights <= limits[1])
    scaled = HEIGHT * (heights - limits[0]) / (limits[1] - limits[0])
    size = np.array(heights.shape[::-1]) - 1
    column, row = np.rint(position * size).astype(int)
    heights = np.where(is_drawn, scaled, np.nan)
    return _elevation_needed(heights, WIDTH * sides, view[1], (row, column)) > view[0]


def _elevation_needed(heights, side, azimuth, point=None):
    """The angle from which a point, by default the lowest, just comes into sight."""
    lowest = np.unravel_index(np.nanargmin(heights), heights.shape)
    row, column = lowest if point is None else point
    lengths = WIDTH * STEPS
    toward = np.deg2rad(azimuth)
    size = np.array(heights.shape[::-1]) - 1
    steps = np.outer(lengths, [np.cos(toward), np.sin(toward)]) / side * size
    columns, rows = (steps + np.array([column, row])).T
    is_inside = (columns >= 0) & (columns <= size[0]) & (rows >= 0) & (rows <= size[1])
    nearest = np.rint(rows[is_inside]).astype(int), np.rint(columns[is_inside]).astype(int)
    rises = heights[nearest] - heights[row, column]
    angles = np.rad2deg(np.arctan2(rises, lengths[is_inside]))
    return np.nanmax(np.append(angles, 0))


def _facing(heights, side, elevation, azimuth):
    """How far the plane through a surface turns to the viewer: 1 wholly, 0 edge-on."""
    up, toward = np.deg2rad([elevation, azimuth])
    slopes = []
    for axis, length in zip((1, 0), side, strict=True):
        rises = np.ma.masked_invalid(np.diff(heights, axis=axis))
        slopes.append(float(rises.mean()) * heights.shape[axis] / length if rises.count() else 0.0)
    normal = np.array([-slopes[0], -slopes[1], 1]) / np.sqrt(1 + np.square(slopes).sum())
    view = [np.cos(up) * np.cos(toward), np.cos(up) * np.sin(toward), np.sin(up)]
    return normal @ view


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
