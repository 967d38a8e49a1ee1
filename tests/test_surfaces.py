"""Surfaces: shapes are checked, and a file gives back every bit."""

import h5py
import numpy as np
import pytest

from losslandscape import LossLine, LossSurface


@pytest.fixture
def surface():
    loss = np.array([[0.1, np.nan, 3], [4, np.inf, -6]])
    return LossSurface(
        alphas=np.linspace(-1, 1, 3),
        betas=np.array([0.0, 0.5]),
        values={"loss": loss, "accuracy": loss / 10},
        center={"loss": 0.1, "accuracy": float("nan")},
        metadata={"seed": 0, "ignore": None, "versions": {"keras": "3.15.1"}},
    )


@pytest.fixture
def line():
    values = {"loss": np.arange(6.0).reshape(2, 3)}
    return LossLine(np.array([-1.0, 0.0, 1.0]), values, {"loss": 1.0}, {"seed": 3})


def test_a_file_gives_back_every_bit(surface, line, tmp_path):
    for value in (surface, line):
        value.save(tmp_path / "value.h5")
        loaded = type(value).load(tmp_path / "value.h5")
        np.testing.assert_array_equal(loaded.alphas, value.alphas)
        assert list(loaded.values) == list(value.values)
        for name in value.values:
            np.testing.assert_array_equal(loaded.values[name], value.values[name])
            np.testing.assert_equal(loaded.center[name], value.center[name])
        assert loaded.metadata == value.metadata
    surface.save(tmp_path / "value.h5")
    np.testing.assert_array_equal(
        LossSurface.load(tmp_path / "value.h5").betas, surface.betas, strict=True
    )


def test_files_are_plain_hdf5(surface, tmp_path):
    surface.save(tmp_path / "value.h5")
    with h5py.File(tmp_path / "value.h5") as file:
        assert file["values/loss"].shape == (2, 3)
        assert file["alphas"][0] == -1
        assert file.attrs["kind"] == "LossSurface"


def test_other_files_are_refused(surface, tmp_path):
    surface.save(tmp_path / "value.h5")
    with pytest.raises(ValueError, match="which holds a LossSurface: use `LossSurface.load`"):
        LossLine.load(tmp_path / "value.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(ValueError, match="written by `LossSurface.save`.*which is none"):
        LossSurface.load(tmp_path / "other.h5")


def test_shapes_must_agree(surface):
    with pytest.raises(ValueError, match=r"values\['loss'\] must have shape \(2, 3\).*\(3, 2\)"):
        LossSurface(surface.alphas, surface.betas, {"loss": np.zeros((3, 2))}, {}, {})
    with pytest.raises(ValueError, match=r"values\['loss'\] must have shape \('any', 3\).*\(3,\)"):
        LossLine(surface.alphas, {"loss": np.zeros(3)}, {}, {})


def test_repr_is_one_line(surface, line):
    assert repr(surface) == (
        "LossSurface(loss, accuracy; 3 points alpha -1…1, 2 points beta 0…0.5)"
    )
    assert repr(line) == "LossLine(loss; 2 directions, 3 points alpha -1…1)"


def test_slices_are_lines_between_and_on_the_grid():
    alphas, betas = np.linspace(-1, 1, 5), np.linspace(0, 3, 4)
    a, b = np.meshgrid(alphas, betas)
    surface = LossSurface(alphas, betas, {"loss": a**2 + 10 * b}, {"loss": -7.0}, {"seed": 1})
    across = surface.slice(beta=1.5)
    np.testing.assert_array_equal(across.alphas, alphas)
    np.testing.assert_allclose(across.values["loss"], [alphas**2 + 15])
    assert across.center["loss"] == pytest.approx(15)
    along = surface.slice(alpha=-0.5)
    np.testing.assert_array_equal(along.alphas, betas)
    np.testing.assert_allclose(along.values["loss"], [0.25 + 10 * betas])
    assert along.metadata == {"seed": 1, "slice": {"alpha": -0.5}}
    # Through the model itself, its own value is known.
    assert surface.slice(beta=0).center["loss"] == -7


def test_slices_beyond_the_surface_are_refused(surface):
    with pytest.raises(ValueError, match="`beta` must lie between 0 and 0.5. Received 2"):
        surface.slice(beta=2)
    for wrong in ({}, {"alpha": 0, "beta": 0}):
        with pytest.raises(ValueError, match="Either `alpha` or `beta`"):
            surface.slice(**wrong)
