"""Page: surfaces to explore in a browser, in one file that needs no network.

`page.html`, next to this module, is the page itself, with its style and its script. Here it
gets the library that draws, and the data.
"""

__all__ = ["write_html"]

import base64
import html
import json
import re
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps, colors

from losslandscape.basics.checks import check_choice, check_list, check_path, import_extra, warn
from losslandscape.basics.types import FilePath, Scale
from losslandscape.drawing.layout import (
    COLORS,
    check_labels,
    finite_limits,
    round_levels,
    short_names,
)
from losslandscape.drawing.shown import (
    SCALES,
    drawable_values,
    model_points,
    point_notes,
    sides_of,
    value_label,
)
from losslandscape.drawing.space import FLOOR, HEIGHT, WIDTH, best_view
from losslandscape.values.files import replace_file
from losslandscape.values.measures import Finding, report
from losslandscape.values.surfaces import (
    LossFilm,
    LossSurface,
    LossTrajectory,
    Surfaces,
    values_of,
)

TEMPLATE = Path(__file__).with_name("page.html")
# How far the camera is, in sizes of the surface, and how far below its middle it looks at.
DISTANCE, BELOW = 1.9, 0.15
# Of the page in a notebook.
FRAME = "width: 100%; height: 800px; border: 0"
# Entries of the metadata that have another name in words.
NAMES = {"dataset_size": "samples", "normalize": "normalization", "ignore": "not moved"}
# Lists longer than this are counted.
LONGEST_LIST = 6


def write_html(
    values: Surfaces,
    path: FilePath,
    *,
    labels: str | Sequence[str] | None = None,
    title: str | None = None,
    metric: str | None = None,
    scale: Scale = "linear",
    findings: Sequence[Finding] | None = None,
) -> None:
    """Writes a web page to explore surfaces on, which works in any browser, offline.

    Several surfaces are side by side, with one camera and one scale. There are switches
    for the metric, the scale and the contours on the floor; a click shows the values at a
    point and the slices through it. The models' own points and the lowest one are marked.
    A trajectory has its path on it, and a slider over its records; the frames of a film
    have one, too. Points that are not finite, or not positive on a log scale, are holes,
    and a note counts them; those that a checkpoint has not measured yet are interpolated,
    and a note says "preview". The page also says how all of it was measured, and what
    `report` finds.

    Example:

    >>> write_html(LossSurface.load("resnet56.h5"), "resnet56.html")

    Args:
        values: A `LossSurface`, a `LossTrajectory`, a `LossFilm`, or a list of surfaces to
            compare.
        path: Where to write the HTML file, about 5 MB.
        labels: One name per surface. Defaults to `None`.
        title: Title of the page. `None` (the default) takes the model's name.
        metric: Which of the measured values to show first. `None` (the default) takes the
            first one.
        scale: `"linear"` (the default) or `"log"`, for the height at first.
        findings: What the page says about the measurement, such as the result of `report`
            with the `expected` values. `None` (the default) calls `report` for each surface.

    Raises:
        ImportError: If Plotly is not installed (the extra `html`).
        TypeError: If an argument has the wrong type.
        ValueError: If there are not as many labels as surfaces, if they have no metric in
            common, `metric` or `scale` is unknown, or `path` is not a file that can be written.
    """
    path = check_path("path", path)
    options = {"labels": labels, "title": title, "metric": metric, "scale": scale}
    replace_file(path, page_of(values, **options, findings=findings).encode())


