"""Files: written whole or not at all, and read with errors that name the argument.

A value is kept in an HDF5 file, laid out like the value itself. A kill at any
instant of a write leaves the whole old file or the whole new one.
"""

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import time
import typing
from pathlib import Path

import h5py
import numpy as np

from losslandscape.basics.checks import check_path

try:
    import fcntl
except ImportError:
    # Windows has no such locks.
    fcntl = None

# HDF5 does not accept these in a name: a slash nests groups, and a dot is the group itself.
NOT_HDF5 = re.compile(r"[/\x00\ud800-\udfff]|\A\.{0,2}\Z")
# HDF5 limits some names to 64 KiB, far more than anyone reads.
LONGEST_NAME = 1000
# The highest compression ratio that an array can have: gzip's limit.
COMPRESSION = 1032
# A partial file that has not changed for this many seconds is not being written any more.
ABANDONED = 24 * 60 * 60


def write_value(path, value, version):
    """Writes a dataclass, laid out like the value itself: a dict becomes a group."""
    with replacing(path) as file:
        file.attrs["kind"] = type(value).__name__
        file.attrs["losslandscape_version"] = version
        for field in dataclasses.fields(value):
            _write(file, field.name, getattr(value, field.name))


def read_value(kind, path, name, expected):
    """Reads a file of `write_value`; errors call the path `name`, and say what is `expected`."""
    with reading(name, path, expected) as file:
        found = file.attrs.get("kind")
        if found is not None and str(found) == kind.__name__:
            return kind(**{field.name: _read(file, field) for field in dataclasses.fields(kind)})
    reason = "which is not one" if found is None else f"which holds a {found}: use `{found}.load`"
    raise ValueError(f"`{name}` must be {expected}. Received {str(path)!r}, {reason}.")


@contextlib.contextmanager
def replacing(path):
    """Yields an HDF5 file in memory; once complete, it replaces the one at `path`."""
    path = check_path("path", path)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        yield file
    replace_file(path, content.getvalue())


def replace_file(path, content):
    """Writes bytes to a file, as `writing` does."""
    with writing(path) as file:
        file.write(content)


@contextlib.contextmanager
def writing(path):
    """Yields a temporary file to write bytes to, which replaces the one at `path` once complete.

    At any instant `path` is the whole old file or the whole new one.
    """
    # The rename would replace a link itself, so it must be resolved. It would replace a device,
    # too, so the path is checked again: the call may have begun hours ago.
    path = Path(os.path.realpath(check_path("path", path)))
    _remove_abandoned(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    # Exclusively: another thread may be writing the same file.
    file = part.open("x+b")
    try:
        with file:
            _lock(file)
            _copy_permissions(path, part)
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Unlocked first, because HDF5 refuses to read a locked file.
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(name, path, expected):
    """Yields an HDF5 file to read from; refuses one that refers to other files, or in circles."""
    with refusing(name, path, expected), h5py.File(no_device(path), "r") as file:
        _check_links(file)
        yield file


@contextlib.contextmanager
def reading_arrays(name, path, expected, *, allow_pickle=False):
    """Yields the arrays of an `.npz` file, to be read one by one."""
    # Opened here because NumPy leaves a damaged file open.
    with refusing(name, path, expected), no_device(path).open("rb") as file:
        arrays = np.load(file, allow_pickle=allow_pickle)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it is no archive of named arrays, as `np.savez` writes")
        with arrays:
            yield arrays


def no_device(path):
    """Returns a `pathlib.Path`; refuses a pipe or a device, which might never end."""
    path = Path(path).expanduser()
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is a pipe or a device, not a file")
    return path


@contextlib.contextmanager
def refusing(name, path, expected):
    """Turns any failure to read a file into an error that names the argument."""
    received = f"`{name}` must be {expected}. Received {str(path)!r}"
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{received}, which does not exist.") from error
    # HDF5 may raise anything on a damaged file.
    except Exception as error:
        raise ValueError(f"{received}, which cannot be read: {error}.") from error


def read_array(dataset):
    """Reads an array of numbers; refuses one that declares more than the file can hold."""
    if dataset.dtype.kind not in "biuf":
        raise ValueError(f"{dataset.name} must hold numbers, not {dataset.dtype}")
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = min(dataset.id.get_storage_size(), dataset.file.id.get_filesize())
    if declared > stored * (COMPRESSION if dataset.chunks else 1):
        raise ValueError(
            f"{dataset.name} declares {declared} bytes, of which the file holds only {stored}"
        )
    return dataset[()]


def stand_in(name, refused, taken):
    """The name, changed only as far as needed to be valid in a file format and not yet taken."""
    name = refused.sub("_", name)[:LONGEST_NAME]
    while name in taken:
        name += "_"
    return name


def _check_links(file):
    """Refuses an HDF5 file that refers to other files, or more than once to a part of itself."""
    seen, groups = {file["/"]}, [file["/"]]
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} in {group.name} is a link, and links are not followed")
            entry = group[name]
            if entry in seen:
                raise ValueError(f"{entry.name} is also found elsewhere in the file")
            seen.add(entry)
            if isinstance(entry, h5py.Group):
                groups.append(entry)
            elif entry.external or entry.is_virtual:
                raise ValueError(f"{entry.name} is kept in other files, which are not read")


def _write(group, name, value):
    if isinstance(value, np.ndarray):
        group[name] = value
    elif name == "metadata":
        group.attrs[name] = json.dumps(value)
    else:
        # Keeps the order in which the model reports its metrics.
        subgroup = group.create_group(name, track_order=True)
        for key, entry in value.items():
            link = stand_in(key, NOT_HDF5, subgroup)
            subgroup[link] = entry
            if link != key:
                # As JSON, because a string in HDF5 ends at its first NUL.
                subgroup[link].attrs["name"] = json.dumps(key)


def _read(file, field):
    has_default = field.default_factory is not dataclasses.MISSING
    if field.name not in file and has_default:
        # As in files of versions that did not have it.
        return field.default_factory()
    if field.name == "metadata":
        return _metadata(file.attrs["metadata"])
    if typing.get_origin(field.type) is dict:
        return dict(_entries(file[field.name]))
    return read_array(file[field.name])


def _metadata(text):
    metadata = json.loads(text)
    if not isinstance(metadata, dict):
        raise ValueError(f"the metadata must be a JSON object, not {text[:50]}")
    return metadata


def _entries(group):
    for link, entry in group.items():
        array = read_array(entry)
        name = json.loads(entry.attrs["name"]) if "name" in entry.attrs else link
        yield name, array if array.ndim else float(array)


def _remove_abandoned(path):
    """Removes the partial files that killed writes of this file have left behind."""
    is_part = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.part").fullmatch
    # Another process may have removed one already, or another user may own the folder or file.
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
    # A process with that number may be writing on another machine or in a container: it then
    # holds the lock.
    with part.open("r+b") as file:
        return _lock(file)


def _is_alive(process):
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        # The process belongs to another user.
        return True
    return True


def _lock(file):
    """Locks a file until it is closed or its process dies; returns whether that succeeded."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (AttributeError, OSError):
        # Windows, or a file system without locks.
        return False
    return True


def _copy_permissions(path, part):
    """Gives the partial file the mode and, where allowed, the owner of the one it replaces."""
    if not path.exists():
        return
    status = path.stat()
    for owner in ((status.st_uid, -1), (-1, status.st_gid)):
        with contextlib.suppress(AttributeError, OSError):
            os.chown(part, *owner)
    # Last, because a change of owner resets some of the mode.
    with contextlib.suppress(OSError):
        part.chmod(status.st_mode & 0o7777)
