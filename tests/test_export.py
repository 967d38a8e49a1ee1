"""Export: other tools read what we write, and we read theirs."""

import dataclasses
import re
import sys

import h5py
import numpy as np
import pytest
import pyvista

from losslandscape import (
    LossLine,
    LossSurface,
    read_reference,
    write_html,
    write_mesh,
    write_reference,
)

ALPHAS, BETAS = np.linspace(-1, 1, 5), np.linspace(-2, 2, 3)


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


def test_the_reference_finds_its_names_shapes_and_units(surface, tmp_path):
    path = tmp_path / "surface.h5"
    write_reference(path, train=surface, test=surface)
    # As its plot_2D.py reads them.
    with h5py.File(path) as file:
        x, y = np.meshgrid(file["xcoordinates"][:], file["ycoordinates"][:])
        assert file["train_loss"].shape == x.shape
        # The loss without the penalty, which the reference does not add.
        np.testing.assert_array_equal(file["train_loss"][:], 4 + x + 10 * y)
        np.testing.assert_allclose(file["test_acc"][:], 50 * (x + 1))
        assert set(file) == {
            *("xcoordinates", "ycoordinates", "train_loss", "train_acc", "test_loss", "test_acc")
        }


def test_points_not_measured_yet_are_marked_as_the_reference_marks_them(surface, tmp_path):
    surface.values["loss"][0, 3] = surface.values["accuracy"][0, 3] = np.nan
    checkpoint = dataclasses.replace(surface, metadata={"missing": [3]})
    del checkpoint.values["data_loss"]
    write_reference(tmp_path / "file.h5", train=checkpoint)
    with h5py.File(tmp_path / "file.h5") as file:
        # Its plot_surface.py goes on where the loss is -1.
        assert np.argwhere(file["train_loss"][:] == -1).tolist() == [[0, 3]]
        assert file["train_acc"][0, 3] == -1
    assert np.isnan(read_reference(tmp_path / "file.h5")["train"].values["loss"][0, 3])


def test_what_was_written_is_read(surface, line, tmp_path):
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
    """Files as its plot_surface.py fills them, point after point."""
    path = tmp_path / "reference.h5"
    with h5py.File(path, "w") as file:
        file["dir_file"] = "directions.h5"
        file["xcoordinates"], file["ycoordinates"] = ALPHAS, BETAS
        losses = -np.ones((len(ALPHAS), len(BETAS)))
        accuracies = -np.ones((len(ALPHAS), len(BETAS)))
        x, y = (mesh.ravel() for mesh in np.meshgrid(ALPHAS, BETAS))
        # All but the last three points, which the run did not reach.
        for index in range(12):
            losses.ravel()[index] = 5 + x[index] + 10 * y[index]
            accuracies.ravel()[index] = 50
        file["train_loss"], file["train_acc"] = losses, accuracies
    surface = read_reference(path)["train"]
    expected = np.add.outer(10 * BETAS, 5 + ALPHAS)
    expected.ravel()[12:] = np.nan
    np.testing.assert_allclose(surface.values["loss"], expected)
    np.testing.assert_array_equal(np.isnan(surface.values["accuracy"]), np.isnan(expected))
    assert surface.center == {"loss": 5.0, "accuracy": 0.5}


def test_a_grid_without_the_model_has_no_center(tmp_path):
    with h5py.File(tmp_path / "line.h5", "w") as file:
        file["xcoordinates"], file["train_loss"] = np.array([0.5, 1.0]), np.array([1.0, 2.0])
    line = read_reference(tmp_path / "line.h5")["train"]
    assert np.isnan(line.center["loss"])
    assert line.values["loss"].tolist() == [[1.0, 2.0]]


def test_what_does_not_fit_is_refused(surface, line, tmp_path):
    path = tmp_path / "file.h5"
    with pytest.raises(ValueError, match="One of `train` and `test`"):
        write_reference(path)
    with pytest.raises(ValueError, match="`test` must have the coordinates of `train`"):
        write_reference(path, train=surface, test=line)
    surface.save(path)
    with pytest.raises(ValueError, match="must be a file with `xcoordinates`.*'alphas'"):
        read_reference(path)


def test_a_mesh_holds_every_value_at_its_place(surface, tmp_path):
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


def test_a_mesh_has_no_cells_where_the_loss_is_not_finite(surface, tmp_path):
    surface.values["loss"][0, 0] = np.nan
    write_mesh(surface, tmp_path / "surface.vtp", scale="log")
    mesh = pyvista.read(tmp_path / "surface.vtp")
    # Of three rows the first has losses below 0, too.
    assert mesh.n_cells == 4
    assert mesh["loss"].min() > 0
    surface.values["loss"][:] = np.inf
    with pytest.raises(ValueError, match="no finite 'loss'"):
        write_mesh(surface, tmp_path / "surface.vtp")


def test_a_page_has_all_views_and_needs_no_internet(surface, tmp_path):
    surface.values["loss"][0, 0] = np.nan
    # Nothing to draw is nothing to warn about.
    surface.values["data_loss"][:] = np.nan
    write_html(surface, tmp_path / "surface.html", title="ResNet-56")
    page = (tmp_path / "surface.html").read_text()
    assert "ResNet-56" in page
    assert not re.search(r'<(script|link)[^>]+(src|href)="http', page)
    for metric in ("loss", "data loss", "accuracy"):
        assert f'"label":"{metric}"' in page
        assert f'"label":"{metric} (log scale)"' in page


def test_a_missing_extra_is_named(surface, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    with pytest.raises(ImportError, match=r"pip install losslandscape\[paraview\]"):
        write_mesh(surface, tmp_path / "surface.vtp")
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ImportError, match=r"pip install losslandscape\[html\]"):
        write_html(surface, tmp_path / "surface.html")


def test_what_cannot_be_written_is_refused(surface, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in \.vtp"):
        write_mesh(surface, tmp_path / "surface.obj")
    with pytest.raises(ValueError, match="`metric` must be one of 'loss', 'data_loss', 'accuracy'"):
        write_mesh(surface, tmp_path / "surface.vtp", metric="auc")
