"""Report: line, plane, page and curvature of one model, in one file to send to someone."""

__all__ = ["ModelReport", "write_report"]

import base64
import html
import io
from typing import NamedTuple

import keras
import numpy as np
from matplotlib import pyplot as plt

from losslandscape.basics.arrays import flat
from losslandscape.basics.checks import check_path, warn
from losslandscape.basics.hints import hinted
from losslandscape.basics.types import Data, FilePath, Verbose
from losslandscape.curvature.hessian import Hessian
from losslandscape.directions import resolve_seed
from losslandscape.drawing.page import check_page, check_title, page_of, with_more
from losslandscape.drawing.shown import value_label
from losslandscape.evaluation import evaluate_line, evaluate_surface
from losslandscape.plotting import check_backend, check_format, plot_levels, plot_line
from losslandscape.values.files import replace_file
from losslandscape.values.measures import Estimate
from losslandscape.values.surfaces import LossLine, LossSurface

# Dots per inch: sharp on a screen that is twice as fine as others.
DPI = 200
ERRORS = (
    "The Hessian has an eigenvalue within the error of each that is given here, which is its "
    "residual; that of the trace is half of its 95 % confidence interval."
)


class ModelReport(NamedTuple):
    """What a report shows.

    Attributes:
        line: `LossLine` along random directions.
        surface: `LossSurface` over the plane of two of them.
        curvature: Dict of `Estimate`: `"largest eigenvalue"`, `"smallest eigenvalue"` and
            `"trace"` of the Hessian. Empty if it could not be computed.
    """

    line: LossLine
    surface: LossSurface
    curvature: dict[str, Estimate]


@hinted()
def write_report(
    model: keras.Model,
    x: Data,
    y: Data,
    path: FilePath,
    *,
    title: str | None = None,
    number_of_points: int = 31,
    number_of_directions: int = 10,
    seed: int | None = None,
    batch_size: int | None = None,
    verbose: Verbose = "auto",
) -> ModelReport:
    """Writes a report of the surroundings of a model, as a web page that works offline.

    It has the loss along random directions and over the plane of two of them, as figures
    and as a page to explore; the largest and the smallest eigenvalue of the Hessian and its
    trace, with their errors; what `report` finds, and how all of it was measured. The model
    is left as it was.

    Example:

    >>> found = write_report(model, x_test, y_test, "report.html", seed=0)
    >>> print(found.curvature["trace"])
    17.2 [12.9, 21.5]

    Args:
        model: A compiled and built `keras.Model`.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_line`.
        y: Targets, or `None`.
        path: Where to write the HTML file, about 5 MB.
        title: Title of the report. `None` (the default) takes the model's name.
        number_of_points: Points along the line and along each axis of the plane, at least 2.
            Defaults to 31.
        number_of_directions: Random directions of the line. Defaults to 10.
        seed: Integer seed for the random directions and vectors. `None` (the default) draws
            one from NumPy's global random state; it is in the report.
        batch_size: Samples per batch, for arrays. `None` (the default) chooses one.
        verbose: `"auto"` (the default) or 1 shows progress bars with the time left, 2 one
            line at the end of each, 0 nothing.

    Returns:
        A `ModelReport` with what was measured. If the file cannot be written in the end, or
        the curvature not be computed, a warning says why.

    Raises:
        ImportError: If Plotly is not installed (the extra `html`).
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point is
            computed, with the model untouched.
    """
    path = check_path("path", path)
    check_title(title)
    check_page()
    check_backend()
    check_format()
    common = {"seed": resolve_seed(seed), "batch_size": batch_size, "verbose": verbose}
    line = evaluate_line(
        model, x, y, number_of_points, number_of_directions=number_of_directions, **common
    )
    surface = evaluate_surface(model, x, y, number_of_points, **common)
    curvature = _curvature(model, x, y, **common)
    found = ModelReport(line, surface, curvature)
    try:
        page = with_more(page_of(surface, title=title), _sections(found))
        replace_file(path, page.encode(errors="replace"))
    except Exception as error:
        # Raising it would throw away what was measured.
        advice = "What was measured is in the returned report."
        warn(f"Could not write {path}: {type(error).__name__}: {error}. {advice}")
    return found


def _curvature(model, x, y, *, seed, batch_size, verbose):
    """The largest and the smallest eigenvalue of the Hessian and its trace, with their errors."""
    try:
        hessian = Hessian(model, x, y, batch_size=batch_size, verbose=verbose)
        pairs = zip(*hessian.eigenvalues(which="both", seed=seed), strict=True)
        largest, smallest = (_bounded(hessian, *pair) for pair in pairs)
        trace = hessian.trace(seed=seed)
    except (ImportError, RuntimeError, ValueError) as error:
        warn(f"The report has no curvature: {error}")
        return {}
    return {"largest eigenvalue": largest, "smallest eigenvalue": smallest, "trace": trace}


def _bounded(hessian, value, direction):
    """An eigenvalue with bounds: a symmetric matrix has one within the residual of any pair."""
    vector = flat(direction).astype(float)
    residual = flat(hessian.product(direction)) - value * vector
    error = np.linalg.norm(residual) / np.linalg.norm(vector)
    return Estimate(*(float(value + sign * error) for sign in (0, -1, 1)))


def _sections(found):
    """What the page shows above the surface, as HTML."""
    line, surface = found.line, found.surface
    number = len(line.values["loss"])
    directions = f"{number} random direction{'s'[: number != 1]}"
    center = [[value_label(name), f"{value:.4g}"] for name, value in surface.center.items()]
    return "".join(
        [
            _section("The model", _table([], center)),
            _section(f"Loss along {directions}", _picture(plot_line(line), "along directions")),
            _section("Loss over the plane of two", _picture(plot_levels(surface), "over a plane")),
            _section("Curvature at the model", _curvature_in_words(found.curvature)),
            "<h2>The plane, to explore</h2>",
        ]
    )


def _curvature_in_words(curvature):
    if not curvature:
        return "<p>It could not be computed.</p>"
    rows = [
        [name, f"{mean:.5g}", f"± {(high - low) / 2:.2g}"]
        for name, (mean, low, high) in curvature.items()
    ]
    return _table([], rows) + f"<p>{ERRORS}</p>"


def _section(title, content):
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>"


def _table(names, rows):
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead>{body}</table></div>'


def _picture(ax, where):
    """A figure as HTML; it is closed."""
    content = io.BytesIO()
    ax.figure.savefig(content, format="png", dpi=DPI)
    plt.close(ax.figure)
    source = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="The loss {html.escape(where)}" src="data:image/png;base64,{source}">'
