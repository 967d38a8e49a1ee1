"""The page: in a real browser it shows what was measured, and everything on it works."""

import base64
import dataclasses
import json
import re
import sys
import webbrowser

import numpy as np
import pytest
from browsers import chromium

from losslandscape import LossDisplay, LossFilm, LossLine, LossSurface, LossTrajectory, plot_surface
from losslandscape.drawing.page import write_html
from losslandscape.values.measures import Finding

ALPHAS, BETAS = np.linspace(-1, 1, 9), np.linspace(-2, 2, 7)
EVIL = "</script><img src=x onerror=alert(1)>%{x} $m$ &amp;"


def surface(**changes):
    a, b = np.meshgrid(ALPHAS, BETAS)
    values = {"loss": 0.1 + (a - 0.25) ** 2 + b**2 / 3, "accuracy": np.exp(-(a**2) - b**2)}
    center = {"loss": 0.1625, "accuracy": 1.0}
    metadata = {"model": "a network", "seed": 7, "dataset_size": 640, "normalize": "filter"}
    return dataclasses.replace(LossSurface(ALPHAS, BETAS, values, center, metadata), **changes)


def trajectory(**changes):
    found = surface()
    path = np.array([[0.8, 1.5], [0.5, 0.4], [0, 0]])
    on_plane = {"loss": np.array([0.9, 0.3, 0.1625]), "accuracy": np.array([0.1, 0.6, 1])}
    at_records = {name: values + 0.01 for name, values in on_plane.items()}
    explained, distances = np.array([0.9, 0.08]), np.array([0.5, 0.25, 0])
    metadata = found.metadata | {"unit": "epoch", "times": [0, 1, 5], "random_walk": [0.6, 0.2]}
    made = LossTrajectory(
        *(found.alphas, found.betas, found.values, found.center, metadata),
        *(path, explained, distances, on_plane, at_records),
    )
    return dataclasses.replace(made, **changes)


def film():
    frames = [surface().values["loss"] * factor for factor in (3, 2, 1)]
    metadata = {"labels": ["epoch 0", "epoch 1", "epoch 5"]}
    centers = {"loss": np.array([0.4875, 0.325, 0.1625])}
    return LossFilm(ALPHAS, BETAS, {"loss": np.stack(frames)}, centers, {"loss": 0.1625}, metadata)


def data_of(values, path, **options):
    """What a page without a browser holds: the names, and the arrays."""
    write_html(values, path, **options)
    page = path.read_text(encoding="utf-8")
    return json.loads(page.split('<script type="application/json" id="data">')[1].split("<")[0])


def array(text):
    return np.frombuffer(base64.b64decode(text))


# ---- In the browser ----


@pytest.fixture(scope="module")
def browser():
    options = chromium()
    if options is None:
        pytest.skip("There is no Chromium: `make chromium` installs it.")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def show(browser, tmp_path_factory):
    """Opens pages offline; what they complain about is an error at the end."""
    complaints, folder = [], tmp_path_factory.mktemp("pages")

    def show(values, *, screen=(600, 450), colors="light", **options):
        path = folder / f"{len(list(folder.iterdir()))}.html"
        write_html(values, path, **options)
        size = dict(zip(("width", "height"), screen, strict=True))
        context = browser.new_context(viewport=size, color_scheme=colors, offline=True)
        # Without a graphics card, on a busy machine, a surface takes many seconds.
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if is_error(said) else None)
        page.on("request", lambda asked: complaints.append(asked.url) if is_remote(asked) else None)
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelectorAll('.surface canvas').length > 0")
        return page

    yield show
    assert complaints == []


def is_error(said):
    return said.type == "error"


def is_remote(asked):
    return asked.url.startswith("http")


@pytest.fixture(scope="module")
def training(show):
    """The page of a trajectory on a large screen."""
    return show(trajectory(), findings=[Finding("a check", 0.5, "it misleads")])


def drawn(page, part, number=0):
    """A part of the traces or of the layout that Plotly drew last."""
    figure = f"document.querySelectorAll('.surface')[{number}]"
    return page.evaluate(f"({figure}).{part}")


