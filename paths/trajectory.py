"""Trajectory: the path of training, in the plane that holds most of it.

Weights are recorded while a model trains, or read from saved models. The two
principal components of the steps to the final weights span the plane. The path is
drawn on the loss over exactly this plane, and its distance from the plane is
reported. Several runs may be drawn on one plane.
"""

__all__ = ["WeightHistory", "evaluate_trajectory", "last_step", "read_history"]

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, Unpack

import keras
import numpy as np
from keras import layers, ops

from losslandscape.basics.architecture import check_same_settings
from losslandscape.basics.arrays import digest
from losslandscape.basics.checks import (
    check_choice,
    check_integer,
    check_is_model,
    check_model,
    check_number,
    expanded,
    import_extra,
)
from losslandscape.basics.claims import claiming
from losslandscape.basics.internals import flatten_layers, own_trainable_variables
from losslandscape.basics.types import Array, Data, Direction, FilePath, Ignore, Points
from losslandscape.directions import IGNORE_RULES, filters
from losslandscape.evaluation import Evaluation, Plan
from losslandscape.measuring.datasets import one_dataset
from losslandscape.measuring.grids import Grid
from losslandscape.measuring.options import Measuring, evaluating
from losslandscape.measuring.state import preserved
from losslandscape.measuring.walks import straight
from losslandscape.values.files import no_device, reading_arrays, refusing, writing
from losslandscape.values.surfaces import LossTrajectory

SUFFIXES = (".npz", ".weights.h5", ".keras")
RECORD = re.compile(r"(epoch|step)-(\d+)(_start-\d+)?\.npz")
# A component that is shorter than this, relative to the whole path, is rounding error, not an axis.
ROUNDING = 1e-6
# How many bytes of records may be on the device at once.
BUDGET = 2**30


