"""Options: how a call measures, said once for every call that evaluates a model at points."""

import functools
import inspect
from collections.abc import Sequence
from concurrent.futures import Executor
from os import PathLike
from typing import Literal, TypedDict

from losslandscape.basics.checks import check_options
from losslandscape.basics.claims import claiming


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
    engine: Literal["auto", "evaluate", "compiled"]
    executor: Executor | None
    checkpoint: str | PathLike[str] | None
    verbose: Literal["auto", 0, 1, 2]


DEFAULTS: Measuring = {
    "metric": "loss",
    "batch_size": None,
    "engine": "auto",
    "executor": None,
    "checkpoint": None,
    "verbose": "auto",
}


def evaluating(function, **defaults):
    """Makes a function an evaluating call, whose `**options` are those of `Measuring`.

    It refuses other options before anything else, fills in those that are left out, and
    claims the models among its arguments. `help` shows the options and their defaults.

    Args:
        function: A function that takes `**options`.
        **defaults: Those that differ from `DEFAULTS`.

    Returns:
        A function with the same arguments.
    """
    defaults = DEFAULTS | defaults
    claimed = claiming(function)
    own = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in defaults.items()
    ]
    signature = inspect.signature(function).replace(parameters=[*own, *shared])

    @functools.wraps(function)
    def call(*args, **options):
        check_options(function.__name__, options, signature.parameters)
        return claimed(*args, **(defaults | options))

    call.__signature__ = signature
    return call
