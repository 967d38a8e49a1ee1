"""Topology: basins against closed forms and against labeled level sets, one level at a time."""

import numpy as np
import pytest
from scipy import ndimage

from losslandscape import LossSurface
from losslandscape.values.topology import number_of_basins, persistence, saddle_minimum_distance


def surface_of(values, alphas=None, betas=None):
    values = np.asarray(values, float)
    rows, columns = values.shape
    alphas = np.arange(columns, dtype=float) if alphas is None else alphas
    betas = np.arange(rows, dtype=float) if betas is None else betas
    return LossSurface(alphas, betas, {"loss": values}, {"loss": 0.0}, {})


def two_wells():
    """Wells at α = -1 and 1, the right one higher by 0.4; they meet at α = 0.1, at 1.1² = 1.21."""
    alphas, betas = np.arange(-20, 21) / 10, np.arange(-10, 11) / 10
    a, b = np.meshgrid(alphas, betas)
    return surface_of(np.minimum((a + 1) ** 2, (a - 1) ** 2 + 0.4) + b**2, alphas, betas)


def test_two_wells_of_known_depth():
    lower, higher = persistence(two_wells())
    assert lower == (0.0, np.inf, (-1.0, 0.0), pytest.approx(1.21))
    assert higher == (0.4, pytest.approx(1.21), (1.0, 0.0), pytest.approx(1.21))
    assert higher.depth == pytest.approx(0.81)


def test_basins_are_counted_by_their_depth():
    counts = [number_of_basins(two_wells(), depth) for depth in (0, 0.8, 0.82, 100)]
    assert counts == [2, 2, 1, 1]
    with pytest.raises(ValueError, match="`depth` must be at least 0. Received -1"):
        number_of_basins(two_wells(), -1)


def test_saddle_minimum_distance_is_the_mean_height_of_saddles_above_their_minima():
    # The saddle is 1.21 above the lower minimum and 0.81 above the higher one.
    assert saddle_minimum_distance(two_wells()) == pytest.approx((1.21 + 0.81) / 2)
    assert saddle_minimum_distance(surface_of(np.add.outer([1, 0, 1], [1, 0, 1]))) == 0
    # Minima 0, 1 and 2 with saddles at 5 and 7: the first one meets another at 5.
    chain = surface_of([[0, 5, 1, 7, 2]])
    assert saddle_minimum_distance(chain) == pytest.approx(((5 - 0) + (5 - 1) + (7 - 2)) / 3)
    assert [basin.depth for basin in persistence(chain)] == [np.inf, 5, 4]


def by_labeling(values):
    """Birth, death and first saddle of each basin, by labeling the points below each level."""
    lows = np.where(np.isfinite(values), values, np.inf)
    found, alive = {}, set()
    for level in np.unique(lows[np.isfinite(lows)]):
        labels, number = ndimage.label(lows <= level, np.ones((3, 3)))
        elders = {
            int(np.where(labels == label, lows, np.inf).argmin()): label
            for label in range(1, number + 1)
        }
        for minimum in elders.keys() - found.keys():
            found[minimum] = [lows.flat[minimum], np.inf, np.inf]
        for minimum in alive:
            same = [other for other in alive if labels.flat[other] == labels.flat[minimum]]
            if len(same) > 1:
                found[minimum][2] = min(found[minimum][2], level)
            if minimum not in elders:
                found[minimum][1] = level
        # The dead no longer meet anyone, but the others of their basin do.
        alive = set(elders)
    return sorted(map(tuple, found.values()))


@pytest.mark.parametrize("case", ["rough", "smooth", "plateaus", "holes"])
def test_basins_agree_with_labeled_level_sets(case):
    values = np.random.default_rng(0).normal(size=(15, 18))
    if case == "smooth":
        values = ndimage.gaussian_filter(values, 1.5)
    if case == "plateaus":
        values = np.round(values)
    if case == "holes":
        values[values > 0.5], values[7] = np.inf, np.nan
    basins = [(basin.birth, basin.death, basin.saddle) for basin in persistence(surface_of(values))]
    assert len(basins) > 2
    assert sorted(basins) == by_labeling(values)


def test_basins_parted_by_holes_never_merge():
    basins = persistence(surface_of([[3, 1, np.nan, 0, 2]]))
    assert [(basin.birth, basin.death) for basin in basins] == [(0, np.inf), (1, np.inf)]
    assert persistence(surface_of(np.full((2, 2), np.nan))) == []


def test_a_flat_surface_is_one_basin():
    (basin,) = persistence(surface_of(np.ones((3, 4))))
    assert basin == (1, np.inf, (0, 0), np.inf)


def test_unknown_metrics_and_unfinished_surfaces_are_refused():
    surface = two_wells()
    with pytest.raises(ValueError, match="`metric` must be one of 'loss'. Received 'accuracy'"):
        persistence(surface, "accuracy")
    surface.metadata["missing"] = [3]
    with pytest.raises(ValueError, match="must be complete, but 1 points are missing in LossSurf"):
        persistence(surface)
    with pytest.raises(TypeError, match="`surface` must be a `LossSurface`"):
        persistence(surface.slice(beta=0))