class WeightHistory(keras.callbacks.Callback):
    """Records a model's weights while it trains, one file at a time.

    Each record is a NumPy file of all weights, written whole or not at all, so
    an interrupted `fit` leaves a readable history. Nothing is kept in memory.

    A history may span several calls of `fit`, with this callback or, in a later
    process, with another one that appends to the folder. Epochs and steps are
    counted across all of them, whatever each `fit` or optimizer counts:
    `epoch-0.npz` holds the weights at the very start, `epoch-7.npz` those after
    the seventh epoch overall. No record is ever replaced. If a `fit` starts from
    weights other than the last ones in the history (because the model was
    changed, or restored to an earlier state after a crash), these are
    recorded as well, as `epoch-7_start-1.npz`: the path then jumps, as the
    training did. To leave out lost epochs, delete their records before resuming.

    Example:

    >>> history = WeightHistory("history")
    >>> model.fit(x_train, y_train, epochs=30, callbacks=[history])
    >>> plot_trajectory(model, history, x_train, y_train)

    Args:
        folder: Where to write; it is created if it does not exist.
        every: `"epoch"` (the default), or an integer number of steps. If Keras
            runs several steps at once (`steps_per_execution`), the weights are
            recorded when Keras next reports a step.
        append: Whether to add to the records in the folder, to resume a training
            run. Defaults to `False`, which refuses a folder with the records of
            another run.

    Raises:
        TypeError: If `every` is neither `"epoch"` nor an integer.
        ValueError: If `every` is less than 1; or, when training begins, if the
            folder has records and `append` is `False`, or has records by epoch
            and `every` counts steps, or vice versa.
    """

    def __init__(
        self, folder: FilePath, every: Literal["epoch"] | int = "epoch", append: bool = False
    ) -> None:
        super().__init__()
        if not (isinstance(every, str) and every == "epoch"):
            check_integer("every", every, minimum=1)
        self.folder = expanded("folder", folder)
        self.every = every
        self._may_append = append
        self._unit = "epoch" if every == "epoch" else "step"
        # Epochs or steps in the history: in total, and when this epoch began.
        self._count = self._count_before = 0
        # Digest of the weights when last seen; `None` if only the last record has them.
        self._last = None
        self._is_beginning = self._is_new = False

    def on_train_begin(self, logs=None):  # noqa: ARG002
        """Records the weights that training starts from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        are_there = any(self.folder.glob("*.npz"))
        if are_there and not self._may_append:
            raise ValueError(
                f"`folder` has the records of another training run. Received {str(self.folder)!r}. "
                "Pass an empty folder, or `append=True` to resume that run."
            )
        number = self._last_number()
        if number > self._count or not are_there:
            # Since then, another callback has added records, or all were deleted.
            self._count, self._last = number, None
        # A second `fit` appends to the first one's records.
        self._may_append = True
        self._is_beginning, self._is_new = True, not are_there
        if self._is_new:
            self._record(f"{self._unit}-0")

    def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
        """Records the weights that training starts from, if the history does not end with them."""
        self._count_before = self._count
        # Not in `on_train_begin`, where other callbacks may still restore the model.
        if self._is_beginning and not self._ends_here():
            self._record(f"{self._unit}-0" if self._is_new else self._name_of_start())
        self._is_beginning = False

    def on_train_batch_end(self, batch, logs=None):  # noqa: ARG002
        """Records the weights each time `every` more steps are done."""
        if self._unit == "epoch":
            return
        # Keras may count more steps than an epoch has, if it runs several at once.
        steps = min(batch + 1, (self.params or {}).get("steps") or np.inf)
        before, self._count = self._count, self._count_before + int(steps)
        if self._count // self.every > before // self.every:
            self._record(f"step-{self._count}")

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
        """Records the weights after an epoch."""
        if self._unit == "epoch":
            self._count += 1
            self._record(f"epoch-{self._count}")
        else:
            self._last = digest(_arrays(self.model))

    def _last_number(self):
        """The number of the last record in the folder; refuses records by another unit."""
        records = [RECORD.fullmatch(path.name) for path in self.folder.glob("*.npz")]
        units = {record[1] for record in records if record}
        if units - {self._unit}:
            raise ValueError(
                f"`every` must count what the records in `folder` count. Received {self.every!r} "
                f"for {str(self.folder)!r}, which has records by {units.pop()}. Change one."
            )
        return max((int(record[2]) for record in records if record), default=0)

    def _ends_here(self):
        """Whether the history ends with the model's weights."""
        if self._last is not None:
            return self._last == digest(_arrays(self.model))
        last = _files_in(self.folder, (".npz",))[-1]
        return _are_same(_read_file(self.model, last)[1], _arrays(self.model))

    def _name_of_start(self):
        prefix = f"{self._unit}-{self._count}_start-"
        return f"{prefix}{len(list(self.folder.glob(f'{prefix}*.npz'))) + 1}"

    def _record(self, name):
        arrays = _arrays(self.model)
        with writing(self.folder / f"{name}.npz") as file:
            np.savez(file, *arrays)
        self._last = digest(arrays)


# The forms of a history that `read_history` accepts.
History: TypeAlias = WeightHistory | FilePath | Sequence[FilePath | keras.Model]


