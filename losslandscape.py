"""losslandscape: shows the loss landscape around a trained Keras model.

`plot_loss` draws the loss along random directions in weight space,
`plot_loss_3D` over the plane of two. Both evaluate, draw and return a
`LossDisplay` with the figures and the numbers behind them.

Example:

>>> plot_loss(model, (x_test, y_test))
>>> display = plot_loss_3D(model, ("levels", "3d"), x_test, y_test)
>>> display.surface.save("landscape.h5")
"""

__all__ = [  # noqa: RUF022, grouped by purpose, what is needed first comes first
    # Draw a model's landscape
    "plot_loss",
    "plot_loss_3D",
    "LossDisplay",
    "write_report",
    # Compare trainings
    "compare",
    "Comparison",
    "plot_comparison",
    # Training
    "plot_trajectory",
    "WeightHistory",
    "evaluate_trajectory",
    "evaluate_film",
    "LandscapeLogger",
    "training_curvature",
    "plot_training_curvature",
    # Several models
    "plot_interpolation",
    "evaluate_interpolation",
    "evaluate_plane",
    "evaluate_barriers",
    "fit_curve",
    "evaluate_curve",
    # Measure without drawing
    "evaluate_line",
    "evaluate_lines",
    "evaluate_surface",
    "evaluate_surfaces",
    # Values: saved, loaded, drawn again
    "LossLine",
    "LossSurface",
    "LossTrajectory",
    "LossFilm",
    "LossBarriers",
    # Draw what was measured
    "plot_line",
    "plot_levels",
    "plot_surface",
    "plot_metrics",
    "plot_path",
    "animate_path",
    "animate_film",
    "animate_surface",
    "plot_barriers",
    # Directions, curvature, and a second look
    "random_directions",
    "direction_between",
    "Hessian",
    "report",
    "__version__",
]

import inspect
import io
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, Unpack

# The modules next to this file are its submodules, imported as `losslandscape.plotting`
# and so on, even from a plain checkout and next to a user's own `plotting.py`.
__path__ = [str(Path(__file__).parent)]

import keras
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losslandscape.basics.checks import (
    check_choice,
    check_list,
    check_metric,
    check_not_data,
    check_path,
    numbered,
    warn,
)
from losslandscape.basics.hints import hinted, instead
from losslandscape.basics.types import (
    ContourScale,
    Data,
    Directions,
    Engine,
    Extent,
    FilePath,
    Ignore,
    Layers,
    Pair,
    PlotType,
    Points,
    Scale,
    Verbose,
)
from losslandscape.curvature.hessian import Hessian
from losslandscape.curvature.monitoring import LandscapeLogger, training_curvature
from losslandscape.directions import (
    direction_between,
    random_directions,
)
from losslandscape.drawing.layout import check_axes
from losslandscape.drawing.page import check_page, page_of, show_page, write_html
from losslandscape.evaluation import (
    evaluate_line,
    evaluate_lines,
    evaluate_surface,
    evaluate_surfaces,
)
from losslandscape.measuring.datasets import all_datasets
from losslandscape.measuring.options import BETWEEN, Measuring, MeasuringBetween, evaluating
from losslandscape.paths.comparison import compare
from losslandscape.paths.curves import evaluate_curve, fit_curve
from losslandscape.paths.film import evaluate_film
from losslandscape.paths.interpolation import (
    evaluate_barriers,
    evaluate_interpolation,
    evaluate_plane,
)
from losslandscape.paths.trajectory import (
    History,
    WeightHistory,
    evaluate_trajectory,
)
from losslandscape.plotting import (
    CONTOUR_SCALES,
    PLOT_TYPES,
    SCALES,
    animate_film,
    animate_path,
    animate_surface,
    check_backend,
    check_format,
    check_style,
    plot_barriers,
    plot_comparison,
    plot_levels,
    plot_line,
    plot_metrics,
    plot_path,
    plot_path_fidelity,
    plot_surface,
    plot_training_curvature,
)
from losslandscape.summaries.report import write_report
from losslandscape.values.comparisons import Comparison
from losslandscape.values.files import replace_file
from losslandscape.values.measures import (
    report,
)
from losslandscape.values.surfaces import (
    LossBarriers,
    LossFilm,
    LossLine,
    LossSurface,
    LossTrajectory,
    __version__,
)

