"""Plotting: what is on the axes, and how it looks."""

import dataclasses
import io
import itertools
from itertools import pairwise
from unittest import mock

import matplotlib as mpl
import numpy as np
import pytest
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.text import Text
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from PIL import Image, ImageSequence
from scipy.integrate import trapezoid

from losslandscape import (
    Comparison,
    LossBarriers,
    LossDisplay,
    LossFilm,
    LossLine,
    LossSurface,
    LossTrajectory,
    animate_film,
    animate_path,
    animate_surface,
    plot_barriers,
    plot_comparison,
    plot_levels,
    plot_line,
    plot_path,
    plot_surface,
    plot_training_curvature,
)
from losslandscape.plotting import (
    plot_convexity,
    plot_curve,
    plot_layers,
    plot_path_fidelity,
    plot_persistence,
    plot_spectrum,
)
from losslandscape.values.measures import loss_barrier
from losslandscape.values.surfaces import LayerCurvature, Spectrum, TrainingCurvature

ALPHAS = np.linspace(-1, 1, 21)


def a_line(curves, alphas=ALPHAS):
    return LossLine(alphas, {"loss": np.atleast_2d(curves)}, {"loss": 0.5}, {})


def a_surface(function, betas=ALPHAS):
    values = function(*np.meshgrid(ALPHAS, betas))
    metrics = {"loss": values, "accuracy": 1 / (1 + values)}
    return LossSurface(ALPHAS, betas, metrics, {"loss": 0.5, "accuracy": 2 / 3}, {})


# A bowl that is longer along beta, and lower for positive alpha.
BOWL = a_surface(lambda a, b: 0.5 + 3 * a**2 - a + b**2, betas=np.linspace(-1, 1, 11))
STEEP_BOWL = a_surface(lambda a, b: 0.5 + 9 * a**2 + b**2, betas=np.linspace(-1, 1, 11))
STEEP = a_surface(lambda a, b: 0.5 * np.exp(6 * (a**2 + b**2)))
TORN = a_surface(
    lambda a, b: np.where(a + b > 1.25, np.nan, np.where(a * b > 0.95, np.inf, 1.5 + a))
)
# What no spline tells.
NOISE = np.random.default_rng(0).random(BOWL.values["loss"].shape)
ROUGH = dataclasses.replace(BOWL, values={"loss": BOWL.values["loss"] + NOISE})


def texts(ax):
    return [text.get_text() for text in ax.texts]


def inside(ax):
    """The texts inside the frame: all but notes."""
    return [text for text in ax.texts if text.get_window_extent().y0 < ax.bbox.y1]


def bar_of(ax):
    """The axes of the color bar beside a plane."""
    (bar,) = (child for child in ax.child_axes if child.get_visible())
    return bar


def test_line_draws_every_value_and_marks_the_models_point():
    curve = 0.5 + ALPHAS**2
    ax = plot_line(a_line(curve))
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), ALPHAS)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), curve)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [[0, 0.5]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("α", "loss")
    assert ax.get_xlim() == (-1, 1)
    assert ax.get_legend() is None


def test_line_off_the_origin_has_no_mark():
    ax = plot_line(a_line(ALPHAS, alphas=ALPHAS + 3))
    assert not ax.collections


def test_lines_are_labeled_and_share_their_axes():
    ax = plot_line([a_line(ALPHAS), a_line(-ALPHAS)], labels=("training set", "test set"))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training set", "test set"]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), -ALPHAS)


def test_several_directions_are_drawn_as_mean_and_band():
    curves = np.stack([ALPHAS**2 + 1, ALPHAS**2 + 2, ALPHAS**2 + 6])
    ax = plot_line(a_line(curves))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), ALPHAS**2 + 3)
    band = ax.collections[0].get_paths()[0].vertices
    # The standard deviation of 1, 2 and 6 is √7.
    np.testing.assert_allclose(band[:, 1].min(), 3 - np.sqrt(7))
    np.testing.assert_allclose(band[:, 1].max(), 4 + np.sqrt(7))
    assert texts(ax) == ["mean ± s.d. of 3 directions"]
    assert ax.get_legend() is None


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_choice_of_samples_is_a_hatched_band(scale):
    curves = np.stack([ALPHAS**2 + 1, ALPHAS**2 + 3])
    errors = {"loss": np.stack([0.1 + 0 * ALPHAS, 0.3 + 0 * ALPHAS])}
    line = dataclasses.replace(a_line(curves), errors=errors, metadata={"dataset_size": 5000})
    ax = plot_line([line, a_line(curves[0])], scale=scale)
    mean = ax.lines[0].get_ydata()
    band = next(each for each in ax.collections if each.get_hatch())
    low, high = (end(band.get_paths()[0].vertices[:, 1]) for end in (np.min, np.max))
    # Two errors of 0.2 on both sides: all directions have the same samples.
    if scale == "linear":
        np.testing.assert_allclose([low, high], [mean.min() - 0.4, mean.max() + 0.4])
    else:
        factors = np.exp(0.4 / mean)
        np.testing.assert_allclose([low, high], [min(mean / factors), max(mean * factors)])
    notes = ["mean ± s.d. of 2 directions", "hatched: ±2 standard errors of 5,000 samples"]
    assert "\n".join(texts(ax)).splitlines() == notes


def test_several_directions_on_a_log_scale_are_averaged_there():
    ax = plot_line(a_line(np.stack([ALPHAS**0, 100 * ALPHAS**0])), scale="log")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 10)
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == "loss (log scale)"


def test_levels_have_alpha_across_and_beta_up():
    ax = plot_levels(BOWL, levels=[1.0, 2.0])
    lines = ax.collections[1]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        a, b = path.vertices.T
        # Through splines, which are exact here. Straight lines would be off by 0.015.
        np.testing.assert_allclose(0.5 + 3 * a**2 - a + b**2, level, atol=0.001)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("α", "β")
    np.testing.assert_array_equal(ax.collections[2].get_offsets(), [[0, 0]])


def test_levels_are_round_and_inside_the_values():
    linear = plot_levels(BOWL).collections[1].levels
    np.testing.assert_allclose(linear, np.arange(0.5, 5.6, 0.5), atol=1e-12)
    logarithmic = plot_levels(STEEP, scale="log").collections[1].levels
    # Below the highest 5 % of the values.
    np.testing.assert_allclose(
        logarithmic, np.outer(10.0 ** np.arange(-1, 4), [1, 2, 5]).ravel()[2:]
    )


def test_contours_of_a_deep_basin_are_on_a_log_scale_by_themselves():
    shifted = dataclasses.replace(STEEP, values={"loss": STEEP.values["loss"] - 0.6})
    hill = dataclasses.replace(
        STEEP, values={"loss": 1 / STEEP.values["loss"]}, center={"loss": 2.0}
    )
    names = {"loss (log scale)": [STEEP], "loss": [BOWL, shifted, hill]}
    for name, surfaces in names.items():
        for surface in surfaces:
            ax = plot_levels(surface)
            assert bar_of(ax).get_ylabel() == name
            assert 10 <= len(ax.collections[1].levels) <= 20
    # Equal steps that the caller wants, even if there is none for the basin.
    assert bar_of(plot_levels(STEEP, scale="linear")).get_ylabel() == "loss"
    assert bar_of(plot_levels(STEEP, levels=[-1, 1, 2])).get_ylabel() == "loss"


def test_contours_follow_splines_only_where_these_tell_what_was_measured():
    smooth = plot_levels(BOWL)
    assert "lines: splines through 21 × 11 points" in texts(smooth)
    for surface in (ROUGH, TORN):
        assert not any("splines" in text for text in texts(plot_levels(surface)))
    # Once for all panels, whose titles stay in a row.
    axes = plot_levels([BOWL, ROUGH], labels=("a", "b"))
    assert texts(axes[0])[0] == "partly interpolated"
    assert not any("interpolated" in text for text in texts(axes[1]))
    axes[0].figure.draw_without_rendering()
    assert len({ax.title.get_window_extent().y0 for ax in axes}) == 1


def test_a_log_scale_is_named_on_the_color_bar():
    ax = plot_levels(STEEP, scale="log")
    assert bar_of(ax).get_ylabel() == "loss (log scale)"


def test_surface_has_every_cell_and_marks_the_models_point():
    ax = plot_surface(ROUGH)
    mesh, floor, mark = ax.collections
    assert len(mesh.get_facecolor()) == 20 * 10
    x, y, z = mark._offsets3d
    assert (x[0], y[0], z[0]) == (0, 0, 0.5)
    # Once, at the color bar.
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_zlabel()) == ("α", "β", "")
    assert bar_of(ax).get_ylabel() == "loss"
    values, (low, high) = ROUGH.values["loss"], ax.get_zlim()
    assert high == values.max()
    # The box holds all of it, above a floor with contours.
    assert low < values.min() - 0.2 * np.ptp(values)
    assert len(floor.levels) >= 10


def test_a_surface_is_smooth_where_splines_predict_what_was_measured():
    ax = plot_surface(BOWL)
    assert "surface: splines through 21 × 11 points" in texts(ax)
    assert len(ax.collections[0].get_facecolor()) == 60 * 60
    assert not texts(plot_surface(ROUGH))


def test_surface_on_a_log_scale_has_its_values_on_the_ticks():
    ax = plot_surface(STEEP, scale="log")
    labels = [label.get_text() for label in ax.get_zticklabels()]
    np.testing.assert_allclose(ax.get_zticks(), np.log10([float(label) for label in labels]))
    assert bar_of(ax).get_ylabel() == "loss (log scale)"


