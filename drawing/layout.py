"""Layout: names, ticks, notes and labels that keep out of each other's way.

What all plots of `plotting` share. Positions are in pixels of the figure as it is now:
a label that fits at this size may not fit after the caller has made the figure smaller.
"""

import textwrap

import matplotlib as mpl
import numpy as np
from matplotlib import mathtext, patheffects, ticker
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox, offset_copy

from losslandscape.basics.checks import check_list, check_pair

# The width of a column in most two-column papers, in inches, and a height that suits it; for the
# default font size, since larger letters need more room.
PANEL_SIZE = (3.5, 2.8)
DEFAULT_FONT = 10
# A landscape is a bowl, an accuracy a hill: the middle is free at the top or at the bottom.
LEGEND_PLACES = (
    "upper center",
    "lower center",
    "upper left",
    "upper right",
    "lower left",
    "lower right",
)
# More names than this would take the whole panel; they go beside it.
LONGEST_LEGEND = 6
# The colors of Okabe and Ito, told apart with any color vision; line styles do so in gray.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "0.5")
LINE_STYLES = ("-", "--", "-.", ":")
ROUND_STEPS = [1, 2, 2.5, 5, 10]
# Of a decade, from dense to sparse.
ROUND_PARTS = (
    (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 5),
    (1, 3),
    (1,),
)
# From tick names of more characters, what they share is taken out.
LONGEST_NAME = 6
# Characters on a line of the name of a heat map's row, and the fonts of the numbers in it.
LONGEST_ROW = 10
CELL_FONTS = ("small", "x-small", "xx-small")
# How bright red, green and blue are.
LUMINANCE = np.array([0.299, 0.587, 0.114])
# The largest part of the caller's axes that a color bar takes.
MOST_TAKEN = 0.6
# Axes that move by less, as a part of their figure, have found their place.
STILL = 3e-3
FAINT_GRID = {"grid.color": "#80808066", "grid.linewidth": 0.5}
# The width of a letter, relative to its font size.
LETTER = 0.65
# Unicode and special characters that LaTeX does not take as they are.
TEX = str.maketrans(
    {
        "α": r"$\alpha$",
        "β": r"$\beta$",
        "λ": r"$\lambda$",
        "±": r"$\pm$",
        "≤": r"$\leq$",
        "−": r"$-$",
        "|": r"$|$",
        "…": r"\dots{}",
        "\\": r"\textbackslash{}",
        "^": r"\^{}",
        "~": r"\~{}",
        **{character: f"\\{character}" for character in "_%#&${}"},
    }
)


class Settled(ConstrainedLayoutEngine):
    """Matplotlib's constrained layout, but done at once.

    Axes of a given aspect become smaller than their place, and what stands beside them moves with
    them: Matplotlib would find other margins each time it draws.
    """

    def execute(self, fig):
        """Lays out a figure as if its axes filled their places, which leaves room enough."""
        aspects = {ax: ax.get_aspect() for ax in fig.axes}
        try:
            for ax in aspects:
                ax.set_aspect("auto")
            super().execute(fig)
        finally:
            for ax, aspect in aspects.items():
                ax.set_aspect(aspect)


def check_labels(labels, number, each="value drawn", several="values"):
    """Refuses another number of labels than of what is drawn.

    Args:
        labels: One name, a list of them, or `None`.
        number: How many things are drawn.
        each: What one of them is called in errors. Defaults to `"value drawn"`.
        several: What all of them are called. Defaults to `"values"`.

    Returns:
        A list of strings, or of `None` where there is no label.
    """
    if labels is None:
        return [None] * number
    labels = [labels] if isinstance(labels, str) else check_list("labels", labels)
    if len(labels) != number:
        raise ValueError(
            f"`labels` must be one per {each}. Received {len(labels)} labels for {number} "
            f"{several}."
        )
    return [None if label is None else str(label) for label in labels]


