"""Command line: draws the loss landscape of saved models, for batch systems.

    losslandscape model.keras data.npz --path landscape.png
    losslandscape compare data.npz --models "batch 128" a1.keras a2.keras --models "batch 2048" b1.keras b2.keras
    losslandscape report model.keras data.npz --path report.html

The same as `python -m losslandscape`. Progress goes to stderr. Exit codes: 0 done,
1 failed, 2 invalid arguments, 130 interrupted.
"""  # noqa: E501, each command stays on one line

import argparse
import contextlib
import functools
import importlib
import json
import sys
import time
from pathlib import Path

import keras
import matplotlib as mpl
import numpy as np

import losslandscape as ll
from losslandscape.basics.checks import check_path, warn
from losslandscape.drawing.page import check_page, write_html
from losslandscape.measuring.engines import ENGINES
from losslandscape.plotting import check_film, check_format
from losslandscape.summaries.report import ModelReport
from losslandscape.values.files import no_device, reading_arrays, refusing

LINE = "line"
PROGRAM = "losslandscape"


def main(arguments=None):
    """Runs the command line.

    Args:
        arguments: List of strings. `None` (the default) takes the arguments of
            the process.

    Returns:
        The exit code.
    """
    parser, commands = _parser()
    options = parser.parse_args(
        _with_command(sys.argv[1:] if arguments is None else arguments, commands)
    )
    mpl.use("Agg")
    started = time.monotonic()
    try:
        # Keras prints to stdout, which is for the summary.
        with contextlib.redirect_stdout(sys.stderr):
            _prepare(options)
            measured = options.run(options)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (TypeError, ValueError, OSError, ImportError, MemoryError) as error:
        commands[options.command].print_usage(sys.stderr)
        print(f"{PROGRAM}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.json:
        rest = {
            "checkpoint": vars(options).get("checkpoint"),
            "path": options.path,
            "seconds": round(time.monotonic() - started, 3),
        }
        print(json.dumps(_summary(measured, options) | rest, indent=2))
    elif isinstance(measured, ll.Comparison):
        print(measured)
    return 0


def _with_command(arguments, commands):
    """The arguments with a command in front: to plot, where the first of them is none."""
    is_complete = bool(arguments) and arguments[0] in (*commands, "-h", "--help")
    return list(arguments) if is_complete else ["plot", *arguments]


def _parser():
    """Makes the parser, and returns a dict of those of the commands, too."""
    examples = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{examples}\n\nDraws the loss around trained Keras models.",
        epilog=f"The options of a command are shown by {PROGRAM} COMMAND --help.",
    )
    commands = parser.add_subparsers(prog=PROGRAM, metavar="COMMAND", dest="command")
    _add_plot(commands)
    _add_compare(commands)
    _add_training(commands)
    _add_film(commands)
    _add_report(commands)
    return parser, commands.choices


def _add_plot(commands):
    add = _command(commands, "plot", _plot, "the loss around a model; without a command, too")
    _add_model(add)
    figures = "a line, or one or both of the others (default: levels)"
    add("--plot", nargs="+", choices=(LINE, *ll.PLOT_TYPES), default=["levels"], help=figures)
    add("--directions", type=int, default=1, help="random directions of a line (default: 1)")
    accuracy = "interpolate the points that splines predict to this share of the range: 0.01"
    add("--accuracy", type=float, help=accuracy)
    error = "measure how much the choice of samples matters, too; drawn as a band around lines"
    add("--sampling-error", action="store_true", help=error)
    _add_around(add)
    _add_measuring(add)


def _add_compare(commands):
    add = _command(commands, "compare", _compare, "which of several kinds of training is flatter")
    _add_data(add)
    models = "a label and its models, one per training; once for each label"
    add("--models", nargs="+", action="append", required=True, metavar="LABEL", help=models)
    add("--plot", choices=(LINE, "levels"), default=LINE, help="lines or planes (default: line)")
    add("--directions", type=int, help="random directions of lines (default: 10)")
    rise = "how far the loss rises within a half-width (default: 1)"
    add("--rise", type=float, default=1.0, help=rise)
    _add_around(add)
    _add_measuring(add)