@pytest.mark.parametrize("plot", [plot_levels, plot_surface])
def test_any_metric_is_drawn(plot):
    ax = plot(BOWL, metric="accuracy")
    assert bar_of(ax).get_ylabel() == "accuracy"


def test_compared_surfaces_share_levels_heights_and_one_color_bar():
    axes = plot_levels([BOWL, STEEP], labels=("a", "b"), scale="log")
    assert [sum(child.get_visible() for child in ax.child_axes) for ax in axes] == [0, 1]
    first, second = (ax.collections[1] for ax in axes)
    np.testing.assert_array_equal(first.levels, second.levels)
    assert [ax.get_title() for ax in axes] == ["a", "b"]
    axes = plot_surface([BOWL, STEEP])
    assert axes[0].get_zlim() == axes[1].get_zlim()
    np.testing.assert_allclose(axes[0].get_zlim()[1], STEEP.values["loss"].max())


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_what_is_not_finite_is_a_hole_with_a_note(scale):
    curve = ALPHAS.copy() + 2
    curve[3], curve[5] = np.nan, np.inf
    reason = {"linear": "not finite", "log": "not finite or ≤ 0"}[scale]
    ax = plot_line(a_line(curve), scale=scale)
    assert texts(ax) == [f"2 of 21 points {reason}"]
    assert np.isnan(ax.lines[0].get_ydata()).nonzero()[0].tolist() == [3, 5]
    holes = np.count_nonzero(~np.isfinite(TORN.values["loss"]))
    for plot in (plot_levels, plot_surface):
        ax = plot(TORN, scale=scale)
        assert any(text.startswith(f"{holes} of 441") for text in texts(ax))


def unfinished(surface, measured):
    """A checkpoint of a surface, of which only the measured points are there."""
    values = np.where(measured, surface.values["loss"], np.nan)
    missing = np.flatnonzero(~measured).tolist()
    return dataclasses.replace(surface, values={"loss": values}, metadata={"missing": missing})


def test_the_points_a_checkpoint_has_not_measured_are_filled_and_it_is_a_preview():
    measured = np.zeros((21, 21), bool)
    measured[::5, ::5] = True
    surface = unfinished(a_surface(lambda a, b: 3 + 2 * a - b), measured)
    assert "preview: 25 of 441 points" in texts(plot_surface(surface))
    ax = plot_levels(surface)
    assert "preview: 25 of 441 points" in texts(ax)
    lines = ax.collections[1]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        alphas, betas = path.vertices.T
        # Between points of a plane lies the plane itself.
        np.testing.assert_allclose(3 + 2 * alphas - betas, level, atol=1e-9)


def test_a_preview_has_holes_only_where_points_were_measured_and_not_finite():
    measured = np.zeros((21, 21), bool)
    measured[::5, ::5] = True
    surface = unfinished(a_surface(lambda a, b: 3 + a + b), measured)
    surface.values["loss"][10, 10] = np.inf
    ax = plot_levels(surface)
    assert "preview: 25 of 441 points\n1 of 441 points not finite" in texts(ax)


@pytest.mark.parametrize("rows", [[], [0], [0, 10]])
@pytest.mark.parametrize("plot", [plot_levels, plot_surface])
def test_a_preview_of_hardly_any_points_can_be_drawn(plot, rows):
    measured = np.zeros((11, 21), bool)
    measured[rows, 0] = True
    plot(unfinished(BOWL, measured)).figure.canvas.draw()


def test_a_line_that_is_not_finished_is_a_preview():
    line = a_line(np.where(ALPHAS < 0, ALPHAS, np.nan))
    line.metadata["missing"] = np.flatnonzero(ALPHAS >= 0).tolist()
    ax = plot_line(line)
    assert texts(ax) == ["preview: 10 of 21 points"]


def test_a_log_scale_has_no_place_for_zero():
    ax = plot_line(a_line(ALPHAS), scale="log")
    assert texts(ax) == ["11 of 21 points not finite or ≤ 0"]


@pytest.mark.parametrize("value", [0.0, 2.5, -3.0, np.nan])
@pytest.mark.parametrize("plot", [plot_levels, plot_surface])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_flat_and_empty_surfaces_can_be_drawn(plot, value, scale):
    plot(a_surface(lambda a, b: 0 * a * b + value), scale=scale).figure.canvas.draw()


def test_given_axes_are_used_and_settings_left_alone():
    before = dict(mpl.rcParams)
    figure, (left, right) = plt.subplots(1, 2)
    space = figure.add_subplot(projection="3d")
    assert plot_line(a_line(ALPHAS), left) is left
    assert plot_levels(BOWL, right) is right
    assert plot_surface(BOWL, space) is space
    assert plt.get_fignums() == [figure.number]
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plot_levels(BOWL, metric="mae"),
            "`metric` must be one of 'loss', 'accuracy'.*'mae'",
        ),
        (lambda: plot_levels(BOWL, scale="ln"), "`scale` must be one of 'auto', 'linear', 'log'.*"),
        (lambda: plot_line([a_line(ALPHAS)], labels=("a", "b")), "Received 2 labels for 1 values"),
        (lambda: plot_levels([BOWL, BOWL], plt.gca()), "Received 1 axes for 2 surfaces"),
        (lambda: plot_surface(BOWL, plt.gca()), r"`ax` must be 3d axes.*\['Axes'\]"),
        (lambda: plot_levels(BOWL, levels=1), "`levels` must be at least 2. Received 1"),
        (lambda: plot_surface(BOWL, limits=(2, 1)), r"`limits` must be increasing.*\[2.0, 1.0\]"),
        (lambda: plot_levels(BOWL, levels=[1, np.nan, 3]), "`levels` must be increasing.*nan"),
        (lambda: plot_levels(BOWL, levels=[0, 1], scale="log"), "`levels` must be greater than 0"),
        (lambda: plot_surface(BOWL, limits=(0, 1), scale="log"), "`limits` must be greater than 0"),
        (lambda: plot_levels(BOWL, plt.axes(projection="3d")), r"must be flat axes.*\['Axes3D'\]"),
        (lambda: plot_line(a_line(ALPHAS), plt.axes(projection="3d")), "`ax` must be flat axes"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def labels_on(axis):
    """The labels of an axis that are inside its limits, as they are drawn."""
    axis.figure.canvas.draw()
    low, high = axis.get_view_interval()
    ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return [label.get_text() for tick, label in ticks if low <= tick <= high]


@pytest.mark.parametrize("decades", [0.001, 0.1, 0.5, 1, 3, 8, 20, 200])
def test_a_log_axis_of_any_length_has_a_few_labels(decades):
    curve = 10 ** (-3 + decades * np.abs(ALPHAS))
    ax = plot_line(a_line(curve), scale="log")
    labels = labels_on(ax.yaxis)
    assert 2 <= len(set(labels)) == len(labels) <= 8
    np.testing.assert_allclose([float(label) for label in labels], ax.get_yticks(), rtol=0.05)


@pytest.mark.parametrize(("base", "rise"), [(2.302585, 1e-3), (1234.5, 3), (1e-9, 1e-12), (-5, 1)])
def test_labels_have_as_many_digits_as_tell_neighbors_apart(base, rise):
    surface = a_surface(lambda a, b: base + rise * (a**2 + b**2))
    ax = plot_levels(surface)
    levels, bar = ax.collections[1].levels, bar_of(ax)
    labels = [float(label) for label in labels_on(bar.yaxis)]
    # What all labels share is on the axis only.
    offset = float(bar.get_ylabel().removeprefix("loss").removeprefix(" − ") or 0)
    assert max(map(len, labels_on(bar.yaxis))) <= 7
    # Not every contour has a name, but every name is that of a contour.
    errors = np.abs(np.subtract.outer(np.add(labels, offset), levels)).min(axis=1)
    assert errors.max() <= np.diff(levels).min() / 20
    assert len(labels) > 5
    written = {float(text.get_text()) for text in inside(ax)}
    assert written <= set(labels)
    assert written
    heights = plot_surface(surface)
    shown = [float(label) for label in labels_on(heights.zaxis)]
    np.testing.assert_allclose(np.add(shown, offset), heights.get_zticks(), rtol=0, atol=rise / 20)


def test_levels_too_many_to_be_named_are_named_by_turns():
    ax = plot_levels(BOWL, levels=np.linspace(1, 5, 41))
    assert len(ax.collections[1].levels) == 41
    assert labels_on(bar_of(ax).yaxis)[:3] == ["1", "1.4", "1.8"]


@pytest.mark.parametrize("layout", [None, "tight", "constrained"])
@pytest.mark.parametrize("plot", [plot_levels, plot_surface])
def test_color_bars_keep_out_of_the_callers_axes(plot, layout):
    style = {"projection": "3d"} if plot is plot_surface else {}
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout=layout, subplot_kw=style)
    plot([BOWL, STEEP], axes)
    if layout is None:
        plt.tight_layout()
    figure.canvas.draw()
    boxes = [ax.get_window_extent() for ax in (*axes, bar_of(axes[1]))]
    assert not any(one.overlaps(other) for one in boxes for other in boxes if one is not other)


