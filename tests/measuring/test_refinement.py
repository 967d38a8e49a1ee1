"""Refinement: few points are measured where the landscape is smooth, and all where it is not."""

import keras
import numpy as np
import pytest
from keras import layers
from quadratic import quadratic_model

from losslandscape import (
    LossLine,
    LossSurface,
    evaluate_line,
    evaluate_lines,
    evaluate_surface,
    evaluate_surfaces,
    evaluation,
    plot_levels,
    plot_loss,
    plot_loss_3D,
    random_directions,
    report,
)
from losslandscape.measuring.refinement import Refinement

ONES = np.ones((4, 1), "float32"), np.ones((4, 1), "float32")


class Shaped(layers.Layer):
    """Two weights, of which a function is the output for any input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def build(self, _):
        self.position = self.add_weight(shape=(2,), initializer="zeros", name="position")

    def call(self, inputs):
        return 0 * inputs + self.function(self.position[0], self.position[1])


def shaped_model(function):
    model = keras.Sequential([keras.Input((1,)), Shaped(function)])
    model.compile(loss=lambda _, output: output)
    return model


AXES = [[np.array([1.0, 0.0])], [np.array([0.0, 1.0])]]
EXP, ABS, SIN, WHERE = keras.ops.exp, keras.ops.abs, keras.ops.sin, keras.ops.where
LANDSCAPES = {
    "funnel": lambda a, b: 0.02 + 12 * (1 - EXP(-(3 * a**2 + 2 * b**2))),
    "ridge": lambda a, b: 1 + ABS(a - 0.7 * b),
    "step": lambda a, b: WHERE(a + b > 0.3, 2.0, 1.0),
    "hole": lambda a, b: WHERE(a + b > 0.9, np.nan, 1 + a**2 + b**2),
    "waves": lambda a, b: 2 + SIN(9 * a) * SIN(7 * b),
}


@pytest.mark.parametrize("name", LANDSCAPES)
def test_interpolated_points_are_as_exact_as_asked(name):
    model = shaped_model(LANDSCAPES[name])
    options = {"number_of_points": (33, 21), "directions": AXES, "verbose": 0}
    whole = evaluate_surface(model, *ONES, **options).values["loss"]
    surface = evaluate_surface(model, *ONES, accuracy=0.01, **options)
    values = surface.values["loss"]
    np.testing.assert_array_equal(np.isnan(values), np.isnan(whole))
    assert np.nanmax(np.abs(values - whole)) <= 0.01 * np.ptp(whole[np.isfinite(whole)])
    measured = ~surface.interpolated
    np.testing.assert_allclose(values[measured], whole[measured], rtol=1e-6)
    assert surface.metadata["accuracy"] == 0.01


@pytest.mark.parametrize(
    ("name", "share"), [("funnel", 0.4), ("ridge", 0.7), ("step", 0.7), ("hole", 0.7)]
)
def test_lines_are_as_exact_as_asked(name, share):
    options = {
        "number_of_points": 65,
        "directions": [*AXES, [np.array([0.6, -0.8])]],
        "extent": (-1, 1.3),
        "verbose": 0,
    }
    model = shaped_model(LANDSCAPES[name])
    whole = evaluate_line(model, *ONES, **options).values["loss"]
    line = evaluate_line(model, *ONES, accuracy=0.01, **options)
    values, measured = line.values["loss"], ~line.interpolated
    np.testing.assert_array_equal(np.isnan(values), np.isnan(whole))
    assert np.nanmax(np.abs(values - whole)) <= 0.01 * np.ptp(whole[np.isfinite(whole)])
    np.testing.assert_allclose(values[measured], whole[measured], rtol=1e-6)
    assert 0 < np.mean(measured) < share
    assert line.metadata["accuracy"] == 0.01
    assert line.metadata["interpolation_errors"]["loss"] <= 0.01
    assert line.metadata["interpolation_checks"] > 0


def test_low_losses_are_as_exact_on_a_logarithmic_scale():
    # The waves where the loss is low are far below a hundredth of its range.
    waves = lambda a, b: EXP(8 * a + SIN(20 * a)) + 0 * b  # noqa: E731
    options = {"number_of_points": 129, "directions": AXES[:1], "verbose": 0}
    whole = np.log(evaluate_line(shaped_model(waves), *ONES, **options).values["loss"])
    line = evaluate_line(shaped_model(waves), *ONES, accuracy=0.01, **options)
    assert line.interpolated.any()
    assert np.abs(np.log(line.values["loss"]) - whole).max() <= 0.01 * np.ptp(whole)


def test_a_kink_on_one_line_has_no_points_measured_on_another():
    kinked = lambda a, b: 1 + ABS(a - 0.3) + b**2  # noqa: E731
    line = evaluate_line(shaped_model(kinked), *ONES, 65, directions=AXES, accuracy=0.01, verbose=0)
    along_kink, along_parabola = np.count_nonzero(~line.interpolated, axis=1)
    # Besides the first nine, only points of the random check.
    assert along_parabola < 9 + 12
    assert along_kink > 2 * 9
    assert not line.interpolated[0, np.abs(line.alphas - 0.3) < 0.04].any()


def test_chaotic_lines_are_measured_everywhere():
    noise = lambda a, b: 2 + SIN(4e3 * a + 7e3 * b)  # noqa: E731
    line = evaluate_line(shaped_model(noise), *ONES, 33, directions=AXES, accuracy=0.01, verbose=0)
    assert not line.interpolated.any()


def test_every_dataset_decides_about_lines(model, data, tmp_path):
    x, y = data
    parts = (x[:32], y[:32]), (x[32:], y[32:])
    options = {"number_of_points": 65, "number_of_directions": 2, "seed": 0, "verbose": 0}
    wholes = evaluate_lines(model, parts, **options)
    lines = evaluate_lines(model, parts, accuracy=0.02, checkpoint=tmp_path / "l.h5", **options)
    for number, (line, whole) in enumerate(zip(lines, wholes, strict=True), start=1):
        errors = np.abs(line.values["loss"] - whole.values["loss"])
        assert errors.max() <= 0.02 * np.ptp(whole.values["loss"])
        np.testing.assert_array_equal(line.interpolated, lines[0].interpolated)
        # The checkpoint holds what was measured, and only that.
        kept = LossLine.load(tmp_path / f"l-{number}.h5")
        np.testing.assert_array_equal(kept.missing, line.interpolated)
    assert 0 < np.mean(lines[0].interpolated) < 1


def test_interpolated_points_of_a_line_are_counted_in_a_note(tmp_path):
    model = shaped_model(LANDSCAPES["funnel"])
    display = plot_loss(
        model,
        [ONES],
        number_of_points=65,
        directions=AXES[:1],
        accuracy=0.01,
        path=tmp_path / "l.png",
    )
    (line,) = display.lines
    number = np.count_nonzero(line.interpolated)
    note = f"{number} of 65 points interpolated, within 0.01"
    assert number > 30
    assert note in [text.get_text() for text in display.axes["line"].texts]
    display.save(tmp_path / "line.h5")
    np.testing.assert_array_equal(
        LossLine.load(tmp_path / "line.h5").interpolated, line.interpolated
    )


def test_a_quadratic_is_known_from_nine_points_per_axis():
    model = quadratic_model()
    options = {"directions": random_directions(model, 2, seed=0), "verbose": 0}
    surface = evaluate_surface(model, *ONES, 49, accuracy=0.01, **options)
    # A twelfth of the others is measured as a check.
    assert np.count_nonzero(~surface.interpolated) == 81 + int(np.ceil((2401 - 81) / 12))
    assert surface.metadata["interpolation_errors"]["loss"] < 1e-4
    assert surface.metadata["interpolation_checks"] == 194
    expected = evaluate_surface(model, *ONES, 49, **options).values["loss"]
    np.testing.assert_allclose(surface.values["loss"], expected, rtol=1e-4, atol=1e-5)


def test_chaos_is_measured_everywhere():
    noise = lambda a, b: 2 + SIN(4e3 * a + 7e3 * b)  # noqa: E731
    surface = evaluate_surface(
        shaped_model(noise), *ONES, 21, directions=AXES, accuracy=0.01, verbose=0
    )
    assert not surface.interpolated.any()


def test_a_funnel_takes_a_fifth_of_the_points():
    options = {"number_of_points": 49, "directions": AXES, "verbose": 0}
    model = shaped_model(LANDSCAPES["funnel"])
    whole = evaluate_surface(model, *ONES, **options).values["loss"]
    surface = evaluate_surface(model, *ONES, accuracy=0.01, **options)
    assert np.mean(~surface.interpolated) <= 0.2
    errors = np.abs(surface.values["loss"] - whole) / np.ptp(whole)
    assert errors.max() <= 0.01
    # The reported error is that of some points.
    assert 0 < surface.metadata["interpolation_errors"]["loss"] <= 0.01
    errors = np.abs(np.log(surface.values["loss"] / whole)) / np.ptp(np.log(whole))
    assert errors.max() <= 0.01


def test_a_failed_check_has_what_is_around_it_measured(monkeypatch):
    # A plane at the first nine points per axis, with a needle between them.
    needle = lambda a, b: 2 + a + EXP(-3e3 * ((a - 0.3) ** 2 + (b + 0.3) ** 2))  # noqa: E731
    model, top = shaped_model(needle), 7 * 21 + 13
    options = {"number_of_points": 21, "directions": AXES, "accuracy": 0.01, "verbose": 0}
    missed = evaluate_surface(model, *ONES, **options)
    assert missed.interpolated.flat[top]
    # Had the check hit it, as it does elsewhere.
    monkeypatch.setattr(Refinement, "_to_check", lambda *_: np.array([top]))
    surface = evaluate_surface(model, *ONES, **options)
    whole = evaluate_surface(model, *ONES, **options | {"accuracy": None}).values["loss"]
    assert surface.interpolated.any()
    np.testing.assert_allclose(surface.values["loss"], whole, atol=0.01 * np.ptp(whole))


def test_what_all_levels_miss_is_found_by_the_check():
    # Waves that are 0 at each fourth point, and so between them for the splines.
    waves = lambda a, b: 2 + a**2 + SIN(8 * np.pi * a) * SIN(8 * np.pi * b)  # noqa: E731
    options = {"number_of_points": 33, "directions": AXES, "verbose": 0}
    model = shaped_model(waves)
    whole = evaluate_surface(model, *ONES, **options).values["loss"]
    surface = evaluate_surface(model, *ONES, accuracy=0.01, **options)
    np.testing.assert_allclose(surface.values["loss"], whole, atol=0.01 * np.ptp(whole))
    assert np.mean(~surface.interpolated) > 0.7


def test_two_failed_checks_have_everything_measured(monkeypatch):
    failed = {"loss": 0.02}
    monkeypatch.setattr(Refinement, "_largest_errors", lambda *_: failed)
    options = {"number_of_points": 33, "directions": AXES, "accuracy": 0.01, "verbose": 0}
    surface = evaluate_surface(shaped_model(LANDSCAPES["funnel"]), *ONES, **options)
    assert not surface.interpolated.any()


def test_every_dataset_and_metric_that_is_asked_for_decides(model, data):
    x, y = data
    parts = (x[:32], y[:32]), (x[32:], y[32:])
    options = {"number_of_points": 17, "seed": 0, "extent": (-0.2, 0.2), "verbose": 0}
    wholes = evaluate_surfaces(model, parts, **options)
    for metric in ("loss", ["loss", "accuracy"]):
        surfaces = evaluate_surfaces(model, parts, accuracy=0.02, metric=metric, **options)
        for surface, whole in zip(surfaces, wholes, strict=True):
            for name in [metric] if isinstance(metric, str) else metric:
                errors = np.abs(surface.values[name] - whole.values[name])
                assert errors.max() <= 0.02 * np.ptp(whole.values[name])
        np.testing.assert_array_equal(surfaces[0].interpolated, surfaces[1].interpolated)


def refined(refinement, truth):
    """All values as they are completed, and which of them were not measured."""
    measured, is_missing, found = np.full(truth.size, np.nan), np.ones(truth.size, bool), {}
    for indices in refinement.rounds([{"loss": measured}], found):
        measured[indices] = truth.ravel()[indices]
        is_missing[indices] = False
    ((completed,), _) = refinement.interpolated([{"loss": measured}], is_missing, found)
    return completed["loss"], is_missing


# Three points per axis and a check; a second check; or five points per axis and a check, after one
# that may have measured some of them.
@pytest.mark.parametrize(("size", "numbers"), [(0.05, [13]), (0.08, [17]), (0.2, range(29, 34))])
@pytest.mark.parametrize("lowest", [5, -4], ids=["positive", "negative"])
def test_what_a_check_finds_corrects_a_smooth_difference(lowest, size, numbers):
    axis = np.linspace(-1, 1, 33)
    alphas, betas = np.meshgrid(axis, axis)
    few = lowest + alphas**2 + 2 * betas**2
    # Splines through three points per axis do not see it.
    truth = few + size * (alphas**3 - alphas)
    few = LossSurface(axis, axis, {"loss": few}, {"loss": float(lowest)}, {})
    refinement = Refinement([axis, axis], 0.01, ("loss",)).beyond([few], [6])
    completed, is_missing = refined(refinement, truth)
    assert np.count_nonzero(~is_missing) in numbers
    errors = np.abs(completed - truth.ravel()) / np.ptp(truth)
    assert errors.max() < 0.01
    np.testing.assert_array_equal(errors[~is_missing], 0)


def test_rough_differences_are_left_to_what_is_measured_on_more_samples():
    axis = np.linspace(-1, 1, 33)
    alphas, betas = np.meshgrid(axis, axis)
    bowl = 5 + alphas**2 + 2 * betas**2
    few = LossSurface(axis, axis, {"loss": bowl}, {"loss": 5.0}, {})
    refinement = Refinement([axis, axis], 0.01, ("loss",)).beyond([few], [6])
    rough = bowl + np.random.default_rng(0).uniform(-0.5, 0.5, bowl.shape)
    _, is_missing = refined(refinement, rough)
    assert not is_missing.any()
    _, is_missing = refined(refinement.of_bases(), rough)
    assert is_missing.mean() > 0.8


def test_an_interrupted_call_resumes_and_interpolates_the_same(tmp_path, monkeypatch):
    model = shaped_model(LANDSCAPES["funnel"])
    options = {"number_of_points": 33, "directions": AXES, "accuracy": 0.01, "verbose": 0}
    whole = evaluate_surface(model, *ONES, **options)
    advance, done = evaluation.Progress.advance, []

    def fail(progress, number, value):
        advance(progress, number, value)
        done.append(number)
        if sum(done) > 100:
            raise RuntimeError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation.Progress, "advance", fail)
        with pytest.raises(RuntimeError):
            evaluate_surface(model, *ONES, checkpoint=tmp_path / "s.h5", **options)
    known = ~LossSurface.load(tmp_path / "s.h5").missing
    assert 100 < np.count_nonzero(known) < np.count_nonzero(~whole.interpolated)
    resumed = evaluate_surface(model, *ONES, checkpoint=tmp_path / "s.h5", **options)
    np.testing.assert_array_equal(resumed.interpolated, whole.interpolated)
    np.testing.assert_allclose(resumed.values["loss"], whole.values["loss"], rtol=1e-6)


def test_interpolated_points_are_never_passed_off_as_measured(tmp_path):
    model = shaped_model(LANDSCAPES["funnel"])
    options = {"number_of_points": 33, "directions": AXES, "accuracy": 0.01, "verbose": 0}
    display = plot_loss_3D(model, "levels", *ONES, **options)
    number = np.count_nonzero(display.surface.interpolated)
    assert number > 0
    note = f"{number} of 1089 points interpolated, within 0.01"
    assert note in [text.get_text() for text in display.axes["levels"].texts]
    display.save(tmp_path / "surface.h5")
    loaded = LossSurface.load(tmp_path / "surface.h5")
    np.testing.assert_array_equal(loaded.interpolated, display.surface.interpolated)
    ax = plot_levels(loaded)
    assert note in [text.get_text() for text in ax.texts]
    assert loaded.slice(beta=0).interpolated.any()
    (finding,) = [each for each in report(loaded) if "interpolated" in each.check]
    assert finding.value == pytest.approx(number / 1089)


class Samples(layers.Layer):
    """Two weights; a function of them and of the input is the output."""

    def build(self, _):
        self.position = self.add_weight(shape=(2,), initializer="zeros", name="position")

    def call(self, inputs):
        a, b = self.position[0], self.position[1]
        return 3 * (1 - EXP(-(3 * a**2 + 2 * b**2))) + inputs * (a + 0.5 * b) + 0.1 * inputs


@pytest.fixture(scope="module")
def many():
    """A model, and samples of two sizes that make batches of unequal sizes."""
    model = keras.Sequential([keras.Input((1,)), Samples()])
    # One is a mean over samples, the other is not.
    model.compile(loss="mse", metrics=[keras.metrics.RootMeanSquaredError()])
    generator = np.random.default_rng(0)
    x = generator.normal(0.3, 1, (18000, 1)).astype("float32")
    return model, ((x, 0 * x), (x[:2990], 0 * x[:2990]))


MANY = {
    "number_of_points": 17,
    "directions": AXES,
    "metric": ["loss", "root_mean_squared_error"],
    "batch_size": 290,
    "sampling_error": True,
    "accuracy": 0.01,
    "verbose": 0,
}


def test_few_samples_at_many_points_and_all_at_few_are_as_exact_as_asked(many):
    model, (data, small) = many
    wholes = evaluate_surfaces(model, (data, small), **MANY | {"accuracy": None})
    surfaces = evaluate_surfaces(model, (data, small), **MANY)
    for surface, whole in zip(surfaces, wholes, strict=True):
        for name in MANY["metric"]:
            errors = np.abs(surface.values[name] - whole.values[name])
            assert errors.max() <= 0.01 * np.ptp(whole.values[name])
            ratios = np.abs(np.log(surface.values[name] / whole.values[name]))
            assert ratios.max() <= 0.01 * np.ptp(np.log(whole.values[name]))
            assert surface.metadata["interpolation_errors"][name] <= 0.01
            measured = ~surface.interpolated
            np.testing.assert_allclose(
                surface.values[name][measured], whole.values[name][measured], rtol=1e-5
            )
        np.testing.assert_allclose(list(surface.center.values()), list(whole.center.values()))
        # Only of the mean, and interpolated, too: of 20 blocks it is uncertain by a sixth itself.
        assert surface.errors.keys() == whole.errors.keys() == {"loss"}
        expected = whole.errors["loss"]
        np.testing.assert_allclose(surface.errors["loss"], expected, atol=expected.max() / 6)
    told, told_of_small = (surface.metadata for surface in surfaces)
    (few, at_many), (more, at_some) = told["few_samples"]
    assert (few, more, told["dataset_size"]) == (500, 3000, 18000)
    # Of 81 and a check, in one level; here, of 25 and a check.
    assert np.count_nonzero(~surfaces[0].interpolated) < 81 < at_many
    assert at_some < at_many
    assert [size for size, _ in told_of_small["few_samples"]] == [2990, 2990]
    (finding,) = [each for each in report(surfaces[0]) if "interpolated" in each.check]
    assert f"Of 18,000 samples, others were measured: {at_many} on 500" in finding.warning


def test_what_few_samples_say_resumes_with_the_same_bits(many, tmp_path, monkeypatch):
    model, (data, _) = many
    whole = evaluate_surface(model, *data, **MANY)
    advance, done, limits = evaluation.Progress.advance, [], []

    def fail(progress, number, value):
        advance(progress, number, value)
        done.append(number)
        if sum(done) > limits[-1]:
            raise RuntimeError("the machine went down")

    # While few samples are measured, and while all are.
    for limit in (40, sum(points for _, points in whole.metadata["few_samples"]) + 5):
        limits.append(limit)
        with monkeypatch.context() as patch:
            patch.setattr(evaluation.Progress, "advance", fail)
            with pytest.raises(RuntimeError):
                evaluate_surface(model, *data, checkpoint=tmp_path / "s.h5", **MANY)
    assert (tmp_path / "s-500.h5").exists()
    assert (tmp_path / "s-3000.h5").exists()
    resumed = evaluate_surface(model, *data, checkpoint=tmp_path / "s.h5", **MANY)
    for name, values in whole.values.items():
        np.testing.assert_array_equal(resumed.values[name], values)
    np.testing.assert_equal(resumed.errors, whole.errors)
    assert {**resumed.metadata} == {**whole.metadata}


@pytest.mark.parametrize(
    ("accuracy", "error"), [(0, ValueError), (1.5, ValueError), ("1%", TypeError)]
)
def test_an_accuracy_that_is_no_share_is_refused(accuracy, error):
    with pytest.raises(error, match="`accuracy` must be"):
        evaluate_surface(quadratic_model(), *ONES, accuracy=accuracy)
    with pytest.raises(error, match="`accuracy` must be"):
        evaluate_line(quadratic_model(), *ONES, accuracy=accuracy)
