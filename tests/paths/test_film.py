"""Film: each frame is the surface around a record, along the directions of the last one."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from losslandscape import LossFilm, evaluate_film, evaluate_surface, random_directions

QUIET = {"seed": 3, "verbose": 0}


@pytest.fixture
def records(model):
    """All weights at three moments, the last of which is now."""
    end = model.get_weights()
    return [[factor * array for array in end] for factor in (0.6, 0.8, 1.0)]


@pytest.fixture
def history(records, tmp_path):
    folder = tmp_path / "history"
    folder.mkdir()
    for epoch, arrays in enumerate(records):
        np.savez(folder / f"epoch-{epoch}.npz", *arrays)
    return folder


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_a_frame_is_the_surface_around_a_record(engine, model, data, records, history):
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(variable) for variable in variables]
    # Of an even number of points, none is at the record itself.
    film = evaluate_film(model, history, *data, (3, 2), engine=engine, **QUIET)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)
    assert film.metadata["engine"] == engine
    assert film.labels == ["epoch 0", "epoch 1", "epoch 2"]
    last = evaluate_surface(model, *data, (3, 2), engine=engine, **QUIET)
    directions = random_directions(model, 2, seed=3)
    for record, frame in zip(records, film.surfaces, strict=True):
        # With its moving statistics, too.
        model.set_weights(record)
        expected = evaluate_surface(model, *data, (3, 2), directions=directions, verbose=0)
        for name, values in expected.values.items():
            np.testing.assert_allclose(frame.values[name], values, rtol=1e-5)
            np.testing.assert_allclose(frame.center[name], expected.center[name], rtol=1e-5)
    for name, values in last.values.items():
        np.testing.assert_allclose(frame.values[name], values, rtol=1e-6)
    assert all(map(np.array_equal, film.axes, last.axes))
    assert film.center == last.center
    assert film.metadata["seed"] == 3


def test_files_and_models_are_as_good_as_a_history(model, data, records, history, tmp_path):
    files = [tmp_path / "first.weights.h5", tmp_path / "second.keras"]
    for arrays, file in zip(records, files, strict=False):
        model.set_weights(arrays)
        (model.save if file.suffix == ".keras" else model.save_weights)(file)
    model.set_weights(records[-1])
    expected = evaluate_film(model, history, *data, 2, **QUIET)
    # The model itself is the last frame, if no record is.
    found = evaluate_film(model, files, *data, 2, **QUIET)
    assert found.labels == ["first", "second", model.name]
    for name, values in expected.values.items():
        np.testing.assert_allclose(found.values[name], values, rtol=1e-6)


def test_some_records_are_taken_as_evenly_as_possible(model, data, records, tmp_path):
    for step in range(5):
        np.savez(tmp_path / f"step-{10 * step}.npz", *records[2 * (step == 4)])
    film = evaluate_film(model, tmp_path, *data, 2, number_of_frames=3, extent="auto", **QUIET)
    assert film.labels == ["step 0", "step 20", "step 40"]
    surface = evaluate_surface(model, *data, 2, extent="auto", **QUIET)
    np.testing.assert_array_equal(film.alphas, surface.alphas)
    np.testing.assert_allclose(film.values["loss"][-1], surface.values["loss"], rtol=1e-5)
    for number, message in ((1, "must be at least 2"), (2.0, "must be an integer")):
        with pytest.raises((TypeError, ValueError), match=f"`number_of_frames` {message}"):
            evaluate_film(model, tmp_path, *data, number_of_frames=number)
    with pytest.raises(TypeError, match="`extent` must be two numbers"):
        evaluate_film(model, tmp_path, *data, extent="automatic")


def test_groups_workers_and_a_checkpoint_change_nothing(
    model, data, history, tmp_path, monkeypatch
):
    path, options = tmp_path / "film.h5", {"engine": "evaluate", "verbose": 0}
    film = evaluate_film(model, history, *data, (3, 2), checkpoint=path, seed=3, **options)
    unfinished = LossFilm.load(path)
    # Of 18 points around the records and three at them, the first four.
    unfinished.metadata["missing"] = list(range(4, 21))
    unfinished.values["loss"].flat[4:] = unfinished.centers["loss"][:] = np.nan
    unfinished.save(path)
    resumed = evaluate_film(model, history, *data, (3, 2), checkpoint=path, **options)
    monkeypatch.setattr("losslandscape.paths.trajectory.BUDGET", 1)
    with ThreadPoolExecutor(1) as executor:
        apart = evaluate_film(model, history, *data, (3, 2), executor=executor, seed=3, **options)
    for other in (resumed, apart, LossFilm.load(path)):
        np.testing.assert_array_equal(other.values["loss"], film.values["loss"])
        np.testing.assert_array_equal(other.centers["loss"], film.centers["loss"])
    with pytest.raises(ValueError, match="with different records"):
        evaluate_film(model, [model], *data, (3, 2), checkpoint=path, **options)
