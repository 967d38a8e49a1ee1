"""The public interface: every plotting call, its figures and files, and its errors."""

import sys
import warnings
from functools import partial

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from disks import room_for
from matplotlib import pyplot as plt

import losslandscape
from losslandscape import (
    LossLine,
    LossSurface,
    WeightHistory,
    direction_between,
    evaluate_line,
    evaluate_lines,
    evaluate_surface,
    plot_interpolation,
    plot_levels,
    plot_loss,
    plot_loss_3D,
    plot_surface,
    plot_trajectory,
    random_directions,
    report,
)
from losslandscape.drawing.export import read_reference, write_reference
from losslandscape.values.measures import half_widths, non_convexity


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    """Calls are written as users type them, with progress bars that would bury the results."""
    monkeypatch.setattr(keras.utils.Progbar, "update", lambda *_, **__: None)


def test_plot_loss(model, data):
    x_test, y_test = data
    display = plot_loss(model, (x_test, y_test))
    (line,) = display.lines
    assert line.values["loss"].shape == (1, 21)
    np.testing.assert_array_equal(display.axes["line"].lines[0].get_ydata(), line.values["loss"][0])
    assert display.figures["line"] is plt.gcf()


def test_plot_loss_of_two_datasets(model, data):
    x, y = data
    display = plot_loss(
        model,
        ((x[:32], y[:32]), (x[32:], y[32:])),
        dataset_labels=("training set", "test set"),
    )
    legend = display.axes["line"].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["training set", "test set"]
    assert len(display.lines) == len(display.axes["line"].lines) == 2


def test_plot_loss_numbers_unnamed_datasets(model, data):
    display = plot_loss(model, (data, data), number_of_points=3, sampling_error=True)
    ax = display.axes["line"]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["dataset 1", "dataset 2"]
    assert sum(bool(collection.get_hatch()) for collection in ax.collections) == 2


def test_plot_loss_with_other_numbers_of_points_and_directions(model, data):
    display = plot_loss(model, data, number_of_points=41, number_of_directions=2)
    assert display.lines[0].values["loss"].shape == (2, 41)


def test_one_layer_moves_while_all_others_stay_put(model, data):
    first, last = model.layers[0], model.layers[-1].name
    directions = random_directions(model, 2, layers=[first], seed=0)
    (line,) = plot_loss(model, data, number_of_points=3, layers=[first], seed=0).lines
    expected = evaluate_line(model, *data, 3, directions=directions[:1])
    np.testing.assert_allclose(line.values["loss"], expected.values["loss"], rtol=1e-6)
    surface = plot_loss_3D(model, "levels", *data, 2, layers=last, seed=0).surface
    expected = evaluate_surface(model, *data, 2, layers=last, seed=0)
    np.testing.assert_allclose(surface.values["loss"], expected.values["loss"], rtol=1e-6)
    assert surface.metadata["layers"] == [last]


def test_plot_loss_along_given_directions_on_given_axes(model, data):
    other = keras.models.clone_model(model)
    other.compile(loss="sparse_categorical_crossentropy")
    _, ax = plt.subplots()
    display = plot_loss(
        model,
        data,
        number_of_points=3,
        directions=[direction_between(model, other)],
        extent=(0, 1),
        scale="log",
        ax=ax,
    )
    assert display.axes["line"] is ax
    assert ax.get_yscale() == "log"


@pytest.mark.parametrize("plot_types", ["levels", "3d", ("levels", "3d"), ["3d"]])
def test_plot_loss_3d(model, data, plot_types):
    x_test, y_test = data
    display = plot_loss_3D(model, plot_types, x_test, y_test, number_of_points=5)
    names = [plot_types] if isinstance(plot_types, str) else list(plot_types)
    assert list(display.axes) == list(display.figures) == names
    assert len(plt.get_fignums()) == len(names)
    assert display.surface.values["loss"].shape == (5, 5)