@pytest.mark.parametrize("plot", [plot_levels, plot_surface])
@pytest.mark.parametrize("way", ["subplots", "add_axes", "subfigures"])
def test_color_bars_take_their_room_from_the_callers_axes(plot, way):
    figure = plt.figure(figsize=(8, 4))
    style = {"projection": "3d"} if plot is plot_surface else {}
    if way == "subplots":
        ax = figure.add_subplot(121, **style)
    elif way == "add_axes":
        ax = figure.add_axes([0.1, 0.1, 0.4, 0.8], **style)
    else:
        ax = figure.subfigures(1, 2)[0].add_subplot(**style)
    place = ax.get_position(original=True)
    limit = place.transformed(ax.get_figure(root=False).transSubfigure).x1
    plot(BOWL, ax)
    figure.canvas.draw()
    assert limit - 20 < bar_of(ax).get_tightbbox().x1 < limit + 1
    # Matplotlib's adjustments still move both.
    if way == "subplots":
        figure.subplots_adjust(right=0.6)
        figure.canvas.draw()
        assert bar_of(ax).get_tightbbox().x1 < limit - 50


def boxes_of(ax):
    """Where the legend and the note are, in units of the data."""
    ax.figure.canvas.draw()
    drawn = [artist for artist in (ax.get_legend(), *ax.texts) if artist is not None]
    return [artist.get_window_extent().transformed(ax.transData.inverted()) for artist in drawn]


def overlap(artists):
    boxes = [artist.get_window_extent() for artist in artists]
    return any(one.overlaps(other) for one in boxes for other in boxes if one is not other)


RUGGED = 0.5 + 0.45 * (-1.0) ** np.arange(21)


@pytest.mark.parametrize(
    "curves",
    [
        ALPHAS**2,
        1 - 0.9 * np.abs(ALPHAS) ** 1.5,
        RUGGED,
        np.where(np.arange(21) == 4, np.nan, RUGGED),
        np.stack([ALPHAS, -ALPHAS, RUGGED]),
    ],
    ids=["bowl", "hill", "rugged", "rugged with a hole", "band"],
)
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_legend_and_the_note_are_not_over_the_curves(curves, scale):
    lines = [a_line(2 + curves), a_line(2.1 + curves)]
    ax = plot_line(lines, labels=("training set", "test set"), scale=scale)
    boxes = boxes_of(ax)
    fine = np.linspace(-1, 1, 2001)
    for box in boxes:
        for curve in [line.get_ydata() for line in ax.lines]:
            heights = np.interp(fine, ALPHAS, curve)
            is_beside = (fine < box.x0) | (fine > box.x1) | np.isnan(heights)
            assert (is_beside | (heights < box.y0) | (heights > box.y1)).all()
        assert ax.get_ylim()[0] <= box.y0
    legend, *notes = boxes
    # Notes are above the frame, and so is a legend that has no place inside.
    assert all(box.y0 >= ax.get_ylim()[1] for box in notes)
    assert legend.y1 <= ax.get_ylim()[1] or legend.y0 >= max([0, *(box.y1 for box in notes)])
    assert not any(one.overlaps(other) for one in boxes for other in boxes if one is not other)
    # No axis is stretched to hold it.
    assert ax.get_ylim() == plot_line(lines, scale=scale).get_ylim()


def test_the_axis_still_adapts_to_what_the_caller_adds():
    ax = plot_line(a_line(RUGGED), labels="rugged")
    ax.plot(ALPHAS, 100 * ALPHAS)
    assert ax.get_ylim()[1] > 100


def test_limits_that_the_caller_has_set_stay():
    _, ax = plt.subplots()
    ax.set_ylim(0, 1)
    plot_line(a_line(RUGGED), ax, labels="rugged")
    assert ax.get_ylim() == (0, 1)


@pytest.mark.parametrize("curves", [-1 - ALPHAS**2, np.full((3, 21), np.nan), -np.ones((3, 21))])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_lines_of_which_nothing_can_be_drawn_are_axes_with_a_note(curves, scale):
    line = a_line(curves)
    line.center["loss"] = line.values["loss"][0, 10]
    ax = plot_line(line, scale=scale)
    ax.figure.canvas.draw()
    is_empty = scale == "log" or np.isnan(curves).all()
    assert any("points" in text for text in texts(ax)) == is_empty


def test_the_mean_is_that_of_the_finite_directions_and_a_note_counts_the_others():
    curves = np.stack([ALPHAS**2 + height for height in (1.0, 2, 6, 9)])
    curves[3, 16:] = np.nan
    curves[:, 0] = np.inf
    ax = plot_line(a_line(curves))
    mean = ALPHAS**2 + np.where(np.arange(21) < 16, 4.5, 3)
    mean[0] = np.nan
    np.testing.assert_allclose(ax.lines[0].get_ydata(), mean)
    assert ax.get_xlim() == (-1, 1)
    notes = ["mean ± s.d. of 4 directions", "9 of 84 points not finite,", "in 4 of 4 directions"]
    assert texts(ax) == ["\n".join(notes)]


def test_a_center_that_the_scale_has_no_place_for_is_not_marked():
    negative = a_line(ALPHAS**2 - 1)
    negative.center["loss"] = -1.0
    assert not plot_line(negative, scale="log").collections
    zero = a_surface(lambda a, b: a**2 + b**2)
    zero.center["loss"] = 0.0
    # The surface and the contours on the floor.
    assert len(plot_surface(zero, scale="log").collections) == 2


def test_the_other_model_is_marked_on_the_curve_that_is_drawn():
    line = a_line(np.stack([10.0**ALPHAS, 1000.0**ALPHAS]))
    line.metadata["positions"] = [1]
    ax = plot_line(line, scale="log")
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), [[1, 100]])


def test_faces_have_the_color_bars_colors_of_their_own_heights():
    ax = plot_surface(ROUGH, cmap="plasma")
    mesh, bar = ax.collections[0], bar_of(ax)
    heights = ROUGH.values["loss"]
    own = (heights[:-1, :-1] + heights[:-1, 1:] + heights[1:, 1:] + heights[1:, :-1]) / 4
    shades = mpl.colormaps["plasma"](np.linspace(0, 1, 256))[:, :3]
    ax.figure.canvas.draw()
    faces = mesh.get_facecolor()[:, :3]
    read = np.abs(faces[:, np.newaxis] - shades).sum(axis=-1).argmin(axis=-1) / 255
    low, high = bar.get_ylim()
    # Matplotlib sorts the faces by depth.
    errors = np.sort(low + read * (high - low)) - np.sort(own.ravel())
    assert np.abs(errors).max() <= 0.01 * (high - low)


def test_a_hole_leaves_the_faces_beside_it_as_they_are():
    values = ROUGH.values["loss"].copy()
    values[3, 5] = np.nan
    torn = dataclasses.replace(ROUGH, values={"loss": values})
    whole, holed = (
        {tuple(color) for color in plot_surface(surface).collections[0].get_facecolor()}
        for surface in (ROUGH, torn)
    )
    assert holed <= whole
    assert len(plot_surface(torn).collections[0].get_facecolor()) == 20 * 10 - 4


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_surface_is_cut_along_its_limits(scale):
    to_axis = np.log10 if scale == "log" else np.asarray
    bowl = a_surface(lambda a, b: 1 + 9 * (a**2 + b**2))
    set_verts = Poly3DCollection.set_verts
    with mock.patch.object(
        Poly3DCollection, "set_verts", autospec=True, side_effect=set_verts
    ) as drawn:
        plot_surface(bowl, limits=(2, 6), scale=scale)
    _, faces, *_ = drawn.call_args.args
    corners = np.concatenate(list(faces))
    low, high = to_axis([2, 6])
    assert corners[:, 2].min() == low
    assert corners[:, 2].max() == high
    for limit, value in ((low, 2), (high, 6)):
        edge = corners[corners[:, 2] == limit]
        # Round as the bowl, not a saw: off by no more than the grid's own chords are.
        radius = np.hypot(edge[:, 0], edge[:, 1])
        np.testing.assert_allclose(radius, np.sqrt((value - 1) / 9), atol=0.01)


def test_a_surface_between_its_limits_has_all_its_faces_and_one_beyond_has_none():
    assert len(plot_surface(ROUGH, limits=(-9, 9)).collections[0].get_facecolor()) == 20 * 10
    beyond = plot_surface(ROUGH, limits=(50, 60)).collections
    assert not any(isinstance(each, Poly3DCollection) for each in beyond)


def test_side_by_side_no_panel_covers_anothers_height_axis():
    first, second = plot_surface([BOWL, BOWL])
    first.figure.canvas.draw()
    assert first.zaxis.get_tightbbox().x1 <= first.figure.bbox.x1
    assert not second.patch.get_visible()


@pytest.mark.parametrize("plot", [plot_levels, plot_surface])
def test_both_axes_of_a_plane_have_the_same_ticks_and_unit(plot):
    ax = plot(STEEP)
    np.testing.assert_array_equal(ax.get_xticks(), ax.get_yticks())
    half = dataclasses.replace(BOWL, betas=BOWL.betas / 2)
    strip = dataclasses.replace(BOWL, betas=BOWL.betas / 20)
    if plot is plot_surface:
        width, depth, _ = plot(half).get_box_aspect()
        assert width == pytest.approx(2 * depth)
        width, depth, _ = plot(strip).get_box_aspect()
        assert width == pytest.approx(depth)
    else:
        assert plot(half).get_aspect() == 1
        # To scale, it would be too low for its labels.
        assert plot(strip).get_aspect() == "auto"


def test_settings_of_numpy_do_not_stop_a_drawing():
    zero = a_surface(lambda a, b: a**2 + b**2)
    zero.center["loss"] = 0.0
    with np.errstate(all="raise"):
        for scale in ("linear", "log"):
            plot_line(a_line(ALPHAS), scale=scale)
            plot_levels(TORN, scale=scale)
            plot_surface(zero, scale=scale)


