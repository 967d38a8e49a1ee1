"""Export: other tools read our files, and we read theirs."""

import dataclasses
import sys

import h5py
import numpy as np
import pytest
import pyvista

from losslandscape import LossLine, LossSurface, LossTrajectory
from losslandscape.drawing.export import read_reference, write_mesh, write_reference
from losslandscape.drawing.page import write_html
from losslandscape.values.measures import non_convexity

ALPHAS, BETAS = np.linspace(-1, 1, 5), np.linspace(-2, 2, 3)
NAMES = [
    *("loss", "top/accuracy", "", ".", " ", "a\nb", "a\tb", "a\0b", "a_b", "<\0", "<_", "\ud800"),
    *("α", "acc (%)", "$x$", "<b>", "</script>", "&amp;", '"a"', "a'b", "%{x}", "x", "Normals"),
    *("\x01", "n" * 2000, "n" * 2001),
]


@pytest.fixture
def surface():
    a, b = np.meshgrid(ALPHAS, BETAS)
    values = {"loss": 5 + a + 10 * b, "data_loss": 4 + a + 10 * b, "accuracy": (a + 1) / 2}
    center = {"loss": 5.0, "data_loss": 4.0, "accuracy": 0.5}
    return LossSurface(ALPHAS, BETAS, values, center, {})


@pytest.fixture
def line():
    values = {"loss": np.stack([ALPHAS**2, ALPHAS**4]), "accuracy": np.stack([ALPHAS**0] * 2)}
    return LossLine(ALPHAS, values, {"loss": 0.0, "accuracy": 1.0}, {})


def test_reference_files_have_its_names_shapes_and_units(surface, tmp_path):
    path = tmp_path / "surface.h5"
    write_reference(path, train=surface, test=surface)
    # As its plot_2D.py reads them.
    with h5py.File(path) as file:
        x, y = np.meshgrid(file["xcoordinates"][:], file["ycoordinates"][:])
        assert file["train_loss"].shape == x.shape
        # The loss without the penalty, as in the reference.
        np.testing.assert_array_equal(file["train_loss"][:], 4 + x + 10 * y)
        np.testing.assert_allclose(file["test_acc"][:], 50 * (x + 1))
        assert set(file) == {
            *("xcoordinates", "ycoordinates", "train_loss", "train_acc", "test_loss", "test_acc")
        }


def test_points_not_measured_yet_are_marked_as_in_the_reference(surface, tmp_path):
    surface.values["loss"][0, 3] = surface.values["accuracy"][0, 3] = np.nan
    checkpoint = dataclasses.replace(surface, metadata={"missing": [3]})
    del checkpoint.values["data_loss"]
    write_reference(tmp_path / "file.h5", train=checkpoint)
    with h5py.File(tmp_path / "file.h5") as file:
        # Its plot_surface.py resumes where the loss is -1.
        assert np.argwhere(file["train_loss"][:] == -1).tolist() == [[0, 3]]
        assert file["train_acc"][0, 3] == -1
    read = read_reference(tmp_path / "file.h5")["train"]
    assert np.isnan(read.values["loss"][0, 3])
    assert read.missing_numbers == [3]
    with pytest.raises(ValueError, match="must be complete, but 1 points are missing"):
        non_convexity(read)
    # Written back, it still resumes there.
    write_reference(tmp_path / "again.h5", train=read)
    with h5py.File(tmp_path / "file.h5") as file, h5py.File(tmp_path / "again.h5") as again:
        for name in ("train_loss", "train_acc"):
            np.testing.assert_array_equal(again[name], file[name])


def test_written_reference_files_are_read_back(surface, line, tmp_path):
    for value in (surface, line):
        write_reference(tmp_path / "file.h5", test=value)
        read = read_reference(tmp_path / "file.h5")
        assert set(read) == {"test"}
        loss = "data_loss" if value is surface else "loss"
        expected = value.values[loss] if value is surface else value.values[loss][:1]
        np.testing.assert_array_equal(read["test"].values["loss"], expected)
        assert read["test"].center["loss"] == value.center[loss]
        assert read["test"].center["accuracy"] == value.center["accuracy"]
        np.testing.assert_array_equal(read["test"].alphas, ALPHAS)