def test_plot_loss_3d_takes_positional_arguments_and_whole_datasets(model, data):
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(16)
    by_position = plot_loss_3D(model, "levels", *data, 3, seed=0)
    whole = plot_loss_3D(model, "levels", dataset, number_of_points=3, seed=0)
    np.testing.assert_allclose(
        by_position.surface.values["loss"], whole.surface.values["loss"], rtol=1e-5
    )


def test_plot_loss_3d_draws_any_metric(model, data):
    display = plot_loss_3D(model, "levels", *data, number_of_points=3, metric="accuracy")
    assert display.axes["levels"].child_axes[0].get_ylabel() == "accuracy"


def test_several_datasets_are_drawn_side_by_side_on_one_scale(model, data):
    x, y = data
    both = (x[:32], y[:32]), (x[32:], y[32:])
    options = {"number_of_points": 3, "seed": 0}
    display = plot_loss_3D(
        model, ("levels", "3d"), both, dataset_labels=("training", "test"), **options
    )
    assert [ax.get_title() for ax in display.axes["levels"]] == ["training", "test"]
    first, second = display.axes["3d"]
    assert first.get_zlim() == second.get_zlim()
    assert display.figures["levels"] is display.axes["levels"][0].figure
    for surface, part in zip(display.surfaces, both, strict=True):
        alone = plot_loss_3D(model, "levels", *part, **options).surface
        np.testing.assert_allclose(surface.values["loss"], alone.values["loss"], rtol=1e-6)
    with pytest.raises(AssertionError, match="Received 1 labels for 2 datasets"):
        plot_loss_3D(model, "levels", both, dataset_labels="one")


def test_several_metrics_of_one_computation_have_a_figure_each(model, data, tmp_path):
    path = tmp_path / "both.png"
    options = {"number_of_points": 3, "metric": ["loss", "accuracy"], "path": path}
    display = plot_loss_3D(model, "levels", *data, **options)
    assert list(display.axes) == ["levels-loss", "levels-accuracy"]
    bars = [ax.child_axes[0].get_ylabel() for ax in display.axes.values()]
    assert bars == ["loss", "accuracy"]
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "both-levels-accuracy.png",
        "both-levels-loss.png",
    ]


def test_style_is_passed_on_to_the_plots_that_take_it(model, data):
    _, flat = plt.subplots()
    space = plt.figure().add_subplot(projection="3d")
    display = plot_loss_3D(
        model,
        ("levels", "3d"),
        *data,
        number_of_points=3,
        ax={"levels": flat, "3d": space},
        cmap="plasma",
        view=(20, 45),
        axes=False,
        levels=[1, 2, 3],
        dataset_labels="a network",
    )
    assert display.axes == {"levels": flat, "3d": space}
    assert flat.collections[1].levels.tolist() == [1, 2, 3]
    assert flat.collections[1].get_cmap().name == "plasma"
    assert (space.elev, space.azim) == (20, 45)
    assert (flat.axison, space.axison) == (True, False)
    assert flat.get_title() == space.get_title() == "a network"


def test_a_display_saves_its_values_and_its_figures(model, data, tmp_path):
    display = plot_loss_3D(model, ("levels", "3d"), *data, number_of_points=3)
    display.save(tmp_path / "surface.h5")
    display.save(tmp_path / "surface.svg")
    loaded = LossSurface.load(tmp_path / "surface.h5")
    np.testing.assert_array_equal(loaded.values["loss"], display.surface.values["loss"])
    lines = plot_loss(model, (data, data), number_of_points=3)
    lines.save(tmp_path / "line.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "line-1.h5",
        "line-2.h5",
        "surface-3d.svg",
        "surface-levels.svg",
        "surface.h5",
    ]