def _add_training(commands):
    add = _command(commands, "training", _training, "the path of training, on its plane")
    _add_model(add)
    _add_history(add)
    _add_measuring(add)


def _add_film(commands):
    add = _command(commands, "film", _film, "the loss around a model in the course of training")
    _add_model(add)
    _add_history(add)
    figure = "what each frame shows (default: levels)"
    add("--plot", choices=tuple(ll.PLOT_TYPES), default="levels", help=figure)
    frames = "number of records to take, as evenly as possible (default: all)"
    add("--frames", type=int, help=frames)
    _add_around(add)
    _add_measuring(add)


def _add_report(commands):
    text = "the line, the plane and the curvature of one model, on one web page"
    add = _command(commands, "report", _report, text)
    _add_model(add)
    add("--points", type=int, default=31, help="points of the line and per axis (default: 31)")
    add("--directions", type=int, default=10, help="random directions of the line (default: 10)")
    add("--seed", type=int, help="seed for the random directions (default: random)")
    add("--batch-size", type=int, help="samples per batch (default: chosen for speed)")
    _add_output(add)


def _command(commands, name, run, text):
    """Adds a command; returns the function that adds arguments to it."""
    parser = commands.add_parser(name, help=text, description=f"Draws {text}.")
    parser.set_defaults(run=run)
    return parser.add_argument


def _add_model(add):
    add("model", help="a compiled model, saved as .keras")
    _add_data(add)


def _add_data(add):
    add("data", help="an .npz file with the arrays x, y and, optionally, sample_weight")
    add("--x", default="x", help="name of the inputs in the file, for example x_test (default: x)")
    add("--y", default="y", help="name of the targets in the file (default: y)")


def _add_history(add):
    records = "the folder of a WeightHistory or of saved models, or such files from first to last"
    add("history", nargs="+", help=records)


def _add_around(add):
    extent = "first and last coordinate, or auto (default: -1 1)"
    add("--extent", nargs="+", default=["-1", "1"], help=extent)
    add("--seed", type=int, help="seed for the random directions (default: random)")


def _add_measuring(add):
    add("--points", type=int, default=21, help="points per axis (default: 21)")
    add("--metric", default="loss", help="metric to draw (default: loss)")
    scale = "scale of the values (default: auto, one that suits them)"
    add("--scale", default="auto", choices=ll.CONTOUR_SCALES, help=scale)
    add("--batch-size", type=int, help="samples per batch (default: chosen for speed)")
    engine = "how points are measured (default: auto, the faster one)"
    add("--engine", default="auto", choices=("auto", *ENGINES), help=engine)
    add("--checkpoint", help="HDF5 file to keep the points in, and to resume from")
    _add_output(add)


def _add_output(add):
    add("-o", "--path", help="where to save the figure or page; the suffix sets the format")
    add("--json", action="store_true", help="print a summary")
    add("--quiet", action="store_true", help="show no progress")
    modules = "modules that register the models' custom layers and losses"
    add("--import", dest="modules", nargs="+", default=[], metavar="MODULE", help=modules)
    unsafe = "load lambdas and pickled arrays, which may run any code: only for files you trust"
    add("--unsafe", action="store_true", help=unsafe)


def _prepare(options):
    """Makes ready what the files need to be loaded."""
    for module in options.modules:
        importlib.import_module(module)
    if options.unsafe:
        keras.config.enable_unsafe_deserialization()


def _plot(options):
    _check_saved(options)
    model, data, plot = _load_model(options), _load_data(options), options.plot
    drawn = {"scale": _scale(options, plot), "path": options.path}
    cost = {"accuracy": options.accuracy, "sampling_error": options.sampling_error}
    common = _measuring(options) | _around(options) | cost | drawn
    if LINE not in plot:
        return ll.plot_loss_3D(model, plot, data, None, options.points, **common).surface
    if plot != [LINE]:
        raise ValueError(f"`--plot` must be {LINE} alone, or any of the others. Received {plot}.")
    number = options.directions
    display = ll.plot_loss(model, data, None, options.points, number_of_directions=number, **common)
    return display.line