def table(page, name):
    """The cells of a table, as numbers where they are some."""
    rows = page.eval_on_selector_all(
        f"#{name} tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return {first: rest for first, *rest in rows}


def check_point(page, value):
    """What the page says about the chosen point is what was measured there."""
    said = {name: float(cell) for name, (cell, *_) in table(page, "point-table").items()}
    first, second = list(said)[:2]
    column, row = (
        int(np.abs(axis - said[name]).argmin())
        for name, axis in zip((first, second), value.axes, strict=True)
    )
    place = [value.alphas[column], value.betas[row]]
    assert place == pytest.approx([said[first], said[second]], abs=1e-5)
    for metric, values in value.values.items():
        assert said[metric] == pytest.approx(values[row, column], rel=1e-4)
    return column, row


def test_values_on_the_page_are_those_of_the_surface(training):
    value = trajectory()
    np.testing.assert_array_equal(drawn(training, "data[0].z"), value.values["loss"])
    np.testing.assert_array_equal(drawn(training, "data[0].x"), ALPHAS)
    np.testing.assert_array_equal(drawn(training, "data[0].y"), BETAS)
    # At first, the chosen point is the model's.
    assert check_point(training, value) == (4, 3)


def test_a_click_shows_the_values_and_both_slices(training):
    value = trajectory()
    box = training.locator(".surface").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 0.55 * box["height"]
    training.mouse.move(x, y)
    training.wait_for_selector(".surface .hovertext")
    texts = training.locator(".surface .hovertext text tspan").all_text_contents()
    alpha, beta, loss = (float(text.rpartition(" ")[2].replace("−", "-")) for text in texts[-3:])
    column, row = np.abs(ALPHAS - alpha).argmin(), np.abs(BETAS - beta).argmin()
    assert loss == pytest.approx(value.values["loss"][row, column], rel=1e-3)
    before = training.inner_text("#point-table")
    training.mouse.click(x, y)
    training.wait_for_function(
        "before => document.getElementById('point-table').innerText !== before", arg=before
    )
    column, row = check_point(training, value)
    for name, expected in (
        ("along-alpha", value.values["loss"][row]),
        ("along-beta", value.values["loss"][:, column]),
    ):
        assert training.evaluate(f"document.getElementById('{name}').data[0].y") == list(expected)


def test_switches_change_height_metric_and_floor(training):
    value = trajectory()
    training.check("#log")
    np.testing.assert_allclose(drawn(training, "data[0].z"), np.log10(value.values["loss"]))
    assert drawn(training, "layout.scene.zaxis.title.text") == "loss (log scale)"
    training.uncheck("#log")
    training.select_option("#metric", label="accuracy")
    np.testing.assert_array_equal(drawn(training, "data[0].z"), value.values["accuracy"])
    assert "accuracy" in training.locator(".surface").get_attribute("aria-label")
    training.select_option("#metric", label="loss")
    floors = []
    for switch in (training.uncheck, training.check):
        switch("#floor")
        floors.append(drawn(training, "layout.scene.zaxis.range[0]"))
        assert drawn(training, "data[0].contours.z.project.z") is (switch == training.check)
    assert floors[1] < floors[0] == value.values["loss"].min()


def test_the_keyboard_reaches_and_works_everything(training):
    value = trajectory()
    training.evaluate("document.activeElement.blur()")
    here, reached = "document.activeElement", set()
    for _ in range(14):
        training.keyboard.press("Tab")
        reached.add(training.evaluate(f"{here}.id || {here}.classList[0]"))
    controls = {"metric", "log", "floor", "reset", "play", "moment", "alpha", "beta"}
    assert controls | {"surface"} <= reached
    training.focus("#alpha")
    before = check_point(training, value)[0]
    training.keyboard.press("ArrowRight" if before < 8 else "ArrowLeft")
    assert abs(check_point(training, value)[0] - before) == 1
    training.focus(".surface")
    eye = drawn(training, "layout.scene.camera.eye")
    training.keyboard.press("ArrowRight")
    turned = drawn(training, "layout.scene.camera.eye")
    assert turned["z"] == pytest.approx(eye["z"])
    angles = [np.arctan2(each["y"], each["x"]) for each in (eye, turned)]
    assert np.diff(angles) % (2 * np.pi) == pytest.approx(0.1)


def test_the_slider_shows_the_path_and_the_numbers_of_each_record(training):
    value = trajectory()
    training.focus("#moment")
    training.keyboard.press("Home")
    for record, time in enumerate((0, 1, 5)):
        said = {name: cell for name, (cell,) in table(training, "record-table").items()}
        assert said[""] == "training"
        assert said["record"] == training.inner_text("#moment-name") == f"epoch {time}"
        expected = {"distance off the plane": value.distances}
        for name in value.values:
            expected |= {name: value.true_values[name]}
            expected |= {f"{name} on the plane": value.plane_values[name]}
        for name, values in expected.items():
            assert float(said[name]) == pytest.approx(values[record], rel=1e-4)
        x, y = drawn(training, "data[5].x"), drawn(training, "data[5].y")
        np.testing.assert_array_equal(np.transpose([x, y]), value.path[: record + 1])
        training.keyboard.press("ArrowRight")


def test_marks_alternative_text_and_the_fold_out_say_what_was_measured(training):
    value = trajectory()
    lowest = np.unravel_index(value.values["loss"].argmin(), value.values["loss"].shape)
    text = training.locator(".surface").get_attribute("aria-label")
    assert text.startswith(f"Surface of loss, from {value.values['loss'].min():g} to ")
    assert "0.1625 at the model" in text
    assert f"1st principal component = {ALPHAS[lowest[1]]:g}" in text
    marks = {
        name: index for index, name in enumerate(drawn(training, "data.map(each => each.name)"))
    }
    assert drawn(training, f"data[{marks['model']}].customdata") == [0.1625]
    # Above the surface, which would cover its lower half.
    (height,) = drawn(training, f"data[{marks['model']}].z")
    assert 0.03 < (height - 0.1625) / np.ptp(value.values["loss"]) < 0.1
    assert drawn(training, f"data[{marks['lowest point']}].x") == [ALPHAS[lowest[1]]]
    assert not training.locator("#measured-table").is_visible()
    training.click("summary")
    rows = table(training, "measured-table")
    assert (rows["seed"], rows["samples"], rows["normalization"]) == (["7"], ["640"], ["filter"])
    assert training.inner_text("#findings li").split("\n") == ["a check: 0.5", "it misleads"]


def test_several_surfaces_share_camera_scale_and_point_on_a_phone_in_the_dark(show):
    higher = surface(values={"loss": surface().values["loss"] * 4}, metadata={})
    page = show(
        [trajectory(), higher],
        labels=("training", EVIL),
        title=EVIL,
        screen=(390, 844),
        colors="dark",
    )
    # No sideways scrolling, and no names that would be cut off.
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    names = [drawn(page, f"layout.scene.{axis}axis.title.text") for axis in "xyz"]
    assert names == ["PC 1", "PC 2", ""]
    assert page.inner_text("#bar-name") == "loss"
    assert "1st principal component (90.0%)" in page.inner_text("#along-alpha")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background))) < 64
    assert [drawn(page, "data[0].cmax", number) for number in (0, 1)] == [
        higher.values["loss"].max()
    ] * 2
    assert page.locator(".bar").count() == 1
    assert page.inner_text("h1") == page.title() == EVIL
    assert [heading.inner_text() for heading in page.locator("#panels h2").all()] == [
        "training",
        EVIL,
    ]
    assert page.locator("img").count() == 0
    page.select_option("#metric", label="loss")
    page.focus(".surface")
    page.keyboard.press("ArrowUp")
    eyes = [drawn(page, "layout.scene.camera.eye", number) for number in (0, 1)]
    assert eyes[0] == eyes[1]
    cells = table(page, "point-table")["loss"]
    assert float(cells[1]) == pytest.approx(4 * float(cells[0]), rel=1e-4)
    slices = page.evaluate("document.getElementById('along-alpha').data.map(each => each.y)")
    np.testing.assert_allclose(slices[1], 4 * np.array(slices[0]))