def test_a_page_is_written_instead_of_figures(model, data, tmp_path, monkeypatch):
    path = tmp_path / "landscape.html"
    style = {"metric": "accuracy", "scale": "log", "dataset_labels": ("training", "test")}
    options = {"number_of_points": 3, "seed": 0, "path": path}
    display = plot_loss_3D(model, ("levels", "3d"), (data, data), **style, **options)
    assert list(display.axes) == ["levels", "3d"]
    assert display.labels == ["training", "test"]
    assert [file.name for file in tmp_path.iterdir()] == ["landscape.html"]
    # The page begins with what the figures show.
    for part in ('"metric": 1, "scale": "log"', '"label": "training"', '"label": "test"'):
        assert part in path.read_text()
    assert not plt.get_fignums()
    monkeypatch.setattr(losslandscape, "write_html", failing(OSError(28, "No space left")))
    with pytest.warns(UserWarning, match="Could not write .*landscape.html.*The values are in"):
        plot_loss_3D(model, "levels", *data, **options)
    monkeypatch.setattr(model, "test_step", lambda *_: pytest.fail("computed"))
    with pytest.raises(ValueError, match=r"`path` must end in one of .*page shows surfaces"):
        plot_loss(model, data, path=path)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[html\]'"):
        plot_loss_3D(model, "levels", *data, **options)


def test_measures_and_exports_take_a_display(model, data, tmp_path):
    display = plot_loss(model, data, number_of_points=5, seed=0)
    np.testing.assert_array_equal(half_widths(display), half_widths(display.lines[0]))
    display = plot_loss_3D(model, "levels", *data, number_of_points=5, seed=0)
    assert report(display) == report(display.surface)
    assert non_convexity(display) == non_convexity(display.surface)
    write_reference(tmp_path / "reference.h5", train=display)
    loss = read_reference(tmp_path / "reference.h5")["train"].values["loss"]
    np.testing.assert_array_equal(loss, display.surface.values["loss"])
    with pytest.raises(TypeError, match="`line` must be a `LossLine`.*LossSurface"):
        half_widths(display.surface)
    both = plot_loss(model, (data, data), number_of_points=5)
    with pytest.raises(TypeError, match="`line` must be one `LossLine`. Received 2"):
        half_widths(both)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, d: plot_loss_3D(m, *d), TypeError, "second argument.*'levels', x, y.*ndarray"),
        (lambda m, d: plot_loss_3D(m, d, "levels"), TypeError, "second argument.*Received tuple"),
        (
            lambda m, d: plot_loss_3D(m, "levels", *d, cmpa="plasma"),
            TypeError,
            "'cmpa' is not an option of levels.*cmap",
        ),
        (
            lambda m, d: plot_loss_3D(m, "levels", *d, view=(1, 2)),
            TypeError,
            "'view' is not an option of levels",
        ),
        (
            lambda m, d: plot_loss_3D(m, "levels", *d, title="Test set"),
            TypeError,
            "'title' is not an option of levels.*`set_title`",
        ),
        (
            lambda m, d: plot_loss_3D(m, "levels", *d, cmap="virdis"),
            ValueError,
            "`cmap` must be a Matplotlib colormap.*'virdis'",
        ),
        (
            lambda m, d: plot_loss_3D(m, "levels", *d, levels=(2, 1)),
            ValueError,
            "`levels` must be increasing",
        ),
        (
            lambda m, d: plot_loss_3D(m, "3d", *d, limits=(1, 2, 3)),
            ValueError,
            r"`limits` must be two numbers, low and high. Received \(1, 2, 3\)",
        ),
        (
            lambda m, d: plot_loss_3D(m, "3d", *d, view=30),
            ValueError,
            "`view` must be two finite numbers. Received 30",
        ),
        (
            lambda m, d: plot_loss_3D(m, ("levels", "3d"), *d, ax=plt.gca()),
            ValueError,
            "`ax` must be a dict of axes by plot type, for levels, 3d. Received",
        ),
        (
            lambda m, d: plot_loss_3D(m, "3d", *d, ax=plt.gca()),
            ValueError,
            "`ax` must be 3d axes",
        ),
        (
            lambda m, d: plot_loss(m, d, 5),
            TypeError,
            "'tuple', 'int'.*The first is a whole dataset: pass.*by name.*number_of_points=5",
        ),
        (
            lambda m, d: evaluate_lines(m, *d, np.ones(64)),
            TypeError,
            r"`number_of_points`.*shape \(64,\).*`plot_loss\(model, \(x, y, sample_weight\)\)`",
        ),
        (
            lambda m, d: plot_loss_3D(m, "levels", d, 5),
            TypeError,
            "'tuple', 'int'.*The first is a whole dataset: pass.*by name.*number_of_points=5",
        ),
        (
            lambda m, d: plot_loss(m, tuple(part.tolist() for part in d)),
            TypeError,
            "'list', 'list'.*`np.asarray`",
        ),
        (lambda m, d: plot_loss(m, (d for _ in range(3))), TypeError, "iterator.*only once"),
        (lambda m, d: plot_loss(m, d, metric=["loss"]), TypeError, "name of a metric.*'loss'"),
        (
            lambda m, d: plot_loss_3D(m, "levels", *d, metric=keras.metrics.Mean()),
            TypeError,
            "`metric` must be the name of a metric.*Received <Mean",
        ),
        (lambda m, d: plot_loss("a.keras", d), TypeError, "Received str.*load_model"),  # noqa: ARG005
        (lambda m, d: plot_loss(m, d, extent=1), TypeError, r"two numbers.*\(-1, 1\). Received 1"),
        (lambda m, d: plot_loss(m, d, extent="Auto"), ValueError, "or 'auto'. Received 'Auto'"),
    ],
)
def test_slips_are_named_before_anything_is_computed(call, error, message, model, data):
    model.test_step = model.evaluate = lambda *_, **__: pytest.fail("computed")
    with pytest.raises(error, match=message):
        call(model, data)


