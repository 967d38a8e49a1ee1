"""Film: the landscape around the weights at several moments of training.

All frames have the same axes: the directions are those of the end of training, with the same
length in each frame. What changes from one to the next is therefore the landscape, and never
the way in which it is cut.
"""

__all__ = ["evaluate_film"]

from typing import Unpack

import keras
import numpy as np

from losslandscape.basics.checks import check_integer
from losslandscape.basics.types import Data, Points
from losslandscape.evaluation import Evaluation, Plan
from losslandscape.measuring.datasets import one_dataset
from losslandscape.measuring.grids import Grid, check_points
from losslandscape.measuring.options import AROUND, MeasuringAround, evaluating
from losslandscape.paths.trajectory import (
    RECORD,
    SUFFIXES,
    History,
    between_records,
    legs_of_records,
    read_until_the_end,
)
from losslandscape.values.surfaces import LossFilm


@evaluating(**AROUND)
def evaluate_film(
    model: keras.Model,
    history: History,
    x: Data,
    y: Data = None,
    number_of_points: Points = 21,
    *,
    number_of_frames: int | None = None,
    **options: Unpack[MeasuringAround],
) -> LossFilm:
    """Measures the loss over a plane around each of several records of a training run.

    All frames have the directions of the last one, which is the surface that `plot_loss_3D`
    measures with the same seed. A record comes with all of its weights, also the moving
    statistics of `BatchNormalization`.

    Example:

    >>> history = WeightHistory("history")
    >>> model.fit(x_train, y_train, epochs=3, callbacks=[history], verbose=0)
    >>> film = evaluate_film(model, history, x_train, y_train, 5, seed=0)
    >>> animate_film(film, "training.gif")

    Args:
        model: A compiled and built `keras.Model` at the end of its training. It is left as
            it was. If it has other weights than the last record, it is one more frame.
        history: What `read_history` reads: a `WeightHistory`, a folder of records or of
            saved models, or a list of files or models.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis; see `evaluate_surface`. Defaults to 21.
        number_of_frames: How many of the records to take, as evenly as possible and with the
            first and the last one. Defaults to `None`, all of them.
        **options: Where and how it is measured; see `MeasuringAround` and `Measuring`.

    Returns:
        A `LossFilm`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, or for any reason that
            `read_history` has; raised before any point is computed.
    """
    if number_of_frames is not None:
        check_integer("number_of_frames", number_of_frames, minimum=2)
    is_auto = isinstance(options["extent"], str) and options["extent"] == "auto"
    grid = Grid.of(number_of_points, (-1, 1) if is_auto else options["extent"])
    call = Evaluation(model, [one_dataset(x, y)], LossFilm, options)
    names, records = _some(number_of_frames, *read_until_the_end(model, history))
    number, size = len(records), len(grid.points)
    check_points(number * size)
    directions, origin = call.choose(2, exactly=True)
    if is_auto:
        grid = grid.scaled(call.radius(directions))
    around = legs_of_records(model, records, directions, grid.points)
    # Every point around a record has its number: 1 and a position, 2 and a position, …
    at_records = [(moves, points[::size] * [1, 0, 0]) for moves, points in around]
    order = (grid.order[:, np.newaxis] + size * np.arange(number)).ravel()
    order = np.append(order, number * size + np.arange(number))

    def assemble(values, center, metadata):
        parts = {name: np.split(array, [number * size]) for name, array in values.items()}
        surfaces = {name: each.reshape(number, *grid.shape) for name, (each, _) in parts.items()}
        centers = {name: each for name, (_, each) in parts.items()}
        return LossFilm(*grid.axes, surfaces, centers, center, metadata)

    origin |= {"records": names, "labels": [_label(name) for name in names]}
    depends = {"directions": directions, "coordinates": grid.axes, "records": records}
    (film,) = call.along(
        Plan(around + at_records, depends, between_records, order), assemble, origin
    )
    return film


def _some(number, names, records):
    """Some of the records, as evenly as possible; all of them for `None`."""
    if number is None or number >= len(records):
        return names, records
    chosen = np.round(np.linspace(0, len(records) - 1, number)).astype(int)
    return [names[index] for index in chosen], [records[index] for index in chosen]


def _label(name):
    """The label of a frame: "epoch 3" for "epoch-3.npz", any other file without its suffix."""
    stem = name
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem.replace("_", ", ").replace("-", " ") if RECORD.fullmatch(name) else stem
