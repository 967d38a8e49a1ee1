"""The report: one file with everything about a model, with numbers that are right."""

import re

import numpy as np
import pytest
from quadratic import Quadratic, quadratic_model

from losslandscape import write_report

DATA = np.zeros((4, 1), "float32"), np.zeros((4, 1), "float32")
OPTIONS = {"number_of_points": 5, "number_of_directions": 2, "seed": 0, "verbose": 0}


def test_a_report_has_the_line_the_plane_the_page_and_curvature_with_errors(tmp_path):
    path = tmp_path / "report.html"
    found = write_report(quadratic_model(), *DATA, path, title="<b>", **OPTIONS)
    assert found.line.values["loss"].shape == (2, 5)
    assert found.surface.values["loss"].shape == (5, 5)
    eigenvalues = np.linalg.eigvalsh(Quadratic.MATRIX)
    expected = {
        "largest eigenvalue": eigenvalues[-1],
        "smallest eigenvalue": eigenvalues[0],
        "trace": np.trace(Quadratic.MATRIX),
    }
    assert list(found.curvature) == list(expected)
    page = path.read_text(encoding="utf-8")
    for name, (mean, low, high) in found.curvature.items():
        # Exact but for single precision.
        assert low - 1e-5 <= expected[name] <= high + 1e-5
        assert f"<td>{name}</td><td>{mean:.5g}</td><td>± {(high - low) / 2:.2g}</td>" in page
    assert max(np.ptp(found.curvature[name][1:]) for name in list(expected)[:2]) < 1e-2
    assert len(re.findall(r'<img alt="[^"]+" src="data:image/png;base64,', page)) == 2
    assert '"title": "\\u003cb>"' in page
    assert "lowest point minus the model" in page
    assert "<details open " in page


def test_what_was_measured_is_returned_whatever_fails(tmp_path, monkeypatch):
    model, path = quadratic_model(), tmp_path / "report.html"

    def fail(*_, **__):
        raise ValueError("no second derivative")

    monkeypatch.setattr("losslandscape.summaries.report.Hessian", fail)
    with pytest.warns(UserWarning, match="The report has no curvature: no second derivative"):
        found = write_report(model, *DATA, path, **OPTIONS)
    assert found.curvature == {}
    assert "It could not be computed." in path.read_text(encoding="utf-8")
    monkeypatch.setattr("losslandscape.summaries.report.replace_file", fail)
    unwritten = r"Could not write .*report\.html.*in the returned report"
    with pytest.warns(match=unwritten), pytest.warns(match="The report has no curvature"):
        found = write_report(model, *DATA, path, **OPTIONS)
    assert np.isfinite(found.surface.values["loss"]).all()


def test_slips_are_named_before_anything_is_computed(tmp_path):
    model = quadratic_model()
    model.test_step = model.evaluate = lambda *_, **__: pytest.fail("computed")
    for path, title, error in (("nowhere/a.html", None, ValueError), ("a.html", 3, TypeError)):
        with pytest.raises(error, match="`path`" if title is None else "`title`"):
            write_report(model, *DATA, tmp_path / path, title=title, **OPTIONS)