def _compare(options):
    labels = [label for label, *_ in options.models]
    if len(set(labels)) < len(labels):
        raise ValueError(f"`--models` must have another label each time. Received {labels}.")
    path = None if options.path is None else check_path("path", options.path)
    check_format(path)
    comparison = ll.compare(
        {label: paths for label, *paths in options.models},
        _load_data(options),
        None,
        options.points if options.plot == LINE else (options.points, options.points),
        number_of_directions=options.directions,
        rise=options.rise,
        **_measuring(options),
        **_around(options),
    )
    if path is not None:
        scale = _scale(options, [LINE])
        _draw(path, lambda: _save(ll.plot_comparison(comparison, scale=scale), path))
    return comparison


def _training(options):
    _check_saved(options)
    drawn = {"scale": options.scale, "path": options.path}
    parts = _load_model(options), _history(options), _load_data(options), None, options.points
    return ll.plot_trajectory(*parts, **_measuring(options), **drawn).surface


def _film(options):
    _check_saved(options)
    write = _film_writer(options)
    parts = _load_model(options), _history(options), _load_data(options), None, options.points
    common = _measuring(options) | _around(options)
    film = ll.evaluate_film(*parts, number_of_frames=options.frames, **common)
    if write is not None:
        _draw(options.path, functools.partial(write, film, options.path))
    return film


def _film_writer(options):
    """A function of a film and a path that writes it; `None` if it is not to be written."""
    if options.path is None:
        return None
    style = {"metric": options.metric, "scale": options.scale}
    if check_path("path", options.path).suffix != ".html":
        check_film(options.path)
        return functools.partial(ll.animate_film, plot_type=options.plot, **style)
    check_page()
    # A page has no scale that suits contours: it shows surfaces.
    scale = "linear" if options.scale == "auto" else options.scale
    return functools.partial(write_html, metric=options.metric, scale=scale)


def _report(options):
    if not options.path:
        raise ValueError("Nothing would be saved. Pass --path, such as --path report.html.")
    return ll.write_report(
        _load_model(options),
        _load_data(options),
        None,
        options.path,
        number_of_points=options.points,
        number_of_directions=options.directions,
        seed=options.seed,
        batch_size=options.batch_size,
        verbose=0 if options.quiet else 1,
    )


def _load_model(options):
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


def _history(options):
    """A folder of records, or a list of files."""
    first, *others = options.history
    return first if Path(first).is_dir() and not others else options.history


def _measuring(options):
    """How it is measured: the options that all calls share."""
    return {
        "metric": options.metric,
        "batch_size": options.batch_size,
        "engine": options.engine,
        "checkpoint": options.checkpoint,
        "verbose": 0 if options.quiet else 1,
    }


def _around(options):
    """Where it is measured, of calls that follow random directions."""
    return {"extent": _extent(options.extent), "seed": options.seed}


def _extent(words):
    if len(words) == 1:
        return words[0]
    try:
        return tuple(float(word) for word in words)
    except ValueError as error:
        raise ValueError(
            f"`--extent` must be two numbers, such as -1 1, or auto. Received {' '.join(words)}."
        ) from error


def _scale(options, plot):
    """The scale asked for; for lines, `"auto"` is linear."""
    return "linear" if LINE in plot and options.scale == "auto" else options.scale


def _check_saved(options):
    if not options.path and not options.checkpoint:
        raise ValueError("Nothing would be saved. Pass --path, --checkpoint or both.")


def _draw(path, write):
    """Writes a drawing; a failure causes a warning, so that what was measured is not lost."""
    try:
        write()
    except Exception as error:
        warn(f"Could not draw {path}: {type(error).__name__}: {error}.")


def _save(axes, path):
    """Saves the figure of a dict of axes."""
    first = np.ravel(list(axes.values()))[0]
    ll.save_figure(first.get_figure(root=True), path)


def _summary(measured, options):
    if isinstance(measured, ll.Comparison):
        return _summary_of_comparison(measured)
    if isinstance(measured, ModelReport):
        curvature = {name: list(map(_plain, each)) for name, each in measured.curvature.items()}
        return _summary(measured.surface, options) | {"curvature": curvature}
    return {
        "model": options.model,
        "center": {name: _plain(value) for name, value in measured.center.items()},
        "values": {name: _range(values) for name, values in measured.values.items()},
        "metadata": measured.metadata,
    }


def _summary_of_comparison(comparison):
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