def test_a_tilde_in_a_path_is_the_home_folder(model, data, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    display = plot_loss(model, data, number_of_points=3, path="~/line.png", checkpoint="~/line.h5")
    assert (tmp_path / "line.png").exists()
    loaded = LossLine.load("~/line.h5")
    np.testing.assert_array_equal(loaded.values["loss"], display.lines[0].values["loss"])


def test_vector_files_embed_fonts_that_journals_take(model, data, tmp_path):
    plot_loss(model, data, number_of_points=3, path=tmp_path / "line.pdf")
    content = (tmp_path / "line.pdf").read_bytes()
    assert b"/Type3" not in content
    assert b"/CIDFontType2" in content


def test_files_are_named_after_the_plot_types(model, data, tmp_path):
    plot_loss(model, data, number_of_points=3, path=tmp_path / "line.pdf")
    plot_loss_3D(model, "3d", *data, number_of_points=3, path=str(tmp_path / "surface.svg"))
    plot_loss_3D(model, ("levels", "3d"), *data, number_of_points=3, path=tmp_path / "both.png")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["both-3d.png", "both-levels.png", "line.pdf", "surface.svg"]
    image = matplotlib.image.imread(tmp_path / "both-levels.png")
    # A column of 3.5 inches at 300 dots.
    assert image.shape[1] == 1050


def test_a_figure_that_cannot_be_written_does_not_lose_the_values(
    model, data, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plt.Figure, "savefig", full)
    with pytest.warns(UserWarning, match=r"Could not write .*line.png.*No space left"):
        display = plot_loss(model, data, number_of_points=3, path=tmp_path / "line.png")
    assert np.isfinite(display.lines[0].values["loss"]).all()


BROKEN = [
    OSError(28, "No space left on device"),
    # From a PDF on a full disk, TeX, `np.seterr(all="raise")`, and warnings as errors.
    AttributeError("'Stream' object has no attribute 'pos'"),
    RuntimeError("latex was not able to process the following string"),
    FloatingPointError("underflow"),
    UserWarning("Glyph 945 missing from font"),
]


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_a_figure_that_cannot_be_saved_causes_a_warning(model, data, tmp_path, monkeypatch, error):
    path = tmp_path / "both.png"
    (tmp_path / "both-levels.png").write_bytes(b"of an earlier call")
    monkeypatch.setattr(plt.Figure, "savefig", failing(error))
    with pytest.warns(UserWarning, match="Could not write .*both-.*The figure is in the") as told:
        display = plot_loss_3D(model, ("levels", "3d"), *data, 3, path=path)
    ours = [warning for warning in told if warning.filename == __file__]
    assert len(ours) == 2
    assert all(type(error).__name__ in str(warning.message) for warning in ours)
    assert list(display.figures) == ["levels", "3d"]
    assert np.isfinite(display.surface.values["loss"]).all()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"of an earlier call"]
    assert not plt.get_fignums()