# Fine enough for print; vector formats do not use it.
DPI = 300
# The name of a web page among the files to write.
PAGE = "page"
# Journals refuse Type 3 fonts, Matplotlib's default.
EMBEDDED_FONTS = {"pdf.fonttype": 42, "ps.fonttype": 42}


# The class of the surfaces in a display.
Kind = TypeVar("Kind", bound=LossSurface)


@dataclass(frozen=True, eq=False, repr=False)
class LossDisplay(Generic[Kind]):
    """The values that a call measured, and the axes that it drew on.

    A figure that cannot be drawn or saved causes a warning, but never loses the
    values: the display holds them, and the warning says how to draw them again. If
    warnings are turned into errors, the warning is printed to stderr instead.

    In a script, figures saved to a `path` are closed in pyplot, so they do not
    pile up over many calls; the display still holds them. In notebooks and
    interactive sessions, and on the caller's own axes, figures stay open.

    Every function that draws, measures or exports values also accepts a display in
    their place, or in a list: `plot_line([display1, display2])`.

    Attributes:
        lines: List of `LossLine`, one per dataset, from `plot_loss` and
            `plot_interpolation`.
        surfaces: List of `LossSurface`, one per dataset, from `plot_loss_3D`, or
            of a `LossTrajectory` from `plot_trajectory`.
        axes: Dict of Matplotlib axes by plot type, such as `"line"`, `"levels"` or
            `"3d"`, without plots that failed. A list of axes for several datasets.
        labels: List of the names of the datasets, empty if they have none.
    """

    lines: list[LossLine] = field(default_factory=list)
    surfaces: list[Kind] = field(default_factory=list)
    axes: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)

    @property
    def line(self) -> LossLine:
        """The first of the lines, or `None`."""
        return self.lines[0] if self.lines else None  # type: ignore[return-value]

    @property
    def surface(self) -> Kind:
        """The first of the surfaces, or `None`."""
        # A type with `None` would have to be narrowed at each use.
        return self.surfaces[0] if self.surfaces else None  # type: ignore[return-value]

    @property
    def figures(self) -> dict[str, Figure]:
        """Dict of Matplotlib figures by plot type."""
        return {
            plot_type: np.ravel(axes)[0].get_figure(root=True)
            for plot_type, axes in self.axes.items()
        }

    def save(self, path: FilePath) -> None:
        """Saves the values, the figures, or a page to explore the surfaces on.

        Args:
            path: Where to save. The suffix `.h5` saves the values, which
                `LossLine.load`, `LossSurface.load` or `LossTrajectory.load` reads;
                `.html` writes the page that `explore` shows; any other suffix saves
                the figures. For several values, `results.h5` becomes `results-1.h5`,
                `results-2.h5`, …; for several figures, `landscape.png` becomes
                `landscape-levels.png`, …

        Raises:
            ImportError: If Plotly is not installed (the extra `html`), for a page.
            ValueError: If `path` is not a file that can be written, or if the display
                has no values, surfaces or figures to save in it.

        Example:

        >>> display.save("landscape.h5")
        >>> display.save("landscape.pdf")
        >>> display.save("landscape.html")
        """
        path = check_path("path", path)
        values = self.lines or self.surfaces
        held = {"values": values, "surfaces": self.surfaces, "figures": self.axes}
        wanted = {".h5": "values", ".html": "surfaces"}.get(path.suffix, "figures")
        if not held[wanted]:
            raise ValueError(
                f"`path` {str(path)!r} would save {wanted}, but this display has none: {self!r}. "
                "The suffix `.h5` saves values, `.html` a page with surfaces, any other one "
                "figures."
            )
        if wanted == "values":
            for value, part in zip(values, numbered("path", path, len(values)), strict=True):
                value.save(part)
        elif wanted == "surfaces":
            write_html(self, path, labels=self.labels or None)
        else:
            for name, part in _figure_paths(path, tuple(self.axes)).items():
                save_figure(self.figures[name], part)

    def explore(
        self, *, title: str | None = None, metric: str | None = None, scale: Scale = "linear"
    ) -> None:
        """Shows a page on which the surfaces can be turned, switched and sliced.

        In a notebook (Jupyter, VS Code, Colab) the page is in the output, and is saved with
        it, about 6 MB. Anywhere else it opens in the web browser, from a file in the
        folder for temporary files. It works offline. `save("landscape.html")` writes it to
        a file of your own.

        Example:

        >>> display.explore(scale="log")

        Args:
            title: Title of the page. `None` (the default) takes the model's name.
            metric: Which of the measured values to show first. `None` (the default) takes
                the first one.
            scale: `"linear"` (the default) or `"log"`, for the height at first.

        Raises:
            ImportError: If Plotly is not installed (the extra `html`).
            ValueError: If the display has no surfaces, or an argument is unknown.
        """
        if not self.surfaces:
            raise ValueError(
                f"`explore` shows surfaces, but this display has none: {self!r}. Measure one, "
                "with `plot_loss_3D`."
            )
        options = {"title": title, "metric": metric, "scale": scale}
        show_page(page_of(self, labels=self.labels or None, **options))

    def __repr__(self):
        # One line: a notebook would show a picture twice.
        values = self.lines or self.surfaces
        return f"LossDisplay({', '.join(self.axes)}; {values[0] if len(values) == 1 else values!r})"


