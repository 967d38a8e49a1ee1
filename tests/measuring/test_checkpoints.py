"""Checkpoints: nothing is lost, nothing is mixed, and what has been saved can be drawn."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from disks import room_for
from keras import layers
from quadratic import quadratic_model

import losslandscape as ll
from losslandscape import LossLine, LossSurface, evaluate_line, evaluate_surface

# No wait between writes, so that short computations write often.
pytestmark = pytest.mark.usefixtures("every_point_is_written")


@pytest.fixture
def every_point_is_written(monkeypatch):
    monkeypatch.setattr("losslandscape.measuring.checkpoints.INTERVAL", 0)


@pytest.fixture
def points(monkeypatch):
    """Counts the measured points, and fails once they exceed `limit`."""

    class Points:
        measured = 0
        limit = np.inf

    advance = ll.evaluation.Progress.advance

    def count(progress, number, value):
        Points.measured += number
        advance(progress, number, value)
        if Points.measured > Points.limit:
            raise RuntimeError("the machine went down")

    monkeypatch.setattr(ll.evaluation.Progress, "advance", count)
    # Otherwise a graph would measure all of them at once.
    monkeypatch.setattr("losslandscape.measuring.engines.CHUNK", 5)
    return Points


def same(one, other):
    """Asserts that two saved values are equal to the bit, except how they were computed."""
    assert type(one) is type(other)
    parts = "values", "errors", "plane_values", "true_values"
    for name in ("alphas", "betas", "path", "center", *parts):
        np.testing.assert_equal(getattr(one, name, None), getattr(other, name, None))


def convexity(model, data, **options):
    return ll.curvature.hessian.evaluate_convexity(
        model, *data, (4, 2), seed=0, tolerance=0.1, **options
    )


def trajectory(model, data, **options):
    generator = np.random.default_rng(1)
    models = [keras.models.clone_model(model) for _ in range(4)]
    for other in models:
        other.set_weights([w + generator.uniform(0, 0.1, w.shape) for w in model.get_weights()])
    return ll.evaluate_trajectory(model, models, *data, 5, **options)


def interpolation(model, data, **options):
    other = keras.models.clone_model(model)
    other.set_weights([weight * 1.1 for weight in model.get_weights()])
    return ll.evaluate_interpolation(model, other, [data], number_of_points=9, **options)[0]


def plane(model, data, **options):
    others = [keras.models.clone_model(model) for _ in range(2)]
    for seed, other in enumerate(others):
        noise = np.random.default_rng(seed)
        other.set_weights([w + noise.uniform(0, 0.1, w.shape) for w in model.get_weights()])
    return ll.evaluate_plane([model, *others], *data, 4, **options)


CALLS = {
    "lines": lambda model, data, **options: evaluate_line(
        model, *data, 7, number_of_directions=3, seed=0, sampling_error=True, **options
    ),
    "a compiled surface": lambda model, data, **options: evaluate_surface(
        model, *data, 6, seed=0, engine="compiled", **options
    ),
    "a surface": lambda model, data, **options: evaluate_surface(
        model, *data, (5, 4), seed=0, engine="evaluate", **options
    ),
    "a trajectory": trajectory,
    "an interpolation": interpolation,
    "a plane": plane,
    "a convexity map": convexity,
}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_call_resumes_where_it_stopped(name, model, data, points, tmp_path):
    call, path = CALLS[name], tmp_path / "saved.h5"
    whole = call(model, data, verbose=0)
    number, points.measured, points.limit = points.measured, 0, 6
    with pytest.raises(RuntimeError, match="the machine went down"):
        call(model, data, checkpoint=path, verbose=0)
    half = type(whole).load(path)
    missing = half.metadata["missing"]
    assert 0 < len(missing) == number - points.measured
    points.measured, points.limit = 0, np.inf
    same(call(model, data, checkpoint=path, verbose=0), whole)
    assert points.measured == len(missing)
    same(type(whole).load(path), whole)
    assert "missing" not in type(whole).load(path).metadata


def test_a_trajectory_resumes_among_its_records(model, data, points, tmp_path, monkeypatch):
    monkeypatch.setattr("losslandscape.measuring.engines.CHUNK", 1)
    whole = trajectory(model, data, verbose=0)
    number = whole.values["loss"].size + 2 * len(whole.path)
    points.measured, points.limit = 0, number - 3
    with pytest.raises(RuntimeError):
        trajectory(model, data, checkpoint=tmp_path / "t.h5", verbose=0)
    half = ll.LossTrajectory.load(tmp_path / "t.h5")
    # Only the last records are missing.
    assert not half.missing.any()
    assert np.isfinite(half.plane_values["loss"]).all()
    np.testing.assert_array_equal(
        np.isnan(half.true_values["loss"]), [False] * (len(whole.path) - 2) + [True] * 2
    )
    points.measured, points.limit = 0, np.inf
    same(trajectory(model, data, checkpoint=tmp_path / "t.h5", verbose=0), whole)
    assert points.measured == 2


def test_a_finished_computation_is_only_read(model, data, points, tmp_path):
    options = {"checkpoint": tmp_path / "line.h5", "verbose": 0}
    first = evaluate_line(model, *data, 7, seed=0, **options)
    points.measured = 0
    same(evaluate_line(model, *data, 7, seed=0, **options), first)
    assert points.measured == 0


def test_without_a_seed_it_resumes_along_its_own_directions(model, data, points, tmp_path):
    options = {"number_of_points": 9, "checkpoint": tmp_path / "surface.h5", "verbose": 0}
    points.limit = 30
    with pytest.raises(RuntimeError):
        evaluate_surface(model, *data, **options)
    points.limit = np.inf
    seed = LossSurface.load(tmp_path / "surface.h5").metadata["seed"]
    resumed = evaluate_surface(model, *data, **options)
    assert resumed.metadata["seed"] == seed
    same(resumed, evaluate_surface(model, *data, 9, seed=seed, verbose=0))


def test_negative_and_nan_losses_count_as_measured(points, tmp_path):
    model, data = quadratic_model(), (np.zeros((4, 1), "float32"), np.zeros((4, 1), "float32"))
    # Overflows where the coordinate is not 0.
    huge = [[np.full((3, 1), 1e38, "float32")]]
    options = {"directions": huge, "checkpoint": tmp_path / "line.h5", "verbose": 0}
    model.layers[0].w.assign([[-0.5], [1.0], [0.0]])
    first = evaluate_line(model, *data, 5, **options)
    assert first.center["loss"] < 0
    assert not np.isfinite(first.values["loss"][0, [0, 1, 3, 4]]).any()
    points.measured = 0
    evaluate_line(model, *data, 5, **options)
    assert points.measured == 0


def test_several_datasets_have_a_file_each(model, data, tmp_path):
    datasets = (data, (data[0][:20], data[1][:20]))
    options = {"seed": 0, "checkpoint": tmp_path / "line.h5", "verbose": 0}
    lines = ll.evaluate_lines(model, datasets, number_of_points=5, **options)
    files = [tmp_path / "line-1.h5", tmp_path / "line-2.h5"]
    for line, file in zip(lines, files, strict=True):
        same(LossLine.load(file), line)
    # A crash may come between the two writes.
    files[1].unlink()
    for again, line, file in zip(
        ll.evaluate_lines(model, datasets, number_of_points=5, **options), lines, files, strict=True
    ):
        same(again, line)
        same(LossLine.load(file), line)


def other_weights(model, _):
    model.layers[0].kernel.assign_add(model.layers[0].kernel * 1e-6)


def other_statistics(model, _):
    model.layers[1].moving_mean.assign(model.layers[1].moving_mean + 1)


def other_metrics(model, _):
    model.compile("adam", "sparse_categorical_crossentropy")


def other_optimizer(model, _):
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])


CHANGES = {
    "weights": (other_weights, {}),
    "weights ": (other_statistics, {}),
    "loss or metrics": (other_metrics, {}),
    "directions": (None, {"seed": 1}),
    "coordinates": (None, {"extent": (-2, 2)}),
    "coordinates ": (None, {"number_of_points": 6}),
    "batch size": (None, {"batch_size": 13}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_checkpoint_of_another_computation_is_refused(what, model, data, tmp_path):
    path = tmp_path / "line.h5"
    options = {"number_of_points": 5, "seed": 0, "checkpoint": path, "verbose": 0}
    evaluate_line(model, *data, **options)
    content = path.read_bytes()
    change, others = CHANGES[what]
    if change:
        change(model, data)
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"`checkpoint` must be new.* different .*{what.strip()}"):
        evaluate_line(model, *data, **options | others)
    assert path.read_bytes() == content
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_other_data_are_refused(model, data, tmp_path):
    path = tmp_path / "line.h5"
    evaluate_line(model, *data, 5, seed=0, checkpoint=path, verbose=0)
    x = data[0].copy()
    x[-1, -1] += 1e-6
    with pytest.raises(ValueError, match="different data"):
        evaluate_line(model, x, data[1], 5, seed=0, checkpoint=path, verbose=0)


class Unnamed(keras.Sequential):
    """A model that reports no value of the name `"loss"`."""

    def test_step(self, *args):
        return {"entropy": super().test_step(*args)["loss"]}


@pytest.mark.parametrize(("kind", "name"), [(keras.Sequential, "loss"), (Unnamed, "entropy")])
def test_other_layers_with_the_same_weights_are_refused(kind, name, data, tmp_path):
    def network(activation):
        keras.utils.set_random_seed(0)
        model = kind([keras.Input((4,)), layers.Dense(8, activation), layers.Dense(3)])
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    options = {"seed": 0, "metric": name, "checkpoint": tmp_path / "line.h5", "verbose": 0}
    evaluate_line(network("relu"), *data, 5, **options)
    with pytest.raises(ValueError, match=f"the model itself has a {name} of .*; now it has"):
        evaluate_line(network("tanh"), *data, 5, **options)


def test_another_optimizer_is_accepted(model, data, tmp_path):
    path = tmp_path / "line.h5"
    first = evaluate_line(model, *data, 5, seed=0, checkpoint=path, verbose=0)
    other_optimizer(model, data)
    same(evaluate_line(model, *data, 5, seed=0, checkpoint=path, verbose=0), first)


def test_files_of_another_kind_are_refused(model, data, tmp_path):
    options = {"number_of_points": 5, "seed": 0, "verbose": 0}
    path = tmp_path / "saved.h5"
    surface = evaluate_surface(model, *data, checkpoint=path, **options)
    with pytest.raises(ValueError, match="which holds a LossSurface"):
        evaluate_line(model, *data, checkpoint=path, **options)
    surface.save(path)
    with pytest.raises(ValueError, match="saved without a fingerprint: LossSurface"):
        evaluate_surface(model, *data, checkpoint=path, **options)
    path.write_text("no HDF5")
    with pytest.raises(ValueError, match="which cannot be read"):
        evaluate_surface(model, *data, checkpoint=path, **options)


def test_damaged_files_are_refused(model, data, points, tmp_path):
    path = tmp_path / "line.h5"
    options = {"number_of_points": 5, "seed": 0, "checkpoint": path, "verbose": 0}
    evaluate_line(model, *data, **options)
    content = path.read_bytes()
    points.measured = 0
    for damaged in (content[:-100], content[:100], b"", b"no HDF5"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="`checkpoint` must be new, or .*cannot be read"):
            evaluate_line(model, *data, **options)
        assert path.read_bytes() == damaged
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        del file["values/loss"]
        file.create_dataset("values/loss", (2**20, 2**21), "f4")
    with pytest.raises(ValueError, match="`checkpoint` must be new, or .*declares 8796093022208"):
        evaluate_line(model, *data, **options)
    assert points.measured == 0


def drop_metric(line):
    del line.values["accuracy"]


def drop_points(line):
    line.values["loss"] = line.values["loss"][:, :0].repeat(5, axis=1).reshape(0, 5)


def miss_others(line):
    line.metadata["missing"] = [5]


@pytest.mark.parametrize("change", [drop_metric, drop_points, miss_others])
def test_files_with_other_values_than_this_call_measures_are_refused(change, model, data, tmp_path):
    options = {"number_of_points": 5, "seed": 0, "checkpoint": tmp_path / "line.h5", "verbose": 0}
    line = evaluate_line(model, *data, **options)
    saved = LossLine.load(tmp_path / "line.h5")
    change(saved)
    saved.save(tmp_path / "line.h5")
    with pytest.raises(ValueError, match="`checkpoint` must be new, or .*holds this many values"):
        evaluate_line(model, *data, **options)
    (tmp_path / "line.h5").unlink()
    same(evaluate_line(model, *data, **options), line)


def test_any_metric_name_is_kept(data, points, tmp_path):
    names = ["top/accuracy", "/accuracy", "a//b", ".", "top_accuracy", "acc (%)", "acc\nuracy"]
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    metrics = [keras.metrics.SparseCategoricalAccuracy(name=name) for name in names]
    network.compile(loss="sparse_categorical_crossentropy", metrics=metrics)
    options = {"number_of_points": 7, "seed": 0, "engine": "evaluate", "verbose": 0}
    whole = evaluate_line(network, *data, **options)
    assert set(whole.values) == {"loss", *names}
    points.measured, points.limit = 0, 3
    with pytest.raises(RuntimeError, match="the machine went down"):
        evaluate_line(network, *data, checkpoint=tmp_path / "line.h5", **options)
    points.limit = np.inf
    same(evaluate_line(network, *data, checkpoint=tmp_path / "line.h5", **options), whole)
    same(LossLine.load(tmp_path / "line.h5"), whole)


@pytest.mark.parametrize("path", ["a" * 250, "a\0b", "\ud800", "a" * 238 + ".h5"])
def test_impossible_file_names_are_refused_first(path, model, data, points, tmp_path):
    with pytest.raises(ValueError, match="(?s)`checkpoint` must be a file that can be written"):
        ll.evaluate_lines(model, (data, data), checkpoint=tmp_path / path, verbose=0)
    assert points.measured == 0
    assert not list(tmp_path.iterdir())


def test_the_file_of_each_dataset_must_be_writable(model, data, points, tmp_path):
    (tmp_path / "line-2.h5").mkdir()
    with pytest.raises(ValueError, match="`checkpoint` must be .*line-2.h5': this is not a file"):
        ll.evaluate_lines(model, (data, data), checkpoint=tmp_path / "line.h5", verbose=0)
    assert points.measured == 0


@pytest.mark.parametrize("path", ["nowhere/line.h5", ""])
def test_unwritable_paths_are_refused_first(path, model, data, points, tmp_path):
    with pytest.raises(ValueError, match="`checkpoint` must be a file that can be written"):
        evaluate_line(model, *data, checkpoint=tmp_path / path, verbose=0)
    assert points.measured == 0


def test_a_full_disk_warns_and_the_values_are_returned(model, data, tmp_path):
    options = {"number_of_points": 5, "seed": 0, "verbose": 0}
    warning = "Could not write the checkpoint .*kept in memory"
    with room_for(1000), pytest.warns(UserWarning, match=warning):
        line = evaluate_line(model, *data, checkpoint=tmp_path / "line.h5", **options)
    same(line, evaluate_line(model, *data, **options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [OSError, RuntimeError, TypeError, KeyError, MemoryError])
def test_a_failed_write_loses_no_values(failure, model, data, tmp_path, monkeypatch):
    options = {"number_of_points": 5, "seed": 0, "verbose": 0}
    expected = evaluate_line(model, *data, **options)

    def fail(*_):
        raise failure("no space")

    monkeypatch.setattr(LossLine, "save", fail)
    with pytest.warns(UserWarning, match="Could not write the checkpoint .*no space"):
        line = evaluate_line(model, *data, checkpoint=tmp_path / "line.h5", **options)
    same(line, expected)


@pytest.fixture
def full_disk(monkeypatch):
    """No line can be saved."""

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(LossLine, "save", fail)


@pytest.mark.usefixtures("full_disk")
def test_warnings_as_errors_lose_no_values(model, data, tmp_path):
    options = {"number_of_points": 5, "seed": 0, "verbose": 0}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("error", UserWarning)
        line = evaluate_line(model, *data, checkpoint=tmp_path / "line.h5", **options)
    assert "Could not write the checkpoint" in str(told[-1].message)
    same(line, evaluate_line(model, *data, **options))


@pytest.mark.usefixtures("full_disk")
def test_warnings_as_errors_do_not_hide_the_first_error(model, data, points, tmp_path):
    options = {"number_of_points": 9, "engine": "evaluate", "verbose": 0}
    points.limit = 3
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(RuntimeError, match="the machine went down"):
            evaluate_line(model, *data, checkpoint=tmp_path / "line.h5", **options)


def test_a_second_writer_and_warnings_as_errors_lose_no_values(model, data, tmp_path, monkeypatch):
    path, advance = tmp_path / "line.h5", ll.evaluation.Progress.advance

    def intrude(*arguments):
        path.write_text("of somebody else")
        advance(*arguments)

    options = {"number_of_points": 7, "seed": 0, "verbose": 0}
    monkeypatch.setattr(ll.evaluation.Progress, "advance", intrude)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("error", UserWarning)
        line = evaluate_line(model, *data, checkpoint=path, **options)
    monkeypatch.undo()
    assert "Something else has written" in str(told[-1].message)
    assert path.read_text() == "of somebody else"
    same(line, evaluate_line(model, *data, **options))


def test_a_file_of_a_second_writer_is_left_alone(model, data, tmp_path, monkeypatch):
    options = {"number_of_points": 7, "verbose": 0}
    evaluate_line(model, *data, seed=1, checkpoint=tmp_path / "other.h5", **options)
    path, advance = tmp_path / "line.h5", ll.evaluation.Progress.advance

    def intrude(*arguments):
        shutil.copy(tmp_path / "other.h5", path)
        advance(*arguments)

    monkeypatch.setattr(ll.evaluation.Progress, "advance", intrude)
    with pytest.warns(UserWarning, match="Something else has written to the checkpoint"):
        line = evaluate_line(model, *data, seed=0, checkpoint=path, **options)
    monkeypatch.undo()
    assert path.read_bytes() == (tmp_path / "other.h5").read_bytes()
    same(line, evaluate_line(model, *data, seed=0, **options))


def test_a_surface_is_computed_from_coarse_to_fine(model, data, points, tmp_path):
    points.limit = 24
    with pytest.raises(RuntimeError):
        evaluate_surface(
            model, *data, 9, seed=0, engine="evaluate", checkpoint=tmp_path / "s.h5", verbose=0
        )
    values = LossSurface.load(tmp_path / "s.h5").values["loss"]
    # Every other row and column of the nine.
    assert np.isfinite(values[::2, ::2]).all()
    assert np.count_nonzero(np.isfinite(values)) == 25


SCRIPT = """
import os, random, signal, sys, time
import keras, numpy as np
import losslandscape as ll

