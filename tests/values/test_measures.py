"""Measures: against lines and surfaces whose numbers are known in closed form."""

import sys

import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats
from sklearn.datasets import load_digits

from losslandscape import (
    LossBarriers,
    LossLine,
    LossSurface,
    LossTrajectory,
    evaluate_surface,
    evaluate_surfaces,
    random_directions,
    report,
)
from losslandscape.values.measures import (
    asymmetry,
    confidence_interval,
    convex_level,
    convex_radius,
    epsilon_sharpness,
    expected_sigma,
    half_widths,
    loss_barrier,
    loss_rise,
    non_convexity,
    quadratic_half_widths,
    worst_sigma,
)
from losslandscape.values.surfaces import Spectrum


def line_of(*functions, alphas=None):
    alphas = np.linspace(-1, 1, 2001) if alphas is None else np.asarray(alphas, float)
    values = np.array([function(alphas) for function in functions])
    return LossLine(alphas, {"loss": values}, {"loss": float(functions[0](0.0))}, {})


def surface_of(function, number=41, extent=1.0):
    alphas, betas = np.linspace(-extent, extent, number), np.linspace(-extent, extent, number + 2)
    values = function(*np.meshgrid(alphas, betas))
    return LossSurface(alphas, betas, {"loss": values}, {"loss": float(function(0.0, 0.0))}, {})


def test_half_widths_of_parabolas_are_exact():
    # 3 + c·α² rises by 1 at α = 1 / √c.
    line = line_of(lambda a: 3 + 4 * a**2, lambda a: 3 + 25 * a**2)
    np.testing.assert_allclose(half_widths(line), [0.5, 0.2], rtol=1e-5)
    np.testing.assert_allclose(half_widths(line, rise=0.25), [0.25, 0.1], rtol=1e-4)


def test_unfinished_lines_are_refused():
    line = line_of(lambda a: a**2, alphas=[-1, 0, 1])
    line.metadata["missing"] = [2]
    with pytest.raises(ValueError, match="must be complete, but 1 points are missing in LossLine"):
        half_widths(line)


def test_a_complete_surface_is_measured_though_its_path_is_unfinished():
    bowl = surface_of(lambda a, b: a**2 + b**2, number=5)
    path, on_path = np.zeros((2, 2)), {"loss": np.array([0.0, np.nan])}
    trajectory = LossTrajectory(
        bowl.alphas, bowl.betas, bowl.values, bowl.center, {"missing": [5 * 7 + 1]},
        path, path[0], path[0], on_path, on_path,
    )  # fmt: skip
    assert loss_rise(trajectory, 1.0) == pytest.approx(1)
    trajectory.metadata["missing"].append(34)
    with pytest.raises(ValueError, match="must be complete, but 1 points are missing"):
        loss_rise(trajectory, 1.0)


def test_half_widths_are_the_mean_of_both_sides():
    line = line_of(lambda a: np.where(a < 0, -2 * a, 5 * a), alphas=np.linspace(-1, 1, 7))
    # Linear between the points, so exact even on a coarse grid.
    np.testing.assert_allclose(half_widths(line), [(1 / 2 + 1 / 5) / 2], rtol=1e-12)


def test_half_widths_take_the_first_crossing():
    line = line_of(lambda a: 2 * np.sin(np.pi * 2 * np.abs(a)))
    np.testing.assert_allclose(half_widths(line), [1 / 12], rtol=1e-5)


def test_half_widths_of_flat_and_broken_lines():
    flat = line_of(lambda a: 0.1 * a**2)
    assert half_widths(flat).tolist() == [np.inf]
    broken = line_of(lambda a: np.where(np.abs(a) > 0.3, np.nan, 0 * a), alphas=[-1, -0.2, 0.25, 1])
    # Non-finite losses are infinitely high: the crossing is at the last finite point.
    np.testing.assert_allclose(half_widths(broken), [(0.2 + 0.25) / 2])