def test_surfaces_of_the_reference_are_read(tmp_path):
    """A file as its plot_surface.py fills it, point by point."""
    path = tmp_path / "reference.h5"
    with h5py.File(path, "w") as file:
        file["dir_file"] = "directions.h5"
        file["xcoordinates"], file["ycoordinates"] = ALPHAS, BETAS
        losses = -np.ones((len(ALPHAS), len(BETAS)))
        accuracies = -np.ones((len(ALPHAS), len(BETAS)))
        x, y = (mesh.ravel() for mesh in np.meshgrid(ALPHAS, BETAS))
        # All except the last three points, which the run did not reach.
        for index in range(12):
            losses.ravel()[index] = 5 + x[index] + 10 * y[index]
            accuracies.ravel()[index] = 50
        file["train_loss"], file["train_acc"] = losses, accuracies
    surface = read_reference(path)["train"]
    expected = np.add.outer(10 * BETAS, 5 + ALPHAS)
    expected.ravel()[12:] = np.nan
    np.testing.assert_allclose(surface.values["loss"], expected)
    np.testing.assert_array_equal(np.isnan(surface.values["accuracy"]), np.isnan(expected))
    np.testing.assert_array_equal(surface.missing, np.isnan(expected))
    assert surface.center == {"loss": 5.0, "accuracy": 0.5}


def test_a_grid_without_the_model_has_no_center(tmp_path):
    with h5py.File(tmp_path / "line.h5", "w") as file:
        file["xcoordinates"], file["train_loss"] = np.array([0.5, 1.0]), np.array([1.0, 2.0])
    line = read_reference(tmp_path / "line.h5")["train"]
    assert np.isnan(line.center["loss"])
    assert line.values["loss"].tolist() == [[1.0, 2.0]]


def test_the_metric_that_is_named_is_written_as_the_loss(tmp_path):
    values = {"d_loss": np.array([[1.0, 2.0]]), "g_loss": np.array([[3.0, 4.0]])}
    line = LossLine(np.array([0.0, 1.0]), values, {"d_loss": 1.0, "g_loss": 3.0}, {})
    write_reference(tmp_path / "line.h5", test=line, metric="g_loss")
    with h5py.File(tmp_path / "line.h5") as file:
        assert file["test_loss"][()].tolist() == [3.0, 4.0]


def test_mismatched_coordinates_and_other_files_are_refused(surface, line, tmp_path):
    path = tmp_path / "file.h5"
    with pytest.raises(ValueError, match="One of `train` and `test`"):
        write_reference(path)
    with pytest.raises(ValueError, match="`test` must have the coordinates of `train`"):
        write_reference(path, train=surface, test=line)
    with pytest.raises(ValueError, match="`metric` must be one of .*Received 'd_loss'"):
        write_reference(path, train=surface, metric="d_loss")
    surface.save(path)
    with pytest.raises(ValueError, match="must be a file with `xcoordinates`.*'alphas'"):
        read_reference(path)


def test_a_mesh_holds_every_value_at_its_point(surface, tmp_path):
    write_mesh(surface, tmp_path / "surface.vtp", height=0.5)
    mesh = pyvista.read(tmp_path / "surface.vtp")
    alphas, betas, heights = mesh.points.T
    assert mesh.n_points == surface.values["loss"].size
    assert mesh.n_cells == (len(ALPHAS) - 1) * (len(BETAS) - 1)
    np.testing.assert_allclose(mesh["loss"], 5 + alphas + 10 * betas, rtol=1e-6)
    np.testing.assert_allclose(mesh["accuracy"], (alphas + 1) / 2, atol=1e-6)
    # Half as high as wide, whatever the unit of the loss.
    np.testing.assert_allclose([heights.min(), heights.max()], [0, 0.5 * 2], atol=1e-6)
    np.testing.assert_allclose(heights, (mesh["loss"] + 16) / 42, atol=1e-6)


def test_a_mesh_has_no_cells_at_non_finite_losses(surface, tmp_path):
    surface.values["loss"][0, 0] = np.nan
    write_mesh(surface, tmp_path / "surface.vtp", scale="log")
    mesh = pyvista.read(tmp_path / "surface.vtp")
    # The first of the three rows also has losses below 0.
    assert mesh.n_cells == 4
    assert mesh["loss"].min() > 0
    surface.values["loss"][:] = np.inf
    with pytest.raises(ValueError, match="no finite 'loss'"):
        write_mesh(surface, tmp_path / "surface.vtp")


