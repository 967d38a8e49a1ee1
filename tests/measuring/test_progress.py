"""Progress: what is printed while one waits, on a screen and in a file."""

import io
import re
import sys
import warnings

import numpy as np
import pytest
from quadratic import quadratic_model

from losslandscape import Hessian, evaluate_line, evaluate_surface
from losslandscape.basics.checks import warn
from losslandscape.curvature.gradients import worst_direction

DATA = np.zeros((10, 1)), np.zeros((10, 1))
STEP = [np.ones((3, 1), "float32")]
# What the bars of a call count, and how many there are. The eigenvalues take one product for each
# parameter, after one that shows whether the Hessian is finite.
COUNTS = {
    "along": ({"directions": [STEP, STEP]}, ["2/2 direction"]),
    "eigenvalues": ({}, ["4/4 product"]),
    "spectrum": ({"number_of_probes": 2}, ["6/6 product"]),
    "trace": ({"number_of_probes": 4}, ["4/4 vector"]),
    "by_layer": ({"number_of_probes": 4}, ["4/4 vector", "1/1 layer"]),
}


@pytest.fixture
def quadratic():
    """A model with one layer and three parameters, for which no graph is made."""
    network = quadratic_model()
    network.run_eagerly = True
    return network


@pytest.fixture
def notebook(monkeypatch):
    """The output goes to a notebook, in which a bar can move."""
    monkeypatch.setitem(sys.modules, "ipykernel", sys)


@pytest.fixture
def file(monkeypatch):
    """The output goes to a file, with a line for each step instead of twice a minute."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr("losslandscape.measuring.progress.PLAIN_INTERVAL", 0)
    monkeypatch.setattr("losslandscape.measuring.progress.NO_TIME", 0)


def test_the_bar_is_that_of_keras(model, data, capsys):
    evaluate_surface(model, *data, 3, metric="accuracy", verbose=1)
    assert re.search(r"9/9.*/point - accuracy: 0\.\d+", capsys.readouterr().out)
    evaluate_line(model, *data, 3, verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", COUNTS)
def test_calls_that_differentiate_count_what_they_do(name, quadratic, capsys):
    options, counts = COUNTS[name]
    getattr(Hessian(quadratic, *DATA, verbose=2), name)(**options)
    assert_counts(capsys.readouterr().out, counts)


def test_steps_towards_the_worst_direction_are_counted(quadratic, capsys):
    worst_direction(quadratic, *DATA, steps=3, normalize=None, verbose=2)
    assert_counts(capsys.readouterr().out, ["3/3 step"])


def assert_counts(printed, counts):
    lines = printed.splitlines()
    assert [re.sub(r" - \d+s - .*/(\w+).*", r" \1", line) for line in lines] == counts


@pytest.mark.parametrize("call", [Hessian, worst_direction])
def test_what_is_shown_is_checked(call, quadratic):
    with pytest.raises(ValueError, match="`verbose` must be one of 'auto', 0, 1, 2.*Received 3"):
        call(quadratic, *DATA, verbose=3)


@pytest.mark.usefixtures("notebook")
def test_a_word_comes_before_what_takes_long(quadratic, capsys):
    Hessian(quadratic, *DATA).trace(3)
    printed = capsys.readouterr().out
    assert printed.startswith("Preparing the Hessian …\r")
    assert re.search(r"3/3.*/vector\s*\n$", printed)
    evaluate_line(quadratic, *DATA, 3, extent="auto", seed=0)
    assert capsys.readouterr().out.startswith("Looking for the extent …\rPreparing 3 points …\r")


@pytest.mark.usefixtures("notebook")
def test_a_call_with_nothing_left_to_do_says_so(quadratic, tmp_path, capsys):
    for last in (r".*3/3.*/point.*", "Nothing is left to do"):
        evaluate_line(quadratic, *DATA, 3, seed=0, checkpoint=tmp_path / "line.h5")
        printed = capsys.readouterr().out
        assert re.fullmatch(last, printed.split("\r")[-1].strip())
        assert printed.endswith("\n")


def test_one_bar_counts_what_is_measured_on_few_samples_and_on_all(quadratic, capsys):
    data = np.zeros((3000, 1)), np.zeros((3000, 1))
    options = {"extent": (0.5, 1), "accuracy": 0.01, "seed": 0, "verbose": 2}
    line = evaluate_line(quadratic, *data, 33, **options)
    ((_, on_few),) = line.metadata["few_samples"]
    number = on_few + np.count_nonzero(~line.interpolated)
    assert number < 33
    assert_counts(capsys.readouterr().out, [f"{number}/{number} point"])


@pytest.mark.usefixtures("notebook")
def test_a_bar_without_a_known_end_ends(quadratic, capsys):
    Hessian(quadratic, *DATA).eigenvalues()
    printed = capsys.readouterr().out
    # Keras draws no more often than every twentieth of a second.
    assert re.search(r"[1-3]/Unknown", printed)
    assert re.search(r"4/4.*/product\s*\n$", printed)


@pytest.mark.usefixtures("file")
def test_progress_in_a_file_is_plain_lines(quadratic, capsys):
    evaluate_line(quadratic, *DATA, 5)
    Hessian(quadratic, *DATA).eigenvalues()
    printed = capsys.readouterr().out
    assert not set(printed) & set("\r\b\x1b━")
    *_, line, first, second, third, fourth, last = printed.splitlines()
    assert re.fullmatch(r"5/5 - \d+s - .*/point - loss: \d.*", line)
    assert [first, second, third, fourth] == [f"{number} products" for number in (1, 2, 3, 4)]
    assert re.fullmatch(r"4/4 - \d+s - .*/product", last)


class Full(io.StringIO):
    """Standard output on a full disk."""

    def flush(self):
        raise OSError(28, "No space left on device")


class Latin(io.TextIOWrapper):
    """A terminal that cannot show all characters."""

    def __init__(self):
        super().__init__(io.BytesIO(), "ascii")

    def isatty(self):
        return True


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    ("stream", "verbose"),
    [(Full, "auto"), (Latin, "auto"), (closed, "auto"), (lambda: None, "auto"), (Full, 1)],
)
def test_a_bar_that_cannot_be_written_costs_nothing(stream, verbose, quadratic, monkeypatch):
    """Nor does a warning, on a standard error that cannot be written either."""
    monkeypatch.setattr("losslandscape.measuring.progress.PLAIN_INTERVAL", 0)
    expected = evaluate_line(quadratic, *DATA, 3, seed=0, verbose=0)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream())
    line = evaluate_line(quadratic, *DATA, 3, seed=0, verbose=verbose)
    np.testing.assert_array_equal(line.values["loss"], expected.values["loss"])
    assert Hessian(quadratic, *DATA, verbose=verbose).eigenvalues()[0].size == 1
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", print_to_stderr)
        warn("the values are kept")


def print_to_stderr(message, *_, **__):
    sys.stderr.write(str(message))
    sys.stderr.flush()