ODD_NAMES = ["", "$x_y$", "a_$", "two\nlines", "50 % & {x} \\frac", "long " * 40, "x" * 200]


@pytest.mark.parametrize(
    ("name", "scale"), [("$x_y$", "linear"), *((name, "log") for name in ODD_NAMES)]
)
def test_any_name_of_a_metric_can_be_drawn(name, scale):
    alphas, betas, values = ALPHAS[::5], BOWL.betas[::5], BOWL.values["loss"][::5, ::5]
    surface = LossSurface(alphas, betas, {name: values}, {name: 0.5}, {})
    line = LossLine(betas, {name: values.T}, {name: 0.5}, {})
    for plot, value in ((plot_line, line), (plot_levels, surface), (plot_surface, surface)):
        plot(value, metric=name, scale=scale).figure.canvas.draw()


def test_labels_are_mathtext_where_they_can_be_and_none_is_hidden():
    labels = ("$x_1$", "$x_$", "_b", "$5")
    ax = plot_line([a_line(ALPHAS)] * 4, labels=labels)
    ax.figure.canvas.draw()
    drawn = ax.get_legend().get_texts()
    assert [text.get_text().strip() for text in drawn] == list(labels)
    assert [text.get_parse_math() for text in drawn[:2]] == [True, False]
    plot_levels([BOWL] * 4, labels=labels)[0].figure.canvas.draw()


def test_a_name_is_drawn_as_it_stands_for_latex_too():
    assert plot_line(a_line(ALPHAS)).get_xlabel() == "α"
    with mpl.rc_context({"text.usetex": True}):
        line = LossLine(ALPHAS, {"a_$%": ALPHAS[np.newaxis]}, {"a_$%": 0}, {})
        ax = plot_line(line, metric="a_$%")
    assert ax.get_xlabel() == r"$\alpha$"
    assert ax.get_ylabel() == r"a \$\%"


def test_curves_differ_in_color_and_line_style_and_few_points_are_shown():
    ax = plot_line([a_line(ALPHAS + k) for k in range(4)])
    assert len({line.get_color() for line in ax.lines}) == 4
    assert len({line.get_linestyle() for line in ax.lines}) == 4
    assert {line.get_marker() for line in ax.lines} == {"."}
    many = np.linspace(-1, 1, 101)
    assert plot_line(a_line(many, many)).lines[0].get_marker() == "None"
    # The mark of a model is told from the points of its curve, and has its color.
    np.testing.assert_allclose(
        ax.collections[1].get_edgecolors()[0], mpl.colors.to_rgba(ax.lines[1].get_color())
    )


def test_colors_that_the_caller_has_chosen_are_kept():
    with mpl.rc_context({"axes.prop_cycle": mpl.cycler(color=["red", "lime"])}):
        ax = plot_line([a_line(ALPHAS), a_line(-ALPHAS)])
    assert [line.get_color() for line in ax.lines] == ["red", "lime"]


def test_many_names_stand_beside_the_curves():
    ax = plot_line([a_line(ALPHAS**2 + k) for k in range(12)], labels=list("abcdefghijkl"))
    ax.figure.canvas.draw()
    legend = ax.get_legend().get_window_extent()
    assert ax.get_window_extent().x1 <= legend.x0 < legend.x1 <= ax.figure.bbox.x1
    assert ax.get_ylim()[1] < 13


WAVES = a_surface(lambda a, b: 2 + np.sin(5 * a) * np.cos(4 * b) + a**2)
FUNNEL = a_surface(lambda a, b: 1 - np.exp(-20 * (a**2 + b**2)))


@pytest.mark.parametrize(
    ("surface", "scale", "size"),
    [(BOWL, "linear", 10), (STEEP, "log", 18), (WAVES, "linear", 6), (FUNNEL, "linear", 10)],
    ids=["bowl", "steep", "waves", "funnel"],
)
def test_contour_labels_are_whole_and_clear_of_each_other_and_of_the_mark(surface, scale, size):
    with mpl.rc_context({"font.size": size}):
        ax = plot_levels(surface, scale=scale)
        ax.figure.canvas.draw()
    labels = inside(ax)
    assert len(labels) >= 3
    assert not overlap(ax.texts)
    frame, mark = ax.get_window_extent(), ax.transData.transform((0, 0))
    for text in labels:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not box.contains(*mark)


WINDING = np.stack([np.linspace(0.9, 0, 30), 0.6 * np.sin(np.linspace(9, 0, 30))], axis=1)
ENDS = {"models": ["small", "large", "control"], "positions": [[-0.8, 0], [0.8, 0], [0, 0.9]]}


@pytest.mark.parametrize(
    "plot",
    [
        lambda: plot_path(dataclasses.replace(TRAJECTORY, path=WINDING)),
        lambda: plot_curve(dataclasses.replace(WAVES, metadata=ENDS)),
    ],
    ids=["path", "curve"],
)
def test_no_name_is_under_a_path_or_on_another_one(plot):
    ax = plot()
    ax.figure.canvas.draw()
    drawn = [ax.transData.transform(line.get_xydata()) for line in ax.lines]
    assert len(inside(ax)) >= 3
    assert not overlap(ax.texts)
    for text in ax.texts:
        box = text.get_window_extent()
        assert not any(box.contains(*point) for points in drawn for point in points)


@pytest.mark.parametrize(
    "plot",
    [
        lambda: plot_path_fidelity(TRAJECTORY),
        lambda: plot_path(RUNS),
        lambda: plot_levels(TORN),
        lambda: plot_surface(TORN),
    ],
    ids=["fidelity", "runs", "levels", "surface"],
)
def test_titles_of_the_caller_are_clear_of_legends_and_notes_and_whole(plot):
    ax = plot()
    ax.set_title("of the caller")
    ax.figure.canvas.draw()
    title, frame = ax.title.get_window_extent(), ax.get_window_extent()
    above = [text for text in ax.texts if text.get_window_extent().y0 >= frame.y1]
    above += [ax.get_legend()] * (ax.get_legend() is not None)
    assert above
    for artist in above:
        assert artist.get_window_extent().y1 <= title.y0
    assert title.y1 <= ax.figure.bbox.y1


def test_levels_of_the_caller_have_colors_in_equal_steps():
    ax = plot_levels(STEEP, levels=[1, 2, 3, 1000])
    filled = ax.collections[0]
    colors = filled.to_rgba(filled.cvalues)[:, :3]
    between = colors[1:-1]
    gaps = np.abs(np.diff(between, axis=0)).sum(axis=1)
    assert gaps.min() > 0.15


def test_a_grid_of_the_caller_is_not_drawn_over_contours():
    with mpl.rc_context({"axes.grid": True}):
        ax = plot_levels(BOWL)
    assert not any(line.get_visible() for line in ax.get_xgridlines() + ax.get_ygridlines())


@pytest.mark.parametrize("plot", [plot_levels, plot_surface])
def test_a_surface_without_a_finite_value_says_so_and_has_no_color_bar(plot):
    ax = plot(a_surface(lambda a, b: np.nan * a * b))
    assert texts(ax) == ["nothing drawn: all points not finite"]
    assert not any(child.get_visible() for child in ax.child_axes)


def luminance(color):
    return np.dot(mpl.colors.to_rgb(color), [0.3, 0.6, 0.1])


def test_notes_can_be_read_in_a_dark_style():
    with plt.style.context("dark_background"):
        axes = [plot_line(a_line(np.where(ALPHAS > 0.5, np.nan, ALPHAS))), plot_levels(TORN)]
    for ax in axes:
        (text,) = (text for text in ax.texts if "points" in text.get_text())
        assert luminance(text.get_color()) - luminance(ax.figure.get_facecolor()) > 0.8


def test_figures_have_the_size_that_the_caller_wants():
    assert list(plot_line(a_line(ALPHAS)).figure.get_size_inches()) == [3.5, 2.8]
    assert list(plot_surface(BOWL, figsize=(5, 4)).figure.get_size_inches()) == [5, 4]
    strip = dataclasses.replace(BOWL, betas=BOWL.betas / 3)
    assert list(plot_levels(strip).figure.get_size_inches()) == pytest.approx([3.5, 1.79], abs=0.01)
    with mpl.rc_context({"figure.figsize": (6, 3)}):
        assert list(plot_levels([BOWL, BOWL])[0].figure.get_size_inches()) == [12, 3]
    with mpl.rc_context({"font.size": 20}):
        assert list(plot_levels(BOWL).figure.get_size_inches()) == [7, 5.6]


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(("size", "scale"), [(8, "linear"), (10, "log"), (18, "linear")])
def test_every_name_on_surfaces_is_whole_and_clear_of_the_others(number, size, scale):
    with mpl.rc_context({"font.size": size}):
        axes = plot_surface([BOWL, STEEP, WAVES][:number], scale=scale)
        figure = axes[0].figure
        figure.canvas.draw()
    for ax in axes:
        names = []
        for axis, ticks in (
            (ax.xaxis, ax.get_xticks()),
            (ax.yaxis, ax.get_yticks()),
            (ax.zaxis, ax.get_zticks()),
        ):
            names += [tick.label1 for tick in axis.get_major_ticks(len(ticks))]
        names += [ax.xaxis.label, ax.yaxis.label]
        figure.canvas.draw()
        assert not overlap(names)
        for text in names:
            box = text.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert 0 <= box.y0 < box.y1 <= figure.bbox.y1
    bar = bar_of(axes[-1])
    assert bar.get_window_extent().x0 > axes[-1].zaxis.get_tightbbox().x1
    assert bar.get_tightbbox().x1 <= figure.bbox.x1


