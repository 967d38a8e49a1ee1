"""Options: where and how a call measures, said once for all that evaluate a model at points."""

__all__ = ["Measuring", "MeasuringAround", "MeasuringBetween"]

import functools
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Literal, TypedDict

from losslandscape.basics.claims import claiming
from losslandscape.basics.hints import hinted
from losslandscape.basics.types import (
    Call,
    Directions,
    Engine,
    Extent,
    FilePath,
    Layers,
    Statistics,
    Verbose,
)


class Measuring(TypedDict, total=False):
    """How a call measures: the options that all evaluating calls share.

    Attributes:
        metric: The metric that the progress bar shows, and plots draw: one that the model
            reports, such as `"accuracy"`, or `"data_loss"`, the loss without weight
            penalties. All of them are measured. Of a list the bar shows the first.
            Defaults to `"loss"`.
        batch_size: Samples per batch, for arrays. `None` (the default) makes batches as
            large as the model's activations allow, which is fastest.
        engine: `"evaluate"` measures each point with `model.evaluate`; `"compiled"` puts
            the model's own `test_step` and many points into one TensorFlow or JAX graph,
            or one loop on Torch. `"auto"` (the default) takes the compiled one where it
            applies and pays off. Curvature has an engine of its own: there `"auto"` is all.
        sampling_error: Whether to measure, too, by how much the values would differ had other
            samples been drawn: the standard errors of all values that are means over samples,
            which `plot_line` draws as a band. They come from the spread between batches and
            cost no further evaluation. Arrays are shuffled for this, always in the same way
            (unless a layer is stateful), and cut into about 20 batches or more; data in
            batches keep their order, so errors are too large if this is by class. At least
            10 batches are needed. For lines and surfaces of metrics. Defaults to `False`.
        executor: A `concurrent.futures.Executor` whose workers do the measuring;
            processes must be spawned, not forked. Each worker gets a copy of the model and
            the data. Defaults to `None`, this process.
        checkpoint: Path of an HDF5 file that keeps points as they are measured; the same
            call resumes from it after a crash. It is a saved value that the class of the
            result can load at any time, such as `LossLine.load`. For several datasets,
            `line.h5` becomes `line-1.h5`, `line-2.h5`, … Defaults to `None`.
        verbose: `"auto"` (the default) or 1 shows a progress bar with the time left, 2 one
            line at the end, 0 nothing.
    """

    metric: str | Sequence[str]
    batch_size: int | None
    engine: Engine
    sampling_error: bool
    executor: Executor | None
    checkpoint: FilePath | None
    verbose: Verbose


class MeasuringAround(Measuring, total=False):
    """Where a call measures: the options of lines and planes around a model.

    Attributes:
        directions: List of directions to follow, two for a plane, or the path of a file of
            `save_directions`. `None` (the default) draws them with `random_directions`.
        layers: The layers that random directions move, while all others stay put; see
            `random_directions`. Defaults to `None`, all of them.
        extent: First and last coordinate; for a plane also a pair of such pairs, for alpha
            and beta. Defaults to `(-1.0, 1.0)`, where a filter-normalized direction is as
            long as the weights themselves. `"auto"` goes as far to both sides as the loss on
            the first dataset stays below ten times that of the model, along all directions;
            `metric` if the model reports no loss.
        seed: Integer seed for the random directions. `None` (the default) draws one from
            NumPy's global random state; it is in the metadata.
    """

    directions: Directions | None
    layers: Layers | None
    extent: Extent | Literal["auto"]
    seed: int | None


class MeasuringBetween(Measuring, total=False):
    """How mixtures of models are measured.

    Attributes:
        statistics: How to set the moving statistics of `BatchNormalization`.
            `"interpolate"` (the default) mixes them like all other weights,
            except that it mixes moving variances by their logarithms, since a
            straight line would go below 0 beyond the models; the ends are then
            exactly the models. `"estimate"` recomputes them at each point, as the
            means over the batches of the first dataset of what the layer sees in
            training; the ends then have such statistics, too. Layers whose
            statistics training would not change (frozen, called with
            `training=False`, or with a momentum of 1) keep the mixed ones.
            Only the engine `"evaluate"` can estimate.
    """

    statistics: Statistics


DEFAULTS = {
    "metric": "loss",
    "batch_size": None,
    "engine": "auto",
    "sampling_error": False,
    "executor": None,
    "checkpoint": None,
    "verbose": "auto",
}
BETWEEN = {"statistics": "interpolate"}
AROUND = {"directions": None, "layers": None, "extent": (-1.0, 1.0), "seed": None}


def evaluating(**defaults: Any) -> Callable[[Call], Call]:
    """Makes a function an evaluating call, whose `**options` are those of `Measuring`.

    It refuses other options before anything else, fills in those that are left out, and
    claims the models among its arguments. In `help` the options are written out.

    Args:
        **defaults: Those that are not in `DEFAULTS`, or differ.

    Returns:
        A decorator of a function whose annotation of `**options` is `Measuring`, or a
        dictionary that extends it.
    """
    complete = defaults | {name: each for name, each in DEFAULTS.items() if name not in defaults}

    def decorate(function):
        signature, claimed = _signature(function, complete), claiming(function)

        @functools.wraps(function)
        def call(*args, **options):
            return claimed(*args, **(complete | options))

        call.__signature__ = signature
        call.__doc__ = _written_out(function)
        return hinted()(call)

    return decorate


def _signature(function, defaults):
    """The signature of a function, with all options in place of `**options`."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[:-1]
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(name, kind, default=each) for name, each in defaults.items()]
    return signature.replace(parameters=parameters + shared)


def _written_out(function):
    """The docstring of a function, with all options in place of `**options`."""
    (kind,) = typing.get_args(function.__annotations__["options"])
    descriptions = [
        each.__doc__.partition("    Attributes:\n")[2].rstrip()
        for each in dict.fromkeys((kind, Measuring))
    ]
    entry = re.compile(r"^        \*\*options: .*(\n            .*)*", re.MULTILINE)
    return entry.sub(lambda _: "\n".join(descriptions), function.__doc__ or "")