def save_figure(figure, path):
    """Writes a figure whole or not at all."""
    content = io.BytesIO()
    with mpl.rc_context(EMBEDDED_FONTS):
        figure.savefig(content, format=path.suffix[1:].lower(), dpi=DPI)
    replace_file(path, content.getvalue())


@hinted(draw=plot_line)
def plot_loss(
    model: keras.Model,
    x: Data,
    y: Data = None,
    number_of_points: int = 21,
    *,
    dataset_labels: str | Sequence[str] | None = None,
    directions: Directions | None = None,
    number_of_directions: int = 1,
    layers: Layers | None = None,
    extent: Pair | Literal["auto"] = (-1.0, 1.0),
    metric: str = "loss",
    scale: Scale = "linear",
    seed: int | None = None,
    batch_size: int | None = None,
    engine: Engine = "auto",
    executor: Executor | None = None,
    checkpoint: FilePath | None = None,
    accuracy: float | None = None,
    sampling_error: bool = False,
    ax: Axes | None = None,
    path: FilePath | None = None,
    show: bool = False,
    verbose: Verbose = "auto",
) -> LossDisplay[LossSurface]:
    """Plots the loss of a model along random directions around its weights.

    The directions are filter-normalized, which makes the curves of different
    networks comparable; all datasets share them. The model is left as it was.

    Example:

    >>> plot_loss(
    ...     model,
    ...     ((x_train, y_train), (x_test, y_test)),
    ...     dataset_labels=("training set", "test set"),
    ... )

    Args:
        model: A compiled and built `keras.Model`.
        x: Inputs, or if `y` is `None` one dataset or a tuple or list of several: arrays
            or tensors as `(x, y)` or `(x, y, sample_weight)`, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. Two elements are one `(x, y)`, unless the
            first is a tuple or dataset; pass several model inputs as a list or
            dict. The data stay in memory during the call, unless batches would fill it:
            those are read again at each point.
        y: Targets. Defaults to `None`.
        number_of_points: Points along the line, at least 2. Defaults to 21.
        dataset_labels: One name per dataset, for the legend. Defaults to
            `None`: no legend for one dataset, numbers for several.
        directions: List of directions to follow, for example
            `random_directions(model, 3)` or `[direction_between(model, other)]`, or the
            path of a file of `save_directions`. `None` (the default) draws
            `number_of_directions` random ones.
        number_of_directions: How many random directions; several are drawn as
            their mean and one standard deviation. Defaults to 1.
        layers: The layers that random directions move, while all others are fixed;
            see `random_directions`. Defaults to `None`, all of them.
        extent: First and last coordinate. Defaults to `(-1.0, 1.0)`, where a
            filter-normalized direction is as long as the weights themselves.
            `"auto"` goes as far as the loss on the first dataset stays below ten
            times that of the model.
        metric: What to draw: `"loss"` (the default), any metric the model was
            compiled with, or `"data_loss"`, the loss without weight penalties.
        scale: `"linear"` (the default) or `"log"`, for the values.
        seed: Integer seed for the random directions. `None` (the default) draws
            one from NumPy's global random state; it is in the metadata.
        batch_size: Samples per batch, for arrays. `None` (the default) makes batches
            as large as the model's activations allow, which is fastest.
        engine: `"evaluate"` measures each point with `model.evaluate`;
            `"compiled"` puts the model's own `test_step` and many points into
            one TensorFlow or JAX graph, or one loop on Torch. `"auto"` (the default) uses
            the compiled one if it applies and is likely faster.
        executor: A `concurrent.futures.Executor` whose workers do the measuring;
            processes must be spawned, not forked. `None` (the default) measures
            in this process.
        checkpoint: Path of an HDF5 file that keeps points as they are measured;
            the same call resumes from it after a crash. With several datasets,
            `line.h5` becomes `line-1.h5`, `line-2.h5`, … Defaults to `None`.
        accuracy: Interpolate the points that cubic splines predict to within this
            fraction of the range of `metric`, such as 0.01. This saves most
            evaluations of a fine, smooth line; a note says how many points were
            interpolated, see `evaluate_lines`. Defaults to `None`: everything that
            is drawn was measured.
        sampling_error: Whether to draw a band of two standard errors, by which the
            curve would differ had other samples been drawn. It takes no further
            evaluation; see `Measuring`. Defaults to `False`.
        ax: Matplotlib axes to draw on. `None` (the default) makes a new figure.
        path: Where to save the figure; the suffix sets the format. `None` (the
            default) does not save it.
        show: Whether to call `plt.show()`. Defaults to `False`; notebooks show
            the figure anyway.
        verbose: `"auto"` (the default) or 1 shows a progress bar with the time
            left, 2 one line at the end, 0 nothing.

    Returns:
        A `LossDisplay` with the lines, axes and figures.

    Raises:
        AssertionError: If there are not as many labels as datasets.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), sections 3 and 4.
    """
    datasets = all_datasets(x, y)
    labels = _check_dataset_labels(dataset_labels, len(datasets))
    check_metric(metric, single=True)
    check_choice("scale", scale, SCALES)
    if ax is None:
        check_backend()
    else:
        check_axes([ax])
    paths = _figure_paths(path, ("line",))
    lines = evaluate_lines(
        model,
        datasets,
        number_of_points=number_of_points,
        directions=directions,
        number_of_directions=number_of_directions,
        layers=layers,
        extent=extent,
        metric=metric,
        seed=seed,
        batch_size=batch_size,
        engine=engine,
        executor=executor,
        checkpoint=checkpoint,
        accuracy=accuracy,
        sampling_error=sampling_error,
        verbose=verbose,
    )
    draw = partial(plot_line, lines, ax, labels=labels, metric=metric, scale=scale)
    return _finish(LossDisplay(lines=lines, labels=labels or []), {"line": draw}, paths, show)