def is_seen(ax, surface, point):
    """Whether no part of a surface lies between a point on it and the viewer."""
    (width, depth, height), values = ax.get_box_aspect(), surface.values["loss"]
    spans = np.ptp(surface.alphas), np.ptp(surface.betas), np.ptp(ax.get_zlim())
    scale = np.array([width, depth, height]) / spans
    up, toward = np.deg2rad([ax.elev, ax.azim])
    view = np.array([np.cos(up) * np.cos(toward), np.cos(up) * np.sin(toward), np.sin(up)])
    for step in np.linspace(0.05, 2, 400):
        alpha, beta, z = point + step * view / scale / scale.max() * 2
        if abs(alpha) > 1 or abs(beta) > 1:
            return True
        row = [np.interp(alpha, surface.alphas, each) for each in values]
        if np.interp(beta, surface.betas, row) > z:
            return False
    return True


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_surface_is_seen_from_where_nothing_hides_its_lowest_point(turn):
    # A valley with one high wall, which is turned to each side.
    values = np.rot90(0.3 * (ALPHAS**2 + ALPHAS[:, np.newaxis] ** 2) + np.exp(3 * ALPHAS) / 9, turn)
    surface = LossSurface(ALPHAS, ALPHAS, {"loss": values}, {"loss": values[10, 10]}, {})
    ax = plot_surface(surface)
    row, column = np.unravel_index(values.argmin(), values.shape)
    assert is_seen(ax, surface, np.array([ALPHAS[column], ALPHAS[row], values.min()]))
    assert 28 <= ax.elev <= 52


@pytest.mark.parametrize("angle", np.arange(0, 360, 45))
def test_a_tilted_plane_is_not_seen_edge_on(angle):
    a, b = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    ax = plot_surface(a_surface(lambda alpha, beta: 5 + a * alpha + b * beta))
    width, depth, height = ax.get_box_aspect()
    rise = height / np.ptp(ax.get_zlim())
    normal = np.array([-a * rise * 2 / width, -b * rise * 2 / depth, 1])
    up, toward = np.deg2rad([ax.elev, ax.azim])
    view = np.array([np.cos(up) * np.cos(toward), np.cos(up) * np.sin(toward), np.sin(up)])
    assert normal @ view / np.linalg.norm(normal) > 0.25


def test_a_model_behind_the_surface_has_a_hollow_mark():
    for elevation, is_hollow in ((80, False), (20, True)):
        *_, mark = plot_surface(STEEP, view=(elevation, -60), limits=(0, 100)).collections
        assert (len(mark.get_facecolor()) == 0) == is_hollow


def test_a_surface_without_axes_is_nothing_but_the_surface():
    ax = plot_surface(STEEP, limits=(0, 9), axes=False, labels="a network")
    assert not ax.axison
    assert not ax.texts
    assert not [child for child in ax.child_axes if child.get_visible()]
    assert len(ax.collections) == 2
    assert ax.get_title() == "a network"


def marks_in(film):
    """How many pixels of each frame have the color of the model's mark."""
    red = np.array(mpl.colors.to_rgb("tab:red")) * 255
    frames = (np.asarray(each.convert("RGB"), int) for each in ImageSequence.Iterator(film))
    return [np.count_nonzero(np.abs(each - red).max(axis=-1) <= 4) for each in frames]


def test_a_surface_turns_once_around_in_a_film(tmp_path):
    with mock.patch("losslandscape.plotting.FRAMES", 4):
        animate_surface(BOWL, tmp_path / "bowl.gif", fps=10)
    with Image.open(tmp_path / "bowl.gif") as film:
        assert film.n_frames == 4
        assert film.info["duration"] == 100
        assert min(marks_in(film)) > 20
    assert not plt.get_fignums()


def test_the_view_can_be_given():
    ax = plot_surface(BOWL, view=(20, 45))
    assert (ax.elev, ax.azim) == (20, 45)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_line(BOWL), "`lines` must be a `LossLine`.*LossSurface.*`plot_levels`"),
        (lambda: plot_levels(a_line(ALPHAS)), "`surfaces` must be a `LossSurface`.*`plot_line`"),
        (lambda: plot_path(BOWL), "`trajectory` must be a `LossTrajectory`.*`plot_levels`"),
        (lambda: plot_spectrum(BOWL), "`spectrum` must be a `Spectrum`"),
        (lambda: plot_persistence(BOWL.slice(beta=0)), "`surface` must be a `LossSurface`"),
        (lambda: plot_convexity([1, 2]), "`surfaces` must be a `LossSurface`. Received 1"),
        (lambda: plot_line(a_line(ALPHAS), "ax"), "`ax` must be Matplotlib axes. Received str"),
    ],
)
def test_values_of_another_kind_are_refused_and_the_right_call_is_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_polar_axes_are_refused():
    with pytest.raises(ValueError, match="`ax` must be flat axes.*PolarAxes"):
        plot_levels(BOWL, plt.axes(projection="polar"))


def test_a_display_is_drawn_as_the_values_in_it():
    display = LossDisplay(lines=[a_line(ALPHAS), a_line(-ALPHAS)])
    assert len(plot_line(display).lines) == 2
    assert plot_levels(LossDisplay(surfaces=[BOWL])).get_xlim() == (-1, 1)


def test_a_slice_is_drawn_along_the_axis_it_runs_along():
    assert plot_line(BOWL.slice(alpha=0)).get_xlabel() == "β"
    assert plot_line(BOWL.slice(beta=0)).get_xlabel() == "α"


def test_models_between_which_a_plane_or_line_lies_are_named():
    metadata = {"positions": [[0, 0], [0.5, 0], [5, 5]], "models": ["small", "large", "far"]}
    ax = plot_levels(dataclasses.replace(BOWL, metadata=metadata))
    assert {"small", "large"} <= set(texts(ax))
    assert "far" not in texts(ax)
    line = a_line(ALPHAS)
    line.metadata.update({"positions": [0, 0.5], "models": ["small", "large"]})
    assert texts(plot_line(line)) == ["small", "large"]


@pytest.mark.mpl_image_compare
def test_look_of_lines():
    curves = 0.5 + np.outer([1, 2, 3], ALPHAS**2)
    lines = [a_line(0.5 + 0.8 * ALPHAS**2), a_line(curves)]
    return plot_line(lines, labels=("training set", "test set")).figure


@pytest.mark.mpl_image_compare
def test_look_of_levels():
    return plot_levels(BOWL).figure


@pytest.mark.mpl_image_compare
def test_look_of_a_surface():
    return plot_surface(BOWL).figure


@pytest.mark.mpl_image_compare
def test_look_of_a_comparison_with_holes_on_a_log_scale():
    return plot_levels([STEEP, TORN], labels=("ResNet-56", "VGG-like 56"), scale="log")[0].figure


PATH = np.array([[0.9, 0.1], [0.6, -0.3], [0.2, -0.1], [0, 0]])
TRAJECTORY = LossTrajectory(
    BOWL.alphas,
    BOWL.betas,
    BOWL.values,
    BOWL.center,
    {},
    path=PATH,
    explained=np.array([0.912, 0.05]),
    distances=np.array([0.5, 0.3, 0.1, 0]),
    plane_values={"loss": np.array([2.0, 1.5, 0.7, 0.5])},
    true_values={"loss": np.array([2.5, 1.6, 0.8, 0.5])},
)


def test_a_path_is_drawn_over_its_plane_with_what_the_axes_explain():
    ax = plot_path(TRAJECTORY)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), PATH)
    assert ax.get_xlabel() == "1st principal component (91.2%)"
    assert ax.get_ylabel() == "2nd principal component (5.0%)"
    # The end of training is the model's own point.
    np.testing.assert_array_equal(ax.collections[2].get_offsets(), [[0, 0]])
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), PATH[:1])
    assert "start" in texts(ax)


def test_the_second_axis_of_a_straight_path_is_named_as_what_it_is():
    straight = dataclasses.replace(
        TRAJECTORY, explained=np.array([1.0, 0.0]), metadata={"second_axis": "random"}
    )
    ax = plot_path(straight)
    assert ax.get_xlabel() == "1st principal component (100.0%)"
    assert ax.get_ylabel().replace("\n", " ") == "random direction at right angles"


RUNS = dataclasses.replace(TRAJECTORY, metadata={"runs": {"SGD": 3, "Adam_$": 1}})


def test_several_runs_have_a_color_each():
    ax = plot_path(RUNS)
    first, second, *starts = ax.lines
    np.testing.assert_array_equal(first.get_xydata(), PATH[:3])
    np.testing.assert_array_equal(second.get_xydata(), PATH[3:])
    assert first.get_color() != second.get_color()
    for line, start in zip((first, second), starts, strict=True):
        np.testing.assert_array_equal(start.get_xydata(), line.get_xydata()[:1])
        assert start.get_color() == line.get_color()
    ends = [collection.get_offsets().tolist() for collection in ax.collections[-2:]]
    assert ends == [[PATH[2].tolist()], [PATH[3].tolist()]]
    # Above the plane, since no place on it is free of contours.
    drawn = ax.get_legend()
    assert [text.get_text() for text in drawn.get_texts()] == ["SGD", "Adam_$"]
    ax.figure.draw_without_rendering()
    assert drawn.get_window_extent().y0 >= ax.bbox.y1