@evaluating()
def evaluate_trajectory(
    model: keras.Model,
    history: History | Mapping[str, History],
    x: Data,
    y: Data = None,
    number_of_points: Points = 21,
    *,
    ignore: Ignore = None,
    margin: float = 0.2,
    **options: Unpack[Measuring],
) -> LossTrajectory:
    """Measures the loss on the plane that holds most of the path of training.

    The plane goes through the weights of `model`, the end of training, along the
    two principal components of the recorded weights minus the final ones. Records
    on a straight line have only one component: the second axis then leads from the
    end of training to that line, at right angles to it. If the line goes through the
    end, the second axis is a random direction, and the metadata say so under
    `"second_axis"`.

    Several runs are drawn on one plane: that of the principal components of all
    their records, through the weights of `model`, usually where the first run ends.

    Example:

    >>> trajectory = evaluate_trajectory(
    ...     small_batch, {"16": small_history, "100": large_history}, x_train, y_train
    ... )
    >>> plot_path(trajectory, scale="log")

    How much of a path's variance the plane explains says little by itself: even a
    random walk in many dimensions lies close to a plane. The k-th component of a
    random walk explains 6 / (π²k²) of its variance, so the first two explain 60.8 %
    and 15.2 %. With few records it is more: 6 / (4 (n² - 1) sin²(πk / 2n)) for n
    records. The metadata hold both numbers under `"random_walk"`; plots show them
    next to the path's own, and say so if these are no greater.

    Args:
        model: A compiled and built `keras.Model` at the end of its training. It
            is left as it was.
        history: What `read_history` reads: a `WeightHistory`, a folder of
            records or of saved models, or a list of files or models. For several
            runs, a dict of these by name; each run ends with its last record.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis; see `evaluate_surface`. Defaults to 21.
        ignore: `None` (the default) includes all trainable weights in the
            components, for the plane closest to the path. `"biasbn"` leaves
            biases and normalization parameters at their final values, as the
            reference implementation does with this option.
        margin: How far the plane extends beyond the path, as a fraction of the
            longer side of the path itself. Defaults to 0.2.
        **options: How it is measured; see `Measuring`.

    Returns:
        A `LossTrajectory`: the surface, the path on it, and how faithful the picture is.
        The paths of several runs follow each other; `runs` tells them apart. With
        several runs there is no `"random_walk"`, since runs that start apart stay
        apart. Distances are measured in all trained weights, including those that
        are frozen at the end: if these moved earlier, the path lies off the plane by
        as much. Moving statistics do not count.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        TypeError: If an argument has the wrong type.
        ValueError: If there are fewer than three records before the end (of
            several runs, fewer than two in one), if they do not fit the model, are
            not finite (the error names the first such record) or are all the same,
            or if another argument has an unusable value; raised before any point is
            computed.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 7.2; for random
        walks, [Antognini & Sohl-Dickstein, 2018](https://arxiv.org/abs/1806.08805).
    """
    numbers = Grid.of(number_of_points, (-1, 1)).shape[::-1]
    check_choice("ignore", ignore, IGNORE_RULES)
    check_number("margin", margin, above=0, below=np.inf)
    call = Evaluation(model, [one_dataset(x, y)], LossTrajectory, options)
    trained, frozen = _trained_indices(model)
    names, records, runs, times = _read_runs(model, history, [*trained, *frozen])
    center = _arrays(model)
    steps, frozen_steps = (_steps_from(center, records, part) for part in (trained, frozen))
    directions, path, explained, origin = _principal_plane(model, steps, runs, ignore)
    distances = _distances(steps, frozen_steps, directions, path)
    grid = _grid_around(path, margin, numbers)
    points = np.concatenate([grid.points, path])
    depends = {"directions": directions, "coordinates": points, "records": records}

    def assemble(values, center, metadata):
        ends = len(grid.points), len(points)
        parts = {name: np.split(array, ends) for name, array in values.items()}
        on_grid, on_path, at_records = (
            {name: each[index] for name, each in parts.items()} for index in range(3)
        )
        return LossTrajectory(
            **vars(grid.surface(on_grid, center, metadata)),
            path=path,
            explained=explained,
            distances=distances,
            plane_values=on_path,
            true_values=at_records,
        )

    here = [array[np.newaxis] for array in center]
    plane = [here, *_in_all_weights(model, directions)], np.insert(points, 0, 0, axis=1)
    legs = [plane, *legs_of_records(model, records)]
    number = sum(len(points) for _, points in legs)
    order = np.append(grid.order, np.arange(len(grid.points), number))
    origin |= {"ignore": ignore, "records": names} | times
    if isinstance(history, dict):
        origin["runs"] = runs
    else:
        # The end does not count, as in the components.
        origin["random_walk"] = random_walk_shares(len(records) - 1)[:2].tolist()
    plan = Plan(legs, depends, between_records, order)
    (trajectory,) = call.along(plan, assemble, origin)
    return trajectory


