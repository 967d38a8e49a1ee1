"""Surfaces: shapes are checked, and saving and loading loses nothing."""

import json

import h5py
import numpy as np
import pytest

from losslandscape import LossBarriers, LossFilm, LossLine, LossSurface, LossTrajectory
from losslandscape.values.measures import half_widths

# Any name a metric may have; some would collide in a format that truncates names.
NAMES = [
    *("loss", "/accuracy", "top/accuracy", "top_accuracy", "top_accuracy_", "a//b", "a/b/", "./x"),
    *("", ".", "..", "...", "accuracy.", " ", "\n", "a\nb", "a\0b", "a\0", "a", "\0", "\ud800"),
    *("α", "größe", "acc (%)", "top%2Faccuracy", "$x_y$", "<b>", "name", "kind", "values", "x"),
    *("n" * 70_000, "n" * 70_001, "/" * 70_000),
]


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
    errors = {"loss": np.full((2, 3), 0.5)}
    return LossLine(np.array([-1.0, 0.0, 1.0]), values, {"loss": 1.0}, {"seed": 3}, errors=errors)


def test_saving_and_loading_loses_nothing(surface, line, tmp_path):
    for value in (surface, line):
        value.save(tmp_path / "value.h5")
        loaded = type(value).load(tmp_path / "value.h5")
        np.testing.assert_array_equal(loaded.alphas, value.alphas)
        assert list(loaded.values) == list(value.values)
        for name in value.values:
            np.testing.assert_array_equal(loaded.values[name], value.values[name])
            np.testing.assert_equal(loaded.center[name], value.center[name])
        np.testing.assert_equal(loaded.errors, value.errors)
        assert loaded.metadata == value.metadata
    # As in files of a version that had no errors.
    with h5py.File(tmp_path / "value.h5", "a") as file:
        del file["errors"]
    assert LossLine.load(tmp_path / "value.h5").errors == {}
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
    with pytest.raises(ValueError, match="written by `LossSurface.save`.*which is not one"):
        LossSurface.load(tmp_path / "other.h5")


def test_shapes_must_agree(surface):
    with pytest.raises(ValueError, match=r"values\['loss'\] must have shape \(2, 3\).*\(3, 2\)"):
        LossSurface(surface.alphas, surface.betas, {"loss": np.zeros((3, 2))}, {}, {})
    with pytest.raises(ValueError, match=r"values\['loss'\] must have shape \('any', 3\).*\(3,\)"):
        LossLine(surface.alphas, {"loss": np.zeros(3)}, {}, {})
    errors = {"loss": np.zeros((2, 2))}
    with pytest.raises(ValueError, match=r"errors\['loss'\] must have shape \('any', 3\)"):
        LossLine(surface.alphas, {"loss": np.zeros((2, 3))}, {}, {}, errors=errors)


def test_repr_is_one_line(surface, line):
    assert repr(surface) == (
        "LossSurface(loss, accuracy; 3 points alpha -1…1, 2 points beta 0…0.5)"
    )
    assert repr(line) == "LossLine(loss; 2 directions, 3 points alpha -1…1)"


def test_slices_are_lines_on_and_between_grid_lines():
    alphas, betas = np.linspace(-1, 1, 5), np.linspace(0, 3, 4)
    a, b = np.meshgrid(alphas, betas)
    surface = LossSurface(
        alphas,
        betas,
        {"loss": a**2 + 10 * b},
        {"loss": -7.0},
        {"seed": 1},
        errors={"loss": 1 + 2 * b},
    )
    np.testing.assert_allclose(surface.slice(beta=1.5).errors["loss"], np.full((1, 5), 4))
    across = surface.slice(beta=1.5)
    np.testing.assert_array_equal(across.alphas, alphas)
    np.testing.assert_allclose(across.values["loss"], [alphas**2 + 15])
    assert across.center["loss"] == pytest.approx(15)
    along = surface.slice(alpha=-0.5)
    np.testing.assert_array_equal(along.alphas, betas)
    np.testing.assert_allclose(along.values["loss"], [0.25 + 10 * betas])
    assert along.metadata == {"seed": 1, "slice": {"alpha": -0.5}}
    # The slice passes through the model, whose own value is known.
    assert surface.slice(beta=0).center["loss"] == -7