def test_half_widths_need_both_sides_and_a_rise():
    with pytest.raises(ValueError, match=r"both sides of 0.*extent of \(0, 1\)"):
        half_widths(line_of(np.square, alphas=[0, 0.5, 1]))
    with pytest.raises(ValueError, match="`rise` must be greater than 0 and finite. Received 0"):
        half_widths(line_of(np.square), rise=0)
    with pytest.raises(ValueError, match="`metric` must be one of 'loss'. Received 'accuracy'"):
        half_widths(line_of(np.square), metric="accuracy")


def test_quadratic_half_widths_are_where_a_parabola_has_risen():
    line = line_of(lambda a: 3 + 4 * a**2, lambda a: 3 + 25 * a**2)
    np.testing.assert_allclose(quadratic_half_widths([8, 50], 0.25), half_widths(line, 0.25), 1e-4)
    # What does not curve upwards never rises.
    np.testing.assert_array_equal(quadratic_half_widths([0, -3, np.nan]), [np.inf, np.inf, np.nan])
    assert quadratic_half_widths(2.0) == 1
    with pytest.raises(ValueError, match="`rise` must be greater than 0 and finite. Received -1"):
        quadratic_half_widths([1.0], rise=-1)


def test_confidence_intervals_follow_students_t():
    values = np.random.default_rng(0).normal(5, 2, 10)
    mean, low, high = confidence_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean, low, high], [values.mean(), *expected], rtol=1e-12)
    assert str(confidence_interval([1.0, 1.0])) == "1 [1, 1]"
    assert str(confidence_interval([1.0, np.inf])) == "inf [nan, nan]"
    with pytest.raises(ValueError, match="at least 2 numbers.*Received 1"):
        confidence_interval([1.0])


def test_confidence_intervals_contain_the_mean_as_often_as_claimed():
    samples = np.random.default_rng(0).normal(3, 1, (2000, 5))
    intervals = [confidence_interval(sample, 0.8) for sample in samples]
    share = np.mean([low <= 3 <= high for _, low, high in intervals])
    assert abs(share - 0.8) < 0.03


def test_a_missing_scipy_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ImportError, match=r"scipy, of the extra `analysis`.*\.\[analysis\]"):
        confidence_interval([1.0, 2.0])


def test_non_convexity_of_quadratics():
    assert non_convexity(surface_of(lambda a, b: a**2 + 3 * a * b + 5 * b**2)) == 0
    # The mixed term outweighs the others: a saddle everywhere.
    assert non_convexity(surface_of(lambda a, b: a**2 + 5 * a * b + 5 * b**2)) == 1
    # Flat along β: not curved downwards, despite rounding.
    assert non_convexity(surface_of(lambda a, b: 1000 + a**2 + 0 * b)) == 0


def test_non_convexity_counts_points_that_curve_downwards():
    surface = surface_of(lambda a, b: (a**2 - 0.25) ** 2 + b**2)
    # The second difference of a quartic is exactly 12α² + 2h² - 1 here.
    inner, step = surface.alphas[1:-1], np.diff(surface.alphas)[0]
    expected = np.mean(12 * inner**2 + 2 * step**2 - 1 < 0)
    assert 0 < expected < 1
    np.testing.assert_allclose(non_convexity(surface), expected)


def test_non_convexity_below_a_level_counts_only_the_basin():
    # The cosine curves downwards where it is positive, at any step.
    line = line_of(np.cos, lambda a: -(a**2), lambda a: a**2, alphas=np.linspace(-3, 3, 61))
    np.testing.assert_allclose(non_convexity(line), [(np.cos(line.alphas[1:-1]) > 0).mean(), 1, 0])
    np.testing.assert_allclose(non_convexity(line, below=-0.01), [0, 1, np.nan])
    surface = surface_of(lambda a, b: np.cos(a) + b**2, 61, extent=3)
    values = surface.values["loss"][1:-1, 1:-1]
    inner = np.cos(surface.alphas[1:-1]) > 0
    expected = np.broadcast_to(inner, values.shape)[values <= 0.5].mean()
    np.testing.assert_allclose(non_convexity(surface, below=0.5), expected)