@claiming
def last_step(model: keras.Model, history: History) -> Direction:
    """Returns the direction of the last step of training.

    Args:
        model: A built `keras.Model` at the end of its training.
        history: What `read_history` reads. With a `WeightHistory` of `every=1`, the
            step is that of the optimizer.

    Returns:
        A direction: a list of float32 arrays with the shapes of
        `model.trainable_variables`. The model is at the coordinate 0, and the last
        record that differs from it at -1. It is not normalized.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If all records have the trainable weights of `model`, or for any
            of the reasons that `read_history` lists.

    Example:

    >>> history = WeightHistory("steps", every=1)
    >>> model.fit(x_train, y_train, epochs=1, callbacks=[history], verbose=0)
    >>> step = last_step(model, history)
    >>> plot_loss(model, (x_train, y_train), directions=[step], extent=(-5, 20))
    """
    check_model(model)
    _, records = read_history(model, history)
    trained, _ = _trained_indices(model)
    steps = _steps_from(_arrays(model), records, trained)
    moving = [step for step in steps if any(array.any() for array in step)]
    if not moving:
        raise ValueError(
            f"`history` must hold a step, but all {len(records)} records have the trainable "
            "weights of `model`."
        )
    return [-array.astype(np.float32) for array in moving[-1]]


def random_walk_shares(number):
    """Returns the fractions of a random walk's variance along its principal components.

    In many dimensions, with steps that are independent and equally long on average, the
    covariance of n points is the inverse of a path's Laplacian, whose eigenvalues are
    4 sin²(πk / 2n).

    Args:
        number: How many points the walk has, at least 2.

    Returns:
        Float array of shape `(number - 1,)`, the largest first.

    Reference:
        [Antognini & Sohl-Dickstein, 2018](https://arxiv.org/abs/1806.08805), section 2.
    """
    angles = np.pi * np.arange(1, number) / (2 * number)
    return 6 / (4 * (number**2 - 1) * np.sin(angles) ** 2)


def between_records(model):
    """The walk in the space of all weights: from record to record, and from there along directions.

    The first direction stacks the values of each weight in several records: the coordinate is
    the number of one, and 0 is the model itself. The others are added to that record.
    """
    return [
        (weight, _from_record if keras.backend.is_float_dtype(weight.dtype) else _at_record)
        for weight in model.weights
    ]