@hinted()
def plot_loss_3D(  # noqa: N802, the name is the interface's
    model: keras.Model,
    plot_types: PlotType | Sequence[PlotType],
    x: Data,
    y: Data = None,
    number_of_points: Points = 21,
    *,
    dataset_labels: str | Sequence[str] | None = None,
    directions: Directions | None = None,
    layers: Layers | None = None,
    extent: Extent | Literal["auto"] = (-1.0, 1.0),
    metric: str | Sequence[str] = "loss",
    scale: ContourScale = "auto",
    seed: int | None = None,
    batch_size: int | None = None,
    engine: Engine = "auto",
    executor: Executor | None = None,
    checkpoint: FilePath | None = None,
    accuracy: float | None = None,
    sampling_error: bool = False,
    ax: Axes | Sequence[Axes] | Mapping[str, Axes | Sequence[Axes]] | None = None,
    path: FilePath | None = None,
    show: bool = False,
    verbose: Verbose = "auto",
    **style: Any,
) -> LossDisplay[LossSurface]:
    """Plots the loss of a model over a random plane through its weights.

    The two directions of the plane are filter-normalized, which makes the
    surfaces of different networks comparable. The model is left as it was.

    Example:

    >>> display = plot_loss_3D(model, ("levels", "3d"), x_test, y_test, path="landscape.pdf")
    >>> display.surface.save("landscape.h5")

    Args:
        model: A compiled and built `keras.Model`.
        plot_types: `"levels"` for labeled contours, `"3d"` for a surface in
            space, or a tuple of both: two figures from one computation.
        x: Inputs, or if `y` is `None` one dataset or several, as in `plot_loss`.
            Several are drawn side by side, with the same scale and colors.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis, at least 2: an integer, or a pair for
            alpha and beta. Defaults to 21, which makes 441 points.
        dataset_labels: One title per dataset; a string for one dataset. Defaults to
            `None`: no title for one dataset, numbers for several.
        directions: List of two directions, for alpha and beta, or the path of a file of
            `save_directions`. `None` (the default) draws them at random.
        layers: As in `plot_loss`.
        extent: First and last coordinate on both axes, or a pair of such pairs
            for alpha and beta. Defaults to `(-1.0, 1.0)`. `"auto"` extends both
            as far as the loss along both stays below ten times that of the model.
        metric: What to draw: `"loss"` (the default), any metric the model was
            compiled with, or `"data_loss"`, the loss without weight penalties. A
            list of several makes a figure of each from one computation.
        scale: `"linear"` or `"log"`, for the values. `"auto"` (the default) leaves it
            to each plot type: linear in space, and for contours as in `plot_levels`.
        seed: Integer seed for the random directions. `None` (the default) draws
            one from NumPy's global random state; it is in the metadata.
        batch_size: Samples per batch, for arrays. `None` (the default) makes batches
            as large as the model's activations allow, which is fastest.
        engine: `"evaluate"` measures each point with `model.evaluate`;
            `"compiled"` puts the model's own `test_step` and many points into
            one TensorFlow or JAX graph, or one loop on Torch. `"auto"` (the default) uses
            the compiled one if it applies and is likely faster.
        executor: A `concurrent.futures.Executor` whose workers do the measuring;
            processes must be spawned, not forked. `None` (the default) measures
            in this process.
        checkpoint: Path of an HDF5 file that keeps points as they are measured,
            from coarse to fine; the same call resumes from it after a crash, and
            `LossSurface.load` reads it at any time, for a preview. Defaults to
            `None`.
        accuracy: Interpolate the points that cubic splines predict to within this
            fraction of the range of `metric`, such as 0.01. This saves most
            evaluations of a fine grid over a smooth landscape; a note says how many
            points were interpolated, see `evaluate_surface`. Defaults to `None`:
            everything that is drawn was measured.
        sampling_error: Whether to measure, too, by how much the values would differ
            had other samples been drawn: the surfaces then have `errors`, which are
            not drawn. Defaults to `False`.
        ax: Matplotlib axes to draw on, or a list of them for several datasets; for
            several plot types, a dict of these by plot type. `None` (the default)
            makes figures.
        path: Where to save the figure; the suffix sets the format. With two plot
            types, `landscape.png` becomes `landscape-levels.png` and
            `landscape-3d.png`. `landscape.html` is a page to explore, instead, as
            `LossDisplay.explore` shows. `None` (the default) saves nothing.
        show: Whether to call `plt.show()`. Defaults to `False`; notebooks show
            the figures anyway.
        verbose: `"auto"` (the default) or 1 shows a progress bar with the time
            left, 2 one line at the end, 0 nothing.
        **style: Further keyword arguments of `plot_levels` and `plot_surface`, such
            as `cmap`, `levels`, `limits`, `view`, `axes` or `figsize`. Each plot type
            gets the ones that it accepts.

    Returns:
        A `LossDisplay` with the surfaces, axes and figures. With several metrics, the
        plot types are called `"levels-loss"`, `"levels-accuracy"` and so on.

    Raises:
        AssertionError: If there are not as many labels as datasets.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), sections 4 and 6.
    """
    plot_types = _check_plot_types(plot_types)
    datasets = all_datasets(x, y)
    labels = _check_dataset_labels(dataset_labels, len(datasets))
    drawings = _surface_drawings(
        plot_types, metric, {"labels": labels} | _chosen_scale(scale), style
    )
    check_style(scale, **style)
    axes = _surface_axes(ax, list(drawings), len(datasets))
    paths = _surface_paths(path, tuple(drawings))
    surfaces = evaluate_surfaces(
        model,
        datasets,
        number_of_points=number_of_points,
        directions=directions,
        layers=layers,
        extent=extent,
        metric=metric,
        seed=seed,
        batch_size=batch_size,
        engine=engine,
        executor=executor,
        checkpoint=checkpoint,
        accuracy=accuracy,
        sampling_error=sampling_error,
        verbose=verbose,
    )
    values = surfaces if len(surfaces) > 1 else surfaces[0]
    drawings = {
        name: partial(draw.func, values, axes.get(name), **draw.keywords)
        for name, draw in drawings.items()
    }
    display = LossDisplay(surfaces=surfaces, labels=labels or [])
    return _finish(display, drawings, paths, show)


