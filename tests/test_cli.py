"""Command line: figures, files, a summary and exit codes for batch systems."""

import io
import json
import os
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from losslandscape import LossFilm, LossLine, LossSurface, LossTrajectory, evaluate_surface
from losslandscape.cli import main

ROOT = Path(__file__).parent.parent


@pytest.fixture
def files(model, data, tmp_path, monkeypatch):
    """The current folder, with a model and its data in it."""
    monkeypatch.chdir(tmp_path)
    model.save("model.keras")
    np.savez("data.npz", x=data[0], y=data[1], x_test=data[0][:20], y_test=data[1][:20])
    return tmp_path


def run(command):
    return main(["model.keras", "data.npz", *command.split()])


@pytest.mark.usefixtures("files")
def test_figures_and_the_surface_are_written(model, data):
    command = "--plot levels 3d --points 5 --seed 0 --checkpoint surface.h5 --path figure.png"
    assert run(command) == 0
    assert {path.name for path in Path().glob("*.png")} == {"figure-levels.png", "figure-3d.png"}
    expected = evaluate_surface(model, *data, 5, seed=0, verbose=0)
    np.testing.assert_array_equal(
        LossSurface.load("surface.h5").values["loss"], expected.values["loss"]
    )


@pytest.mark.usefixtures("files")
def test_a_line_is_measured_on_other_arrays(capsys):
    command = "--plot line --points 5 --directions 3 --x x_test --y y_test --extent -2 2 --json"
    assert run(f"{command} --checkpoint line.h5") == 0
    line = LossLine.load("line.h5")
    assert line.values["loss"].shape == (3, 5)
    assert line.alphas[0] == -2
    output = capsys.readouterr()
    summary = json.loads(output.out)
    assert summary["values"]["loss"]["highest"] == line.values["loss"].max()
    assert summary["metadata"]["dataset_size"] == 20
    # Progress goes to stderr, apart from the summary.
    assert "15/15" in output.err