def test_non_convexity_leaves_out_non_finite_values():
    surface = surface_of(lambda a, b: np.where(a > 0.5, np.inf, -(a**2) - b**2))
    assert non_convexity(surface) == 1
    assert np.isnan(non_convexity(surface_of(lambda a, b: np.nan * a * b)))
    with pytest.raises(ValueError, match=r"at least 3 points per axis.*\(4, 2\)"):
        non_convexity(surface_of(lambda a, b: a + b, number=2))


def test_convex_level_of_a_convex_loss_is_its_highest():
    surface = surface_of(lambda a, b: 2 + a**2 + a * b + 5 * b**2)
    assert convex_level(surface) == surface.values["loss"].max()


def test_convex_level_ends_where_two_basins_meet():
    # Two disks that touch at α = 0.4625 on the level 0.4625² = 0.2139.
    surface = surface_of(
        lambda a, b: np.minimum(a**2 + b**2, (a - 0.8) ** 2 + b**2 + 0.1), number=81
    )
    assert convex_level(surface) == pytest.approx(0.2139, abs=0.02)


def test_convex_level_considers_only_the_models_basin():
    # Below the crest, the ring around the model's bowl is never connected to it.
    ring = surface_of(lambda a, b: np.sin(2 * np.pi * np.hypot(a, b)) + np.hypot(a, b))
    crest = 0.2751 + np.sin(2 * np.pi * 0.2751)
    assert convex_level(ring) == pytest.approx(crest, abs=0.05)


def test_convex_level_stops_at_non_finite_values():
    surface = surface_of(lambda a, b: np.where(np.hypot(a - 0.5, b) < 0.2, np.nan, a**2 + b**2))
    # The hole begins at α = 0.3.
    assert convex_level(surface) == pytest.approx(0.09, abs=0.03)


def test_convex_level_needs_the_model_inside_the_extent():
    surface = surface_of(lambda a, b: a**2 + b**2)
    beside = LossSurface(surface.alphas + 3, surface.betas, surface.values, surface.center, {})
    with pytest.raises(ValueError, match="model inside its extent.*alpha from 2 to 4"):
        convex_level(beside)


def test_convex_radius_is_the_distance_to_the_first_downward_bend():
    # The second derivative of -cos(πα) is π²·cos(πα), positive up to 0.5.
    line = line_of(lambda a: -np.cos(np.pi * a), np.square)
    np.testing.assert_allclose(convex_radius(line), [0.5, np.inf], atol=2e-3)
    surface = surface_of(lambda a, b: -np.cos(np.pi * np.hypot(a, b)), number=81)
    assert convex_radius(surface) == pytest.approx(0.5, abs=0.03)
    assert convex_radius(surface_of(lambda a, b: a**2 + b**2)) == np.inf


def test_flat_losses_in_single_precision_do_not_bend():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (43, 41))
    values = (1000 + noise * np.spacing(np.float32(1000))).astype("float32").astype(float)
    grid = np.linspace(-1, 1, 41), np.linspace(-1, 1, 43)
    assert non_convexity(LossSurface(*grid, {"loss": values}, {"loss": 1000.0}, {})) == 0


def test_loss_rise_is_the_highest_within_the_radius():
    surface = surface_of(lambda a, b: 2 + a**2 + 4 * b**2, number=41)
    points = [(a, b) for a in surface.alphas for b in surface.betas if a**2 + b**2 <= 0.5**2]
    assert loss_rise(surface, 0.5) == pytest.approx(max(a**2 + 4 * b**2 for a, b in points))
    line = line_of(lambda a: 2 + a**2, lambda a: 2 - a, alphas=np.linspace(-1, 1, 21))
    np.testing.assert_allclose(loss_rise(line, 0.5), [0.25, 0.5])
    # Nothing rises around a maximum.
    assert loss_rise(surface_of(lambda a, b: -(a**2) - b**2), 0.5) == 0