def page_of(values, *, labels=None, title=None, metric=None, scale="linear", findings=None):
    """Returns what `write_html` writes, as a string."""
    columns, moments = _columns(values)
    surfaces = [surface for frames in columns for surface in frames]
    metrics = _common_metrics(surfaces)
    metric = metrics[0] if metric is None else metric
    check_choice("metric", metric, tuple(metrics))
    check_choice("scale", scale, SCALES)
    labels = check_labels(labels, len(columns), "surface", "surfaces")
    check_title(title)
    _check_findings(findings)
    library = check_page()
    times, names = _moments(surfaces)
    data = {
        "title": _title(surfaces) if title is None else title,
        "metrics": [_axes_of(name, surfaces) for name in metrics],
        "metric": metrics.index(metric),
        "scale": scale,
        "moments": moments or names,
        "panels": [
            _panel(frames, label, metrics, times)
            for frames, label in zip(columns, labels, strict=True)
        ],
        # As high, to its width, as Matplotlib's figure of the same surfaces.
        "height": HEIGHT / WIDTH,
        "floor": FLOOR / WIDTH,
        "camera": _camera(surfaces, metrics[0]),
        "colors": [colors.to_hex(each) for each in colormaps["viridis"](np.linspace(0, 1, 17))],
        "cycle": [colors.to_hex(each) for each in COLORS],
        "measured": _measured(columns, labels, metrics, findings),
    }
    # What is in the data cannot end the script that holds them.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    start, middle, end = re.split(r"\{\{\w+\}\}", TEMPLATE.read_text(encoding="utf-8"))
    return "".join([start, library, middle, text, end])


def check_title(title):
    """Refuses a title that is no text."""
    if title is not None and not isinstance(title, str):
        raise TypeError(f"`title` must be a string. Received {title!r}.")


def with_more(page, more):
    """Returns a page with more HTML above its surfaces, and with all of it unfolded."""
    return page.replace("<!-- more -->", more, 1).replace("<details ", "<details open ", 1)


def show_page(page):
    """Shows a page in the output of a notebook or, anywhere else, in the web browser."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        # In a frame of its own, where neither its style nor its script meets those of others.
        frame = f'<iframe title="Loss landscape" style="{FRAME}" srcdoc="{html.escape(page)}">'
        ipython.display.display(ipython.display.HTML(f"<div>{frame}</iframe></div>"))
        return
    with tempfile.NamedTemporaryFile(suffix=".html", delete=False) as file:
        file.write(page.encode())
    if not webbrowser.open(Path(file.name).as_uri()):
        warn(f"No web browser could be opened. The page is in {file.name}.")


def check_page():
    """Returns the library that draws the page; refuses to go on without it."""
    return import_extra("plotly.offline", "html").get_plotlyjs()


def _columns(values):
    """The surfaces of each panel, one per frame, and the names of the frames, if any."""
    if isinstance(values, LossFilm):
        return [values.surfaces], values.labels
    return [[each] for each in values_of("values", values, LossSurface)], []


def _common_metrics(surfaces):
    """The names of the metrics that were measured on all surfaces."""
    common = set.intersection(*(set(each.values) for each in surfaces))
    if not common:
        raise ValueError(f"`values` must have a metric in common. Received {surfaces}.")
    return [name for name in surfaces[0].values if name in common]


def _check_findings(findings):
    given = [] if findings is None else check_list("findings", findings)
    if not all(isinstance(each, Finding) for each in given):
        raise TypeError(f"`findings` must be a list, as `report` returns. Received {findings!r}.")


def _title(surfaces):
    """The name of the model, if there is one for all surfaces."""
    names = {each.metadata.get("model", "") for each in surfaces}
    return "Loss landscape" if len(names) > 1 else names.pop() or "Loss landscape"


def _axes_of(metric, surfaces):
    """The name of a metric, and for each scale the limits and the ticks of all surfaces."""
    axes = {"label": value_label(metric)}
    for scale in SCALES:
        values = [drawable_values(each, metric, scale) for each in surfaces]
        levels = round_levels(values, scale, number=6)
        to_axis = np.log10 if scale == "log" else np.asarray
        axes[scale] = {
            "limits": to_axis(finite_limits(values)).tolist(),
            "at": to_axis(levels).tolist(),
            "names": short_names(levels),
        }
    return axes


def _moments(surfaces):
    """The times at which any path has a record, and their names."""
    paths = [each for each in surfaces if isinstance(each, LossTrajectory)]
    if not paths:
        return np.array([]), []
    times = np.unique(np.concatenate([each.times for each in paths]))
    return times, [f"{paths[0].unit} {time:g}" for time in times]


def _panel(frames, label, metrics, times):
    """What the page shows of one surface, or of all frames of a film."""
    surface = frames[-1]
    return {
        "label": label,
        "axes": list(surface.axis_names),
        "alphas": _encoded(surface.alphas),
        "betas": _encoded(surface.betas),
        "sides": sides_of(surface).tolist(),
        "frames": [_frame(each, metrics) for each in frames],
        "runs": _runs(surface, metrics, times) if isinstance(surface, LossTrajectory) else [],
    }


def _frame(surface, metrics):
    values = [drawable_values(surface, metric, "linear") for metric in metrics]
    return {
        "values": [_encoded(each) for each in values],
        "models": [
            model_points(surface, each, metric, "linear").tolist()
            for metric, each in zip(metrics, values, strict=True)
        ],
        "notes": {
            scale: [
                point_notes([surface], [drawable_values(surface, metric, scale)], scale)
                for metric in metrics
            ]
            for scale in SCALES
        },
        "missing": np.flatnonzero(surface.missing).tolist(),
        "interpolated": np.flatnonzero(surface.interpolated).tolist(),
    }


def _runs(trajectory, metrics, times):
    """The paths on a surface: where records lie, their values, and how many there are by when."""
    runs = []
    for number, (name, part) in enumerate(trajectory.runs.items()):
        made = trajectory.times[part]
        values = trajectory.plane_values, trajectory.true_values
        on_plane, at_records = ([_encoded(each[name][part]) for name in metrics] for each in values)
        runs.append(
            {
                "name": name,
                # Blue and green are colors of the surface.
                "color": ("#e3173e", *COLORS[3:5], *COLORS[:3])[number % 6],
                "alphas": _encoded(trajectory.path[part, 0]),
                "betas": _encoded(trajectory.path[part, 1]),
                "times": [f"{trajectory.unit} {time:g}" for time in made],
                "counts": [int(np.count_nonzero(made <= time)) for time in times],
                "onPlane": on_plane,
                "atRecords": at_records,
                "distances": _encoded(trajectory.distances[part]),
            }
        )
    return runs


def _camera(surfaces, metric):
    """Where to look from: in the direction of Matplotlib's figure."""
    values = [drawable_values(each, metric, "linear") for each in surfaces]
    view = best_view(values, finite_limits(values), list(map(sides_of, surfaces)))
    up, toward = np.deg2rad(view)
    across = np.cos(up)
    eye = across * np.cos(toward), across * np.sin(toward), np.sin(up)
    eye = dict(zip("xyz", (DISTANCE * float(part) for part in eye), strict=True))
    return {"eye": eye, "center": {"x": 0, "y": 0, "z": -BELOW}}


