"""Tables: every number arrives in pandas and xarray, next to its coordinates."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import xarray

from losslandscape import LossBarriers, LossLine, LossSurface, LossTrajectory
from losslandscape.values.surfaces import LayerCurvature, Spectrum, TrainingCurvature

ALPHAS, BETAS = np.array([-1.0, 0.0, 1.0]), np.array([0.0, 0.5])
LOSS = np.array([[0.1, np.nan, 3], [4, np.inf, -6]])
CENTER = {"loss": 0.1, "accuracy": 0.9}
METADATA = {"seed": 7, "normalize": "filter", "ignore": None, "versions": {"keras": "3"}}


@pytest.fixture
def line():
    return LossLine(ALPHAS, {"loss": LOSS, "accuracy": LOSS / 10}, CENTER, METADATA)


@pytest.fixture
def surface():
    return LossSurface(ALPHAS, BETAS, {"loss": LOSS, "accuracy": LOSS / 10}, CENTER, METADATA)


@pytest.fixture
def trajectory():
    return LossTrajectory(
        ALPHAS,
        BETAS,
        {"loss": LOSS},
        CENTER,
        METADATA | {"runs": {"SGD": 2, "Adam": 1}},
        path=np.array([[-1, 0.5], [0, 0], [1, 0.2]]),
        explained=np.array([0.9, 0.1]),
        distances=np.array([0.3, 0, 0.1]),
        plane_values={"loss": np.array([2.0, 1, 3])},
        true_values={"loss": np.array([2.5, 1, 2.5])},
    )


def test_the_curvature_of_a_training_has_a_row_per_record():
    values = {"loss": np.array([2.0, 1, 0.5]), "largest_eigenvalue": np.array([3.0, 9, np.nan])}
    thresholds = np.array([20.0, 20, 40])
    metadata = {"unit": "epoch", "missing": [2]}
    curvature = TrainingCurvature(np.arange(3.0), values, thresholds, {"loss": 0.5}, metadata)
    frame = curvature.to_pandas()
    assert list(frame) == ["epoch", "missing", *values, "threshold"]
    for name, column in {"epoch": np.arange(3.0), "threshold": thresholds, **values}.items():
        np.testing.assert_array_equal(frame[name], column)
        np.testing.assert_array_equal(curvature.to_xarray()[name], column)
    assert list(frame["missing"]) == [False, False, True]


def test_a_line_has_a_row_per_direction_and_point(line):
    frame = line.to_pandas()
    assert list(frame) == ["direction", "alpha", "loss", "accuracy"]
    assert len(frame) == LOSS.size
    for row in frame.itertuples():
        column = list(ALPHAS).index(row.alpha)
        np.testing.assert_equal(row.loss, LOSS[row.direction, column])
        np.testing.assert_equal(row.accuracy, LOSS[row.direction, column] / 10)
    errors = dataclasses.replace(line, errors={"loss": LOSS / 9}).to_pandas()["loss_error"]
    np.testing.assert_array_equal(errors, np.ravel(LOSS / 9))


def test_a_surface_has_a_row_per_point(surface):
    frame = surface.to_pandas()
    assert list(frame) == ["beta", "alpha", "loss", "accuracy"]
    back = frame.pivot(index="beta", columns="alpha", values="loss")
    np.testing.assert_array_equal(back, LOSS)
    np.testing.assert_array_equal(back.index, BETAS)
    np.testing.assert_array_equal(back.columns, ALPHAS)


def test_a_path_has_a_row_per_record(trajectory):
    frame = trajectory.to_pandas()
    columns = ["record", "run", "alpha", "beta", "distance", "loss", "plane_loss"]
    assert list(frame) == columns
    assert frame["run"].tolist() == ["SGD", "SGD", "Adam"]
    np.testing.assert_array_equal(frame[["alpha", "beta"]], trajectory.path)
    np.testing.assert_array_equal(frame["distance"], trajectory.distances)
    np.testing.assert_array_equal(frame["loss"], trajectory.true_values["loss"])
    np.testing.assert_array_equal(frame["plane_loss"], trajectory.plane_values["loss"])


def test_barriers_have_a_row_per_pair_and_point():
    metadata = {"models": ["a", "b", "c"]}
    loss = np.arange(9.0).reshape(3, 3)
    frame = LossBarriers(ALPHAS, {"loss": loss}, CENTER, metadata).to_pandas()
    assert list(frame) == ["pair", "alpha", "first", "second", "loss"]
    np.testing.assert_array_equal(frame["loss"], loss.ravel())
    pairs = frame[["first", "second"]].drop_duplicates()
    assert pairs.to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]


def test_a_spectrum_has_a_row_per_probe_and_step():
    shares = np.array([[0.2, 0.8], [0.5, 0.5]])
    spectrum = Spectrum(np.array([[1.0, 2], [3, 4]]), shares, {"parameters": 10})
    frame = spectrum.to_pandas()
    assert frame["probe"].tolist() == [0, 0, 1, 1]
    assert frame["step"].tolist() == [0, 1, 0, 1]
    assert frame["eigenvalue"].tolist() == [1, 2, 3, 4]
    assert frame["share"].tolist() == [0.2, 0.8, 0.5, 0.5]
    np.testing.assert_array_equal(spectrum.to_xarray()["share"], shares)


def test_the_curvature_of_layers_has_a_row_per_layer():
    traces = np.array([[5.0, 4, 6], [2, 1, 3]])
    metadata = {"layers": ["conv", "dense"], "parameters": [30, 12]}
    frame = LayerCurvature(np.array([3.0, 1]), traces, metadata).to_pandas()
    assert frame["layer"].tolist() == ["conv", "dense"]
    assert frame["parameters"].tolist() == [30, 12]
    assert frame["largest"].tolist() == [3, 1]
    np.testing.assert_array_equal(frame[["trace", "low", "high"]], traces)


def test_arrays_keep_their_shape_and_get_coordinates(line, surface):
    for value, names in ((line, ("direction", "alpha")), (surface, ("beta", "alpha"))):
        dataset = value.to_xarray()
        assert dataset["loss"].dims == names
        np.testing.assert_array_equal(dataset["loss"], LOSS)
        np.testing.assert_array_equal(dataset["accuracy"], LOSS / 10)
        np.testing.assert_array_equal(dataset["alpha"], ALPHAS)
    np.testing.assert_array_equal(dataset["beta"], BETAS)


def test_a_trajectory_has_its_surface_and_its_path(trajectory):
    dataset = trajectory.to_xarray()
    np.testing.assert_array_equal(dataset["loss"], LOSS)
    assert dataset["loss"].dims == ("beta", "alpha")
    assert dataset["path_alpha"].dims == ("record",)
    np.testing.assert_array_equal(dataset["path_beta"], trajectory.path[:, 1])
    np.testing.assert_array_equal(dataset["path_loss"], [2.5, 1, 2.5])
    np.testing.assert_array_equal(dataset["path_plane_loss"], [2, 1, 3])


def test_a_cut_along_beta_is_called_so(surface):
    frame = surface.slice(alpha=1).to_pandas()
    assert list(frame) == ["direction", "beta", "loss", "accuracy"]
    assert frame["loss"].tolist() == [3, -6]


def test_points_that_were_not_measured_are_marked():
    metadata = {"missing": [1], "interpolated": [0, 5]}
    surface = LossSurface(ALPHAS, BETAS, {"loss": LOSS}, CENTER, metadata)
    frame = surface.to_pandas()
    assert np.flatnonzero(frame["missing"]).tolist() == [1]
    assert np.flatnonzero(frame["interpolated"]).tolist() == [0, 5]
    np.testing.assert_array_equal(surface.to_xarray()["missing"], surface.missing)


def test_metrics_may_have_any_name():
    values = {"alpha": LOSS, "beta": LOSS + 1, "alpha_value": LOSS + 2, "a/b": LOSS + 3}
    surface = LossSurface(ALPHAS, BETAS, values, {}, {})
    for table in (surface.to_pandas(), surface.to_xarray()):
        names = ("alpha_value", "beta_value", "alpha_value_value", "a/b")
        for name, expected in zip(names, values.values(), strict=True):
            np.testing.assert_array_equal(np.ravel(table[name]), expected.ravel())
        assert set(np.ravel(table["alpha"])) == set(ALPHAS)


def test_metadata_come_along_and_can_be_written(surface, tmp_path):
    assert surface.to_pandas().attrs == {"center": CENTER} | METADATA
    dataset = surface.to_xarray()
    dataset.to_netcdf(tmp_path / "surface.nc", engine="scipy")
    attributes = xarray.load_dataset(tmp_path / "surface.nc", engine="scipy").attrs
    assert (attributes["seed"], attributes["normalize"]) == (7, "filter")
    assert json.loads(attributes["center"]) == CENTER
    assert json.loads(attributes["versions"]) == {"keras": "3"}


def test_missing_packages_are_named_with_their_extra(line, monkeypatch):
    for package in ("pandas", "xarray"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"extra `{package}`"):
            getattr(line, f"to_{package}")()