def test_epsilon_sharpness_is_that_of_keskar():
    surface = surface_of(lambda a, b: 3 + a**2 + 4 * b**2, number=41)
    alpha, beta = (np.max(axis[axis <= 0.5]) for axis in (surface.alphas, surface.betas))
    # The highest point of the box is its corner; the rise is relative to 1 + L0.
    assert epsilon_sharpness(surface, 0.5) == pytest.approx(100 * (alpha**2 + 4 * beta**2) / 4)
    line = line_of(lambda a: 3 + a**2, alphas=np.linspace(-1, 1, 21))
    np.testing.assert_allclose(epsilon_sharpness(line, 0.5), [100 * 0.25 / 4])


def test_holes_are_infinitely_sharp_and_coarse_grids_are_refused():
    torn = surface_of(lambda a, b: np.where(a > 0.3, np.nan, a**2 + b**2))
    assert loss_rise(torn, 0.5) == np.inf
    coarse = line_of(np.square, alphas=[-1, -0.5, 0, 0.5, 1])
    with pytest.raises(ValueError, match="`radius` must reach.*nearest of which is at 0.5"):
        loss_rise(coarse, 0.1)
    with pytest.raises(ValueError, match="`epsilon` must reach"):
        epsilon_sharpness(coarse, 0.1)


def warnings_of(findings):
    return [finding.warning.partition(":")[0] for finding in findings if finding.warning]


def test_a_sound_surface_has_no_warnings():
    surface = surface_of(lambda a, b: 1 + a**2 + 2 * b**2)
    findings = report(surface, expected={"loss": 1.00001})
    assert warnings_of(findings) == []
    assert [finding.check for finding in findings][:2] == [
        "share of points that are not finite",
        "lowest point minus the model",
    ]
    assert str(findings[0]) == "share of points that are not finite: 0"


def test_a_report_says_how_a_picture_would_mislead():
    torn = surface_of(lambda a, b: np.where(a > 0.9, np.nan, 1 + a**2 + b**2))
    assert warnings_of(report(torn)) == [
        "Holes are drawn there; the loss is infinite or undefined."
    ]
    assert report(torn)[0].value == pytest.approx(np.mean(torn.alphas > 0.9))
    sloped = surface_of(lambda a, b: 3 + a + b**2)
    assert report(sloped)[1].value == pytest.approx(-1)
    assert warnings_of(report(sloped)) == ["The loss is lower elsewhere"]
    steep = line_of(lambda a: 10.0 ** (3 * np.abs(a)))
    assert report(steep)[2].value == pytest.approx(3)
    assert warnings_of(report(steep)) == ["A linear scale shows only the highest"]
    narrow = line_of(lambda a: 2 - np.exp(-1e4 * a**2), alphas=np.linspace(-1, 1, 21))
    assert report(narrow)[3].value == pytest.approx(1)
    assert warnings_of(report(narrow)) == ["The minimum is narrower than the grid"]
    other = report(surface_of(lambda a, b: 1 + a**2 + b**2), expected={"loss": 1.1})
    assert warnings_of(other) == ["The center is not the model's own loss"]


def test_only_a_dip_that_matters_is_a_finding():
    # Lowest by d²/4 at a = -d/2, while the median rise is about 1.
    def dip(depth, **metadata):
        bowl = surface_of(lambda a, b: 3 + 3 * (a**2 + b**2) + np.sqrt(12 * depth) * a)
        bowl.metadata.update(metadata)
        return warnings_of(report(bowl))

    warning = ["The loss is lower elsewhere"]
    assert [dip(0.02), dip(0.2), dip(0.2, dataset_size=1000)] == [[], warning, warning]
    # The mean of 100 losses of about 3 is known to about 0.3.
    assert dip(0.2, dataset_size=100) == []
    assert warnings_of(report(surface_of(lambda a, b: 2 + a**2 - b**2))) == warning


def test_few_high_points_do_not_hide_the_others():
    # Three decades, but as many points on each part of the scale.
    assert warnings_of(report(line_of(lambda a: 0.01 + 10 * np.abs(a)))) == []


def digits_network(*between, outputs="softmax"):
    hidden = [layers.Dense(32, "relu"), *between, layers.Dense(10, outputs)]
    return keras.Sequential([keras.Input((64,)), *hidden])


def fitted(network, data, epochs, loss="sparse_categorical_crossentropy", batch_size=32):
    network.compile(keras.optimizers.Adam(0.003), loss, jit_compile=False)
    network.fit(*data, batch_size, epochs, verbose=0)
    return network