@hinted(draw=plot_line)
@evaluating(**BETWEEN)
def plot_interpolation(
    model: keras.Model,
    other: keras.Model,
    x: Data,
    y: Data = None,
    number_of_points: int = 41,
    *,
    dataset_labels: str | Sequence[str] | None = None,
    extent: Pair = (-0.5, 1.5),
    scale: Scale = "linear",
    path: FilePath | None = None,
    show: bool = False,
    **options: Unpack[MeasuringBetween],
) -> LossDisplay[LossSurface]:
    """Plots the loss and the metrics on the line from one model to another.

    Both models are marked. They are left as they were.

    Example:

    >>> plot_interpolation(small_batch, large_batch, (x_test, y_test))

    Args:
        model: A compiled and built `keras.Model`, at coordinate 0.
        other: A model of the same architecture, at coordinate 1.
        x: Inputs, or if `y` is `None` one dataset or several, as in `plot_loss`.
        y: Targets. Defaults to `None`.
        number_of_points: Points along the line, at least 2. Defaults to 41,
            which include both models.
        dataset_labels: One name per dataset, as in `plot_loss`.
        extent: First and last coordinate. Defaults to `(-0.5, 1.5)`.
        scale: `"linear"` (the default) or `"log"`, for the loss.
        path: Where to save the figure; the suffix sets the format. `None` (the
            default) does not save it.
        show: Whether to call `plt.show()`. Defaults to `False`.
        **options: How it is measured; see `MeasuringBetween` and `Measuring`.

    Returns:
        A `LossDisplay` with the lines, and the axes by metric: `"loss"` and
        every metric the model was compiled with.

    Raises:
        AssertionError: If there are not as many labels as datasets.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, or the models do not
            match; raised before any point is computed.

    Reference:
        [Goodfellow et al., 2015](https://arxiv.org/abs/1412.6544).
    """
    datasets = all_datasets(x, y)
    labels = _check_dataset_labels(dataset_labels, len(datasets))
    check_choice("scale", scale, SCALES)
    check_backend()
    paths = _figure_paths(path, ("loss",))
    lines = evaluate_interpolation(
        model,
        other,
        datasets,
        number_of_points=number_of_points,
        extent=extent,
        **options,
    )
    draw = partial(plot_metrics, lines, labels=labels, scale=scale)
    return _finish(LossDisplay(lines=lines, labels=labels or []), {"loss": draw}, paths, show)