def check_axes(axes, projection="flat"):
    """Refuses objects that are not axes, 3-D axes for a flat plot, and flat ones for a 3-D plot."""
    for ax in axes:
        if not isinstance(ax, Axes):
            raise TypeError(f"`ax` must be Matplotlib axes. Received {type(ax).__name__}.")
    expected = {"3d": "3d", "flat": "rectilinear"}[projection]
    if any(ax.name != expected for ax in axes):
        made = 'add_subplot(projection="3d")' if projection == "3d" else "add_subplot()"
        raise ValueError(
            f"`ax` must be {projection} axes, such as `plt.figure().{made}`. Received "
            f"{[type(ax).__name__ for ax in axes]}."
        )


def axes_for(ax, number=1, projection="flat", figsize=None):
    """Returns the caller's axes as a list, or those of a new figure."""
    if figsize is not None:
        check_pair("figsize", figsize, above=0)
    if ax is None:
        return _panels(number, projection, figsize)
    axes = list(np.ravel(np.array(ax, dtype=object)))
    if len(axes) != number:
        raise ValueError(
            f"`ax` must be one per surface. Received {len(axes)} axes for {number} surfaces."
        )
    check_axes(axes, projection)
    return axes


def panel_size():
    """Returns width and height of a panel, in inches: the caller's setting, or our own."""
    chosen, default = (list(rc["figure.figsize"]) for rc in (mpl.rcParams, mpl.rcParamsDefault))
    factor = mpl.rcParams["font.size"] / DEFAULT_FONT
    return chosen if chosen != default else [factor * side for side in PANEL_SIZE]


def curve_style(ax):
    """Returns color and line style of the next curve on some axes."""
    number = len(ax.lines)
    style = {"linestyle": LINE_STYLES[number % len(LINE_STYLES)]}
    cycle = mpl.rcParams["axes.prop_cycle"]
    if cycle != mpl.rcParamsDefault["axes.prop_cycle"]:
        # The caller's own colors, and line styles if there are any.
        return {} if "linestyle" in cycle.keys else style
    return style | {"color": COLORS[number % len(COLORS)]}


def finite_limits(values):
    """Returns the lowest and highest finite value of several arrays, apart if they are equal."""
    finite = np.concatenate([array[np.isfinite(array)] for array in values])
    if finite.size == 0:
        return np.array([1.0, 10.0])
    low, high = finite.min(), finite.max()
    # A flat surface still needs an axis to lie on; what differs by rounding only is flat.
    if high - low <= 1e-13 * max(abs(low), abs(high)):
        low, high = low - abs(low) / 10, high + abs(high) / 10 or 1.0
    return np.array([low, high])