@pytest.fixture(scope="module")
def digits():
    """Handwritten digits: training data and test data."""
    x, y = load_digits(return_X_y=True)
    return (x[:1200] / 16, y[:1200]), (x[1200:] / 16, y[1200:])


def test_a_report_does_not_warn_of_planes_around_healthy_networks(digits):
    train, _ = digits
    decay = layers.Dense(32, "relu", kernel_regularizer=keras.regularizers.L2(1e-3))
    between = [], [layers.BatchNormalization(momentum=0.9)], [decay]
    for seed, parts in enumerate(between):
        network = fitted(digits_network(*parts), train, 15)
        for surface in evaluate_surfaces(network, digits, number_of_points=7, seed=seed, verbose=0):
            assert warnings_of(report(surface)) == []


def test_a_report_warns_of_planes_around_unsound_networks(digits):
    train, _ = digits
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sound = fitted(digits_network(), train, 15)
    permuted = np.random.default_rng(0).permutation(train[1])
    lagging = digits_network(layers.BatchNormalization(momentum=0.999))
    regressed = fitted(digits_network(outputs=None), train, 10, logits)
    regressed.compile(loss="mse", jit_compile=False)
    unsound = {
        "undertrained": (fitted(digits_network(), train, 1), train),
        "wrong data": (sound, (train[0], permuted)),
        "lagging": (fitted(lagging, train, 5, batch_size=200), train),
        "wrong loss": (regressed, (train[0], keras.utils.to_categorical(train[1]))),
    }
    for network, data in unsound.values():
        surface = evaluate_surface(network, *data, 9, seed=0, verbose=0)
        assert any(
            "on another loss" in finding.warning for finding in report(surface) if finding.warning
        )
        # One layer of several, or raw directions, are no measure of how far 1 is.
        surface.metadata["layers"] = ["dense"]
        assert "rise at a distance of 1, relative to the loss" not in {
            finding.check for finding in report(surface)
        }


def test_a_report_measures_the_angle_between_the_axes(model):
    surface = surface_of(lambda a, b: 1 + a**2 + b**2)
    first, second = random_directions(model, 2, seed=0)
    skewed = [a + b for a, b in zip(first, second, strict=True)]
    flat = [np.concatenate([np.ravel(array) for array in part]) for part in (first, skewed)]
    expected = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    finding = report(surface, directions=[first, skewed])[-1]
    assert finding.value == pytest.approx(expected, rel=1e-5)
    assert finding.warning == "The axes are not at right angles: shapes are skewed."
    assert report(surface, directions=[first, first])[-1].value == pytest.approx(1)
    for wrong in ("ab", [first], [first, None], [first, second[:-1]]):
        with pytest.raises(ValueError, match="`directions` must be the two directions"):
            report(surface, directions=wrong)


def spectrum_of(*eigenvalues, **metadata):
    """A spectrum whose random vector has as much of each eigenvector."""
    shares = np.full((1, len(eigenvalues)), 1 / len(eigenvalues))
    return Spectrum(np.array([eigenvalues], float), shares, {"parameters": 100, **metadata})


def test_a_report_warns_of_a_saddle_that_the_picture_hides():
    saddle, bowl = spectrum_of(-1, 0, 10), spectrum_of(-1e-5, 0, 10)
    upwards = surface_of(lambda a, b: 2 + a**2 + b**2, number=5)
    # Downwards at the model, upwards farther away, and the reverse.
    downwards = surface_of(lambda a, b: 2 - a**2 + a**4 + b**2, number=41)
    around = surface_of(lambda a, b: 2 + a**2 - a**4 + b**2, number=41)
    hidden = [
        warnings_of(report(picture, curvature=spectrum))
        for picture, spectrum in (
            (upwards, saddle), (around, saddle), (downwards, saddle), (upwards, bowl)
        )
    ]  # fmt: skip
    words = "The loss curves downwards, but not in this picture"
    assert [words in each for each in hidden] == [True, True, False, False]
    finding = report(upwards, curvature=saddle)[-1]
    assert (finding.check, finding.value) == ("smallest eigenvalue of the Hessian", -1)
    assert 'which="both"' in finding.warning
    lines = line_of(lambda a: 2 + a**2, lambda a: 2 - a**2, alphas=np.linspace(-1, 1, 5))
    assert report(lines, curvature=saddle)[-1].warning is None
    with pytest.raises(TypeError, match="`curvature` must be a `Spectrum`"):
        report(upwards, curvature=[-1, 10])


