"""Surfaces: what was measured, as small values that save and describe themselves.

A `LossLine` holds losses along directions, a `LossSurface` over the plane of
two. Both keep every metric of the model, the values at the unperturbed weights
and how they were computed, and can be drawn again without model or data.
"""

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from losslandscape.checks import check_path

try:
    import fcntl
except ImportError:
    # Windows has no such locks.
    fcntl = None

__version__ = "0.1.0"

# What HDF5 does not take for a name: a slash nests, and a dot is the group itself.
NOT_HDF5 = re.compile(r"[/\x00\ud800-\udfff]|\A\.{0,2}\Z")
# HDF5 has a limit of 64 KiB for some names; nobody reads them so far.
LONGEST_NAME = 1000
# How many times smaller than its numbers a compressed array can be: gzip's limit.
COMPRESSION = 1032
# After so many seconds nobody is writing a file any more.
ABANDONED = 24 * 60 * 60


class _Saved:
    """HDF5 reading and writing, the same for all values."""

    def save(self, path):
        """Writes everything to an HDF5 file.

        The file is laid out like the value itself, `file["values/loss"]`. A name
        that HDF5 does not allow, such as `"top/accuracy"`, is written with
        underscores, and as it is in the attribute `name`.

        Args:
            path: Where to write; an existing file is replaced as a whole, so
                that at any instant there is the old one or the new one.

        Raises:
            ValueError: If `path` is no file that can be written.

        Example:

        >>> display.surface.save("resnet56.h5")
        """
        with replacing(path) as file:
            file.attrs["kind"] = type(self).__name__
            file.attrs["losslandscape_version"] = __version__
            for field in dataclasses.fields(self):
                _write(file, field.name, getattr(self, field.name))

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote.

        Args:
            path: Path of the HDF5 file.

        Returns:
            A value of this class, equal to the saved one in every bit.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds something else, or is damaged.

        Example:

        >>> plot_levels(LossSurface.load("resnet56.h5"))
        """
        return read_saved(cls, path, "path", f"a file written by `{cls.__name__}.save`")


class _Landscape(_Saved):
    """What lines and surfaces know of themselves beyond their fields."""

    # The fields with a value per point, in the order in which points are numbered.
    measured: ClassVar = ("values",)

    @property
    def missing(self):
        """Boolean array, shaped as the values: the points of a checkpoint not measured yet."""
        is_missing = np.zeros(next(iter(self.values.values())).shape, bool)
        numbers = np.array(self.missing_numbers, int)
        # The points of a path come after those of its surface.
        is_missing.flat[numbers[numbers < is_missing.size]] = True
        return is_missing

    @property
    def missing_numbers(self):
        """List of ints: the same points numbered row by row, then those of a trajectory's path."""
        return self.metadata.get("missing", [])

    @property
    def models(self):
        """Float array of shape `(k, len(axes))`: where the models lie, by default at the origin."""
        origin = [0.0] * len(self.axes)
        return np.array(self.metadata.get("positions", origin), float).reshape(-1, len(self.axes))