@hinted(draw=plot_path)
@evaluating()
def plot_trajectory(
    model: keras.Model,
    history: History | Mapping[str, History],
    x: Data,
    y: Data = None,
    number_of_points: Points = 21,
    *,
    ignore: Ignore = None,
    scale: ContourScale = "auto",
    path: FilePath | None = None,
    show: bool = False,
    **options: Unpack[Measuring],
) -> LossDisplay[LossTrajectory]:
    """Plots the path of training on the loss of the plane that holds most of it.

    A second figure shows how faithful the first one is: the loss at each record
    next to the loss at its projection onto the plane, and its distance from the plane.
    The model is left as it was. Several runs are drawn on one plane, each in its own
    color.

    Example:

    >>> history = WeightHistory("history")
    >>> model.fit(x_train, y_train, epochs=10, callbacks=[history])
    >>> display = plot_trajectory(model, history, x_train, y_train, scale="log")
    >>> animate_path(display.surface, "training.gif", scale="log")

    Args:
        model: A compiled and built `keras.Model` at the end of its training.
        history: A `WeightHistory`; a folder with its records or with `.keras` or
            `.weights.h5` files; or a list of such files or of models. For several
            runs, a dict of these by name, with `model` at the center of their
            plane; see `evaluate_trajectory`.
        x: Inputs, or a whole dataset if `y` is `None`, as in `plot_loss_3D`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis, at least 2. Defaults to 21.
        ignore: `None` (the default) includes all trainable weights in the plane,
            `"biasbn"` leaves biases and normalization parameters at their final
            values.
        scale: `"linear"` or `"log"`, for the values. `"auto"` (the default) leaves it
            to `plot_path`, and is linear in the second figure.
        path: Where to save the figures: `training.png` becomes
            `training-trajectory.png` and `training-fidelity.png`. `training.html` is
            a page to explore, instead, as `LossDisplay.explore` shows. `None` (the
            default) saves nothing.
        show: Whether to call `plt.show()`. Defaults to `False`.
        **options: How it is measured; see `Measuring`. `metric` is what is drawn.

    Returns:
        A `LossDisplay` with a `LossTrajectory` as its surface, and the axes
        `"trajectory"` and `"fidelity"`.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 7.2.
    """
    style = {"metric": options["metric"]} | _chosen_scale(scale)
    check_backend()
    paths = _surface_paths(path, ("trajectory", "fidelity"))
    trajectory = evaluate_trajectory(
        model,
        history,
        x,
        y,
        number_of_points,
        ignore=ignore,
        **options,
    )
    drawings = {
        "trajectory": partial(plot_path, trajectory, **style),
        "fidelity": partial(plot_path_fidelity, trajectory, **style),
    }
    return _finish(LossDisplay(surfaces=[trajectory]), drawings, paths, show)


