"""Command line: draws the loss landscape of a saved model, for batch systems.

    losslandscape model.keras data.npz --plot levels 3d --points 51 --checkpoint surface.h5 --path figure.png

The same as `python -m losslandscape`. Progress goes to stderr. Exit codes: 0 done,
1 failed, 2 invalid arguments, 130 interrupted.
"""  # noqa: E501, the command stays on one line

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
from losslandscape.measuring.engines import ENGINES
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
            display = _plot(_load_model(options), _load_data(options), options)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (TypeError, ValueError, OSError, ImportError, MemoryError) as error:
        parser.print_usage(sys.stderr)
        print(f"{parser.prog}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(_summary(display, options, time.monotonic() - started), indent=2))
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="losslandscape", description="Draws the loss around a trained Keras model."
    )
    add = parser.add_argument
    add("model", help="a compiled model, saved as .keras")
    add("data", help="an .npz file with the arrays x, y and, optionally, sample_weight")
    add("--x", default="x", help="name of the inputs in the file, for example x_test (default: x)")
    add("--y", default="y", help="name of the targets in the file (default: y)")
    kinds = (LINE, *ll.PLOT_TYPES)
    add("--plot", nargs="+", default=["levels"], choices=kinds, help="figures (default: levels)")
    add("--points", type=int, default=21, help="points per axis (default: 21)")
    add("--directions", type=int, default=1, help="random directions of a line (default: 1)")
    add("--extent", nargs="+", default=["-1", "1"], help="first and last coordinate, or auto")
    add("--metric", default="loss", help="what to draw (default: loss)")
    add("--scale", default="auto", choices=ll.CONTOUR_SCALES, help="default: suits the values")
    add("--seed", type=int, help="seed for the random directions (default: random)")
    add("--batch-size", type=int, help="default: chosen for speed")
    add("--engine", default="auto", choices=("auto", *ENGINES), help="default: auto")
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


def _plot(model, data, options):
    if not options.path and not options.checkpoint:
        raise ValueError("Nothing would be saved. Pass --path, --checkpoint or both.")
    common = {
        "extent": _extent(options.extent),
        "metric": options.metric,
        "scale": "linear" if LINE in options.plot and options.scale == "auto" else options.scale,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "engine": options.engine,
        "checkpoint": options.checkpoint,
        "path": options.path,
        "verbose": 0 if options.quiet else 1,
    }
    if LINE not in options.plot:
        return ll.plot_loss_3D(model, options.plot, data, None, options.points, **common)
    if options.plot != [LINE]:
        raise ValueError(
            f"`--plot` must be {LINE} alone, or any of the others. Received {options.plot}."
        )
    return ll.plot_loss(
        model, data, None, options.points, number_of_directions=options.directions, **common
    )


def _extent(words):
    if len(words) == 1:
        return words[0]
    try:
        return tuple(float(word) for word in words)
    except ValueError as error:
        raise ValueError(
            f"`--extent` must be two numbers, such as -1 1, or auto. Received {' '.join(words)}."
        ) from error


def _summary(display, options, seconds):
    measured = display.surface or display.lines[0]
    return {
        "model": options.model,
        "center": {name: _plain(value) for name, value in measured.center.items()},
        "values": {name: _range(values) for name, values in measured.values.items()},
        "metadata": measured.metadata,
        "checkpoint": options.checkpoint,
        "path": options.path,
        "seconds": round(seconds, 3),
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
    """A number for JSON, which has neither NaN nor inf: those become `None`."""
    return float(value) if np.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main())
