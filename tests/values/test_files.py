"""Files: whatever happens while one is written, either the old or the new one is there."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from disks import room_for

from losslandscape import (
    LossDisplay,
    LossLine,
    LossSurface,
    LossTrajectory,
    WeightHistory,
    animate_path,
    plot_line,
)
from losslandscape.drawing.export import read_reference, write_mesh, write_reference
from losslandscape.drawing.page import write_html
from losslandscape.paths.trajectory import read_history
from losslandscape.values.files import read_array, refusing, replace_file, replacing, stand_in


@pytest.fixture
def surface():
    alphas, betas = np.linspace(-1, 1, 3), np.array([0.0, 0.5])
    return LossSurface(alphas, betas, {"loss": np.zeros((2, 3))}, {"loss": 0.0}, {"seed": 0})


@pytest.fixture
def line():
    return LossLine(np.arange(3.0), {"loss": np.ones((1, 3))}, {"loss": 1.0}, {"seed": 3})


def write_half(path):
    with replacing(path) as file:
        file["half"] = np.zeros(3)
        raise KeyError("unwritable")


def test_a_file_is_replaced_once_complete(tmp_path):
    path = tmp_path / "page.html"
    for content in (b"old", b"new"):
        replace_file(path, content)
        assert path.read_bytes() == content
    with pytest.raises(KeyError, match="unwritable"):
        write_half(path)
    assert path.read_bytes() == b"new"
    with replacing(path) as file:
        file["whole"] = np.arange(3)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(read_array(file["whole"]), np.arange(3))
    assert list(tmp_path.iterdir()) == [path]


def test_errors_in_reading_name_the_argument():
    for error, raised, reason in (
        (FileNotFoundError(), FileNotFoundError, "which does not exist"),
        (RecursionError("too deep"), ValueError, "which cannot be read: too deep"),
    ):
        expected = f"`history` must be files. Received 'a.h5', {reason}"
        with pytest.raises(raised, match=expected), refusing("history", "a.h5", "files"):
            raise error


def test_names_that_a_format_refuses_get_stand_ins():
    refused, taken = re.compile("/"), []
    for name in ("loss", "a/b", "a_b", "a/b", "n" * 2000):
        taken.append(stand_in(name, refused, taken))
    assert taken == ["loss", "a_b", "a_b_", "a_b__", "n" * 1000]


def test_a_replacement_keeps_the_permissions(surface, tmp_path):
    path = tmp_path / "surface.h5"
    before = os.umask(0o027)
    try:
        surface.save(path)
        assert path.stat().st_mode & 0o777 == 0o640
        for mode in (0o600, 0o664):
            path.chmod(mode)
            surface.save(path)
            assert path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_the_target_of_a_link_is_replaced(surface, line, tmp_path):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "value.h5", tmp_path / "value.h5"
    surface.save(target)
    link.symlink_to(target)
    line.save(link)
    assert link.is_symlink()
    assert repr(LossLine.load(target)) == repr(line)


def test_a_write_removes_what_dead_processes_left(surface, tmp_path):
    path = tmp_path / "surface[1].h5"
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left = tmp_path / f".surface[1].h5.{process.pid}.part"
    # Parts of a live process, of another file, and of a writer on another machine.
    alive = tmp_path / f".surface[1].h5.{os.getppid()}.part"
    other = tmp_path / f".surface.h5.{process.pid}.part"
    locked = tmp_path / f".surface[1].h5.{2**40}.part"
    # Its process number may have been reused, but no write takes days.
    aged = tmp_path / ".surface[1].h5.1.part"
    for part in (left, alive, other, locked, aged):
        part.write_text("half")
    os.utime(aged, (0, time.time() - 48 * 3600))
    with locked.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        surface.save(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, alive, other, locked])
    surface.save(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, alive, other])


def test_a_killed_write_leaves_the_old_file_and_the_next_one_cleans_up(line, tmp_path, monkeypatch):
    path = tmp_path / "line.h5"
    line.save(path)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        line.save(path)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(LossLine.load(path).values["loss"], line.values["loss"])
    line.save(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_can_be_read_from_the_instant_it_appears(surface, tmp_path, monkeypatch):
    path, replace, read = tmp_path / "surface.h5", Path.replace, []

    def replace_and_read(part, target):
        replace(part, target)
        read.append(LossSurface.load(target))

    monkeypatch.setattr(Path, "replace", replace_and_read)
    surface.save(path)
    assert [repr(value) for value in read] == [repr(surface)]


def write_film(surface, _, path):
    values = {"plane_values": {"loss": np.zeros(3)}, "true_values": {"loss": np.zeros(3)}}
    values |= {"path": np.array([[1.0, 0.5], [0, 0.5], [0, 0]]), "distances": np.zeros(3)}
    trajectory = LossTrajectory(**vars(surface), explained=np.array([0.8, 0.2]), **values)
    animate_path(trajectory, path)


def write_figure(_, line, path):
    LossDisplay([line], axes={"line": plot_line(line)}).save(path)


def write_record(_, __, path):
    history = WeightHistory(path.parent, append=True)
    history.set_model(keras.Sequential([keras.Input((20,)), keras.layers.Dense(20)]))
    history._record(path.stem)


WRITERS = {
    "value.h5": lambda surface, _, path: surface.save(path),
    "reference.h5": lambda surface, _, path: write_reference(path, surface),
    "page.html": lambda surface, _, path: write_html(surface, path),
    "mesh.vtp": lambda surface, _, path: write_mesh(surface, path),
    "figure.png": write_figure,
    "film.gif": write_film,
    "epoch-3.npz": write_record,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file(name, surface, line, tmp_path):
    path, link = tmp_path / "store" / name, tmp_path / name
    path.parent.mkdir()
    path.write_bytes(b"old")
    link.symlink_to(path)
    with room_for(500), pytest.raises(OSError, match="File too large"):
        WRITERS[name](surface, line, link)
    assert link.is_symlink()
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
    # With room, the same call replaces the file.
    WRITERS[name](surface, line, link)
    assert link.is_symlink()
    assert path.stat().st_size > 500


def put(name, value):
    """An edit of a file: something else in the place of a part."""

    def edit(file):
        del file[name]
        file[name] = value(file) if callable(value) else value

    return edit


def of_bytes(file):
    del file["alphas"]
    file.create_dataset("alphas", (3,), "u1", external=[(__file__, 0, 3)])


def of_other_arrays(file):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "alphas", (3,))
    del file["alphas"]
    file.create_virtual_dataset("alphas", layout)


EDITS = {
    "/alphas is kept in other files": of_bytes,
    "/alphas is kept in other files, which": of_other_arrays,
    "'alphas' in / is a link": put("alphas", h5py.ExternalLink("other.h5", "/alphas")),
    "'values' in / is a link": put("values", h5py.SoftLink("/")),
    "/values/loss is also found elsewhere": put("values/loss", lambda file: file["/"]),
}


@pytest.mark.parametrize("reason", EDITS)
def test_a_file_that_leads_out_of_itself_or_in_circles_is_refused(reason, surface, tmp_path):
    surface.save(tmp_path / "other.h5")
    surface.save(tmp_path / "surface.h5")
    with h5py.File(tmp_path / "surface.h5", "r+") as file:
        EDITS[reason](file)
    for read in (LossSurface.load, read_reference):
        with pytest.raises(ValueError, match=f"`path` must be a file .* cannot be read: {reason}"):
            read(tmp_path / "surface.h5")


def test_weights_kept_elsewhere_are_refused(model, tmp_path):
    path = tmp_path / "epoch-1.weights.h5"
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        del file["layers/dense/vars/1"]
        file.create_dataset("layers/dense/vars/1", (8,), "f4", external=[(__file__, 0, 32)])
    with pytest.raises(ValueError, match="(?s)`history` must be files with weights.*external"):
        read_history(model, [path])


@pytest.mark.parametrize("suffix", [".npz", ".weights.h5", ".keras"])
def test_a_pipe_is_refused_at_once(suffix, model, tmp_path):
    """Whoever opens one waits until someone writes to it."""
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    readers = [lambda: read_history(model, [path])]
    if suffix != ".npz":
        readers += [lambda: LossSurface.load(path), lambda: read_reference(path)]
    for read in readers:
        with pytest.raises(ValueError, match="must be .* it is a pipe or a device, not a file"):
            read()


def test_an_array_that_is_no_archive_is_refused(model, tmp_path):
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(ValueError, match="`history` must be files.*it is no archive of named"):
        read_history(model, [tmp_path / "array.npz"])


def test_impossible_file_names_are_refused(surface, tmp_path):
    for name in ("a" * 250, "a\0b", "\ud800", "a" * 5000, "nowhere/a.h5", ".", ""):
        with pytest.raises(ValueError, match=r"(?s)`path` must be a file that can be written"):
            surface.save(tmp_path / name)
    # Nor devices, which would be replaced by files.
    with pytest.raises(ValueError, match="this is not a file"):
        surface.save(os.devnull)
    with pytest.raises(TypeError, match="`path` must be the path of a file or folder. Received 3"):
        surface.save(3)
    assert not list(tmp_path.iterdir())