def _finish(display, drawings, paths, show):
    """Draws, saves and shows; failures cause warnings, but never lose what was measured."""
    before = set(plt.get_fignums())
    for name, draw in drawings.items():
        with _warning_of_failure(f"Could not draw {name!r}", _how_to_draw(draw)):
            drawn = draw()
            display.axes.update(drawn if isinstance(drawn, dict) else {name: drawn})
    for name in [name for name in paths if name in display.axes]:
        with _warning_of_failure(
            f"Could not write {paths[name]}", "The figure is in the returned display."
        ):
            save_figure(display.figures[name], paths[name])
    if PAGE in paths:
        with _warning_of_failure(
            f"Could not write {paths[PAGE]}", "The values are in the returned display."
        ):
            write_html(display, paths[PAGE], labels=display.labels or None, **_page_style(drawings))
    with _warning_of_failure("Could not show", "The figures are in the returned display."):
        if show:
            plt.show()
    # Close half-drawn figures, and saved ones, which would pile up in a script.
    kept = () if paths and not plt.isinteractive() else display.figures.values()
    opened = set(plt.get_fignums()) - before
    # The caller's own figures may have no number.
    for number in opened - {getattr(figure, "number", None) for figure in kept}:
        plt.close(number)
    return display


def _page_style(drawings):
    """The metric and the scale of the first figure, with which the page begins."""
    options = next(iter(drawings.values())).keywords
    return {name: options[name] for name in ("metric", "scale") if name in options}


@contextmanager
def _warning_of_failure(what, advice):
    """Turns any exception into a warning: raising it would throw away hours of computing."""
    try:
        # Matplotlib would fail if NumPy is set to raise.
        with np.errstate(all="ignore"):
            yield
    except Exception as error:
        warn(f"{what}: {type(error).__name__}: {error}. {advice}")


def _how_to_draw(draw):
    style = "".join(f", {name}={value!r}" for name, value in draw.keywords.items() if value)
    return (
        "The values are in the returned display; to draw them again, call "
        f"{draw.func.__name__}(display{style})."
    )