def test_a_film_has_a_frame_for_each_record_on_one_scale(show):
    page, value = show(film()), film()
    page.focus("#moment")
    for frame in (2, 1, 0):
        assert page.inner_text("#moment-name") == value.labels[frame]
        np.testing.assert_array_equal(drawn(page, "data[0].z"), value.values["loss"][frame])
        assert drawn(page, "data[0].cmax") == value.values["loss"].max()
        page.keyboard.press("ArrowLeft")
    page.click("#play")
    page.wait_for_function("document.getElementById('moment').value === '2'")
    assert page.inner_text("#play") == "Play"


# ---- Without ----


def test_a_page_is_small_and_needs_no_internet(tmp_path, monkeypatch):
    axis = np.linspace(-1, 1, 101)
    noise = np.random.default_rng(0).normal(size=(3, 101, 101))
    values = dict(zip(("loss", "accuracy", "auc"), noise, strict=True))
    # An empty metric must not cause warnings.
    values["auc"] = values["auc"] * np.nan
    path, library = tmp_path / "surface.html", "const Plotly = null;"
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: library)
    data = data_of(
        LossSurface(axis, axis, values, {"loss": 0.0, "accuracy": 0.0, "auc": 0.0}, {}), path
    )
    np.testing.assert_array_equal(
        array(data["panels"][0]["frames"][0]["values"][0]), noise[0].ravel()
    )
    assert path.stat().st_size < 3e6
    assert not re.search(r'(src|href)="|url\(|@import|fetch\(', path.read_text())


def test_missing_plotly_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[html\]'"):
        write_html(surface(), tmp_path / "surface.html")