def test_a_warning_points_at_the_line_of_the_caller(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(plt.Figure, "savefig", failing(BROKEN[0]))
    for plot in (plot_loss, partial(plot_interpolation, model)):
        with pytest.warns(UserWarning, match="Could not write") as told:
            plot(model, data, number_of_points=2, path=tmp_path / "line.png")
        (ours,) = (each for each in told if "Could not write" in str(each.message))
        assert ours.filename == __file__


def test_a_full_disk_leaves_the_figure_that_was_there(model, data, tmp_path):
    path = tmp_path / "line.pdf"
    path.write_bytes(b"of an earlier call")
    warning = "Could not write .*line.pdf: OSError.*too large"
    with room_for(1000), pytest.warns(UserWarning, match=warning):
        display = plot_loss(model, data, number_of_points=3, path=path)
    assert np.isfinite(display.lines[0].values["loss"]).all()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"of an earlier call"]


def broken(name):
    """A plotting function of this name that fails halfway, as without TeX."""

    def draw(*_, **__):
        plt.figure()
        raise RuntimeError("latex could not be found")

    draw.__name__ = name
    return draw


@pytest.mark.parametrize("name", ["levels", "3d"])
def test_a_figure_that_cannot_be_drawn_causes_a_warning(model, data, tmp_path, monkeypatch, name):
    monkeypatch.setitem(losslandscape.PLOT_TYPES, name, broken("plot_one"))
    message = rf"Could not draw '{name}'.*call plot_one\(display, .*metric='loss'"
    with pytest.warns(UserWarning, match=message):
        display = plot_loss_3D(
            model, ("levels", "3d"), *data, 3, path=tmp_path / "both.png", scale="log"
        )
    (other,) = {"levels", "3d"} - {name}
    assert list(display.axes) == [other]
    assert [file.name for file in tmp_path.iterdir()] == [f"both-{other}.png"]
    assert np.isfinite(display.surface.values["loss"]).all()
    assert not plt.get_fignums()


def test_no_other_drawing_loses_the_values_either(model, data, tmp_path, monkeypatch):
    for name in ("plot_line", "plot_metrics", "plot_path", "plot_path_fidelity"):
        monkeypatch.setattr(losslandscape, name, broken(name))
    history = WeightHistory(tmp_path)
    model.fit(*data, epochs=3, callbacks=[history], verbose=0)
    with pytest.warns(UserWarning, match=r"'line'.*plot_line\(display"):
        line = plot_loss(model, data, number_of_points=3).lines[0]
    with pytest.warns(UserWarning, match=r"'loss'.*plot_metrics\(display"):
        way = plot_interpolation(model, model, data, number_of_points=3).lines[0]
    with pytest.warns(UserWarning, match=r"'(trajectory|fidelity)'.*plot_path\w*\(display"):
        path = plot_trajectory(model, history, *data, number_of_points=3).surface
    assert all(np.isfinite(value.values["loss"]).all() for value in (line, way, path))
    assert not plt.get_fignums()


def test_values_are_returned_even_if_warnings_are_errors(model, data, tmp_path, monkeypatch):
    for owner, name in ((plt.Figure, "savefig"), (plt, "show")):
        monkeypatch.setattr(owner, name, failing(UserWarning("Glyph 945 missing from font")))
    options = {"number_of_points": 3, "path": tmp_path / "a.png", "show": True}
    with warnings.catch_warnings(record=True) as given:
        # Only user warnings: Keras and NumPy give others before anything is computed.
        warnings.simplefilter("error", UserWarning)
        display = plot_loss(model, data, **options)
    assert np.isfinite(display.lines[0].values["loss"]).all()
    for warning, expected in zip(given, ("Could not write", "Could not show"), strict=True):
        assert expected in str(warning.message)


