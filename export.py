"""Export: files of other tools.

The paper's reference implementation keeps lines and surfaces in HDF5 files, which
its plotting scripts draw; here ours are written and theirs are read.
"""

import h5py
import numpy as np

from losslandscape.surfaces import LossLine, LossSurface

PARTS = ("train", "test")


def write_reference(path, train=None, test=None):
    """Writes lines or surfaces as the paper's reference implementation does.

    The loss is the one without weight penalties where that was measured, as
    there; accuracies become percent.

    Args:
        path: Where to write the HDF5 file; an existing one is replaced.
        train: `LossLine` or `LossSurface` of the training set. Of a line with
            several directions the first one is written. Defaults to `None`.
        test: The same of the test set, at the same coordinates. Defaults to
            `None`.

    Raises:
        ValueError: If neither is given, or their coordinates differ.

    Example:

    >>> write_reference("surface.h5", train=surface)
    >>> # python plot_2D.py --surf_file surface.h5 --surf_name train_loss

    Reference:
        [loss-landscape](https://github.com/tomgoldstein/loss-landscape),
        `plot_surface.py`.
    """
    parts = {
        name: part for name, part in zip(PARTS, (train, test), strict=True) if part is not None
    }
    if not parts:
        raise ValueError("One of `train` and `test` must be given. Received None for both.")
    first = next(iter(parts.values()))
    for name, part in parts.items():
        if not _share_coordinates(first, part):
            raise ValueError(
                f"`{name}` must have the coordinates of `train`: {first!r}. Received {part!r}."
            )
    with h5py.File(path, "w") as file:
        file["xcoordinates"] = first.alphas
        if _is_surface(first):
            file["ycoordinates"] = first.betas
        for name, part in parts.items():
            loss = "data_loss" if "data_loss" in part.values else "loss"
            file[f"{name}_loss"] = _array_of(part, loss)
            if "accuracy" in part.values:
                file[f"{name}_acc"] = 100 * _array_of(part, "accuracy")


def read_reference(path):
    """Reads lines or surfaces that the paper's reference implementation has computed.

    Args:
        path: The HDF5 file, with `xcoordinates` and `train_loss` or `test_loss`.

    Returns:
        A dict with a `LossLine` or, if the file has `ycoordinates`, a
        `LossSurface` for `"train"` and `"test"`, as far as they are in the file.
        Points that are not computed yet, marked by -1 there, are NaN. The center
        is the point at 0, NaN where there is none.

    Raises:
        ValueError: If the file holds no such data.
    """
    with h5py.File(path, "r") as file:
        found = [name for name in PARTS if f"{name}_loss" in file]
        if "xcoordinates" not in file or not found:
            raise ValueError(
                "`path` must be a file with `xcoordinates` and `train_loss` or `test_loss`. "
                f"Received {str(path)!r}, which has {sorted(file)}."
            )
        axes = [file[name][()] for name in ("xcoordinates", "ycoordinates") if name in file]
        return {name: _read_part(file, name, axes) for name in found}


def _share_coordinates(one, other):
    names = ("alphas", "betas") if _is_surface(one) else ("alphas",)
    return _is_surface(one) == _is_surface(other) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    )


def _is_surface(part):
    return isinstance(part, LossSurface)


def _array_of(part, metric):
    return part.values[metric] if _is_surface(part) else part.values[metric][0]


def _read_part(file, name, axes):
    # For grids that are not square the shape there is transposed, but not the order of the points.
    shape = [len(axis) for axis in reversed(axes)] if len(axes) == 2 else [1, len(axes[0])]
    loss = file[f"{name}_loss"][()].reshape(shape)
    is_missing = loss == -1
    values = {"loss": np.where(is_missing, np.nan, loss)}
    if f"{name}_acc" in file:
        accuracy = file[f"{name}_acc"][()].reshape(shape) / 100
        values["accuracy"] = np.where(is_missing, np.nan, accuracy)
    center = {metric: _center_of(array, axes) for metric, array in values.items()}
    kind = LossSurface if len(axes) == 2 else LossLine
    return kind(*axes, values, center, {"source": "loss-landscape", "dataset": name})


def _center_of(values, axes):
    is_center = np.ones(values.shape, bool)
    for position, axis in enumerate(axes):
        is_zero = np.isclose(axis, 0, atol=1e-9)
        # Alpha runs along the last dimension.
        is_center &= is_zero if position == 0 else is_zero[:, np.newaxis]
    found = values[is_center]
    return float(found[0]) if found.size else float("nan")
