"""Files: written as a whole or not at all, and read with errors that name the argument.

A value is kept in an HDF5 file, laid out like the value itself. Whatever is
written, a kill at any instant leaves the whole old file or the whole new one.
"""

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import time
from pathlib import Path

import h5py
import numpy as np

from losslandscape.checks import check_path

try:
    import fcntl
except ImportError:
    # Windows has no such locks.
    fcntl = None

# What HDF5 does not take for a name: a slash nests, and a dot is the group itself.
NOT_HDF5 = re.compile(r"[/\x00\ud800-\udfff]|\A\.{0,2}\Z")
# HDF5 has a limit of 64 KiB for some names; nobody reads them so far.
LONGEST_NAME = 1000
# How many times smaller than its numbers a compressed array can be: gzip's limit.
COMPRESSION = 1032
# After so many seconds nobody is writing a file any more.
ABANDONED = 24 * 60 * 60


def write_value(path, value, version):
    """Writes a dataclass, laid out like the value itself: a dict becomes a group."""
    with replacing(path) as file:
        file.attrs["kind"] = type(value).__name__
        file.attrs["losslandscape_version"] = version
        for field in dataclasses.fields(value):
            _write(file, field.name, getattr(value, field.name))


def read_value(kind, path, name, expected):
    """Reads what `write_value` wrote; errors call the path `name`, and say what is `expected`."""
    with refusing(name, path, expected), h5py.File(path, "r") as file:
        found = file.attrs.get("kind")
        if found is not None and str(found) == kind.__name__:
            return kind(**{field.name: _read(file, field) for field in dataclasses.fields(kind)})
    reason = "which is none" if found is None else f"which holds a {found}: use `{found}.load`"
    raise ValueError(f"`{name}` must be {expected}. Received {str(path)!r}, {reason}.")


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


def stand_in(name, refused, taken):
    """A name for a format that refuses some characters: the name itself wherever that is free."""
    name = refused.sub("_", name)[:LONGEST_NAME]
    while name in taken:
        name += "_"
    return name


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