def round_levels(values, scale, number=20):
    """Returns at most `number` round values inside the limits, in equal ratios on a log scale."""
    low, high = finite_limits(values)
    if scale == "linear" or high < 5 * low:
        levels = ticker.MaxNLocator(number, steps=ROUND_STEPS).tick_values(low, high)
        return levels[(levels >= low) & (levels <= high)]
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.floor(np.log10(high)) + 1)
    for parts in ROUND_PARTS:
        levels = np.outer(decades, parts).ravel()
        levels = levels[(levels >= low) & (levels <= high)]
        if len(levels) <= number:
            return levels
    return levels[:: -(-len(levels) // number)]


def short_names(values):
    """Returns names with as many digits as tell neighbors apart; 1e6 instead of 1e+06."""
    gaps = np.diff(values) if len(values) > 1 else np.abs(values)
    for digits in range(3, 18):
        names = [f"{value:.{digits}g}" for value in values]
        # A name may be off by a small part of the way to its neighbor.
        if (np.abs(np.array(names, dtype=float) - values) <= 0.05 * gaps.min()).all():
            break
    return [name.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-") for name in names]


def names_beyond(values):
    """Returns short names, and what has to be added to them: 2.3 where all are 2.3000….

    Args:
        values: Increasing floats.

    Returns:
        A list of names, and the name of the number to add, `""` if none.
    """
    names = short_names(values)
    if max(map(len, names)) <= LONGEST_NAME:
        return names, ""
    span = values[-1] - values[0]
    # The roundest number near the values, so that what is left is no longer than their span.
    step = 10.0 ** np.ceil(np.log10(span))
    offset = step * np.floor(values[0] / step)
    if offset == 0 or abs(values).max() < 100 * span:
        return names, ""
    # What is left by rounding would get a name of its own.
    rest = np.round(values - offset, int(3 - np.log10(step)) + 1)
    return short_names(rest), short_names([offset, offset + step])[0]


def log_ticks(axis):
    """Gives a log axis two to eight round ticks; Matplotlib's own may have none."""
    axis.set_major_locator(_LogTicks())
    axis.set_major_formatter(_ShortNames())
    axis.set_minor_formatter(ticker.NullFormatter())


class _LogTicks(ticker.LogLocator):
    """Round ticks however short or long the axis is."""

    def tick_values(self, vmin, vmax):
        with np.errstate(all="ignore"):
            return round_levels([np.array([vmin, vmax])], "log", number=8)


class _ShortNames(ticker.Formatter):
    """Names ticks as those of all other axes are named."""

    def __call__(self, x, pos=None):  # noqa: ARG002, the signature is Matplotlib's
        return short_names([x])[0]

    def format_ticks(self, values):
        return short_names(values)


def plane_ticks(ax, sides):
    """Gives both axes of a plane as many round ticks as they have room for.

    Args:
        ax: Matplotlib axes.
        sides: How long both sides are drawn, the longer one as 1.
    """
    if ax.name == "3d":
        # Seen from a corner, names have less room.
        numbers = np.where(sides < 0.4, 2, 4)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    else:
        width = ax.get_window_extent().width / ax.figure.dpi * 72
        room = width / (4.5 * mpl.rcParams["font.size"])
        numbers = np.maximum(np.round(min(5, room) * sides), 2)
    for axis, number in zip((ax.xaxis, ax.yaxis), numbers, strict=True):
        # In space the ends of both axes meet, and their names would touch.
        prune = "both" if ax.name == "3d" else None
        axis.set_major_locator(ticker.MaxNLocator(int(number), steps=ROUND_STEPS, prune=prune))


def plain(text):
    """Returns a text that is shown as plain letters, even by LaTeX where settings ask for that."""
    return text.translate(TEX) if mpl.rcParams["text.usetex"] else text


def wrapped(text, length):
    """Returns a text on at most three lines, in plain letters."""
    lines = textwrap.wrap(text, max(length, 8), max_lines=3, placeholder="…")
    return plain("\n".join(lines))


def letters_along(ax, axis="x"):
    """Returns how many letters of an axis' name fit beside the axis."""
    box = ax.get_window_extent()
    pixels = box.width if axis == "x" else box.height
    return _letters(ax, 1.3 * pixels, mpl.rcParams["axes.labelsize"])


def take_literally(text):
    """Shows the caller's label as plain letters where it is not valid mathtext, such as "$x_$"."""
    try:
        for line in text.get_text().split("\n"):
            mathtext.MathTextParser("path").parse(line)
    except ValueError:
        text.set_parse_math(False)


def halo(color="white"):
    """Returns path effects that set text or lines off from what is behind them."""
    return [patheffects.withStroke(linewidth=2, foreground=color)]


def name_point(ax, name, point):
    """Writes a name above or below a point, inside the frame and off the curves if it can be."""
    x, y = ax.transAxes.inverted().transform(ax.transData.transform(point))
    style = {
        "textcoords": "offset points",
        "ha": "left" if x < 0.2 else "right" if x > 0.8 else "center",
        "fontsize": "x-small",
        "color": "black",
        "path_effects": halo(),
        "zorder": 4,
    }
    places = [{"xytext": (0, 5), "va": "bottom"}, {"xytext": (0, -5), "va": "top"}]
    # The first one has more room to the frame.
    places = places if y < 0.5 else places[::-1]
    curves = _points_along(ax)
    texts = [ax.annotate(name, point, **place, **style) for place in places]
    for text in texts:
        take_literally(text)
    boxes = [text.get_window_extent() for text in texts]
    is_free = [not any(box.contains(*each) for each in curves) for box in boxes]
    texts.pop(is_free.index(True) if any(is_free) else 0)
    for text in texts:
        text.remove()


def name_cells(ax, names):
    """Names the rows and columns of a square heat map; names that are too long stand upright."""
    names = [wrapped(name, LONGEST_ROW) for name in names]
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    columns = ax.get_xticklabels()
    for text in (*columns, *ax.get_yticklabels()):
        take_literally(text)
    # The layout of a new figure decides how wide the columns are.
    ax.get_figure(root=True).draw_without_rendering()
    room = 0.9 * ax.get_window_extent().width / len(names)
    if max(text.get_window_extent().width for text in columns) > room:
        ax.tick_params(axis="x", rotation=90)


def number_cells(ax, numbers, cells):
    """Writes its number in each cell of a square heat map, if there is room for all of them.

    Args:
        ax: Matplotlib axes.
        numbers: Float array of shape `(k, k)`.
        cells: The Matplotlib mappable that colors the cells.
    """
    names = [short_names([number])[0] for number in numbers.flat]
    # What stands beside the heat map decides how large the cells are.
    ax.get_figure(root=True).draw_without_rendering()
    room = 0.9 * ax.get_window_extent().width / len(numbers)
    length = LETTER * max(map(len, names))
    fitting = [size for size in CELL_FONTS if length * _pixels(ax, size) <= room]
    if not fitting:
        return
    shades = cells.to_rgba(numbers.ravel())[:, :3] @ LUMINANCE
    for (row, column), name, shade in zip(np.ndindex(numbers.shape), names, shades, strict=True):
        is_dark = np.isfinite(numbers[row, column]) and shade < 0.5
        style = {"color": "white" if is_dark else "black", "fontsize": fitting[0]}
        ax.text(column, row, name, ha="center", va="center", **style)


def named_some(names, most):
    """Returns which names to write where there is room for `most` of them: every second, say.

    Args:
        names: List of strings, the names of values in equal steps or ratios.
        most: Integer, how many fit.

    Returns:
        A slice of them: of those that are as far apart, the roundest.
    """
    every = -(-len(names) // most)
    digits = [len(name.partition("e")[0].replace(".", "").strip("-0")) for name in names]
    return min(
        (slice(start, None, every) for start in range(every)),
        key=lambda part: sum(digits[part]) / len(digits[part]),
    )


def note(ax, lines):
    """Writes notes above some axes, each on a line of its own; returns their height in points."""
    if not lines:
        return 0
    size = FontProperties(size="x-small").get_size_in_points()
    # Sentences have narrow letters. What is wider than the axes would make a layout narrow them.
    letters = _letters(ax, 1.2 * ax.get_window_extent().width, size)
    rows = [
        row
        for line in "\n".join(lines).split("\n")
        for row in textwrap.wrap(line, max(letters, 20))
    ]
    ax.annotate(
        plain("\n".join(rows)),
        (0, 1),
        xytext=(0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        va="bottom",
        fontsize=size,
    )
    height = 1.4 * size * len(rows)
    keep_titles_above(ax, height)
    return height


def write_title(ax, title):
    """Writes the title of some axes, unless it is `None`."""
    if title is not None:
        take_literally(ax.set_title(title, fontsize="medium"))


def keep_titles_above(ax, height):
    """Keeps titles, even those that the caller sets later, `height` points above some axes."""
    # Matplotlib keeps titles clear of axes that belong to these, but of nothing else.
    ax.inset_axes([0, 1, 1, 1e-3], transform=_raised(ax, height)).set_visible(False)


def color_bar(ax, mappable, side, **options):
    """Puts a color bar right beside flat axes, as high as these, whatever layout moves them.

    Args:
        ax: The Matplotlib axes at the left of the bar.
        mappable: As in Matplotlib's `colorbar`.
        side: Width of the axes, relative to their longer side.
        **options: Those of Matplotlib's `colorbar`.

    Returns:
        The Matplotlib color bar.
    """
    place = ax.inset_axes([1 + 0.04 / side, 0, 0.05 / side, 1])
    bar = ax.figure.colorbar(mappable, cax=place, **options)
    # Clean in vector formats, too: no pixels, and no white lines between colors.
    bar.solids.set(rasterized=False, edgecolor="face")
    return bar


def make_room_for(bar, axes):
    """Narrows the caller's axes until the color bar beside them lies within their old limits.

    Other axes may lie beyond these. Matplotlib's own bars take their room in the same way.
    A layout, which moves everything, makes room by itself.

    Args:
        bar: A color bar at the right of the last of the axes.
        axes: List of Matplotlib axes, which all become narrower, so that they can be compared.
    """
    figure = axes[-1].get_figure(root=True)
    if figure.get_layout_engine() is not None:
        return
    places = [(ax, ax.get_subplotspec(), ax.get_position(original=True)) for ax in axes]
    limits = places[-1][2].transformed(axes[-1].get_figure(root=False).transSubfigure)
    taken = 0.0
    # More than once, since axes of a given aspect stay in the middle of their place.
    for _ in range(6):
        figure.draw_without_rendering()
        more = (bar.ax.get_tightbbox().x1 - limits.x1) / limits.width
        taken += more
        if abs(more) < STILL or not 0 < taken < MOST_TAKEN:
            return
        for ax, cell, place in places:
            if cell is None:
                ax.set_position([place.x0, place.y0, (1 - taken) * place.width, place.height])
            else:
                parts = cell.subgridspec(1, 2, wspace=0, width_ratios=[1 - taken, taken])
                ax.set_subplotspec(parts[0])


def label_contours(ax, contours, names):
    """Writes the names of their levels on contours, where they fit.

    No name is cut off by the frame, or overlaps another one or anything drawn so far.
    Contours that are too short stay without.

    Args:
        ax: Matplotlib axes.
        contours: What `ax.contour` returned.
        names: Dict of names by level, of those levels that get one.
    """
    size = _pixels(ax, "x-small")
    frame = ax.get_window_extent().padded(-0.15 * size)
    boxes = _drawn_boxes(ax, size)
    found = []
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        if level not in names:
            continue
        width = LETTER * size * (len(names[level]) + 1)
        for piece in path.to_polygons(ax.transData, closed_only=False):
            place = _free_place(piece, (width, size), frame, boxes)
            if place is not None:
                boxes.append(place.padded(0.15 * size))
                found.append((place.x0 + place.x1, place.y0 + place.y1))
    if found:
        points = ax.transData.inverted().transform(np.array(found) / 2)
        ax.clabel(
            contours,
            list(names),
            manual=points,
            fmt=names,
            fontsize="x-small",
            colors="0.15",
            inline_spacing=2,
        )


def legend_above(ax, handles):
    """Writes a legend above some axes and their notes, for curves that may be anywhere."""
    above = _raised(ax, _height_above(ax, *ax.texts))
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "bbox_transform": above}
    style = {"frameon": False, "fontsize": "small", "borderaxespad": 0.2, "columnspacing": 1}
    figure = ax.get_figure(root=False)
    twins = [each for each in figure.axes if np.allclose(each.bbox.bounds, ax.bbox.bounds)]
    # At most three rows, unless that is wider than the axes and what is written beside them.
    for columns in range(-(-len(handles) // 3), 0, -1):
        drawn = ax.legend(handles=handles, ncols=columns, **style, **place)
        if columns == 1:
            break
        # A layout would make room for a legend that is too wide.
        drawn.set_in_layout(False)
        # A layout moves the axes only now.
        ax.get_figure(root=True).draw_without_rendering()
        ends = [_end_beside(each) for each in twins]
        if drawn.get_window_extent().x1 <= min(max(ends), figure.bbox.x1):
            break
    drawn.set_in_layout(True)
    for text in drawn.get_texts():
        take_literally(text)
    keep_titles_above(ax, _height_above(ax, drawn))


def _end_beside(ax):
    """Where axes end at the right, with their ticks and name."""
    boxes = [axis.get_tightbbox() for axis in (ax.xaxis, ax.yaxis)]
    return max(box.x1 for box in [ax.bbox, *filter(None, boxes)])


def legend(ax):
    """Writes a legend of the labeled curves where no curve is; above the axes if there is no place.

    The axes are not stretched for it. A long legend goes beside the axes.
    """
    handles, labels = ax.get_legend_handles_labels()
    is_long = len(handles) > LONGEST_LEGEND
    place = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if is_long else {}
    drawn = ax.legend(handles, labels, fontsize="small", frameon=False, **place)
    for text in drawn.get_texts():
        take_literally(text)
    if not is_long and not _has_place(ax, drawn):
        legend_above(ax, handles)


def _has_place(ax, drawn):
    """Puts the legend where no curve is, and whether there is such a place."""
    for place in LEGEND_PLACES:
        drawn.set_loc(place)
        if not _is_over_curves(ax, _roomy(drawn)):
            return True
    return False


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


def _panels(number, projection, figsize):
    width, height = panel_size()
    size = (width * number, height) if figsize is None else figsize
    if projection == "3d":
        # Matplotlib's layouts do not know how large axes in space are; these nearly fill them.
        figure = plt.figure(figsize=size, layout="none")
        figure.subplots_adjust(0.04, 0.12, 0.8, 0.91, wspace=0.3)
    else:
        figure = plt.figure(figsize=size, layout=Settled())
    style = {"projection": "3d"} if projection == "3d" else {}
    # Axes in space have a grid in any style, which must not stand out from a surface.
    with mpl.rc_context(FAINT_GRID if projection == "3d" else {}):
        return [figure.add_subplot(1, number, index + 1, **style) for index in range(number)]


def _drawn_boxes(ax, size):
    """Boxes around what is drawn on some axes: texts, marks, and points along curves."""
    marks = [
        ax.transData.transform(collection.get_offsets())
        for collection in ax.collections
        if isinstance(collection, PathCollection)
    ]
    points = np.concatenate([*marks, _points_along(ax)])
    texts = [text.get_window_extent() for text in ax.texts]
    return texts + [Bbox([point - 0.7 * size, point + 0.7 * size]) for point in points]


def _points_along(ax, step=5):
    """Points on the curves of some axes, at most `step` pixels apart."""
    found = [np.empty((0, 2))]
    for line in ax.lines:
        points = line.get_transform().transform_path(line.get_path()).vertices
        points = points[np.isfinite(points).all(axis=1)]
        along = np.append(0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
        at = np.append(np.arange(0, along[-1], step), along[-1])
        found.append(np.stack([np.interp(at, along, part) for part in points.T], axis=1))
    return np.concatenate(found)


def _raised(ax, height):
    """The coordinates of some axes, `height` points higher."""
    return offset_copy(ax.transAxes, ax.get_figure(root=False), y=height, units="points")


def _height_above(ax, *artists):
    """How far some artists reach above the frame of some axes, in points."""
    pixels = max([artist.get_window_extent().y1 - ax.bbox.y1 for artist in artists], default=0)
    return max(pixels, 0) / ax.get_figure(root=True).dpi * 72


def _free_place(piece, size, frame, boxes):
    """The box of a name on a piece of a contour that is farthest from others, or `None`."""
    width, height = size
    steps = np.linalg.norm(np.diff(piece, axis=0), axis=1)
    along = np.append(0, np.cumsum(steps))
    if along[-1] < 2.5 * width:
        return None
    places = []
    for middle in np.linspace(0.6 * width, along[-1] - 0.6 * width, 24):
        ends, (center,) = (
            np.stack([np.interp(at, along, part) for part in piece.T], axis=-1)
            for at in ([middle - width / 2, middle + width / 2], [middle])
        )
        across, up = np.abs(ends[1] - ends[0])
        chord = np.hypot(across, up)
        if chord < 0.9 * width:
            # Too bent for straight letters.
            continue
        half = np.array([across + height * up / chord, up + height * across / chord]) / 2
        box = Bbox([center - half, center + half])
        is_inside = frame.containsx(box.x0) and frame.containsx(box.x1)
        is_inside = is_inside and frame.containsy(box.y0) and frame.containsy(box.y1)
        if is_inside and not any(map(box.overlaps, boxes)):
            nearest = min((np.hypot(*(center - _middle(other))) for other in boxes), default=0)
            places.append((nearest, box))
    return max(places, key=lambda place: place[0])[1] if places else None


def _middle(box):
    return (box.p0 + box.p1) / 2


def _letters(ax, pixels, fontsize):
    """How many letters fit in a number of pixels."""
    return int(pixels / (LETTER * _pixels(ax, fontsize)))


def _pixels(ax, fontsize):
    points = FontProperties(size=fontsize).get_size_in_points()
    return points * ax.get_figure(root=True).dpi / 72