def test_colors_of_runs_are_the_same_in_both_figures_and_of_the_callers_cycle():
    with mpl.rc_context({"axes.prop_cycle": cycler(color=["red", "lime"])}):
        path, fidelity = plot_path(RUNS), plot_path_fidelity(RUNS)
    for ax in (path, fidelity):
        assert [line.get_color() for line in ax.lines[:2]] == ["red", "lime"]


def test_fidelity_of_several_runs_counts_the_records_of_each():
    ax = plot_path_fidelity(RUNS)
    beside = next(other for other in ax.figure.axes if other is not ax)
    curves = {
        "true_values": ax.lines[:2], "plane_values": ax.lines[2:4], "distances": beside.lines[:2]
    }  # fmt: skip
    for name, (first, second) in curves.items():
        values = getattr(RUNS, name)
        values = values["loss"] if isinstance(values, dict) else values
        np.testing.assert_array_equal(first.get_xydata(), np.transpose([range(3), values[:3]]))
        np.testing.assert_array_equal(second.get_xydata(), [[0, values[3]]])
    drawn = ax.get_legend().get_texts()
    assert [text.get_text() for text in drawn] == [
        "at the records", "on the plane", "distance off the plane", "SGD", "Adam_$"
    ]  # fmt: skip
    # The runs beside the kinds of curves, as far as there is room.
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in drawn]
    assert boxes[3].x0 > boxes[2].x1
    assert max(box.x1 for box in boxes) <= ax.figure.bbox.x1


def test_several_runs_are_drawn_on_a_subfigure():
    for draw in (plot_path, plot_path_fidelity):
        left, _ = plt.figure(figsize=(10, 3)).subfigures(1, 2)
        ax = draw(RUNS, left.subplots())
        ax.get_figure(root=True).canvas.draw()
        assert ax.get_legend().get_window_extent().x1 <= left.bbox.x1


def test_long_names_of_runs_are_whole():
    runs = dataclasses.replace(RUNS, metadata={"runs": {"SGD, batch of 128": 3, "Adam": 1}})
    ax = plot_path_fidelity(runs)
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1


@pytest.mark.parametrize(
    ("explained", "expected"),
    [
        ([0.912, 0.05], ""),
        ([0.5, 0.4], ""),
        ([0.6, 0.15], ", no less than here"),
        ([0.3, 0.3], ", no less than here"),
    ],
)
def test_a_note_compares_a_path_with_a_random_walk(explained, expected):
    metadata = {"random_walk": [0.609, 0.153]}
    path = dataclasses.replace(TRAJECTORY, explained=np.array(explained), metadata=metadata)
    null = f"a random walk's axes would hold 60.9% and 15.3%{expected}"
    assert texts(plot_path(path))[0].replace("\n", " ").endswith(null)
    # Its axes in space have no names to compare with.
    assert not any("random walk" in text for text in texts(plot_surface(path)))


def test_levels_of_the_plane_of_a_path_are_named_as_the_path_is():
    ax, other = plot_levels([TRAJECTORY, BOWL])
    assert ax.get_xlabel() == "1st principal component (91.2%)"
    assert ax.get_ylabel() == "2nd principal component (5.0%)"
    assert (other.get_xlabel(), other.get_ylabel()) == ("α", "β")
    # In space there is no room for that.
    space = plot_surface(TRAJECTORY)
    assert (space.get_xlabel(), space.get_ylabel()) == ("α", "β")


def test_the_fidelity_of_a_path_shows_both_losses_and_the_distance():
    ax = plot_path_fidelity(TRAJECTORY, scale="log")
    true, seen = (line.get_ydata() for line in ax.lines)
    np.testing.assert_array_equal(true, TRAJECTORY.true_values["loss"])
    np.testing.assert_array_equal(seen, TRAJECTORY.plane_values["loss"])
    beside = next(other for other in ax.figure.axes if other is not ax)
    np.testing.assert_array_equal(beside.lines[0].get_ydata(), TRAJECTORY.distances)
    assert beside.get_ylim()[0] == 0
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["at the records", "on the plane", "distance off the plane"]
    with pytest.raises(ValueError, match="`metric` must be one of 'loss', 'accuracy'"):
        plot_path_fidelity(TRAJECTORY, metric="f1")


def test_films_have_a_frame_per_record(tmp_path):
    animate_path(TRAJECTORY, tmp_path / "path.gif", fps=5)
    with Image.open(tmp_path / "path.gif") as film:
        assert film.n_frames == len(PATH)
        assert film.info["duration"] == 200
        film.seek(0)
        first = np.asarray(film.convert("L"), int)
        film.seek(3)
        last = np.asarray(film.convert("L"), int)
        assert min(marks_in(film)) > 20
    # The black path grows.
    assert (last < 60).sum() > (first < 60).sum()
    assert not plt.get_fignums()


def test_paths_count_the_epochs_that_their_records_name(tmp_path, monkeypatch):
    written, set_text = [], Text.set_text

    def keep(self, text):
        written.append(str(text))
        set_text(self, text)

    monkeypatch.setattr(Text, "set_text", keep)
    metadata = {"times": [0.0, 10.0, 20.0, 25.0], "unit": "epoch"}
    path = dataclasses.replace(TRAJECTORY, metadata=metadata)
    animate_path(path, tmp_path / "path.gif")
    # Some versions of Matplotlib write a text several times.
    counts = [text for text, _ in itertools.groupby(each for each in written if "epoch" in each)]
    assert counts[-4:] == [f"epoch {number} of 25" for number in (0, 10, 20, 25)]
    ax = plot_path_fidelity(path)
    assert ax.get_xlabel() == "epoch"
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), metadata["times"])
    np.testing.assert_array_equal(path.to_pandas()["epoch"], metadata["times"])


def test_films_of_several_runs_last_as_long_as_the_longest(tmp_path):
    animate_path(RUNS, tmp_path / "runs.gif")
    with Image.open(tmp_path / "runs.gif") as film:
        assert film.n_frames == 3


# Of a surface that is torn, follows splines, and then is too rough for them: only the last frame
# has no note.
HEIGHTS = [BOWL.values["loss"].copy(), BOWL.values["loss"] / 10, ROUGH.values["loss"]]
HEIGHTS[0][:5] = np.nan
FILM = LossFilm(
    BOWL.alphas,
    BOWL.betas,
    {"loss": np.stack(HEIGHTS)},
    {"loss": np.array([np.nan, 0.05, 0.5])},
    {"loss": 0.5},
    {"labels": ["epoch 0", "epoch 1", "the end"]},
)


@pytest.mark.parametrize("plot_type", ["levels", "3d"])
def test_frames_of_a_film_have_one_scale_and_a_name_each(plot_type, tmp_path, monkeypatch):
    titles, places = [], []

    class Seen(mpl.animation.FuncAnimation):
        def __init__(self, figure, draw, **options):
            def draw_and_look(frame):
                (ax,) = draw(frame)
                figure.draw_without_rendering()
                (bar,) = (each for each in ax.child_axes if each.get_ylabel())
                assert figure.bbox.x1 > bar.get_tightbbox().x1
                assert figure.bbox.y1 > ax.title.get_window_extent().y1
                titles.append(ax.get_title())
                ticks = [text.get_text() for text in bar.get_yticklabels()]
                places.append((ticks, bar.get_ylim(), ax.get_position().bounds))
                return [ax]

            super().__init__(figure, draw_and_look, **options)

    monkeypatch.setattr(mpl.animation, "FuncAnimation", Seen)
    animate_film(FILM, tmp_path / "film.gif", plot_type, fps=5)
    assert titles[-3:] == FILM.labels
    assert all(place == places[0] for place in places)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 3
        assert film.info["duration"] == 200
        # In the first frame the model's loss is not finite.
        assert min(marks_in(film)[1:]) > 20
    assert not plt.get_fignums()


def test_a_film_is_drawn_side_by_side_as_its_surfaces_are():
    axes = plot_levels(FILM, labels=FILM.labels)
    assert [ax.get_title() for ax in axes] == FILM.labels
    with pytest.raises(TypeError, match="`film` must be a `LossFilm`.*`plot_levels`"):
        animate_film(BOWL, "film.gif")
    with pytest.raises(TypeError, match="`lines` must be a `LossLine`.*`animate_film`"):
        plot_line(FILM)
    with pytest.raises(ValueError, match="`plot_type` must be one of 'levels', '3d'"):
        animate_film(FILM, "film.gif", "2d")


def test_films_that_need_ffmpeg_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(mpl.animation.writers, "is_available", lambda _: False)
    with pytest.raises(ValueError, match="must end in .gif where ffmpeg is not installed"):
        animate_path(TRAJECTORY, tmp_path / "path.mp4")
    monkeypatch.setattr(mpl.animation.writers, "is_available", lambda _: True)
    with pytest.raises(
        ValueError, match="must end in one of .gif, .mp4, .*A web page shows surfaces"
    ):
        animate_path(TRAJECTORY, tmp_path / "path.html")
    assert not plt.get_fignums()


