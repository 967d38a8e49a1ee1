"""Command line: draws the loss landscape of a saved model, for batch systems.

    losslandscape model.keras data.npz --plot levels 3d --points 51 --checkpoint surface.h5 --path figure.png
    losslandscape data.npz --compare "batch 128" a1.keras a2.keras --compare "batch 2048" b1.keras b2.keras --path figure.png

The same as `python -m losslandscape`. Progress goes to stderr. Exit codes: 0 done,
1 failed, 2 invalid arguments, 130 interrupted.
"""  # noqa: E501, each command stays on one line

import argparse
import contextlib
import importlib
import json
import sys
import time

import keras
import matplotlib as mpl
import numpy as np

import losslandscape as ll
from losslandscape.basics.checks import check_path, warn
from losslandscape.measuring.engines import ENGINES
from losslandscape.plotting import check_format
from losslandscape.values.files import no_device, reading_arrays, refusing

LINE = "line"


def main(arguments=None):
    """Runs the command line.

    Args:
        arguments: List of strings. `None` (the default) takes the arguments of
            the process.

    Returns:
        The exit code.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    mpl.use("Agg")
    started = time.monotonic()
    try:
        # Keras prints to stdout, which is for the summary.
        with contextlib.redirect_stdout(sys.stderr):
            measured = (_compare if options.compare else _plot)(options)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (TypeError, ValueError, OSError, ImportError, MemoryError) as error:
        parser.print_usage(sys.stderr)
        print(f"{parser.prog}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.json:
        summary = _summary_of_comparison if options.compare else _summary
        rest = {
            "checkpoint": options.checkpoint,
            "path": options.path,
            "seconds": round(time.monotonic() - started, 3),
        }
        print(json.dumps(summary(measured, options) | rest, indent=2))
    elif options.compare:
        print(measured)
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="losslandscape", description="Draws the loss around a trained Keras model."
    )
    add = parser.add_argument
    add("model", nargs="?", help="a compiled model, saved as .keras; not with --compare")
    add("data", help="an .npz file with the arrays x, y and, optionally, sample_weight")
    add("--x", default="x", help="name of the inputs in the file, for example x_test (default: x)")
    add("--y", default="y", help="name of the targets in the file (default: y)")
    kinds = (LINE, *ll.PLOT_TYPES)
    figures = "what to draw (default: levels; with --compare, line)"
    add("--plot", nargs="+", choices=kinds, help=figures)
    add(
        "--compare",
        nargs="+",
        action="append",
        metavar=("LABEL", "MODEL"),
        help="a label and its models, one per training; once for each label",
    )
    rise = "with --compare, how far the loss rises within a half-width (default: 1)"
    add("--rise", type=float, default=1.0, help=rise)
    add("--points", type=int, default=21, help="points per axis (default: 21)")
    directions = "number of random directions of lines (default: 1; with --compare, 10)"
    add("--directions", type=int, help=directions)
    extent = "first and last coordinate, or auto (default: -1 1)"
    add("--extent", nargs="+", default=["-1", "1"], help=extent)
    add("--metric", default="loss", help="metric to draw (default: loss)")
    scale = "scale of the values (default: auto, one that suits them)"
    add("--scale", default="auto", choices=ll.CONTOUR_SCALES, help=scale)
    add("--seed", type=int, help="seed for the random directions (default: random)")
    add("--batch-size", type=int, help="samples per batch (default: chosen for speed)")
    engine = "how points are measured (default: auto, the faster one)"
    add("--engine", default="auto", choices=("auto", *ENGINES), help=engine)
    add("--checkpoint", help="HDF5 file to keep the points in, and to resume from")
    add("--path", help="where to save the figure; the suffix sets the format")
    add("--json", action="store_true", help="print a summary")
    add("--quiet", action="store_true", help="show no progress")
    add(
        "--import",
        dest="modules",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules that register the model's custom layers and losses",
    )
    add(
        "--unsafe",
        action="store_true",
        help="load lambdas and pickled arrays, which may run any code: only for files you trust",
    )
    return parser


def _load_model(options):
    for module in options.modules:
        importlib.import_module(module)
    with refusing("model", options.model, "a model saved as .keras"):
        no_device(options.model)
        return keras.saving.load_model(options.model, safe_mode=not options.unsafe)


def _load_data(options):
    names = [options.x, options.y]
    expected = f"an .npz file with the arrays {' and '.join(names)} (or name them, by --x and --y)"
    with reading_arrays("data", options.data, expected, allow_pickle=options.unsafe) as arrays:
        absent = [name for name in names if name not in arrays]
        if absent:
            raise ValueError(f"it has no {' and '.join(absent)}, only {', '.join(arrays.files)}")
        names += [name for name in ("sample_weight",) if name in arrays]
        return tuple(arrays[name] for name in names)


def _common(options):
    """The options that all calls share."""
    return {
        "extent": _extent(options.extent),
        "metric": options.metric,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "engine": options.engine,
        "checkpoint": options.checkpoint,
        "verbose": 0 if options.quiet else 1,
    }


def _plot(options):
    if options.model is None:
        raise ValueError("There is no model. Pass model and data, or models with --compare.")
    if not options.path and not options.checkpoint:
        raise ValueError("Nothing would be saved. Pass --path, --checkpoint or both.")
    model, data, plot = _load_model(options), _load_data(options), options.plot or ["levels"]
    common = _common(options) | {"scale": _scale(options, plot), "path": options.path}
    if LINE not in plot:
        return ll.plot_loss_3D(model, plot, data, None, options.points, **common)
    if plot != [LINE]:
        raise ValueError(f"`--plot` must be {LINE} alone, or any of the others. Received {plot}.")
    number = options.directions or 1
    return ll.plot_loss(model, data, None, options.points, number_of_directions=number, **common)


def _compare(options):
    """Measures the models of each label, and draws the figure."""
    if options.model is not None:
        raise ValueError(
            f"With --compare, all models have a label. Received {options.model} without one: name "
            "the data first, then --compare LABEL MODEL …"
        )
    plot = options.plot or [LINE]
    if plot not in ([LINE], ["levels"]):
        raise ValueError(f"`--plot` must be {LINE} or levels, to compare. Received {plot}.")
    labels = [label for label, *_ in options.compare]
    if len(set(labels)) < len(labels):
        raise ValueError(f"`--compare` must have another label each time. Received {labels}.")
    path = None if options.path is None else check_path("path", options.path)
    check_format(path)
    for module in options.modules:
        importlib.import_module(module)
    if options.unsafe:
        keras.config.enable_unsafe_deserialization()
    comparison = ll.compare(
        {label: paths for label, *paths in options.compare},
        _load_data(options),
        None,
        options.points if plot == [LINE] else (options.points, options.points),
        number_of_directions=options.directions,
        rise=options.rise,
        **_common(options),
    )
    if path is not None:
        _draw(comparison, path, _scale(options, [LINE]))
    return comparison


def _scale(options, plot):
    """The scale asked for; for lines, `"auto"` is linear."""
    return "linear" if LINE in plot and options.scale == "auto" else options.scale


def _draw(comparison, path, scale):
    """Draws into a file; a failure causes a warning, so that the table is still printed."""
    try:
        (first, *_) = np.ravel(list(ll.plot_comparison(comparison, scale=scale).values()))
        ll.save_figure(first.get_figure(root=True), path)
    except Exception as error:
        warn(f"Could not draw {path}: {type(error).__name__}: {error}.")


def _extent(words):
    if len(words) == 1:
        return words[0]
    try:
        return tuple(float(word) for word in words)
    except ValueError as error:
        raise ValueError(
            f"`--extent` must be two numbers, such as -1 1, or auto. Received {' '.join(words)}."
        ) from error


def _summary(display, options):
    measured = display.surface or display.line
    return {
        "model": options.model,
        "center": {name: _plain(value) for name, value in measured.center.items()},
        "values": {name: _range(values) for name, values in measured.values.items()},
        "metadata": measured.metadata,
    }


def _summary_of_comparison(comparison, _):
    widths = comparison.half_widths
    return {
        "trainings": {label: len(part) for label, part in widths.items()},
        "half_widths": {
            label: [[_plain(width) for width in row] for row in part]
            for label, part in widths.items()
        },
        "differences": [
            {
                name: entry if isinstance(entry, str) else [_plain(number) for number in entry]
                for name, entry in each._asdict().items()
            }
            for each in comparison.differences
        ],
        "notes": comparison.notes,
        "metadata": comparison.metadata,
    }


def _range(values):
    finite = values[np.isfinite(values)]
    return {
        "shape": values.shape,
        "lowest": _plain(finite.min()) if finite.size else None,
        "highest": _plain(finite.max()) if finite.size else None,
        "not_finite": int(values.size - finite.size),
    }


def _plain(value):
    """A number for JSON; NaN and inf, which JSON does not have, become `None`."""
    return float(value) if np.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main())