def _check_dataset_labels(labels, number):
    check_not_data("dataset_labels", labels)
    if isinstance(labels, int):
        raise TypeError(
            f"`dataset_labels` must be names. Received {labels!r}. Did you mean "
            f"`number_of_points={labels!r}`?"
        )
    if labels is None:
        return None if number == 1 else [f"dataset {index + 1}" for index in range(number)]
    labels = [labels] if isinstance(labels, str) else check_list("dataset_labels", labels)
    if len(labels) != number:
        raise AssertionError(
            f"`dataset_labels` must be one per dataset. Received {len(labels)} labels for {number} "
            f"dataset{'s'[: number != 1]}. Pass several datasets as ((x1, y1), (x2, y2))."
        )
    return labels


def _check_plot_types(plot_types):
    """The plot types as a list; refuses data in their place."""
    plot_types = [plot_types] if isinstance(plot_types, str) else plot_types
    is_names = isinstance(plot_types, (tuple, list)) and all(
        isinstance(each, str) for each in plot_types
    )
    if not is_names:
        raise TypeError(
            "`plot_types` is the second argument, before the data: `plot_loss_3D(model, 'levels', "
            f"x, y)`. Received {type(plot_types).__name__}."
        )
    if not plot_types:
        raise ValueError(f"`plot_types` is empty. Pass some of {', '.join(map(repr, PLOT_TYPES))}.")
    for plot_type in plot_types:
        check_choice("plot_types", plot_type, tuple(PLOT_TYPES))
    return list(plot_types)


def _surface_drawings(plot_types, metric, common, style):
    """Dict of functions that draw, by the figures' names; refuses options that none of them has."""
    check_metric(metric)
    metrics = [metric] if isinstance(metric, str) else list(metric)
    taken = {
        plot_type: set(inspect.signature(PLOT_TYPES[plot_type]).parameters) - {"surfaces", "ax"}
        for plot_type in plot_types
    }
    accepted = set().union(*taken.values()) - {"labels", "scale", "metric"}
    unknown = sorted(set(style) - accepted)
    if unknown:
        accepted |= set(inspect.signature(plot_loss_3D).parameters) - {"style"}
        raise TypeError(
            f"{unknown[0]!r} is not an option of {' or '.join(plot_types)}. "
            f"{instead(unknown[0], accepted)}"
        )
    drawings = {}
    for plot_type in plot_types:
        options = common | {name: style[name] for name in style if name in taken[plot_type]}
        for each in metrics:
            name = plot_type if len(metrics) == 1 else f"{plot_type}-{each}"
            drawings[name] = partial(PLOT_TYPES[plot_type], metric=each, **options)
    return drawings


def _chosen_scale(scale):
    """The scale as an option of drawings; none if each of them is to choose its own."""
    check_choice("scale", scale, CONTOUR_SCALES)
    return {} if scale == "auto" else {"scale": scale}


def _surface_axes(ax, names, number):
    """The caller's axes by the name of each figure, one for each dataset."""
    if ax is None:
        check_backend()
        return {}
    axes = ax if isinstance(ax, dict) else {names[0]: ax}
    if set(axes) != set(names):
        raise ValueError(
            f"`ax` must be a dict of axes by plot type, for {', '.join(names)}. Received "
            f"{sorted(axes) if isinstance(ax, dict) else type(ax).__name__}."
        )
    for name, each in axes.items():
        panels = list(np.ravel(np.array(each, dtype=object)))
        check_axes(panels, "3d" if name.startswith("3d") else "flat")
        if len(panels) != number:
            raise ValueError(
                f"`ax` must be one for each of {number} datasets. Received {len(panels)} for "
                f"{name!r}."
            )
    return axes


def _figure_paths(path, plot_types):
    """Where each figure is saved; refuses paths that could not be written."""
    if path is None:
        check_format()
        return {}
    path = check_path("path", path)
    check_format(path)
    if len(plot_types) == 1:
        return {plot_types[0]: path}
    return {name: check_path("path", path.with_stem(f"{path.stem}-{name}")) for name in plot_types}


def _surface_paths(path, plot_types):
    """Where each figure of surfaces is saved or, if it is a web page, where that is written."""
    if path is None or check_path("path", path).suffix != ".html":
        return _figure_paths(path, plot_types)
    check_format()
    check_page()
    return {PAGE: check_path("path", path)}


if __name__ == "__main__":
    # `python -m losslandscape` in a plain checkout, where this file is not in a package.
    from losslandscape.cli import main

    sys.exit(main())