def test_a_spectrum_is_a_density():
    eigenvalues = np.array([[-1.0, 0, 10], [-1, 2, 10]])
    shares = np.array([[0.1, 0.8, 0.1], [0.3, 0.5, 0.2]])
    ax = plot_spectrum(Spectrum(eigenvalues, shares, {"parameters": 100}), width=0.1)
    positions, density = ax.lines[0].get_data()
    np.testing.assert_allclose(trapezoid(density, positions), 1, rtol=1e-3)
    # The mean of the eigenvalues by their shares, over both probes.
    mean = trapezoid(positions * density, positions)
    np.testing.assert_allclose(mean, (0.9 + 2.7) / 2, rtol=1e-3)
    peak = density[np.abs(positions - 10).argmin()]
    np.testing.assert_allclose(peak, 0.15 / (0.1 * np.sqrt(2 * np.pi)), rtol=1e-2)
    assert ax.get_yscale() == "log"
    # The tails of the normal curves do not stretch the axis.
    np.testing.assert_allclose(ax.get_ylim(), [density.max() / 1000, 3 * density.max()])
    with pytest.raises(ValueError, match="`width` must be greater than 0 and finite. Received -1"):
        plot_spectrum(Spectrum(eigenvalues, shares, {"parameters": 100}), width=-1)


def test_layers_are_bars_in_the_order_of_the_model():
    names = ["conv", "a$_$b", "top"]
    traces = np.array([[10.0, 8, 12], [-1, -3, 1], [4, 3.5, 4.5]])
    curvature = LayerCurvature(np.array([3.0, 0.5, 2]), traces, {"layers": names})
    ax = plot_layers(curvature)
    assert [bar.get_width() for bar in ax.patches] == [10, -1, 4]
    assert [text.get_text() for text in ax.get_yticklabels()] == names
    (ends,) = (each for each in ax.collections if len(each.get_segments()) == 3)
    np.testing.assert_allclose([part[:, 0] for part in ends.get_segments()], traces[:, 1:])
    # The first layer is on top.
    low, high = ax.get_ylim()
    assert low > high
    assert ax.get_xlabel() == "trace of the Hessian"
    curvature.metadata["normalize"] = "filter"
    ax = plot_layers(curvature, plt.figure().add_subplot(), metric="largest")
    assert [bar.get_width() for bar in ax.patches] == [3, 0.5, 2]
    assert ax.get_xlabel() == "largest eigenvalue of the scale-free Hessian"
    with pytest.raises(ValueError, match="`metric` must be one of 'trace', 'largest'"):
        plot_layers(curvature, metric="smallest")
    with pytest.raises(TypeError, match="call `plot_layers`"):
        plot_spectrum(curvature)


def test_many_layers_make_a_higher_figure():
    names = [f"convolution_of_block_{index}" for index in range(60)]
    values = np.linspace(0, 1, 60)
    traces = np.stack([values, values, values], axis=1)
    ax = plot_layers(LayerCurvature(values, traces, {"layers": names}))
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert not any(upper.overlaps(lower) for upper, lower in itertools.pairwise(boxes))


def training_curvature_of(number, **values):
    thresholds = np.full(number, 10.0)
    values = {name: np.asarray(array, float) for name, array in values.items()}
    return TrainingCurvature(np.arange(number), values, thresholds, {}, {"unit": "epoch"})


def test_curvature_in_the_course_of_training_has_a_panel_for_each_measure():
    curvature = training_curvature_of(
        3, loss=[3, 2, 1], largest_eigenvalue=[1, 5, np.inf],
        trace=[4, -5, 6], trace_low=[3, -6, 5], trace_high=[5, -4, 7],
    )  # fmt: skip
    axes = plot_training_curvature(curvature, scale="log")
    assert list(axes) == ["loss", "largest_eigenvalue", "trace"]
    names = [ax.get_ylabel() for ax in axes.values()]
    assert names == ["loss (log scale)", "largest eigenvalue\n(log scale)", "trace"]
    assert axes["trace"].get_xlabel() == "epoch"
    eigenvalues, limit = axes["largest_eigenvalue"].lines
    np.testing.assert_array_equal(eigenvalues.get_ydata(), [1, 5, np.nan])
    np.testing.assert_array_equal(limit.get_ydata(), [10, 10, 10])
    assert texts(axes["largest_eigenvalue"]) == ["limit of stability"]
    assert axes["largest_eigenvalue"].get_legend() is None
    # A trace may be negative, and has an interval.
    (curve,), (band,) = axes["trace"].lines, axes["trace"].collections
    np.testing.assert_array_equal(curve.get_ydata(), [4, -5, 6])
    assert band.get_datalim(axes["trace"].transData).intervaly.tolist() == [-6, 7]


def test_curvature_is_drawn_on_given_axes_by_name():
    curvature = training_curvature_of(2, loss=[2, 1])
    curvature = dataclasses.replace(curvature, thresholds=np.full(2, np.nan))
    ax = plt.figure().add_subplot()
    assert plot_training_curvature(curvature, {"loss": ax}) == {"loss": ax}
    with pytest.raises(ValueError, match="`ax` must be a dict of axes for loss. Received Axes"):
        plot_training_curvature(curvature, ax)


def test_a_barcode_has_a_bar_from_each_minimum_to_where_its_basin_merges():
    # Wells at -1, 0 and 1 with values 2, 0 and 1, and ridges of 5 and 4 between them.
    curve = np.interp(ALPHAS, [-1, -0.5, 0, 0.5, 1], [2, 5, 0, 4, 1])
    ax = plot_persistence(a_surface(lambda a, b: np.interp(a, ALPHAS, curve) + b**2))
    expected = [[(0, 1), (6, 1)], [(1, 2), (4, 2)], [(2, 3), (5, 3)]]
    np.testing.assert_allclose(ax.collections[0].get_segments(), expected, atol=1e-9)
    # The first never merges: an arrow at the highest value.
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[6, 1]])
    # A dot where each begins, or a basin of almost no depth could not be seen.
    starts = ax.collections[0].get_segments()
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [bar[0] for bar in starts], atol=1e-9)
    assert (ax.lines[0].get_marker(), ax.get_xlabel()) == (">", "loss")
    low, high = ax.get_ylim()
    assert low > high
    # Not at a much higher one, which would leave no room for the basins.
    ax = plot_persistence(a_surface(lambda a, b: np.interp(a, ALPHAS, curve) + 99 * b**2))
    assert ax.get_xlim()[1] == pytest.approx(6)


def test_a_barcode_of_holes_ends_at_the_highest_finite_value():
    ax = plot_persistence(TORN, metric="loss")
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[2.5, 1]])
    none = a_surface(lambda a, _: np.full_like(a, np.nan))
    assert not plot_persistence(none).collections[0].get_segments()


def test_maps_of_convexity_have_one_logarithmic_scale_that_the_data_span():
    maps = [
        LossSurface(ALPHAS, ALPHAS, {"convexity": ratios.reshape(21, 21)}, {"convexity": 0.1}, {})
        for ratios in (np.geomspace(1e-3, 0.01, 441), np.geomspace(0.02, 0.3, 441))
    ]
    axes = plot_convexity(maps, labels=("with", "without"))
    for ax, surface in zip(axes, maps, strict=True):
        cells = ax.collections[0]
        ratios = surface.values["convexity"]
        np.testing.assert_array_equal(np.ravel(cells.get_array()), np.ravel(ratios))
        np.testing.assert_allclose(cells.get_clim(), (1e-3, 0.3))
        assert isinstance(cells.norm, mpl.colors.LogNorm)
    assert [ax.get_title() for ax in axes] == ["with", "without"]
    assert bar_of(axes[1]).get_ylabel() == "|λmin / λmax| (log scale)"
    # Zero is convex, and the darkest of all.
    convex = dataclasses.replace(maps[0], values={"convexity": np.zeros((21, 21))})
    plot_convexity(convex).figure.canvas.draw()


def test_a_convexity_map_has_the_notes_and_marks_of_every_plane():
    values = np.full((21, 21), 0.1)
    values[0] = np.nan
    values[5, 5] = np.nan
    metadata = {"missing": list(range(21)), "positions": [[0, 0], [0.5, 0.5], [5, 5]]}
    surface = LossSurface(ALPHAS, ALPHAS, {"convexity": values}, {"convexity": 0.1}, metadata)
    ax = plot_convexity(surface)
    assert texts(ax) == ["preview: 420 of 441 points\n1 of 441 points not finite"]
    marks = [mark.get_offsets().tolist() for mark in ax.collections[1:]]
    assert marks == [[[0, 0]], [[0.5, 0.5]]]
    assert ax.get_aspect() == 1
    beyond = dataclasses.replace(surface, alphas=ALPHAS + 3, metadata={})
    assert len(plot_convexity(beyond).collections) == 1


def some_barriers(names, highest=8.0):
    """Barriers of models of the same loss, 0, that are the higher the later the pair."""
    number = len(names) * (len(names) - 1) // 2
    rows = np.outer(np.linspace(0, highest, number), [0, 1, 0])
    return LossBarriers(np.array([0, 0.5, 1]), {"loss": rows}, {}, {"models": names})