def test_slices_hold_the_models_that_lie_on_them(surface):
    surface.metadata["positions"] = [[0.0, 0.0], [1.0, 0.0], [-0.5, 0.5]]
    assert surface.slice(beta=0).metadata["positions"] == [0, 1]
    assert surface.slice(alpha=-0.5).metadata["positions"] == [0.5]
    assert surface.slice(beta=0.25).metadata["positions"] == []


def unfinished_trajectory(surface, missing):
    """A checkpoint of a trajectory with three records over the surface."""
    path, on_path = np.zeros((3, 2)), {name: np.zeros(3) for name in surface.values}
    return LossTrajectory(
        surface.alphas, surface.betas, surface.values, surface.center, {"missing": missing},
        path, path[0], path[:, 0], on_path, on_path,
    )  # fmt: skip


def test_a_value_reports_which_points_are_missing(surface, line, tmp_path):
    for value in (surface, line):
        assert not value.missing.any()
        assert value.missing.shape == (2, 3)
        value.metadata["missing"] = [1, 5]
        value.save(tmp_path / "value.h5")
        expected = [[False, True, False], [False, False, True]]
        loaded = type(value).load(tmp_path / "value.h5")
        np.testing.assert_array_equal(loaded.missing, expected, strict=True)


def test_path_points_are_numbered_after_surface_points(surface):
    trajectory = unfinished_trajectory(surface, [2, 6, 8])
    expected = [[False, False, True], [False, False, False]]
    np.testing.assert_array_equal(trajectory.missing, expected)
    assert trajectory.missing_numbers == [2, 6, 8]
    # Cut along the complete row, then along the other one.
    assert "missing" not in trajectory.slice(beta=0.5).metadata
    np.testing.assert_array_equal(trajectory.slice(beta=0).missing, [[False, False, True]])


def test_a_slice_of_a_checkpoint_lacks_the_points_next_to_missing_ones(surface):
    surface.values["loss"][1, 0] = np.nan
    surface.metadata["missing"] = [3]
    for cut, expected in (
        (surface.slice(beta=0), [False, False, False]),
        (surface.slice(beta=0.25), [True, False, False]),
        (surface.slice(beta=0.5), [True, False, False]),
        (surface.slice(alpha=-0.5), [False, True]),
        (surface.slice(alpha=0), [False, False]),
    ):
        np.testing.assert_array_equal(cut.missing, [expected])
        assert np.isnan(cut.values["loss"][cut.missing]).all()
    with pytest.raises(ValueError, match="must be complete, but 1 points are missing in LossLine"):
        half_widths(surface.slice(beta=0.25))


def test_a_value_reports_where_its_models_lie(surface, line):
    np.testing.assert_array_equal(surface.models, [[0, 0]])
    np.testing.assert_array_equal(line.models, [[0]])
    line.metadata["positions"] = [0, 1]
    np.testing.assert_array_equal(line.models, [[0], [1]])
    surface.metadata["positions"] = [[0.0, 0.0], [1.0, 0.0], [-0.5, 0.5]]
    np.testing.assert_array_equal(surface.models, [[0, 0], [1, 0], [-0.5, 0.5]])
    np.testing.assert_array_equal(surface.slice(beta=0).models, [[0], [1]])
    np.testing.assert_array_equal(surface.slice(alpha=-0.5).models, [[0.5]])
    assert surface.slice(beta=0.25).models.shape == (0, 1)


def test_a_value_has_an_axis_per_direction(surface, line):
    for value, expected in (
        (line, (line.alphas,)),
        (surface, (surface.alphas, surface.betas)),
        (unfinished_trajectory(surface, []), (surface.alphas, surface.betas)),
        (surface.slice(alpha=0), (surface.betas,)),
    ):
        assert len(value.axes) == len(expected)
        for axis, coordinates in zip(value.axes, expected, strict=True):
            np.testing.assert_array_equal(axis, coordinates, strict=True)