def test_a_report_measures_the_share_of_the_trace_in_the_plane():
    surface = surface_of(lambda a, b: 2 + 3 * a**2 + 2 * a * b + 5 * b**2, number=5)
    assert len(report(surface, curvature=spectrum_of(1, 5))) == 5
    # Two axes that are neither of length 1 nor at right angles.
    axes = np.array([[2.0, 0, 0], [1, 1, 0]])
    directions = [[axis[:2], axis[2:]] for axis in axes]
    found = report(surface, curvature=spectrum_of(1, 5), directions=directions)[-1]
    assert found.check == "share of the Hessian's trace in this plane"
    # H in the orthonormal basis (1, 0), (0, 1): AᵀHA is the Hessian along the axes.
    inverse = np.linalg.inv(axes[:, :2])
    hessian = inverse @ [[6, 2], [2, 10]] @ inverse.T
    assert found.value == pytest.approx(np.trace(hessian) / 300)
    # Filter-normalized axes are √100 long in the units of such a spectrum.
    kind = {"normalize": "filter", "ignore": "biasbn"}
    surface.metadata.update(kind, directions="random")
    found = report(surface, curvature=spectrum_of(1, 5, **kind))[-1]
    assert found.value == pytest.approx((6 + 10) / 100 / 300)
    other = report(surface, curvature=spectrum_of(1, 5, **kind, layers=["top"]))[-1]
    assert other.check == "smallest eigenvalue of the Hessian"


def path_of(function, *, alphas=(0, 0.25, 0.5, 0.75, 1), positions=(0, 1)):
    """A path between models at the given positions."""
    line = line_of(function, alphas=alphas)
    line.metadata["positions"] = list(positions)
    return line


def test_the_barrier_of_a_double_well_is_its_height():
    path = path_of(lambda a: ((2 * a - 1) ** 2 - 1) ** 2, alphas=np.linspace(-0.5, 1.5, 41))
    assert loss_barrier(path) == pytest.approx(1)
    assert loss_barrier(path, definition="mean") == pytest.approx(1)


def test_barriers_between_unequal_models():
    # From 1 to 3 along 1 + 2α + 8α(1 - α), which is highest at α = 5/8: 4.125 there.
    path = path_of(lambda a: 1 + 2 * a + 8 * a * (1 - a), alphas=np.linspace(0, 1, 9))
    # Above the chord, it is highest in the middle.
    assert loss_barrier(path) == pytest.approx(2)
    assert loss_barrier(path, definition="mean") == pytest.approx(4.125 - 2)


def test_a_path_that_never_rises_above_the_chord_has_no_barrier():
    path = path_of(lambda a: 1 + 2 * a**2)
    assert loss_barrier(path) == 0
    # Half the difference of the models.
    assert loss_barrier(path, definition="mean") == pytest.approx(1)


def test_the_barrier_of_an_accuracy_is_that_of_its_error():
    path = path_of(lambda a: 0.9 - 0.1 * a - 0.8 * a * (1 - a))
    error = path_of(lambda a: 1 - (0.9 - 0.1 * a - 0.8 * a * (1 - a)))
    for definition, expected in (("chord", 0.2), ("mean", 0.2)):
        barrier = loss_barrier(path, mode="max", definition=definition)
        assert barrier == pytest.approx(expected)
        assert barrier == pytest.approx(loss_barrier(error, definition=definition))


def test_only_the_path_between_the_models_counts():
    path = path_of(lambda a: 100 * a**2, alphas=[-2, -1, 0, 1, 2, 3], positions=(-1, 2))
    # The chord from 100 to 400 is above the parabola everywhere.
    assert loss_barrier(path) == 0
    assert loss_barrier(path, definition="mean") == pytest.approx(400 - 250)


