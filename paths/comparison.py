"""Comparison: several trainings measured in the same way, one at a time.

Directions are drawn from the same random numbers, and points and data are the same. Models that
are given as files are loaded one by one, so that never more than one of them is in memory.
"""

import gc
import os
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, Unpack

import keras
import numpy as np

from losslandscape.basics.checks import (
    check_compiled,
    check_metric,
    check_number,
    check_pair,
    expanded,
    numbered,
)
from losslandscape.basics.types import Data, FilePath, Layers, Pair, Points
from losslandscape.directions import choose_weights, filters
from losslandscape.evaluation import Evaluation, evaluate_line, evaluate_surface
from losslandscape.measuring.datasets import one_dataset
from losslandscape.measuring.options import Measuring, evaluating
from losslandscape.values.comparisons import Comparison, check_labels
from losslandscape.values.files import no_device, refusing
from losslandscape.values.surfaces import LossLine

# One direction may not be typical.
NUMBER_OF_DIRECTIONS = 10
Training: TypeAlias = keras.Model | FilePath


class Comparing(Measuring, total=False):
    """Where networks are compared: the options of lines and planes through each of them.

    Attributes:
        layers: The layers that random directions move; see `random_directions`. Defaults
            to `None`, all of them.
        extent: First and last coordinate, on both sides of 0. Defaults to `(-1.0, 1.0)`.
        seed: Integer seed for the directions of all networks. `None` (the default) draws
            one; it is in the metadata.
    """

    layers: Layers | None
    extent: Pair
    seed: int | None


@evaluating(layers=None, extent=(-1.0, 1.0), seed=None)
def compare(
    models: Mapping[str, Training | Sequence[Training]],
    x: Data,
    y: Data = None,
    number_of_points: Points = 21,
    *,
    number_of_directions: int | None = None,
    rise: float = 1.0,
    **options: Unpack[Comparing],
) -> Comparison:
    """Measures which of several trainings is flatter, and whether that is settled.

    Example:

    >>> comparison = compare({"batch 16": small_batch, "batch 100": large_batch}, x, y, seed=0)
    >>> print(comparison)
    >>> comparison.save("batches.h5")
    >>> axes = plot_comparison(comparison)

    The directions of all networks are drawn with the same seed, and normalized to the filters
    of each network. Give several trainings per label if you can,
    `{"batch 16": [first, second, third], …}`: only they show how trainings vary. With one per
    label, the result is about these networks, and says so. See `Comparison` for what its
    intervals are over.

    Args:
        models: Dict by label: a compiled and built `keras.Model` or the path of a saved one
            (`.keras`), or a list of these, one per training. Models are left as they were;
            files are loaded one at a time. Models of different architectures can be
            compared, too, but do not share directions.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points along lines, at least 2, or a pair such as `(21, 21)` to
            measure planes; an odd number includes the model itself. Defaults to 21.
        number_of_directions: How many lines through each network. `None` (the default)
            takes 10; planes have two directions.
        rise: How far the loss rises within a half-width; see `half_widths`. Defaults to 1.0.
        **options: How it is measured; see `Comparing` and `Measuring`. The checkpoint
            `compare.h5` becomes `compare-1.h5`, `compare-2.h5`, …, one per training.
            The values of `metric` at the models themselves are compared, too. With
            `"data_loss"`, half-widths are also those of the loss without weight penalties:
            choose it if penalties differ.

    Returns:
        A `Comparison`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point is computed.
    """
    trainings = _trainings(models)
    kind = _kind(number_of_points, number_of_directions)
    metric, seed = options["metric"], options["seed"]
    _check(options["extent"], metric, rise)
    paths = [None] * len(trainings)
    if options["checkpoint"] is not None:
        paths = numbered("checkpoint", options["checkpoint"], len(trainings))
    data = one_dataset(x, y)
    shared = _share_directions(trainings, data, options)
    # A model without penalties would refuse "data_loss", since its loss is the same.
    options |= kind | {"metric": "loss" if metric == "data_loss" else metric}
    evaluate = evaluate_line if kind else evaluate_surface
    measured = {label: [] for label in models}
    for (label, training), path in zip(trainings, paths, strict=True):
        options |= {"checkpoint": path, "seed": seed}
        measure = partial(evaluate, x=data, number_of_points=number_of_points, **options)
        value = _with_model(training, measure)
        # The first call may have drawn the seed, or found it in its checkpoint.
        seed = value.metadata["seed"]
        measured[label].append(value)
    return Comparison.of(measured, metric, rise, shared=shared)


def _trainings(models):
    """List of pairs of a label and a model, or the path of one."""
    trainings, seen = [], {}
    for label, given in check_labels("models", models).items():
        parts = list(given) if isinstance(given, (list, tuple)) else [given]
        if not parts:
            raise ValueError(
                f"`models` must have at least one model per label. {label!r} has none."
            )
        for part in parts:
            if isinstance(part, (str, os.PathLike)):
                path = expanded("models", part)
                trainings.append((label, path))
                key = os.path.realpath(path)
            else:
                check_compiled(part, f"models[{label!r}]")
                trainings.append((label, part))
                key = id(part)
            if key in seen:
                raise ValueError(
                    "`models` must be different trainings, since each counts once. Received the "
                    f"same one for {seen[key]!r} and {label!r}."
                )
            seen[key] = label
    return trainings


def _kind(number_of_points, number_of_directions):
    """The options that only lines have; empty for planes."""
    if not isinstance(number_of_points, (tuple, list)):
        if number_of_directions is None:
            number_of_directions = NUMBER_OF_DIRECTIONS
        return {"number_of_directions": number_of_directions}
    if number_of_directions is not None:
        raise ValueError(
            "`number_of_directions` is for lines, but `number_of_points` asks for planes. "
            f"Received {number_of_directions} and {number_of_points}. Leave one of them out."
        )
    return {}


def _check(extent, metric, rise):
    check_metric(metric, single=True)
    check_number("rise", rise, above=0, below=np.inf)
    check_pair("extent", extent)
    if not extent[0] < 0 < extent[1]:
        raise ValueError(
            "`extent` must be two numbers on both sides of 0, where the models are, such as "
            f"(-1, 1). Received {extent}."
        )


def _share_directions(trainings, data, options):
    """Whether random numbers move all models alike; refuses models that cannot be measured."""

    def examine(model):
        check_compiled(model, "models")
        if options["metric"] != "data_loss":
            Evaluation(model, [data], LossLine, options).check_metrics()
        moved = choose_weights(model, options["layers"])
        kinds = [(each.shape, each.axes) for each in filters(model)]
        return list(zip(kinds, moved, strict=True))

    first, *others = [_with_model(training, examine) for _, training in trainings]
    return all(other == first for other in others)


def _with_model(training, use):
    """Calls a function of a model; one that is loaded from a file is freed afterwards."""
    if not isinstance(training, Path):
        return use(training)
    # Keras draws from Python's random numbers when it makes layers.
    state = random.getstate()
    try:
        with refusing("models", training, "saved models (.keras)"):
            model = keras.saving.load_model(no_device(training))
    finally:
        random.setstate(state)
    try:
        return use(model)
    finally:
        del model
        # A model is part of reference cycles, so otherwise it would stay until Python finds these.
        gc.collect()