def test_other_values_are_refused(tmp_path):
    line = LossLine(ALPHAS, {"loss": np.ones((1, 9))}, {"loss": 1.0}, {})
    other = surface(values={"auc": np.ones((7, 9))}, center={"auc": 1.0})
    for values, error, message in (
        (line, TypeError, "`values` must be a `LossSurface`.*`plot_line`"),
        ([surface(), other], ValueError, "`values` must have a metric in common"),
    ):
        with pytest.raises(error, match=message):
            write_html(values, tmp_path / "surface.html")
    with pytest.raises(ValueError, match="`labels` must be one per surface. Received 2"):
        write_html(surface(), tmp_path / "surface.html", labels=("a", "b"))
    assert not list(tmp_path.iterdir())


def test_a_page_takes_any_metric_name(tmp_path):
    names = ["loss", "top/accuracy", "", "a\nb", "a\0b", "\ud800", "$x$", EVIL, "n" * 2001]
    values = {name: np.full((7, 9), float(index)) for index, name in enumerate(names)}
    center = {name: float(index) for index, name in enumerate(names)}
    data = data_of(surface(values=values, center=center), tmp_path / "surface.html")
    assert [metric["label"] for metric in data["metrics"]] == names
    for index, text in enumerate(data["panels"][0]["frames"][0]["values"]):
        assert (array(text) == index).all()


def models(path, **changes):
    """The points of the models on the page of a surface, for the loss."""
    return data_of(surface(**changes), path)["panels"][0]["frames"][0]["models"][0]


def test_models_are_marked_where_they_lie_on_the_surface(tmp_path):
    path = tmp_path / "surface.html"
    assert models(path) == [[0, 0, 0.1625]]
    # One axis without 0 is enough.
    assert models(path, alphas=ALPHAS + 1.5) == models(path, betas=BETAS - 3) == []
    positions = {"positions": [[0.0, 0.0], [1.0, 0.0], [0.25, -1.0], [1.5, 0.0]]}
    found = models(path, metadata=positions, values={"loss": np.add.outer(10 * BETAS, ALPHAS)})
    # The first was measured, the others are interpolated, and the last one is off the surface.
    np.testing.assert_allclose(found, [[0, 0, 0.1625], [1, 0, 1], [0.25, -1, -9.75]])


def test_a_page_of_a_checkpoint_is_a_preview(tmp_path):
    missing = [10, 20, 30]
    whole = np.add.outer(BETAS, ALPHAS)
    loss = whole.copy()
    loss.flat[missing] = np.nan
    loss[0, 0] = np.inf
    value = surface(values={"loss": loss}, metadata={"missing": missing})
    data = data_of(value, tmp_path / "surface.html")
    (frame,) = data["panels"][0]["frames"]
    # The loss is linear, so interpolation is exact.
    np.testing.assert_allclose(array(frame["values"][0])[1:], whole.flat[1:], atol=1e-12)
    assert frame["missing"] == missing
    assert frame["notes"]["linear"] == [["preview: 60 of 63 points", "1 of 63 points not finite"]]
    holes = np.count_nonzero(np.delete(whole, missing) <= 0)
    hidden = f"{holes} of 63 points not finite or ≤ 0"
    assert frame["notes"]["log"] == [["preview: 60 of 63 points", hidden]]
    (findings,) = data["measured"]["findings"]
    assert findings["reason"].startswith("Nothing was checked: The values must be complete, but 3")


def test_a_page_looks_as_the_figure_does(tmp_path):
    data, ax = data_of(surface(), tmp_path / "surface.html"), plot_surface(surface())
    eye = data["camera"]["eye"]
    assert np.rad2deg(np.arctan2(eye["y"], eye["x"])) == pytest.approx(ax.azim)
    across = np.hypot(eye["x"], eye["y"])
    assert np.rad2deg(np.arctan2(eye["z"], across)) == pytest.approx(ax.elev)
    box = np.array([*data["panels"][0]["sides"], data["height"] + data["floor"]])
    expected = ax.get_box_aspect()
    np.testing.assert_allclose(box / box[2], expected / expected[2])


# ---- From a display ----


def test_outside_of_notebooks_the_page_opens_in_the_browser(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    display = LossDisplay(surfaces=[surface(), surface()], labels=["training", "test"])
    display.explore(title="both")
    (path,) = (tmp_path / "temporary").iterdir()
    assert opened == [path.as_uri()]
    assert list(tmp_path.iterdir()) == [tmp_path / "temporary"]
    display.save(tmp_path / "page.html")
    for page in (path, tmp_path / "page.html"):
        assert '"label": "test"' in page.read_text()
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    with pytest.warns(UserWarning, match="No web browser could be opened. The page is in"):
        display.explore()
    with pytest.raises(ValueError, match="`explore` shows surfaces, but this display has none"):
        LossDisplay().explore()