def test_models_between_points_have_interpolated_losses():
    path = path_of(lambda a: np.abs(a - 0.5), alphas=[-0.25, 0.25, 0.5, 0.75, 1.25])
    assert loss_barrier(path, definition="mean") == pytest.approx(0)
    hill = path_of(lambda a: -np.abs(a - 0.5), alphas=[-0.25, 0.25, 0.5, 0.75, 1.25])
    assert loss_barrier(hill) == pytest.approx(0.5)


def test_non_finite_losses_are_infinite_barriers():
    def broken(value, at):
        return path_of(lambda a: np.where(a == at, value, 0.0 * a))

    for mode in ("min", "max"):
        assert loss_barrier(broken(np.nan, 0.5), mode=mode) == np.inf
        assert loss_barrier(broken(np.inf, 0.25), mode=mode) == np.inf
        # There is nothing to compare with.
        assert np.isnan(loss_barrier(broken(np.inf, 1), mode=mode))


def test_paths_without_both_models_are_refused():
    with pytest.raises(ValueError, match="one line between two models.*with models at \\[0.0\\]"):
        loss_barrier(line_of(lambda a: a**2))
    with pytest.raises(ValueError, match="hold both models, at 0 and 1. .*extent of \\(-1, 0.5\\)"):
        loss_barrier(path_of(lambda a: a**2, alphas=[-1, 0, 0.5]))
    several = line_of(lambda a: a**2, lambda a: a**2, alphas=[0, 1])
    several.metadata["positions"] = [0, 1]
    with pytest.raises(ValueError, match="one line between two models.*2 directions"):
        loss_barrier(several)
    unfinished = path_of(lambda a: a**2)
    unfinished.metadata["missing"] = [2]
    with pytest.raises(ValueError, match="must be complete, but 1 points are missing"):
        loss_barrier(unfinished)


def test_unknown_kinds_of_barriers_are_refused():
    path = path_of(lambda a: a**2)
    with pytest.raises(ValueError, match="`definition` must be one of 'chord', 'mean'"):
        loss_barrier(path, definition="max")
    with pytest.raises(ValueError, match="`mode` must be one of 'min', 'max'"):
        loss_barrier(path, mode="auto")
    with pytest.raises(ValueError, match="`metric` must be one of 'loss'"):
        loss_barrier(path, "accuracy")


def test_barriers_of_several_models_are_a_symmetric_matrix():
    # The lines from the first model to the others, and between these.
    rows = [[0.0, 3, 2], [0, 1, 4], [2, 9, 4]]
    metadata = {"models": ["a", "b", "c"]}
    barriers = LossBarriers(np.array([0, 0.5, 1]), {"loss": np.array(rows)}, {}, metadata)
    np.testing.assert_array_equal(loss_barrier(barriers), [[0, 2, 0], [2, 0, 6], [0, 6, 0]])
    for first, second in barriers.pairs:
        for definition in ("chord", "mean"):
            alone = loss_barrier(barriers.line(second, first), definition=definition)
            matrix = loss_barrier(barriers, definition=definition)
            assert matrix[first, second] == alone
    metadata["missing"] = [8]
    with pytest.raises(ValueError, match="1 points are missing in LossBarriers"):
        loss_barrier(barriers)


def test_asymmetry_of_valleys_with_two_slopes():
    # Slopes 1 and 3: half-widths 0.3 and 0.1, and (3 - 1) / (3 + 1) = 0.5.
    line = line_of(
        lambda a: np.where(a > 0, a, -3 * a), lambda a: np.where(a < 0, -a, 3 * a), np.abs
    )
    np.testing.assert_allclose(asymmetry(line, rise=0.3), [0.5, -0.5, 0], atol=1e-9)


def test_valleys_open_on_one_side_are_wholly_asymmetric():
    line = line_of(
        lambda a: np.maximum(-a, 0), lambda a: np.maximum(a, 0), lambda a: 0 * np.asarray(a)
    )
    np.testing.assert_array_equal(asymmetry(line, rise=0.5), [1, -1, np.nan])
    with pytest.raises(ValueError, match="`rise` must be greater than 0"):
        asymmetry(line, rise=0)


