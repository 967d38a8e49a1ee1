"""Hints: what other libraries call a thing is understood, or what it is called here is named."""

import re

import matplotlib as mpl
import numpy as np
import pytest

from losslandscape import (
    LossLine,
    LossSurface,
    plot_interpolation,
    plot_levels,
    plot_line,
    plot_loss,
    plot_loss_3D,
    plot_surface,
    plot_trajectory,
)

AXIS = np.linspace(-1, 1, 5)
LINE = LossLine(
    AXIS, {"loss": AXIS[np.newaxis] ** 2, "accuracy": 1 - AXIS[np.newaxis] ** 2}, {}, {}
)
SURFACE = LossSurface(AXIS, AXIS, {"loss": np.add.outer(AXIS**2, AXIS**2)}, {"loss": 0.0}, {})


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda m, d: plot_loss(m, d, 5), "`number_of_points=5`"),
        (
            lambda m, d: plot_loss(m, d, num_points=5),
            "`num_points`. Did you mean",
        ),
        (lambda m, d: plot_loss(m, d, steps=5), "`number_of_points`"),
        (lambda m, d: plot_loss(m, d, log=True), 'Did you mean `scale="log"`?'),
        (lambda m, d: plot_loss(m, d, batchsize=8), "Did you mean `batch_size`?"),
        (lambda m, d: plot_loss(m, d, title="a"), "Call `set_title` of the axes"),
        (lambda m, d: plot_loss(m, d, dpi=100), "Call `savefig(path, dpi=...)` of the figure"),
        (lambda m, d: plot_loss(m, d, figsize=(3, 3)), "`plot_line` takes it"),
        (
            lambda m, d: plot_loss(m, d, path="s.html"),
            "A web page shows surfaces",
        ),
        (lambda m, d: plot_loss(m, d, metric=["loss", "accuracy"]), "is drawn by `plot_metrics`"),
        (lambda m, d: plot_loss(m, d, metric="acc"), "Did you mean 'accuracy'?"),
        (plot_loss_3D, 'plot_loss_3D(model, ("levels", "3d"), x_test, y_test'),
        (lambda m, d: plot_loss_3D(m, "3D", *d), "Did you mean '3d'?"),
        (lambda m, d: plot_loss_3D(m, "contour", *d), "Did you mean 'levels'?"),
        (lambda m, d: plot_loss_3D(m, "surface", *d), "Did you mean '3d'?"),
        (lambda m, d: plot_loss_3D(m, "levels", *d, steps=5), "Did you mean `number_of_points`?"),
        (lambda m, d: plot_loss_3D(m, "levels", *d, limits=(0, 1)), "Did you mean `levels`?"),
        (lambda m, d: plot_loss_3D(m, "3d", *d, vmax=1), "Did you mean `limits`?"),
        (lambda m, d: plot_interpolation(m, m, d, ax=1), "`plot_line` takes it"),
        (lambda m, d: plot_trajectory(m, [m], *d, ax=1), "`plot_path` takes it"),
        (lambda *_: plot_line(LINE, color="red"), "Call `set_color` of the `lines` of the axes"),
        (lambda *_: plot_levels(SURFACE, color="red"), "Did you mean `cmap`?"),
        (lambda *_: plot_surface(SURFACE, vmin=0), "Did you mean `limits`?"),
        (lambda *_: LINE.save("a.npz"), "`path` must end in .h5"),
    ],
)
def test_what_has_another_name_here_is_named(model, data, call, hint):
    with pytest.raises((TypeError, ValueError), match=re.escape(hint)):
        call(model, data)


def test_contours_can_be_counted_instead_of_named():
    ax = plot_levels(SURFACE, levels=6)
    assert ax.collections[1].levels.tolist() == [0, 0.5, 1, 1.5, 2]


def test_settings_that_no_figure_can_be_made_with_are_named_without_a_path(model, data):
    with (
        mpl.rc_context({"text.usetex": True}),
        pytest.raises(ValueError, match=r"so settings such as `text.usetex` must change"),
    ):
        plot_loss(model, data)