ll.measuring.checkpoints.INTERVAL = 0
path = sys.argv[1]

def compute(checkpoint):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 3
    return ll.evaluate_surface(model, x, y, 13, engine="evaluate", checkpoint=checkpoint, verbose=0)

def done():
    if not os.path.exists(path):
        return 0
    return 169 - len(ll.LossSurface.load(path).metadata.get("missing", []))

random.seed(int(sys.argv[2]))
for _ in range(3):
    # A fork of a process that has imported TensorFlow, but not used it yet.
    child = os.fork()
    if child == 0:
        compute(path)
        os._exit(0)
    # Killed at any instant once it has made progress, however slow the machine is.
    before = done()
    while done() == before < 169:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(done(), flush=True)
compute(path)
"""


def test_kills_leave_whole_files_and_lose_nothing(tmp_path):
    path = tmp_path / "surface.h5"
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, path, "1"],
        cwd=Path(ll.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    done = [int(line) for line in run.stdout.split()]
    assert len(done) == 3
    assert done == sorted(done)
    assert 0 < done[0] < done[-1] < 169
    # The killed writes have left nothing behind, either.
    assert list(tmp_path.iterdir()) == [path]
    resumed = LossSurface.load(path)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 3
    seed = resumed.metadata["seed"]
    same(resumed, evaluate_surface(model, x, y, 13, seed=seed, engine="evaluate", verbose=0))