@pytest.mark.usefixtures("files")
def test_a_report_of_one_model_is_written(capsys):
    command = ["report", "model.keras", "data.npz", "--points", "3", "--directions", "2"]
    assert main([*command, "--quiet"]) == 2
    assert "Nothing would be saved" in capsys.readouterr().err
    assert main([*command, "--seed", "0", "-o", "report.html", "--quiet", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    value, low, high = summary["curvature"]["largest eigenvalue"]
    assert low <= value <= high
    assert summary["values"]["loss"]["shape"] == [3, 3]
    assert f"{summary['center']['loss']:.3g}" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("files")
def test_non_finite_values_are_null_in_the_summary(model, capsys):
    model.layers[-1].kernel.assign(np.full((8, 3), np.nan))
    model.save("model.keras")
    assert run("--points 3 --checkpoint surface.h5 --quiet --json") == 0
    output = capsys.readouterr()
    summary = json.loads(output.out, parse_constant=pytest.fail)
    assert summary["center"]["loss"] is None
    assert summary["values"]["loss"] == {
        "shape": [3, 3],
        "lowest": None,
        "highest": None,
        "not_finite": 9,
    }
    assert not output.err


def compare(model, command):
    """Compares the model with one whose weights are larger."""
    model.set_weights([1.1 * weight for weight in model.get_weights()])
    model.save("other.keras")
    return main(["compare", "data.npz", "--points", "3", *command.split()])


@pytest.mark.usefixtures("files")
def test_models_are_compared_by_label(model, capsys):
    labels = "--models first model.keras --models second other.keras"
    options = f"{labels} --directions 2 --rise 0.01 --seed 0"
    assert compare(model, f"{options} --path figure.png --checkpoint points.h5") == 0
    names = {path.name for path in Path().glob("*.*")}
    assert names >= {"figure.png", "points-1.h5", "points-2.h5"}
    output = capsys.readouterr().out
    assert "first − second" in output
    assert "say nothing about other trainings" in output
    assert compare(model, f"{options} --json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["trainings"] == {"first": 1, "second": 1}
    assert summary["differences"][0]["verdict"] in output.replace("\n", " ")
    assert compare(model, f"{labels} --points 5 --plot levels --path planes.pdf") == 0
    # Fonts as in all other figures.
    assert b"/Type3" not in Path("planes.pdf").read_bytes()


COMPARISON_ERRORS = {
    "--models a model.keras": "at least two labels",
    "--models a model.keras --models a other.keras": "must have another label each time",
    "--models a model.keras --models b": "'b' has none",
    "--models a model.keras --models b no.keras": "`models` must be saved models",
}


@pytest.mark.usefixtures("files")
def test_invalid_comparisons_exit_with_code_2(model, capsys):
    for command, message in COMPARISON_ERRORS.items():
        assert compare(model, command) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def records(files, model):
    """Files of the weights at three moments before those of the model."""
    (files / "history").mkdir()
    names, end = [f"epoch-{epoch}.weights.h5" for epoch in range(3)], model.get_weights()
    for factor, name in zip((0.5, 0.7, 0.8), names, strict=True):
        model.set_weights([factor**2 * end[0], *(factor * array for array in end[1:])])
        model.save_weights(f"history/{name}")
    return names


@pytest.mark.parametrize(("command", "kind"), [("training", LossTrajectory), ("film", LossFilm)])
def test_a_training_is_drawn_from_a_folder_or_from_files(command, kind, records, capsys):
    for history in (["history"], [f"history/{name}" for name in records]):
        words = [command, "model.keras", "data.npz", *history, "--points", "3"]
        assert main([*words, "--checkpoint", "points.h5", "--json"]) == 0
        output = capsys.readouterr()
        assert json.loads(output.out)["metadata"]["records"][:3] == records
    # The second call had nothing to measure.
    assert not re.search(r"\d/\d", output.err), output.err
    assert kind.load("points.h5").metadata["records"][:3] == records


@pytest.mark.usefixtures("records")
def test_a_training_is_drawn_as_a_path_and_as_a_film():
    start = ["model.keras", "data.npz", "history", "--points", "3"]
    film = "--path film.gif --plot 3d --frames 2 --seed 0 --extent -0.5 0.5"
    assert main(["film", *start, *film.split()]) == 0
    assert Path("film.gif").read_bytes().startswith(b"GIF")
    assert main(["training", *start, "--path", "training.png", "--scale", "log"]) == 0
    names = {path.name for path in Path().glob("training*.png")}
    assert names == {"training-trajectory.png", "training-fidelity.png"}
    assert main(["film", *start, "--path", "film.html"]) == 0
    assert "<html" in Path("film.html").read_text(encoding="utf-8")
    # Before anything is measured.
    assert main(["film", *start, "--path", "film.gif.gz"]) == 2


def test_help_begins_with_three_examples(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["losslandscape", "model.keras"]
    assert [line.split()[1] for line in (second, third)] == ["compare", "report"]


ERRORS = {
    "": "Nothing would be saved",
    "--path figure.nothing": "`path` must end in one of",
    "--path figure.png --x inputs": "`data` must be an .npz .*it has no inputs, only x, y",
    "--path figure.png --extent a b": "`--extent` must be two numbers.*Received a b",
    "--path figure.png --metric auc": "`metric` must be one of 'loss', 'accuracy'",
    "--path figure.png --plot line 3d": "`--plot` must be line alone",
    "--path figure.png --accuracy 2": "`accuracy` must be",
    "--path figure.png --import no.such.module": "No module named 'no'",
}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", ERRORS)
def test_invalid_arguments_exit_with_code_2(command, capsys):
    assert run(command) == 2
    output = capsys.readouterr()
    assert not output.out
    assert re.search(ERRORS[command], output.err)


def write_huge():
    """Writes an archive of an array that declares 768 TiB."""
    header = io.BytesIO()
    declared = {"descr": "<f8", "fortran_order": False, "shape": (105_553_116_266_496,)}
    np.lib.format.write_array_header_1_0(header, declared)
    with zipfile.ZipFile("data.npz", "w") as archive:
        for name in "xy":
            archive.writestr(f"{name}.npy", header.getvalue())


def write_array():
    np.save("array.npy", np.ones(3))
    Path("array.npy").replace("data.npz")


def write_pipe(name):
    Path(name).unlink()
    os.mkfifo(name)


UNREADABLE = {
    "`data` must be an .npz .* cannot be read: No data left": lambda: Path("data.npz").write_text(
        ""
    ),
    "`data` must be an .npz file .* Unable to allocate 768. TiB": write_huge,
    "`data` must be an .npz file .* it is no archive of named arrays": write_array,
    "`data` must be an .npz file .* it is a pipe": lambda: write_pipe("data.npz"),
    "`model` must be a model .* it is a pipe": lambda: write_pipe("model.keras"),
    "`model` must be a model .* cannot be read": lambda: Path("model.keras").write_text("half"),
}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("reason", UNREADABLE)
def test_a_file_that_cannot_be_read_exits_with_code_2(reason, capsys):
    UNREADABLE[reason]()
    assert run("--checkpoint surface.h5") == 2
    assert re.search(reason, capsys.readouterr().err, re.DOTALL)


@pytest.mark.usefixtures("files")
def test_untrusted_code_runs_only_on_request(model, data, capsys):
    network = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x * 2), layers.Dense(3)])
    network.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.save("model.keras")
    assert run("--points 3 --checkpoint surface.h5") == 2
    assert "lambda" in capsys.readouterr().err
    assert run("--points 3 --checkpoint surface.h5 --unsafe") == 0
    model.save("model.keras")
    np.savez("data.npz", x=np.array([{}, {}]), y=data[1])
    assert run("--points 3 --checkpoint other.h5") == 2
    assert "allow_pickle=False" in capsys.readouterr().err