def test_slices_outside_the_surface_are_refused(surface):
    with pytest.raises(ValueError, match="`beta` must lie between 0 and 0.5. Received 2"):
        surface.slice(beta=2)
    for wrong in ({}, {"alpha": 0, "beta": 0}):
        with pytest.raises(ValueError, match="Exactly one of `alpha` and `beta`"):
            surface.slice(**wrong)


def test_any_metric_name_survives_saving_and_loading(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(len(NAMES), 1, 3))
    values = dict(zip(NAMES, numbers, strict=True))
    center = dict(zip(NAMES, numbers[:, 0, 1].tolist(), strict=True))
    line = LossLine(np.linspace(-1, 1, 3), values, center, {name: name for name in NAMES})
    line.save(tmp_path / "line.h5")
    loaded = LossLine.load(tmp_path / "line.h5")
    assert list(loaded.values) == NAMES
    for name in NAMES:
        np.testing.assert_array_equal(loaded.values[name], values[name])
    assert loaded.center == center
    assert loaded.metadata == line.metadata


def test_names_stay_readable_in_the_file(tmp_path):
    values = {name: np.zeros((1, 3)) for name in ("top/accuracy", "acc (%)", "top_accuracy")}
    LossLine(np.arange(3.0), values, {}, {}).save(tmp_path / "line.h5")
    with h5py.File(tmp_path / "line.h5") as file:
        assert list(file["values"]) == ["top_accuracy", "acc (%)", "top_accuracy_"]
        assert json.loads(file["values/top_accuracy"].attrs["name"]) == "top/accuracy"
        assert "name" not in file["values/acc (%)"].attrs


def test_metadata_have_no_size_limit(line, tmp_path):
    # HDF5 limits most attributes to 64 KiB; these are from an unfinished 301 x 301 grid.
    line.metadata["missing"] = list(range(301 * 301))
    line.save(tmp_path / "line.h5")
    assert LossLine.load(tmp_path / "line.h5").metadata == line.metadata


def truncate(path):
    path.write_bytes(path.read_bytes()[:-500])


def declare_terabytes(path, name="alphas", **options):
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, (2**20, 2**21), "f4", **options)


def drop(path):
    with h5py.File(path, "r+") as file:
        del file["betas"]


def write_text(path):
    with h5py.File(path, "r+") as file:
        del file["alphas"]
        file["alphas"] = ["one", "two", "three"]


def write_metadata(path, text):
    with h5py.File(path, "r+") as file:
        file.attrs["metadata"] = text


def lengthen(path):
    with h5py.File(path, "r+") as file:
        del file["alphas"]
        file["alphas"] = np.arange(4.0)