def _measured(columns, labels, metrics, findings):
    """How the last frame of each panel was measured, and what there is to say about it."""
    last = [frames[-1] for frames in columns]
    keys = dict.fromkeys(key for each in last for key in each.metadata if key != "fingerprint")
    rows = [
        [_key_in_words(key), *(_in_words(each.metadata.get(key)) for each in last)] for key in keys
    ]
    if findings is not None:
        found = [{"label": None, "reason": None, "found": _lines(findings)}]
    else:
        metric = "loss" if "loss" in metrics else metrics[0]
        found = [
            {"label": label} | _reported(each, metric)
            for label, each in zip(labels, last, strict=True)
        ]
    return {"names": [label or "" for label in labels], "rows": rows, "findings": found}


def _reported(surface, metric):
    """What `report` finds, or why it cannot look."""
    try:
        return {"reason": None, "found": _lines(report(surface, metric))}
    except ValueError as error:
        return {"reason": f"Nothing was checked: {error}", "found": []}


def _lines(findings):
    return [
        {"text": f"{each.check}: {each.value:.4g}", "warning": each.warning} for each in findings
    ]


def _key_in_words(key):
    return NAMES.get(key, key.replace("_", " "))


def _in_words(entry):
    """An entry of the metadata as text."""
    if isinstance(entry, dict):
        return ", ".join(f"{key} {_in_words(each)}" for key, each in entry.items())
    if isinstance(entry, list):
        if len(entry) > LONGEST_LIST:
            return f"{len(entry):,} entries"
        return ", ".join(map(_in_words, entry))
    if isinstance(entry, float):
        return f"{entry:.4g}"
    return "–" if entry is None else str(entry)


def _encoded(array):
    """The bits of an array of doubles, which the page reads."""
    return base64.b64encode(np.ascontiguousarray(array, "<f8").tobytes()).decode()