def test_barriers_are_a_heat_map_with_its_numbers():
    barriers = some_barriers(["first", "second", "third"])
    ax = plot_barriers(barriers)
    (cells,) = ax.collections
    np.testing.assert_array_equal(cells.get_array(), loss_barrier(barriers))
    assert cells.get_clim() == (0, 8)
    # As a matrix is printed: the first model in the first row, at the top.
    assert texts(ax) == ["0", "0", "4", "0", "0", "8", "4", "8", "0"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    for axis in (ax.xaxis, ax.yaxis):
        assert [tick.get_text() for tick in axis.get_ticklabels()] == barriers.names
    assert bar_of(ax).get_ylabel() == "loss barrier, above the chord"
    # What is dark has light numbers.
    assert [text.get_color() for text in ax.texts[4:6]] == ["white", "black"]


def test_barriers_take_what_their_measure_takes():
    barriers = some_barriers(["first", "second"])
    ax = plot_barriers(barriers, labels=("1", "2"), definition="mean", mode="max")
    assert bar_of(ax).get_ylabel() == "loss barrier, below the mean"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["1", "2"]
    with pytest.raises(ValueError, match="Received 3 labels for 2 values"):
        plot_barriers(barriers, labels=("1", "2", "3"))
    with pytest.raises(TypeError, match="must be a `LossBarriers`.*To draw it, call `plot_line`"):
        plot_barriers(barriers.line(0, 1))


def test_barriers_without_a_number_are_noted():
    barriers = some_barriers(["first", "second", "third"])
    barriers.values["loss"][1, 1] = np.nan
    ax = plot_barriers(barriers)
    assert texts(ax)[0] == "1 of 3 barriers not finite"
    assert texts(ax).count("inf") == 2
    assert np.ma.count_masked(ax.collections[0].get_array()) == 2


@pytest.mark.parametrize("number", [4, 9])
def test_numbers_and_names_of_barriers_fit(number):
    ax = plot_barriers(some_barriers([f"residual_network_{k}" for k in range(number)], 1000))
    ax.figure.draw_without_rendering()
    cell = ax.get_window_extent().width / number
    for text in ax.texts:
        assert text.get_window_extent().width < cell
    columns = [tick.get_window_extent() for tick in ax.get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in pairwise(columns))
    assert len(ax.texts) == number**2


def test_barriers_too_small_for_numbers_have_none():
    ax = plot_barriers(some_barriers(list("abcdefghi"), 1000), figsize=(2, 2))
    assert not ax.texts


def test_every_model_of_a_plane_or_line_is_marked():
    positions = [[0, 0], [0.5, 0], [0.2, 0.8], [5, 5]]
    surface = LossSurface(
        BOWL.alphas, BOWL.betas, BOWL.values, BOWL.center, {"positions": positions}
    )
    marks = [mark.get_offsets().tolist() for mark in plot_levels(surface).collections[-3:]]
    # The last one lies beyond.
    assert marks == [[[0, 0]], [[0.5, 0]], [[0.2, 0.8]]]
    line = LossLine(
        ALPHAS, {"loss": 0.5 + ALPHAS[np.newaxis]}, {"loss": 0.5}, {"positions": [0, 1]}
    )
    marks = [mark.get_offsets()[0].tolist() for mark in plot_line(line).collections]
    assert marks == [[0, 0.5], [1, 1.5]]


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_every_model_is_marked_in_space_at_its_height(scale):
    positions = [[0, 0], [0.5, 0], [0.25, 0.8], [5, 5]]
    surface = dataclasses.replace(BOWL, metadata={"positions": positions})
    to_axis = np.log10 if scale == "log" else np.asarray

    def marks(**options):
        collections = plot_surface(surface, scale=scale, **options).collections[2:]
        return [np.ravel(mark._offsets3d).tolist() for mark in collections]

    # 0.5 + 3 α² - α + β², of which α = 0.25 is halfway between two points of the grid.
    heights = to_axis([0.5, 0.75, 0.5 + (3 * 0.04 - 0.2 + 3 * 0.09 - 0.3) / 2 + 0.64])
    np.testing.assert_allclose(
        marks(), [[*at, height] for at, height in zip(positions, heights, strict=False)]
    )
    # Those that are beyond the limits would float above or below the surface.
    np.testing.assert_allclose(marks(limits=(0.6, 0.9)), [[0.5, 0, heights[1]]])


def inked(figure, dpi):
    """The borders of a figure, as it is saved for the first time, on which something is drawn."""
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, pil_kwargs={"compress_level": 0})
    pixels = np.asarray(Image.open(content).convert("L"))
    borders = {"top": pixels[0], "bottom": pixels[-1], "left": pixels[:, 0], "right": pixels[:, -1]}
    return [name for name, border in borders.items() if (border != 255).any()]


def test_the_first_file_of_every_plot_is_whole():
    flat = a_surface(lambda a, b: 0.1 + (a**2 + b**2) / 50)
    names = ["convolution_of_block_1", "top"]
    layers = LayerCurvature(np.ones(2), np.array([[9.0, 8, 12], [-1, -3, 1]]), {"layers": names})
    ratios = {"convexity": 1e-3 * BOWL.values["loss"]}
    calls = {
        "line": lambda: plot_line([a_line(STEEP.values["loss"])] * 2, labels=("training set", "b")),
        "levels": lambda: plot_levels(flat),
        "several levels": lambda: plot_levels([STEEP, TORN], labels=("a", "b"), scale="log")[0],
        "surface": lambda: plot_surface(STEEP),
        "several surfaces": lambda: plot_surface([BOWL, TORN], labels=("a", "b"))[0],
        "path": lambda: plot_path(RUNS, scale="log"),
        "fidelity": lambda: plot_path_fidelity(RUNS, scale="log"),
        "curve": lambda: plot_curve(dataclasses.replace(WAVES, metadata=ENDS)),
        "spectrum": lambda: plot_spectrum(
            Spectrum(np.array([[-1.0, 0, 10]]), np.array([[0.1, 0.8, 0.1]]), {"parameters": 100})
        ),
        "layers": lambda: plot_layers(layers),
        "training": lambda: plot_training_curvature(
            training_curvature_of(3, loss=[3, 2, 1], largest_eigenvalue=[1, 5, 12])
        )["loss"],
        "persistence": lambda: plot_persistence(WAVES),
        "convexity": lambda: plot_convexity(dataclasses.replace(BOWL, values=ratios)),
        "barriers": lambda: plot_barriers(some_barriers([f"residual_network_{k}" for k in "123"])),
    }
    # Planes with long names at every size, all others in turn.
    order = [*calls, "curve", "curve"]
    for name, (size, dpi) in zip(order, itertools.cycle([(7, 300), (10, 150), (18, 100)])):
        with mpl.rc_context({"font.size": size}):
            figure = calls[name]().figure
        assert inked(figure, dpi) == [], name
        plt.close(figure)


@pytest.mark.mpl_image_compare
def test_look_of_a_path():
    return plot_path(TRAJECTORY).figure


@pytest.mark.mpl_image_compare
def test_look_of_the_fidelity_of_a_path():
    return plot_path_fidelity(TRAJECTORY).figure


def compared(*numbers):
    """As many trainings per label as the numbers say, each flatter than the next."""
    lines = {
        f"batch {2**place}": [
            a_line(np.outer([0.8, 1.2], (ALPHAS * (place + 1)) ** 2) + training / 100)
            for training in range(number)
        ]
        for place, number in enumerate(numbers, start=1)
    }
    return Comparison.of(lines, rise=0.5, shared=True)


def test_a_comparison_shows_curves_differences_and_what_they_are_over():
    several = compared(2, 3)
    axes = plot_comparison(several)
    curves = [line.get_ydata() for line in axes["curves"].lines]
    np.testing.assert_allclose(curves[0], 4 * ALPHAS**2 + 0.005)
    (said,) = axes["curves"].texts
    assert said.get_text() == "mean ± s.d. of 2 or 3 trainings"
    (found,) = several.differences
    (bar,) = axes["half_width"].collections
    np.testing.assert_allclose(bar.get_segments()[0][:, 0], found.width[1:])
    assert axes["half_width"].get_yticklabels()[0].get_text() == "batch 2\n− batch 4"
    words = " ".join(axes["curves"].figure.get_supxlabel().split())
    assert "over trainings" in words
    assert found.verdict in words
    # One training each: it is said that this is about directions.
    axes = plot_comparison(compared(1, 1))
    (said,) = axes["curves"].texts
    assert " ".join(said.get_text().split()) == "mean ± s.d. of 2 directions through one network"
    words = " ".join(axes["curves"].figure.get_supxlabel().split())
    assert "they say nothing about other trainings" in words
    # Each model has one loss, whose difference has no interval.
    assert not axes["metric"].collections
    mine = dict(zip(axes, plt.subplots(3)[1], strict=True))
    assert plot_comparison(several, mine) is mine
    for wrong, error in ((mine["curves"], ValueError), ({"levels": 1}, ValueError)):
        with pytest.raises(error, match="`ax` must be a dict of axes for curves, half_width"):
            plot_comparison(several, wrong)
    with pytest.raises(TypeError, match="`comparison` must be a `Comparison`"):
        plot_comparison(BOWL)


def test_planes_of_a_comparison_share_one_scale():
    comparison = Comparison.of({"a": [BOWL, BOWL], "b": STEEP_BOWL}, rise=0.1)
    axes = plot_comparison(comparison)["levels"]
    assert [ax.get_title() for ax in axes] == ["a, 1", "a, 2", "b"]
    assert "not settled" in axes[0].figure.get_supxlabel()


def test_displays_are_taken_where_values_are():
    line, other = a_line(0.5 + ALPHAS**2), a_line(0.5 + 2 * ALPHAS**2)
    displays = [LossDisplay(lines=[line]), LossDisplay(lines=[other]), line]
    assert [display.line for display in displays[:2]] == [line, other]
    assert LossDisplay().line is None
    drawn = [curve.get_ydata() for curve in plot_line(displays).lines]
    np.testing.assert_array_equal(drawn, [each.values["loss"][0] for each in (line, other, line)])
    both = LossDisplay(surfaces=[BOWL, BOWL])
    assert len(plot_levels([both, BOWL])) == 3
    # Each of them is returned, whatever held them.
    assert len(plot_levels(both)) == len(plot_surface(both)) == 2
    with pytest.raises(TypeError, match="`lines` must be a `LossLine`. Received LossDisplay"):
        plot_line([line, both])