def test_numpy_set_to_raise_does_not_stop_drawing_and_saving(model, data, tmp_path):
    display = plot_loss_3D(model, ("levels", "3d"), *data, 3, seed=0)
    surface = display.surface
    surface.values["loss"][:] = np.geomspace(1e-300, 1e30, 9).reshape(3, 3)
    drawings = {"levels": partial(plot_levels, surface), "3d": partial(plot_surface, surface)}
    paths = {name: tmp_path / f"{name}.pdf" for name in drawings}
    with np.errstate(all="raise"):
        losslandscape._finish(display, drawings, paths, show=False)
        # Of what fails there, only a warning is left.
        for draw in drawings.values():
            draw()
    assert all(path.stat().st_size > 1000 for path in paths.values())


@pytest.mark.parametrize("settings", [{"text.usetex": True}, {"pgf.texsystem": "pdflatex"}])
def test_a_missing_tex_is_refused_before_computing(model, data, tmp_path, monkeypatch, settings):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(model, "test_step", lambda *_: pytest.fail("computed"))
    path = tmp_path / ("a.png" if "text.usetex" in settings else "a.pgf")
    with plt.rc_context(settings):
        with pytest.raises(ValueError, match=f"`path` .*{path.name}.*RuntimeError.*latex"):
            plot_loss(model, data, path=path)
        with pytest.raises(ValueError, match=f"cannot write .{path.suffix[1:]} figures here"):
            plot_loss_3D(model, "3d", *data, path=path)


def test_axes_of_a_subfigure_are_saved_with_their_figure(model, data, tmp_path):
    figure = plt.figure(layout="constrained")
    left, right = figure.subfigures(1, 2)
    right.subplots()
    path = tmp_path / "both.png"
    display = plot_loss(model, data, number_of_points=3, ax=left.subplots(), path=path)
    assert display.figures == {"line": figure}
    assert matplotlib.image.imread(path).shape[1] == 6.4 * 300


def test_3d_axes_are_refused_before_computing(model, data, monkeypatch):
    monkeypatch.setattr(model, "test_step", lambda *_: pytest.fail("computed"))
    with pytest.raises(ValueError, match=r"`ax` must be flat axes.*\['Axes3D'\]"):
        plot_loss(model, data, ax=plt.axes(projection="3d"))


def test_saved_figures_of_a_script_do_not_pile_up(model, data, tmp_path):
    _, ax = plt.subplots()
    mine = plt.get_fignums()
    for _ in range(2):
        display = plot_loss_3D(model, ("levels", "3d"), *data, 3, path=tmp_path / "both.png")
        plot_loss(model, data, number_of_points=3, ax=ax, path=tmp_path / "line.png")
    assert plt.get_fignums() == mine
    # They can still be used.
    display.figures["3d"].savefig(tmp_path / "again.png")
    assert (tmp_path / "again.png").exists()


def test_saved_figures_of_a_notebook_are_shown_once(model, data, tmp_path):
    with plt.ion():
        plot_loss_3D(model, ("levels", "3d"), *data, 3, path=tmp_path / "both.png")
    assert len(plt.get_fignums()) == 2