DAMAGES = {
    "truncated": (truncate, "truncated file"),
    "empty": (lambda path: path.write_bytes(b""), "file signature not found"),
    "text": (lambda path: path.write_text("no HDF5"), "file signature not found"),
    "terabytes": (declare_terabytes, "alphas declares 8796093022208 bytes.*holds only 0"),
    "compressed terabytes": (
        lambda path: declare_terabytes(path, chunks=(64, 64), compression="gzip"),
        "alphas declares 8796093022208 bytes",
    ),
    "terabytes of values": (
        lambda path: declare_terabytes(path, "values/loss"),
        "values/loss declares 8796093022208 bytes",
    ),
    "without a field": (drop, "betas"),
    "text for numbers": (write_text, "alphas must hold numbers, not object"),
    "no JSON": (lambda path: write_metadata(path, "{"), "Expecting property name"),
    "no object": (lambda path: write_metadata(path, "[1]"), "must be a JSON object"),
    "other shapes": (lengthen, r"values\['loss'\] must have shape \(2, 4\)"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(damage, surface, tmp_path):
    path = tmp_path / "surface.h5"
    surface.save(path)
    spoil, reason = DAMAGES[damage]
    spoil(path)
    expected = (
        f"(?s)`path` must be a file written by `LossSurface.save`.*cannot be read: .*{reason}"
    )
    with pytest.raises(ValueError, match=expected):
        LossSurface.load(path)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` must be .*surface.h5', which does not"):
        LossSurface.load(tmp_path / "surface.h5")


@pytest.fixture
def barriers():
    values = {"loss": np.arange(9.0).reshape(3, 3)}
    return LossBarriers(np.array([0, 0.5, 1]), values, {"loss": 0.0}, {"models": ["a", "b", "c"]})


def test_barriers_have_a_line_for_each_two_models(barriers, tmp_path):
    barriers.save(tmp_path / "barriers.h5")
    line = LossBarriers.load(tmp_path / "barriers.h5").line(0, 2)
    np.testing.assert_array_equal(line.values["loss"], [[3, 4, 5]])
    assert line.center == {"loss": 3.0}
    assert line.metadata == {"models": ["a", "c"], "positions": [0.0, 1.0]}
    back = barriers.line(2, 0)
    np.testing.assert_array_equal(back.values["loss"], [[5, 4, 3]])
    assert (back.center, back.metadata["models"]) == ({"loss": 5.0}, ["c", "a"])
    assert repr(barriers) == "LossBarriers(loss; 3 models, 3 points alpha 0…1)"


def test_lines_of_unfinished_barriers_are_unfinished(barriers):
    # The last point from the first model to the third one.
    barriers.metadata["missing"] = [5]
    assert barriers.line(0, 2).missing_numbers == [2]
    assert barriers.line(2, 0).missing_numbers == [0]
    assert barriers.line(0, 1).missing_numbers == []


def test_lines_between_unknown_models_are_refused(barriers):
    for pair in ((0, 3), (1, 1), (-1, 0)):
        with pytest.raises(ValueError, match="must be two numbers from 0 to 2. Received"):
            barriers.line(*pair)
    with pytest.raises(ValueError, match=r"must have shape \(3, 3\). Received \(2, 3\)"):
        LossBarriers(barriers.alphas, {"loss": np.zeros((2, 3))}, {}, barriers.metadata)


@pytest.fixture
def film(surface):
    """Two frames of two rows and three columns."""
    first = surface.values["loss"]
    values, centers = {"loss": np.stack([first, 10 * first])}, {"loss": np.array([0.1, 0.2])}
    metadata = {"seed": 7, "labels": ["epoch 0", "epoch 3"]}
    return LossFilm(surface.alphas, surface.betas, values, centers, {"loss": 0.2}, metadata)


def test_a_film_has_a_surface_per_frame(film, surface, tmp_path):
    film.save(tmp_path / "film.h5")
    loaded = LossFilm.load(tmp_path / "film.h5")
    assert loaded.labels == ["epoch 0", "epoch 3"]
    assert loaded.metadata == film.metadata
    for value in (film, loaded):
        for factor, frame, center in zip((1, 10), value.surfaces, (0.1, 0.2), strict=True):
            np.testing.assert_array_equal(frame.values["loss"], factor * surface.values["loss"])
            assert all(map(np.array_equal, frame.axes, surface.axes))
            assert frame.center == {"loss": center}
            assert frame.metadata["seed"] == 7
    assert repr(film) == "LossFilm(loss; 2 frames, 3 points alpha -1…1, 2 points beta 0…0.5)"
    with pytest.raises(ValueError, match=r"must have shape \(2, 2, 3\).*Received \(2, 3\)"):
        LossFilm(*surface.axes, surface.values, film.centers, film.center, film.metadata)


def test_a_film_reports_which_points_of_each_frame_are_missing(film):
    # After the points of both frames come those at the records.
    film.metadata["missing"] = [1, 6, 11, 13]
    first, second = film.surfaces
    assert np.flatnonzero(first.missing).tolist() == [1]
    assert np.flatnonzero(second.missing).tolist() == [0, 5]
    assert film.missing.sum() == 3


def test_a_film_has_a_row_per_frame_and_point(film):
    frame, dataset = film.to_pandas(), film.to_xarray()
    assert list(frame) == ["frame", "beta", "alpha", "label", "loss", "center_loss"]
    np.testing.assert_array_equal(frame["loss"], film.values["loss"].ravel())
    assert frame[frame["label"] == "epoch 3"]["center_loss"].tolist() == 6 * [0.2]
    assert dataset["loss"].dims == ("frame", "beta", "alpha")
    np.testing.assert_array_equal(dataset["loss"], film.values["loss"])
    assert dataset["label"].values.tolist() == film.labels