def legs_of_records(model, records, directions=(), points=((),)):
    """Returns directions and points that lead to each record, in as few parts as memory allows.

    Args:
        model: A built `keras.Model`.
        records: List of the weights of each record, as `read_history` returns.
        directions: List of directions from each record. Defaults to none.
        points: Float array of shape `(number of points, number of directions)`, the points to
            go to from each record. Defaults to the record itself.

    Returns:
        List of pairs of directions and points along them, for the walk
        `between_records`.
    """
    size = sum(array.nbytes for array in records[0])
    number = max(1, BUDGET // size)
    groups = [records[first : first + number] for first in range(0, len(records), number)]
    moves = _in_all_weights(model, directions)
    return [
        (
            [[np.stack(values) for values in zip(_arrays(model), *group, strict=True)], *moves],
            np.array([[index, *point] for index in range(1, len(group) + 1) for point in points]),
        )
        for group in groups
    ]


def times_of(names):
    """Returns when records were made, as their names say.

    Args:
        names: List of names, as `read_history` returns.

    Returns:
        Float array of epochs or steps, and the unit: `"epoch"`, `"step"` or, where names
        are not those of a `WeightHistory`, `"record"`, counted from 0.
    """
    # With several runs, each name begins with that of its run.
    found = [RECORD.fullmatch(name.rpartition("/")[2]) for name in names]
    units = {match[1] if match else "record" for match in found}
    if len(units) > 1 or "record" in units:
        return np.arange(len(names), dtype=float), "record"
    return np.array([float(match[2]) for match in found]), units.pop()


def read_history(model: keras.Model, history: History) -> tuple[list[str], list[list[Array]]]:
    """Reads recorded weights in the order of training.

    Args:
        model: The model that the weights belong to. It is left as it was.
        history: A `WeightHistory`; a folder with its records or with `.keras`
            or `.weights.h5` files, but only one of these kinds, read in the
            natural order of their names (`epoch-2` before `epoch-10`); or a list
            of such files or of models, in the order given.

    Returns:
        A list of names, and a list with all weights of each record: arrays in
        the order of `model.weights` and in their own precision, except half
        precision, which becomes float32.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If `history` is none of these.
        ValueError: If there are no records or several kinds of files, or they
            cannot be read or do not fit the model: recorded models may differ from it
            only in the values of their weights.
    """
    check_is_model(model)
    if isinstance(history, WeightHistory):
        # Only its records: the folder may also hold saved models.
        history = _files_in(history.folder, (".npz",))
    if isinstance(history, (str, os.PathLike)):
        history = _files_in(expanded("history", history), SUFFIXES)
    if not isinstance(history, (list, tuple)):
        raise TypeError(
            "`history` must be a `WeightHistory`, a folder, or a list of files or models. "
            f"Received {type(history).__name__}."
        )
    if not history:
        raise ValueError("`history` is an empty list. Pass the files or models of a training run.")
    for entry in history:
        if not isinstance(entry, (str, os.PathLike, keras.Model)):
            raise TypeError(
                f"`history` must be a list of files or models. Received {entry!r} in it."
            )
    names = [
        entry.name if isinstance(entry, keras.Model) else Path(entry).name for entry in history
    ]
    return names, [_read(model, *pair) for pair in zip(history, names, strict=True)]


def read_until_the_end(model, history):
    """Reads recorded weights and, if training went on after the last of them, the model's own.

    Args:
        model: The model at the end of its training.
        history: As in `read_history`.

    Returns:
        What `read_history` returns. The last record has the weights of `model`.
    """
    names, records = read_history(model, history)
    end = _arrays(model)
    if _are_same(records[-1], end):
        return names, records
    return [*names, model.name], [*records, end]


def _files_in(folder, suffixes):
    def natural(path):
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

    by_suffix = {suffix: list(folder.glob(f"*{suffix}")) for suffix in suffixes}
    found = {suffix: paths for suffix, paths in by_suffix.items() if paths}
    if not found:
        raise ValueError(
            f"`history` must be a folder with files of one kind: {', '.join(suffixes)}. Received "
            f"{str(folder)!r}, which has none."
        )
    if len(found) > 1:
        raise ValueError(
            f"`history` must be a folder with one kind of file, since several have no order. "
            f"Received {str(folder)!r}, which has {', '.join(found)}. Pass a list of files."
        )
    (paths,) = found.values()
    return sorted(paths, key=natural)


def _read(model, entry, name):
    """The weights that a file or a model holds, which must fit `model`."""
    if isinstance(entry, keras.Model):
        other, record = entry, _arrays(entry)
    else:
        other, record = _read_file(model, entry)
    shapes, found = [tuple(weight.shape) for weight in model.weights], [a.shape for a in record]
    if found != shapes:
        raise ValueError(
            f"`history` must hold weights of `model`, of shapes {shapes}. Received {found} in "
            f"{name!r}."
        )
    check_same_settings(model, other, "model", f"history: {name}")
    _check_statistics(model, record, name)
    return record


def _check_statistics(model, record, name):
    """Refuses other statistics of `Normalization` layers, which compute with constants."""
    constant = {
        id(weight)
        for layer in flatten_layers(model)
        if isinstance(layer, layers.Normalization)
        for weight in layer.weights
    }
    for weight, array in zip(model.weights, record, strict=True):
        if id(weight) in constant and not np.array_equal(_to_array(weight), array):
            raise ValueError(
                "`history` must hold weights of `model`, whose `Normalization` layers keep their "
                f"statistics. Received another {weight.path!r} in {name!r}: adapt these layers "
                "once, before training."
            )


def _read_file(model, entry):
    """The model in a file, or `model` itself if the file holds only weights; and the weights."""
    expected = "files with weights of `model`"
    if Path(entry).suffix == ".npz":
        with reading_arrays("history", entry, expected) as arrays:
            return model, [arrays[name] for name in arrays.files]
    with refusing("history", entry, expected):
        # Keras itself refuses links and weights kept elsewhere.
        return _read_saved(model, no_device(entry))


def _read_saved(model, path):
    if path.suffix == ".keras":
        other = keras.saving.load_model(path, compile=False)
        return other, _arrays(other)
    with preserved(model):
        model.load_weights(path)
        return model, _arrays(model)


def _arrays(model):
    """Exact copies of all weights."""
    return [_to_array(weight) for weight in model.weights]


def _to_array(weight):
    array = np.array(ops.convert_to_numpy(weight))
    if not keras.backend.is_float_dtype(weight.dtype):
        return array
    # NumPy files cannot hold every half-precision type.
    return array.astype(keras.backend.result_type(weight.dtype, "float32"))


def _are_same(arrays, others):
    return len(arrays) == len(others) and all(
        np.array_equal(*pair, equal_nan=True) for pair in zip(arrays, others, strict=True)
    )


def _read_runs(model, history, indices):
    """The names and weights of all records, their number by run, and when they were made."""
    if isinstance(history, dict):
        found = _read_several(model, history)
    else:
        found = {"training": _read_one(model, history)}
    for names, records in found.values():
        _check_finite(names, records, indices)
    times = _times([names for names, _ in found.values()])
    names, records = ([each for pair in found.values() for each in pair[index]] for index in (0, 1))
    return names, records, {run: len(records) for run, (_, records) in found.items()}, times


def _times(runs):
    """The metadata on when the records were made, by their names in each run."""
    times, units = zip(*map(times_of, runs), strict=True)
    if len(set(units)) > 1:
        # Units differ, so only the records themselves can be counted in all runs.
        times, units = [np.arange(len(names)) for names in runs], ["record"]
    return {"times": np.concatenate(times).tolist(), "unit": units[0]}


def _read_one(model, history):
    """The names and weights of the records until the end of training."""
    names, records = read_until_the_end(model, history)
    if len(records) < 4:
        raise ValueError(
            "`history` must hold at least 3 records before the final weights, those of `model`, to "
            f"span a plane. Received {len(records) - 1}."
        )
    return names, records


def _read_several(model, histories):
    """The names and weights of the records by run."""
    found = {}
    for run, history in histories.items():
        if not isinstance(run, str):
            raise TypeError(f"`history` must name its runs with strings. Received {run!r}.")
        names, records = read_history(model, history)
        if len(records) < 2:
            raise ValueError(
                f"`history` must hold at least 2 records of each run. Received {len(records)} of "
                f"{run!r}."
            )
        found[run] = [f"{run}/{name}" for name in names], records
    if not found:
        raise ValueError("`history` is an empty dict. Pass a history for each run, by its name.")
    return found


def _trained_indices(model):
    """The indices of the trainable weights, and of weights that are frozen now."""
    index_of = {id(weight): index for index, weight in enumerate(model.weights)}
    trained = [index_of[id(weight)] for weight in model.trainable_variables]
    ever = {
        index_of[id(weight)]
        for layer in flatten_layers(model)
        for weight in own_trainable_variables(layer)
        if id(weight) in index_of
    }
    return trained, sorted(ever.difference(trained))


def _check_finite(names, records, indices):
    """Refuses records of diverged training, since no plane goes through NaN."""
    for number, (name, record) in enumerate(zip(names, records, strict=True)):
        if not all(np.isfinite(record[index]).all() for index in indices):
            raise ValueError(
                f"`history` must hold finite weights. Received NaN or inf in {name!r}, the first "
                f"such record of {len(records)}: training diverged there. To plot the {number} "
                "records before it, set `model` to the last of these and pass them as a list."
            )


def _steps_from(center, records, indices):
    """Some weights of each record minus those at the center."""
    return [[record[index] - center[index] for index in indices] for record in records]


def _principal_plane(model, steps, runs, ignore):
    """The two main directions of the paths, the records' coordinates and the explained variance.

    The fourth result is metadata: where the directions come from.
    """
    linalg = import_extra("scipy.linalg", "analysis")
    moves = [ignore is None or entry.axes is not None for entry in filters(model)]
    matrix = np.stack(
        [
            np.concatenate([move * array.ravel() for move, array in zip(moves, step, strict=True)])
            for step in steps
        ]
    )
    is_moving = np.repeat(moves, [array.size for array in steps[0]])
    length = _check_path(matrix, is_moving, ignore)
    # Without the step of length 0 from the end to itself, as in the paper.
    is_end = np.isin(np.arange(len(matrix)), np.cumsum(list(runs.values())) - 1)
    centered = matrix[~is_end | matrix.any(axis=1)]
    centered -= centered.mean(axis=0)
    _, lengths, components = linalg.svd(centered, full_matrices=False)
    squares = np.square(lengths, dtype=float)
    number = min(np.count_nonzero(lengths > ROUNDING * length), 2)
    components, is_random = _completed(components[:number], matrix, is_moving, ROUNDING * length)
    # The signs are arbitrary, so training is made to come from the upper right.
    signs = np.where(components @ matrix[0] < 0, -1, 1)
    components = signs[:, np.newaxis] * components
    ends = np.cumsum([array.size for array in steps[0]])[:-1]
    directions = [
        [part.reshape(array.shape) for part, array in zip(parts, steps[0], strict=True)]
        for parts in (np.split(component, ends) for component in components)
    ]
    origin = {"directions": "PCA"} | ({"second_axis": "random"} if is_random else {})
    explained = np.append(squares[:number] / np.sum(squares), [1.0, 0.0][number:])
    return directions, matrix @ components.T, explained, origin


def _check_path(matrix, is_moving, ignore):
    """The distance from the end to the farthest record; refuses a path that spans no plane."""
    left = "" if ignore is None else f" `ignore={ignore!r}` leaves out weights that may have moved."
    if np.count_nonzero(is_moving) < 2:
        raise ValueError(
            "`model` must have at least two parameters that may move, to span a plane. Received "
            f"one with {np.count_nonzero(is_moving)}: use `evaluate_line`.{left}"
        )
    length = max(np.linalg.norm(row.astype(float)) for row in matrix)
    if length == 0:
        raise ValueError(
            f"`history` must hold a path, but all {len(matrix)} records have the trainable weights "
            f"of `model`: was the learning rate 0, or were the layers frozen?{left}"
        )
    return length


def _completed(components, matrix, is_moving, tolerance):
    """Two axes, even if a path has fewer components, and whether the second one is random."""
    generator, is_random = np.random.default_rng(0), False
    while len(components) < 2:
        # The components do not include the end, which may lie off the line of the records.
        rests = matrix - matrix @ components.T @ components
        axis = rests[np.argmax(np.linalg.norm(rests, axis=1))]
        if np.linalg.norm(axis) <= tolerance:
            is_random = True
            axis = generator.standard_normal(len(is_moving)) * is_moving
            axis -= axis @ components.T @ components
        axis = (axis / np.linalg.norm(axis)).astype(matrix.dtype)
        components = np.concatenate([components, axis[np.newaxis]])
    return components, is_random


def _distances(steps, frozen_steps, directions, path):
    """The distance of each record from the plane, in all weights that are or were trained."""
    distances = []
    for step, frozen, (alpha, beta) in zip(steps, frozen_steps, path, strict=True):
        rests = [
            array - alpha * first - beta * second
            for array, first, second in zip(step, *directions, strict=True)
        ]
        squares = [np.sum(np.square(rest, dtype=float)) for rest in (*rests, *frozen)]
        distances.append(np.sqrt(sum(squares)))
    return np.array(distances)


def _grid_around(path, margin, numbers):
    """A grid that covers a path and some space around it."""
    space = margin * np.ptp(path, axis=0).max()
    ends = zip(path.min(axis=0) - space, path.max(axis=0) + space, numbers, strict=True)
    return Grid(*(np.linspace(*axis) for axis in ends))


def _from_record(value, steps, coordinates):  # noqa: ARG001, the signature is that of a walk
    (records, *steps), (number, *coordinates) = steps, coordinates
    return straight(_record(records, number), steps, coordinates)


def _at_record(value, steps, coordinates):  # noqa: ARG001
    # Integers have no directions.
    (records, *_), (number, *_) = steps, coordinates
    return _record(records, number)


def _record(records, number):
    return ops.take(records, ops.cast(number, "int32"), axis=0)


def _in_all_weights(model, directions):
    """Directions in the space of all weights; weights that are not trainable do not move."""
    index_of = {id(weight): index for index, weight in enumerate(model.trainable_variables)}
    return [
        [
            direction[index_of[id(weight)]] if id(weight) in index_of else np.zeros((), "float32")
            for weight in model.weights
        ]
        for direction in directions
    ]