@dataclass(frozen=True, eq=False, repr=False)
class LossLine(_Landscape):
    """Losses along one or several directions, `values["loss"][k, j] = L(θ + alphas[j]·d_k)`.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates along the direction.
        values: Dict of float arrays of shape `(k, n)`, one row per direction:
            `"loss"` and every metric the model was compiled with, and
            `"data_loss"`, the loss without weight penalties, if it has any
            (NaN where rounding hides it below them). What was not finite is
            kept as NaN or inf.
        center: Dict of floats, the same at the unperturbed weights.
        metadata: Dict of how this was computed: seed, normalization, ignore
            rule, dataset size, model, versions. In a checkpoint also
            `"missing"`, the positions of points not measured yet, row by row.
    """

    alphas: np.ndarray
    values: dict
    center: dict
    metadata: dict

    def __post_init__(self):
        _check_shapes(self.values, (None, len(self.alphas)))

    @property
    def axes(self):
        """Tuple of the coordinates along each axis: `(alphas,)`."""
        return (self.alphas,)

    def __repr__(self):
        directions = len(next(iter(self.values.values())))
        return (
            f"LossLine({', '.join(self.values)}; {directions} direction{'s'[: directions != 1]}, "
            f"{_extent('alpha', self.alphas)})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class LossSurface(_Landscape):
    """Losses over a plane, `values["loss"][i, j] = L(θ + alphas[j]·d1 + betas[i]·d2)`.

    Rows go along beta and columns along alpha, as `np.meshgrid(alphas, betas)`
    and Matplotlib's `contour(alphas, betas, values)` have it.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates along d1.
        betas: Float array of shape `(m,)`, the coordinates along d2.
        values: Dict of float arrays of shape `(m, n)`: `"loss"` and every
            metric the model was compiled with, and `"data_loss"`, the loss
            without weight penalties, if it has any (NaN where rounding hides it
            below them). What was not finite is kept as NaN or inf.
        center: Dict of floats, the same at the unperturbed weights.
        metadata: Dict of how this was computed: seed, normalization, ignore
            rule, dataset size, model, versions. In a checkpoint also
            `"missing"`, the positions of points not measured yet, row by row.
    """

    alphas: np.ndarray
    betas: np.ndarray
    values: dict
    center: dict
    metadata: dict

    def __post_init__(self):
        _check_shapes(self.values, (len(self.betas), len(self.alphas)))

    @property
    def axes(self):
        """Tuple of the coordinates along each axis, `(alphas, betas)`; values run the other way."""
        return self.alphas, self.betas

    @property
    def axis_names(self):
        """Tuple of the names of both axes, as drawings show them."""
        return "α", "β"

    def slice(self, *, alpha=None, beta=None):
        """Cuts the surface along one axis.

        Args:
            alpha: Where to cut along beta. Defaults to `None`.
            beta: Where to cut along alpha. Defaults to `None`.

        Returns:
            A `LossLine` along the other axis, interpolated linearly between
            grid lines. Its `center` is the point where that axis is 0. Of a
            checkpoint, points next to a missing one are missing.

        Raises:
            ValueError: If not just one of both is given, or it lies beyond the
                surface.

        Example:

        >>> plot_line([surface.slice(beta=0), surface.slice(alpha=0)], labels=("α", "β"))
        """
        if (alpha is None) == (beta is None):
            raise ValueError(
                f"Either `alpha` or `beta` must be given. Received alpha={alpha}, beta={beta}."
            )
        name, position = ("alpha", alpha) if beta is None else ("beta", beta)
        along, across = self.axes[::-1] if beta is None else self.axes
        if not across[0] <= position <= across[-1]:
            raise ValueError(
                f"`{name}` must lie between {across[0]:g} and {across[-1]:g}. Received {position}."
            )

        def cut(array):
            rows = array if beta is None else array.T
            return np.array([[np.interp(position, across, row) for row in rows]])

        values = {key: cut(array) for key, array in self.values.items()}
        center = {key: float(np.interp(0, along, each[0])) for key, each in values.items()}
        if position == 0:
            center = dict(self.center)
        metadata = {key: entry for key, entry in self.metadata.items() if key != "missing"}
        missing = np.flatnonzero(cut(self.missing) > 0)
        if missing.size:
            metadata["missing"] = missing.tolist()
        if "positions" in metadata:
            pairs = [pair if beta is None else pair[::-1] for pair in self.models.tolist()]
            metadata["positions"] = [there for off, there in pairs if off == position]
        return LossLine(along, values, center, metadata | {"slice": {name: position}})

    def __repr__(self):
        axes = f"{_extent('alpha', self.alphas)}, {_extent('beta', self.betas)}"
        return f"LossSurface({', '.join(self.values)}; {axes})"


@dataclass(frozen=True, eq=False, repr=False)
class LossTrajectory(LossSurface):
    """A loss surface, and the path of training on it.

    Attributes:
        path: Float array of shape `(k, 2)`, alpha and beta of each record,
            projected onto the plane; the last one is (0, 0).
        explained: Float array of shape `(2,)`, the share of the path's variance
            along either axis.
        distances: Float array of shape `(k,)`, how far each record is off the
            plane, in the units of `path`.
        plane_values: Dict of float arrays of shape `(k,)`, like `values` at the
            points of `path`.
        true_values: Dict of float arrays of shape `(k,)`, the same at the
            recorded weights themselves.
    """

    measured: ClassVar = ("values", "plane_values")

    path: np.ndarray
    explained: np.ndarray
    distances: np.ndarray
    plane_values: dict
    true_values: dict

    @property
    def axis_names(self):
        """Tuple of the names of both axes, with the share of the path's variance along them."""
        first, second = (
            f"{order} principal component ({share:.1%})"
            for order, share in zip(("1st", "2nd"), self.explained, strict=True)
        )
        if self.metadata.get("second_axis") == "random":
            # A straight path has no second component.
            second = "random direction at right angles"
        return first, second


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(_Saved):
    """Eigenvalues of a Hessian as random vectors see them.

    Attributes:
        eigenvalues: Float array of shape `(k, steps)`, a row per random vector.
        shares: Float array of shape `(k, steps)`, the weight of each
            eigenvalue; those of a row sum to 1.
        metadata: Dict of model, number of parameters and seed.
    """

    eigenvalues: np.ndarray
    shares: np.ndarray
    metadata: dict

    def __repr__(self):
        low, high = self.eigenvalues.min(), self.eigenvalues.max()
        return f"Spectrum({len(self.eigenvalues)} probes; eigenvalues {low:.3g}…{high:.3g})"


def _extent(name, coordinates):
    return f"{len(coordinates)} points {name} {coordinates[0]:g}…{coordinates[-1]:g}"


def _check_shapes(values, shape):
    for name, array in values.items():
        if array.ndim != 2 or any(
            size not in (None, actual) for size, actual in zip(shape, array.shape, strict=True)
        ):
            expected = tuple("any" if size is None else size for size in shape)
            raise ValueError(
                f"values[{name!r}] must have shape {expected}. Received {array.shape}."
            )


def read_saved(kind, path, name, expected):
    """Reads a saved value; errors call the path by `name`, and say what is `expected`."""
    with refusing(name, path, expected), h5py.File(path, "r") as file:
        found = file.attrs.get("kind")
        if found is not None and str(found) == kind.__name__:
            return kind(**{field.name: _read(file, field) for field in dataclasses.fields(kind)})
    reason = "which is none" if found is None else f"which holds a {found}: use `{found}.load`"
    raise ValueError(f"`{name}` must be {expected}. Received {str(path)!r}, {reason}.")


@contextlib.contextmanager
def refusing(name, path, expected):
    """Turns whatever goes wrong in reading a file into an error that names the argument."""
    received = f"`{name}` must be {expected}. Received {str(path)!r}"
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{received}, which does not exist.") from error
    # Of a damaged file HDF5 raises anything.
    except Exception as error:
        raise ValueError(f"{received}, which cannot be read: {error}.") from error


def read_array(dataset):
    """Reads numbers, unless more of them are declared than the file can hold."""
    if dataset.dtype.kind not in "biuf":
        raise ValueError(f"{dataset.name} must hold numbers, not {dataset.dtype}")
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = min(dataset.id.get_storage_size(), dataset.file.id.get_filesize())
    if declared > stored * (COMPRESSION if dataset.chunks else 1):
        raise ValueError(
            f"{dataset.name} declares {declared} bytes, of which the file holds only {stored}"
        )
    return dataset[()]


@contextlib.contextmanager
def replacing(path):
    """Yields an HDF5 file in memory; it replaces the one at `path` when it is complete."""
    path = check_path("path", path)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        yield file
    replace_file(path, content.getvalue())


def replace_file(path, content):
    """Writes a file so that at any instant there is the whole old one or the whole new one."""
    # The target of a link, or the link itself would become a file.
    path = Path(os.path.realpath(path))
    _remove_abandoned(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    # Not that of another thread.
    file = part.open("xb")
    try:
        with file:
            _lock(file)
            _copy_permissions(path, part)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Unlocked, for HDF5 refuses to read what is locked.
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def stand_in(name, refused, taken):
    """A name for a format that refuses some characters: the name itself wherever that is free."""
    name = refused.sub("_", name)[:LONGEST_NAME]
    while name in taken:
        name += "_"
    return name


def _remove_abandoned(path):
    """Removes what is left of writes to this file that were killed."""
    is_part = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.part").fullmatch
    # Another process may be faster, or the folder or the file be another user's.
    with contextlib.suppress(OSError):
        for part in path.parent.iterdir():
            match = is_part(part.name)
            if match and _is_abandoned(part, int(match[1])):
                part.unlink(missing_ok=True)


def _is_abandoned(part, process):
    if time.time() - part.stat().st_mtime > ABANDONED:
        return True
    if fcntl is None or (process != os.getpid() and _is_alive(process)):
        return False
    # On another machine, or in a container, a process of that number may be writing.
    with part.open("r+b") as file:
        return _lock(file)


def _is_alive(process):
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        # Another user's.
        return True
    return True


def _lock(file):
    """Locks a file until it is closed, or its process dies; whether nobody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (AttributeError, OSError):
        # Windows, or a file system without locks.
        return False
    return True


def _copy_permissions(path, part):
    """Gives the part the mode of the file it replaces and, where that is allowed, its owner."""
    if not path.exists():
        return
    status = path.stat()
    for owner in ((status.st_uid, -1), (-1, status.st_gid)):
        with contextlib.suppress(AttributeError, OSError):
            os.chown(part, *owner)
    # After that, since a change of the owner resets some of it.
    with contextlib.suppress(OSError):
        part.chmod(status.st_mode & 0o7777)


def _write(group, name, value):
    if isinstance(value, np.ndarray):
        group[name] = value
    elif name == "metadata":
        group.attrs[name] = json.dumps(value)
    else:
        # Track the order: it is the order in which the model reports its metrics.
        subgroup = group.create_group(name, track_order=True)
        for key, entry in value.items():
            link = stand_in(key, NOT_HDF5, subgroup)
            subgroup[link] = entry
            if link != key:
                # As JSON, for a string in HDF5 ends at its first NUL.
                subgroup[link].attrs["name"] = json.dumps(key)


def _read(file, field):
    if field.name == "metadata":
        return _metadata(file.attrs["metadata"])
    if field.type is dict:
        return dict(_entries(file[field.name]))
    return read_array(file[field.name])


def _metadata(text):
    metadata = json.loads(text)
    if not isinstance(metadata, dict):
        raise ValueError(f"the metadata must be a JSON object, not {text[:50]}")
    return metadata


def _entries(group):
    for link, entry in group.items():
        if isinstance(entry, h5py.Group):
            # A name with a slash was once written as it is, and made groups in groups.
            yield from ((f"{link}/{name}", value) for name, value in _entries(entry))
        else:
            array = read_array(entry)
            name = json.loads(entry.attrs["name"]) if "name" in entry.attrs else link
            yield name, array if array.ndim else float(array)