def test_perturbations_that_a_quadratic_loss_tolerates():
    # Hessian diag(1, 9) at the minimum: E[uᵀHu] = 10, and the worst direction is the second.
    draws = np.random.default_rng(0).normal(size=(2000, 2))
    curvatures = draws**2 @ [1.0, 9.0]
    alphas = np.linspace(-1, 1, 401)
    rises = curvatures[:, np.newaxis] * alphas**2 / 2
    line = LossLine(alphas, {"loss": 3 + rises}, {"loss": 3.0}, {})
    sigma = expected_sigma(line, rise=0.2)
    assert sigma.mean == pytest.approx(np.sqrt(0.4 / curvatures.mean()), rel=1e-3)
    assert sigma.low < np.sqrt(0.4 / 10) < sigma.high
    # The ends are those of the interval of the mean curvature.
    _, low, high = confidence_interval(curvatures)
    np.testing.assert_allclose(sigma[1:], np.sqrt(0.4 / np.array([high, low])), rtol=1e-3)
    worst = line_of(lambda a: 3 + 2 * 9 * a**2 / 2, lambda a: 3 + a**2)
    assert worst_sigma(worst, rise=0.2) == pytest.approx(np.sqrt(0.4 / (2 * 9)), rel=1e-4)


def test_the_worst_perturbation_is_that_of_the_steeper_side():
    line = line_of(lambda a: np.where(a > 0, a, -4 * a), np.abs)
    assert worst_sigma(line, rise=0.2) == pytest.approx(0.05)
    assert worst_sigma(line, rise=5) == np.inf
    # On average, the sides of the first rise by 2.5 σ, those of the second by σ.
    assert expected_sigma(line, rise=0.35).mean == pytest.approx(0.2)


def test_perturbations_that_break_the_model_are_not_tolerated():
    alphas = np.linspace(-1, 1, 5)
    rows = [[np.inf, 0.1, 0, 0.1, np.nan], [0.4, 0.1, 0, 0.1, 0.4]]
    sigma = expected_sigma(LossLine(alphas, {"loss": np.array(rows)}, {"loss": 0.0}, {}), rise=0.2)
    assert sigma == (pytest.approx(0.5), pytest.approx(0.5), np.inf)
    with pytest.raises(ValueError, match="at least 2 directions"):
        expected_sigma(line_of(np.abs))
    with pytest.raises(ValueError, match="`rise` must be greater than 0"):
        worst_sigma(line_of(np.abs), rise=0)
    with pytest.raises(ValueError, match="both sides of 0"):
        worst_sigma(line_of(np.abs, alphas=[0, 1]))


@pytest.mark.parametrize(
    ("explained", "is_null"), [([0.9, 0.05], False), ([0.5, 0.4], False), ([0.6, 0.15], True)]
)
def test_a_report_says_where_a_path_is_like_a_random_walk(explained, is_null):
    bowl, path = surface_of(lambda a, b: 1 + a**2 + b**2), np.zeros((2, 2))
    parts = bowl.alphas, bowl.betas, bowl.values, bowl.center
    on_path = {"loss": np.ones(2)}
    trajectory = LossTrajectory(
        *parts, {"random_walk": [0.609, 0.153]}, path, np.array(explained), np.zeros(2), on_path,
        on_path,
    )  # fmt: skip
    finding = report(trajectory)[-1]
    assert finding.check == "share of the path's variance in this plane"
    assert finding.value == pytest.approx(sum(explained))
    assert (finding.warning is not None) == is_null
    if is_null:
        assert "A random walk in many dimensions would explain as much, 60.9% and 15.3%" in str(
            finding
        )
    # Those of several runs start apart, which no random walk does.
    several = LossTrajectory(
        *parts, {"runs": {"a": 1, "b": 1}}, path, np.array(explained), np.zeros(2), on_path,
        on_path,
    )  # fmt: skip
    assert finding.check not in [other.check for other in report(several)]