def test_figures_are_shown_only_on_request(model, data, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    plot_loss(model, data, number_of_points=3)
    assert not shown
    plot_loss(model, data, number_of_points=3, show=True)
    assert shown


def test_displays_print_as_one_line(model, data):
    display = plot_loss_3D(model, ("levels", "3d"), *data, number_of_points=3)
    assert repr(display) == (
        "LossDisplay(levels, 3d; LossSurface(loss, accuracy; 3 points alpha -1…1, "
        "3 points beta -1…1))"
    )
    assert not hasattr(display, "_repr_html_")
    assert "\n" not in repr(plot_loss(model, (data, data), number_of_points=3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("training set",), "Received 1 labels for 2 datasets"),
        (("a", "b", "c"), "Received 3 labels for 2 datasets"),
        ("ab", "Received 1 labels for 2 datasets"),
    ],
)
def test_labels_must_be_as_many_as_datasets(model, data, labels, message):
    with pytest.raises(AssertionError, match=message):
        plot_loss(model, (data, data), dataset_labels=labels)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": "ln"}, ValueError, "`scale` must be one of 'linear', 'log'. Received 'ln'"),
        ({"ax": "new"}, TypeError, "`ax` must be Matplotlib axes. Received str"),
        ({"path": "line.jpeg2"}, ValueError, r"`path` must end in one of .*\.png.*'line.jpeg2'"),
        ({"path": "nowhere/line.png"}, ValueError, "folder that exists.*'nowhere/line.png'"),
        ({"metric": "recall"}, ValueError, "`metric` must be one of 'loss', 'accuracy'.*'recall'"),
        ({"number_of_points": 0}, ValueError, "`number_of_points` must be at least 2. Received 0"),
        ({"number_of_directions": 0}, ValueError, "`number_of_directions` must be at least 1"),
    ],
)
def test_invalid_arguments_are_refused_before_drawing(model, data, options, error, message):
    with pytest.raises(error, match=message):
        plot_loss(model, data, **options)
    assert not plt.get_fignums()


def test_invalid_plot_types_are_refused_before_computing(model, data, monkeypatch):
    monkeypatch.setattr(model, "evaluate", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(ValueError, match="`plot_types` must be one of 'levels', '3d'.*'contour'"):
        plot_loss_3D(model, "contour", *data)
    with pytest.raises(ValueError, match="`plot_types` must be one of 'levels', '3d'.*'2d'"):
        plot_loss_3D(model, ("3d", "2d"), *data)
    with pytest.raises(ValueError, match="`plot_types` is empty. Pass some of 'levels', '3d'"):
        plot_loss_3D(model, (), *data)
    with pytest.raises(ValueError, match="`directions` must hold 2 directions. Received 1"):
        plot_loss_3D(model, "3d", *data, directions=random_directions(model))


def test_plot_interpolation_draws_the_loss_and_every_metric(model, data, tmp_path):
    other = keras.models.clone_model(model)
    labels, options = ("training set", "test set"), {"metric": "accuracy"}
    display = plot_interpolation(
        model,
        other,
        (data, data),
        dataset_labels=labels,
        number_of_points=5,
        path=tmp_path / "line.png",
        **options,
    )
    assert list(display.axes) == ["loss", "accuracy"]
    loss, accuracy = display.axes.values()
    assert loss.figure is accuracy.figure
    assert (loss.get_xlabel(), accuracy.get_xlabel()) == ("", "α")
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    np.testing.assert_array_equal(
        accuracy.lines[1].get_ydata(), display.lines[1].values["accuracy"][0]
    )
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["training set", "test set"]
    assert accuracy.get_legend() is None
    assert (tmp_path / "line.png").exists()
    with pytest.raises(AssertionError, match="`dataset_labels` must be one per dataset"):
        plot_interpolation(model, other, data, dataset_labels=("a", "b"))
    with pytest.raises(ValueError, match="`metric` must be one of 'loss', 'accuracy'.*'d_loss'"):
        plot_interpolation(model, other, data, metric="d_loss", verbose=0)


def test_plot_trajectory_draws_the_path_and_its_fidelity(model, data, tmp_path):
    history = WeightHistory(tmp_path / "history")
    model.fit(*data, epochs=4, callbacks=[history], verbose=0)
    path = tmp_path / "training.png"
    display = plot_trajectory(model, history, *data, number_of_points=3, scale="log", path=path)
    assert list(display.axes) == ["trajectory", "fidelity"]
    np.testing.assert_array_equal(
        display.axes["trajectory"].lines[0].get_xydata(), display.surface.path
    )
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == ["training-fidelity.png", "training-trajectory.png"]
    plot_trajectory(model, history, *data, number_of_points=3, path=path.with_suffix(".html"))
    assert '"moments": ["epoch 0", "epoch 1"' in (tmp_path / "training.html").read_text()
