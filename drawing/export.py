"""Export: files for other tools.

Reads and writes the HDF5 files in which the paper's reference implementation keeps
lines and surfaces, and which its plotting scripts draw. Also writes meshes for ParaView.
"""

__all__ = ["read_reference", "write_mesh", "write_reference"]

import math
import re
from xml.sax.saxutils import escape

import numpy as np

from losslandscape.basics.checks import (
    check_choice,
    check_metric,
    check_number,
    check_path,
    import_extra,
)
from losslandscape.basics.types import Display, FilePath, Scale
from losslandscape.drawing.shown import (
    drawable_values,
)
from losslandscape.values.files import (
    read_array,
    reading,
    replace_file,
    replacing,
    stand_in,
)
from losslandscape.values.surfaces import LossLine, LossSurface, Surface, value_of

PARTS = ("train", "test")
AXES = ("xcoordinates", "ycoordinates")
# What the reference implementation writes for a point not computed yet.
MISSING = -1
# XML attributes cannot hold these characters, and VTK does not allow empty names.
NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]|\A\Z")
XML_ENTITIES = {'"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


def write_reference(
    path: FilePath,
    train: LossLine | LossSurface | Display | None = None,
    test: LossLine | LossSurface | Display | None = None,
    *,
    metric: str = "loss",
) -> None:
    """Writes lines or surfaces as the paper's reference implementation does.

    As in its files, the loss is the one without weight penalties (where that was
    measured), accuracies are in percent, and points that a checkpoint has not
    measured yet are -1.

    Args:
        path: Where to write the HDF5 file; an existing one is replaced.
        train: `LossLine` or `LossSurface` of the training set. Only the first
            direction of a line is written. Defaults to `None`.
        test: The same for the test set, at the same coordinates. Defaults to
            `None`.
        metric: Which of the measured values to write as the loss. Defaults to
            `"loss"`, without penalties.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If neither is given, if `metric` was not measured, if their
            coordinates differ, or if `path` is not a file that can be written.

    Example:

    >>> write_reference("surface.h5", train=surface)
    >>> # python plot_2D.py --surf_file surface.h5 --surf_name train_loss

    Reference:
        [loss-landscape](https://github.com/tomgoldstein/loss-landscape),
        `plot_surface.py`.
    """
    parts = {
        name: value_of(name, part, (LossLine, LossSurface))
        for name, part in zip(PARTS, (train, test), strict=True)
        if part is not None
    }
    if not parts:
        raise ValueError("One of `train` and `test` must be given. Received None for both.")
    check_metric(metric, single=True)
    first = next(iter(parts.values()))
    for name, part in parts.items():
        check_choice("metric", metric, tuple(part.values))
        if not _share_coordinates(first, part):
            raise ValueError(
                f"`{name}` must have the coordinates of `train`: {first!r}. Received {part!r}."
            )
    with replacing(path) as file:
        for name, axis in zip(AXES, first.axes, strict=False):
            file[name] = axis
        for name, part in parts.items():
            is_split = metric == "loss" and "data_loss" in part.values
            loss = "data_loss" if is_split else metric
            file[f"{name}_loss"] = _array_of(part, loss)
            if "accuracy" in part.values:
                file[f"{name}_acc"] = _array_of(part, "accuracy", factor=100)


def read_reference(path: FilePath) -> dict[str, LossLine | LossSurface]:
    """Reads lines or surfaces computed by the paper's reference implementation.

    Args:
        path: The HDF5 file, with `xcoordinates` and `train_loss` or `test_loss`.

    Returns:
        A dict with `"train"` and `"test"`, or whichever of them the file holds:
        each a `LossLine` or, if the file has `ycoordinates`, a `LossSurface`.
        Points not computed yet, marked by -1 in the file, are NaN and missing, as
        in a checkpoint. The center is the point at 0, or NaN if there is none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no such data, or is damaged.
    """
    expected = "a file with `xcoordinates` and `train_loss` or `test_loss`"
    with reading("path", path, expected) as file:
        found = [name for name in PARTS if f"{name}_loss" in file]
        if "xcoordinates" in file and found:
            axes = [read_array(file[name]) for name in AXES if name in file]
            return {name: _read_part(file, name, axes) for name in found}
        present = sorted(file)
    raise ValueError(f"`path` must be {expected}. Received {str(path)!r}, which has {present}.")


def write_mesh(
    surface: Surface,
    path: FilePath,
    *,
    metric: str = "loss",
    scale: Scale = "linear",
    height: float = 0.5,
) -> None:
    """Writes a surface as a mesh for ParaView.

    Its points carry all metrics, to color it by. Cells with a corner that is not
    finite, or not positive on a log scale, are left out; the height of points
    that a checkpoint has not measured yet is interpolated.

    Args:
        surface: A `LossSurface`.
        path: Where to write; must end in `.vtp`.
        metric: Which of the measured values to use as height. Defaults to `"loss"`.
        scale: `"linear"` (the default) or `"log"`, for the height.
        height: The height of the whole mesh as a fraction of its width. Defaults
            to 0.5.

    Raises:
        ImportError: If PyVista is not installed (the extra `paraview`).
        ValueError: If `path` does not end in `.vtp` or is not a file that can be
            written, `metric` or `scale` is unknown, or no value is finite.

    Example:

    >>> write_mesh(LossSurface.load("resnet56.h5"), "resnet56.vtp", scale="log")
    """
    surface = value_of("surface", surface, LossSurface)
    check_number("height", height, minimum=0, below=np.inf)
    if check_path("path", path).suffix != ".vtp":
        raise ValueError(f"`path` must end in .vtp. Received {str(path)!r}.")
    heights = _on_scale(drawable_values(surface, metric, scale), scale)
    pyvista = import_extra("pyvista", "paraview")
    drawn = np.isfinite(heights)
    if not drawn.any():
        raise ValueError(f"`surface` has no finite {metric!r} to make a mesh of: {surface!r}.")
    low, high = heights[drawn].min(), heights[drawn].max()
    unit = height * np.ptp(surface.alphas) / (high - low if high > low else 1.0)
    elevation = np.where(drawn, (heights - low) * unit, 0.0)
    alphas, betas = np.meshgrid(surface.alphas, surface.betas)
    corners = np.arange(heights.size).reshape(heights.shape)
    cells = np.stack(
        [corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=-1
    ).reshape(-1, 4)
    cells = cells[drawn.ravel()[cells].all(axis=1)]
    mesh = pyvista.PolyData.from_regular_faces(
        np.stack([alphas.ravel(), betas.ravel(), elevation.ravel()], axis=1), cells
    )
    names = []
    for name, values in surface.values.items():
        names.append(stand_in(name, NOT_XML, names))
        # VTK writes XML, but leaves escaping names to the caller.
        mesh.point_data[escape(names[-1], XML_ENTITIES)] = values.ravel()
    # In memory: on a full disk VTK kills Python.
    writer = import_extra("vtkmodules.vtkIOXML", "paraview").vtkXMLPolyDataWriter()
    writer.SetWriteToOutputString(True)
    # Drop the points of cells that were left out, which would widen its bounds.
    writer.SetInputData(mesh.clean())
    writer.Write()
    replace_file(path, writer.GetOutputString().encode())


def _on_scale(values, scale):
    return np.log10(values) if scale == "log" else values


def _share_coordinates(one, other):
    return len(one.axes) == len(other.axes) and all(map(np.array_equal, one.axes, other.axes))


def _array_of(part, metric, factor=1):
    values = np.where(part.missing, MISSING, factor * part.values[metric])
    return values if len(part.axes) == 2 else values[0]


def _read_part(file, name, axes):
    # In the file, the shape of a grid that is not square is transposed, but not its points' order.
    shape = [len(axis) for axis in reversed(axes)] if len(axes) == 2 else [1, len(axes[0])]
    loss = _read_values(file[f"{name}_loss"], shape)
    is_missing = loss == MISSING
    values = {"loss": np.where(is_missing, np.nan, loss)}
    if f"{name}_acc" in file:
        accuracy = _read_values(file[f"{name}_acc"], shape) / 100
        values["accuracy"] = np.where(is_missing, np.nan, accuracy)
    center = {metric: _center_of(array, axes) for metric, array in values.items()}
    kind = LossSurface if len(axes) == 2 else LossLine
    metadata = {"source": "loss-landscape", "dataset": name}
    if is_missing.any():
        metadata["missing"] = np.flatnonzero(is_missing).tolist()
    return kind(*axes, values, center, metadata)


def _read_values(dataset, shape):
    if math.prod(dataset.shape) != math.prod(shape):
        raise ValueError(f"{dataset.name} has the shape {dataset.shape}, but the axes {shape}")
    return read_array(dataset).reshape(shape)


def _center_of(values, axes):
    is_center = np.ones(values.shape, bool)
    for position, axis in enumerate(axes):
        is_zero = np.isclose(axis, 0, atol=1e-9)
        # Alpha runs along the last dimension.
        is_center &= is_zero if position == 0 else is_zero[:, np.newaxis]
    found = values[is_center]
    return float(found[0]) if found.size else float("nan")
