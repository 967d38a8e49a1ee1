"""Trajectory: the path of training, in the plane that holds most of it.

Weights are recorded while a model trains, or read from its checkpoints. The two
principal components of the steps that lead to the final weights span the plane;
the path is drawn on the loss of exactly that plane, and how far it leaves it is
told.
"""

import os
import re
from pathlib import Path

import keras
import numpy as np

from losslandscape.checkpoints import Checkpoint
from losslandscape.checks import check_choice, check_integer, import_extra
from losslandscape.datasets import one_dataset, read_dataset
from losslandscape.directions import IGNORE_RULES, filters, to_numpy
from losslandscape.engines import evaluator
from losslandscape.evaluation import (
    check_evaluation,
    coarse_to_fine,
    coordinates,
    describe,
    grid_points,
    measure_points,
    per_axis,
)
from losslandscape.interrupts import patient_interrupts
from losslandscape.state import evaluated, preserved
from losslandscape.surfaces import LossTrajectory

CHECKPOINTS = (".npz", ".weights.h5", ".keras")


class WeightHistory(keras.callbacks.Callback):
    """Records a model's weights while it trains, one small file at a time.

    Each record is a NumPy file of all weights, written whole or not at all, so
    that an interrupted `fit` leaves a readable history. Nothing is kept in
    memory.

    Args:
        folder: Where to write; it is made if there is none.
        every: `"epoch"` (the default), or an integer number of steps.
        append: Whether to go on with the records that are in the folder, for a
            training that is resumed. Defaults to `False`, which refuses a
            folder with records of another training.

    Raises:
        TypeError: If `every` is neither `"epoch"` nor an integer.
        ValueError: If `every` is less than 1; or, when training begins, if the
            folder has records and `append` is `False`.

    Example:

    >>> history = WeightHistory("history")
    >>> model.fit(x_train, y_train, epochs=30, callbacks=[history])
    >>> plot_trajectory(model, history, x_train, y_train)
    """

    def __init__(self, folder, every="epoch", append=False):
        super().__init__()
        if every != "epoch":
            check_integer("every", every, minimum=1)
        self.folder = Path(folder)
        self.every = every
        self._may_append = append

    def on_train_begin(self, logs=None):  # noqa: ARG002
        """Records the weights that training starts from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        are_there = any(self.folder.glob("*.npz"))
        if are_there and not self._may_append:
            raise ValueError(
                f"`folder` has the records of another training. Received {str(self.folder)!r}. "
                "Pass an empty folder, or `append=True` to go on with that training."
            )
        # A second `fit` goes on with the first one's records.
        self._may_append = True
        if not are_there:
            self._record(0)

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
        """Records the weights after an epoch."""
        if self.every == "epoch":
            self._record(epoch + 1)

    def on_train_batch_end(self, batch, logs=None):  # noqa: ARG002
        """Records the weights after every so many steps."""
        if self.every == "epoch":
            return
        step = int(self.model.optimizer.iterations)
        if step % self.every == 0:
            self._record(step)

    def _record(self, number):
        unit = "epoch" if self.every == "epoch" else "step"
        path = self.folder / f"{unit}-{number}.npz"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, *(to_numpy(weight) for weight in self.model.weights))
        # A crash while writing must leave no half record.
        partial.replace(path)


def evaluate_trajectory(
    model,
    history,
    x,
    y=None,
    number_of_points=21,
    *,
    ignore=None,
    margin=0.2,
    metric="loss",
    batch_size=None,
    engine="auto",
    executor=None,
    checkpoint=None,
    verbose="auto",
):
    """Measures the loss on the plane that holds most of a training's path.

    The plane goes through the weights of `model`, the end of training, along the
    two principal components of the recorded weights minus these.

    Args:
        model: A compiled and built `keras.Model` at the end of its training. It
            is left as it was.
        history: What `read_history` reads: a `WeightHistory`, a folder of
            records or checkpoints, or a list of checkpoints or models.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis; see `evaluate_surface`. Defaults to 21.
        ignore: `None` (the default) takes all trainable weights into the
            components, which lie closest to the path then. `"biasbn"` leaves
            biases and normalization parameters at their final values, as the
            reference implementation does with this option.
        margin: How far the plane reaches beyond the path, as a part of the
            path's own extent. Defaults to 0.2.
        metric: The metric that the progress bar shows. Defaults to `"loss"`.
        batch_size: As in `evaluate_lines`.
        engine: As in `evaluate_lines`.
        executor: As in `evaluate_lines`, for the points of the plane.
        checkpoint: As in `evaluate_lines`, for the points of the plane; the
            records themselves are measured first, and again when it goes on.
        verbose: As in `evaluate_lines`.

    Returns:
        A `LossTrajectory`: the surface, the path on it, and how true it is. Its
        coordinates are distances in weight space.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        TypeError: If an argument has the wrong type.
        ValueError: If there are fewer than three records before the end, if
            they do not fit the model, or if another argument has a value that
            cannot be used; before any point is computed.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 7.2.
    """
    check_evaluation(model, engine, executor, verbose)
    check_choice("ignore", ignore, IGNORE_RULES)
    if not margin > 0:
        raise ValueError(f"`margin` must be greater than 0. Received {margin}.")
    axes = zip(*per_axis(number_of_points, (-1, 1)), strict=True)
    numbers = [len(coordinates(number, ends)) for number, ends in axes]
    names, records = _until_the_end(model, *read_history(model, history))
    steps = _steps_to_the_end(model, records)
    directions, path, explained = _principal_plane(model, steps, ignore)
    lengths = np.array([np.sqrt(sum(np.sum(array**2.0) for array in step)) for step in steps])
    alphas, betas = (
        np.linspace(*_around(path[:, axis], margin * np.ptp(path, axis=0).max()), numbers[axis])
        for axis in range(2)
    )
    saved = Checkpoint(checkpoint, LossTrajectory)
    data = read_dataset(model, one_dataset(x, y), batch_size)
    grid = grid_points(alphas, betas)
    points = np.concatenate([grid, path])
    saved.identify(model, [data], directions=directions, coordinates=points, records=records)
    true_values = _measure_records(model, records, data, metric)
    distances = np.sqrt(np.maximum(lengths**2 - np.sum(path**2, axis=1), 0))
    metadata = describe(model, data, {"directions": "PCA", "ignore": ignore, "records": names})
    shape = len(betas), len(alphas)

    def assemble(_, walk, center):
        return LossTrajectory(
            alphas,
            betas,
            {name: array[: len(grid)].reshape(shape) for name, array in walk.items()},
            center,
            metadata,
            path=path,
            explained=explained,
            distances=distances,
            plane_values={name: array[len(grid) :] for name, array in walk.items()},
            true_values=true_values,
        )

    options = {"metric": metric, "engine": engine, "executor": executor, "verbose": verbose}
    order = np.append(coarse_to_fine(*shape), np.arange(len(grid), len(points)))
    legs = [(directions, points)]
    (trajectory,) = measure_points(model, [data], legs, assemble, saved, order=order, **options)
    return trajectory


def read_history(model, history):
    """Reads recorded weights in the order of training.

    Args:
        model: The model that the weights belong to. It is left as it was.
        history: A `WeightHistory`; a folder with its records or with `.keras`
            or `.weights.h5` checkpoints, taken in the natural order of their
            names (`epoch-2` before `epoch-10`); or a list of such files or of
            models, in its own order.

    Returns:
        A list of names, and a list with all weights of each record, as float32
        arrays in the order of `model.weights`.

    Raises:
        TypeError: If `history` is none of these.
        ValueError: If there are no records, or they do not fit the model.
    """
    if isinstance(history, WeightHistory):
        history = history.folder
    if isinstance(history, (str, os.PathLike)):
        history = _checkpoints_in(Path(history))
    if not isinstance(history, (list, tuple)):
        raise TypeError(
            "`history` must be a `WeightHistory`, a folder, or a list of checkpoints or models. "
            f"Received {type(history).__name__}."
        )
    names = [
        entry.name if isinstance(entry, keras.Model) else Path(entry).name for entry in history
    ]
    records = [_read(model, entry) for entry in history]
    shapes = [tuple(weight.shape) for weight in model.weights]
    for name, record in zip(names, records, strict=True):
        found = [array.shape for array in record]
        if found != shapes:
            raise ValueError(
                f"`history` must hold weights of `model`, of shapes {shapes}. Received {found} in "
                f"{name!r}."
            )
    return names, records


def _checkpoints_in(folder):
    def natural(path):
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

    found = [path for path in folder.glob("*") if path.name.endswith(CHECKPOINTS)]
    if not found:
        raise ValueError(
            f"`history` must be a folder with some of {', '.join(CHECKPOINTS)} files. Received "
            f"{str(folder)!r}, which has none."
        )
    return sorted(found, key=natural)


def _read(model, entry):
    if isinstance(entry, keras.Model):
        return [to_numpy(weight) for weight in entry.weights]
    path = Path(entry)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return [arrays[name] for name in arrays.files]
    if path.suffix == ".keras":
        return _read(model, keras.saving.load_model(path, compile=False))
    with preserved(model):
        model.load_weights(path)
        return _read(model, model)


def _until_the_end(model, names, records):
    """The records and, where training went on after the last of them, the model itself."""
    end = _read(model, model)
    are_same = all(np.array_equal(*pair) for pair in zip(records[-1], end, strict=True))
    if not are_same:
        names, records = [*names, model.name], [*records, end]
    if len(records) < 4:
        raise ValueError(
            "`history` must hold at least 3 records before the weights of `model`, for the plane "
            f"through them. Received {len(records) - 1}."
        )
    return names, records


def _steps_to_the_end(model, records):
    """The trainable weights of each record minus those at the end."""
    order = {id(weight): index for index, weight in enumerate(model.weights)}
    positions = [order[id(weight)] for weight in model.trainable_variables]
    end = records[-1]
    return [[record[position] - end[position] for position in positions] for record in records]


def _principal_plane(model, steps, ignore):
    """The two main directions of a path, its coordinates along them and what they explain."""
    linalg = import_extra("scipy.linalg", "analysis")
    moves = [ignore is None or entry.axes is not None for entry in filters(model)]
    matrix = np.stack(
        [
            np.concatenate([move * array.ravel() for move, array in zip(moves, step, strict=True)])
            for step in steps
        ]
    )
    # The components of the steps, without the one of length 0 at the end, as in the paper.
    centered = matrix[:-1] - matrix[:-1].mean(axis=0)
    _, lengths, components = linalg.svd(centered, full_matrices=False)
    # Their sign is arbitrary: training comes from the upper right.
    signs = np.where(components[:2] @ matrix[0] < 0, -1, 1)
    components = signs[:, np.newaxis] * components[:2]
    ends = np.cumsum([array.size for array in steps[0]])[:-1]
    directions = [
        [part.reshape(array.shape) for part, array in zip(parts, steps[0], strict=True)]
        for parts in (np.split(component, ends) for component in components)
    ]
    return directions, matrix @ components.T, (lengths**2 / np.sum(lengths**2))[:2]


def _around(values, margin):
    return values.min() - margin, values.max() + margin


def _measure_records(model, records, data, metric):
    """The values of the model at each record itself, off the plane, with all its weights."""
    with patient_interrupts() as interrupt, evaluated(model) as state:
        evaluate = evaluator(model, interrupt)
        results = []
        for record in records:
            state.restore()
            for weight, value in zip(model.weights, record, strict=True):
                weight.assign(value)
            results.append(evaluate(data))
            check_choice("metric", metric, tuple(results[0]))
    return {name: np.array([result[name] for result in results]) for name in results[0]}