def test_a_missing_extra_is_named(surface, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[paraview\]'"):
        write_mesh(surface, tmp_path / "surface.vtp")


def test_other_suffixes_and_unknown_metrics_are_refused(surface, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in \.vtp"):
        write_mesh(surface, tmp_path / "surface.obj")
    with pytest.raises(ValueError, match="`metric` must be one of 'loss', 'data_loss', 'accuracy'"):
        write_mesh(surface, tmp_path / "surface.vtp", metric="auc")


def test_an_unfinished_trajectory_is_written(surface, tmp_path):
    # The points of the path are numbered after the 15 of the surface.
    metadata = {"missing": [4, 14, 15, 17]}
    path = np.zeros((3, 2))
    on_path = {name: np.zeros(3) for name in surface.values}
    trajectory = LossTrajectory(
        ALPHAS, BETAS, surface.values, surface.center, metadata, path, path[0], path[:, 0],
        on_path, on_path,
    )  # fmt: skip
    write_reference(tmp_path / "file.h5", train=trajectory)
    with h5py.File(tmp_path / "file.h5") as file:
        expected = surface.values["data_loss"].copy()
        expected.flat[[4, 14]] = -1
        np.testing.assert_array_equal(file["train_loss"][:], expected)


def test_of_several_directions_the_first_ones_missing_points_are_written(line, tmp_path):
    checkpoint = dataclasses.replace(line, metadata={"missing": [1, 6, 9]})
    write_reference(tmp_path / "file.h5", train=checkpoint)
    with h5py.File(tmp_path / "file.h5") as file:
        np.testing.assert_array_equal(file["train_loss"][:], [1, -1, 0, 0.25, 1])


def named(names):
    """A surface with metrics of these names: one constant per metric, counting from 0."""
    values = {name: np.full((3, 5), float(index)) for index, name in enumerate(names)}
    center = {name: float(index) for index, name in enumerate(names)}
    return LossSurface(ALPHAS, BETAS, values, center, {})


def test_a_mesh_takes_any_metric_name(tmp_path):
    write_mesh(named(NAMES), tmp_path / "surface.vtp")
    mesh = pyvista.read(tmp_path / "surface.vtp")
    assert len(mesh.point_data) == len(NAMES)
    for index, (name, found) in enumerate(zip(NAMES, mesh.point_data, strict=True)):
        np.testing.assert_array_equal(mesh.point_data[found], index)
        if name.isprintable() and 0 < len(name) <= 1000 and name not in {"a_b", "<_"}:
            assert found == name
    # Renamed, since XML has no NUL and the first stand-in was taken.
    assert list(mesh.point_data)[7:11] == ["a_b", "a_b_", "<_", "<__"]


def test_damaged_reference_files_are_refused(surface, tmp_path):
    path = tmp_path / "file.h5"
    expected = "`path` must be a file with `xcoordinates` and .*cannot be read: .*"
    write_reference(path, train=surface)
    content = path.read_bytes()
    for damaged in (content[:-100], content[:100], b"", b"no HDF5"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"(?s){expected}"):
            read_reference(path)
    for name, shape, options, reason in (
        ("xcoordinates", 2**40, {}, "xcoordinates declares 4398046511104 bytes.*only 0"),
        ("train_loss", (2**20, 2**20), {}, r"train_loss has the shape \(1048576, 1048576\)"),
        ("train_acc", 16, {}, r"train_acc has the shape \(16,\), but the axes \[3, 5\]"),
        ("ycoordinates", 2**40, {"chunks": (64,), "compression": "gzip"}, "ycoordinates declares"),
        ("train_loss", (3, 5), {"dtype": "S8"}, "train_loss must hold numbers"),
    ):
        path.write_bytes(content)
        with h5py.File(path, "r+") as file:
            del file[name]
            file.create_dataset(name, shape, **{"dtype": "f4"} | options)
        with pytest.raises(ValueError, match=expected + reason):
            read_reference(path)
    with pytest.raises(FileNotFoundError, match="`path` must be .*which does not exist"):
        read_reference(tmp_path / "nothing.h5")


def test_compressed_reference_files_are_read(tmp_path):
    path, size = tmp_path / "file.h5", 300
    with h5py.File(path, "w") as file:
        file["xcoordinates"] = file["ycoordinates"] = np.linspace(-1, 1, size)
        # The most that gzip can do: a thousandth of the size.
        options = {"compression": 9, "chunks": (size, size)}
        file.create_dataset("test_loss", data=np.ones((size, size)), **options)
    np.testing.assert_array_equal(read_reference(path)["test"].values["loss"], 1)


def test_a_replaced_file_keeps_its_permissions(surface, tmp_path):
    path = tmp_path / "surface.h5"
    path.touch(mode=0o600)
    write_reference(path, surface)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size > 0


def export_reference(surface, path):
    write_reference(path, train=surface)


@pytest.mark.parametrize("write", [write_html, write_mesh, export_reference])
def test_paths_that_cannot_be_written_are_refused(write, surface, tmp_path):
    for name in ("a" * 250 + ".vtp", "a\0.vtp", "nowhere/a.vtp", ""):
        with pytest.raises(ValueError, match="`path` must be a file that can be written"):
            write(surface, tmp_path / name)
    assert not list(tmp_path.iterdir())
