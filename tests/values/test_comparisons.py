"""Comparisons: what they settle is right, and it is said what that is about."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from losslandscape import Comparison, LossLine, LossSurface, plot_comparison, plot_line
from losslandscape.values.comparisons import difference, verdict_of

ALPHAS = np.linspace(-1, 1, 201)


def line_of(*widths, center=0.0, **values):
    """A line of parabolas that rise by 1 at these half-widths."""
    loss = np.array([(ALPHAS / width) ** 2 for width in widths]) + center
    values = {name: np.full(loss.shape, float(value)) for name, value in values.items()}
    center = {"loss": center} | {name: float(array[0, 0]) for name, array in values.items()}
    return LossLine(ALPHAS, {"loss": loss} | values, center, {"seed": 0})


def drawn(generator, numbers, *, shared=True, spread=0.02, factors=(1, 1)):
    """Half-widths of trainings by direction, of the same mean but for the factors."""
    steepness = [1 + 0.2 * generator.normal(size=10)]
    steepness = steepness * 2 if shared else [*steepness, 1 + 0.2 * generator.normal(size=10)]
    return [
        factor
        * (0.4 * along + spread * generator.normal(size=(number, 1)))
        * (1 + 0.1 * generator.normal(size=(number, 10)))
        for number, along, factor in zip(numbers, steepness, factors, strict=True)
    ]


def share_of_flatter(draws, numbers, *, seed=0, shared=True, **kind):
    generator = np.random.default_rng(seed)
    found = 0
    for _ in range(draws):
        widths = drawn(generator, numbers, shared=shared, **kind)
        verdict = verdict_of("ab", difference(*widths, shared=shared), numbers)
        assert ("is flatter" in verdict) != ("not settled" in verdict)
        found += "is flatter" in verdict
    return found / draws


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("numbers", [(3, 3), (2, 5), (5, 5)])
def test_trainings_that_do_not_differ_are_called_flatter_in_few_draws(numbers, shared):
    assert share_of_flatter(400, numbers, shared=shared) <= 0.05


@pytest.mark.parametrize("shared", [True, False])
def test_networks_that_do_not_differ_are_called_flatter_in_few_draws(shared):
    # Two networks of the same mean: how trainings vary does not matter to what is said of them.
    assert share_of_flatter(400, (1, 1), shared=shared, spread=0) <= 0.05


def test_a_true_difference_is_found():
    # Shared directions are paired, so less is needed to see the same difference.
    for numbers, factors in (((3, 3), (1, 0.6)), ((1, 1), (1, 0.7))):
        assert share_of_flatter(50, numbers, factors=factors) > 0.9
    widths = drawn(np.random.default_rng(0), (3, 3), factors=(1, 0.6))
    assert "“a” is flatter than “b”" in verdict_of("ab", difference(*widths, shared=True), (3, 3))
    width = difference(*widths[::-1], shared=True)
    assert width.mean == pytest.approx(widths[1].mean() - widths[0].mean())
    assert "“b” is flatter than “a”" in verdict_of("ab", width, (3, 3))


def test_the_unit_is_the_training():
    generator = np.random.default_rng(0)
    first, second = drawn(generator, (3, 4))
    found = difference(first, second, shared=True)
    means = first.mean(axis=1), second.mean(axis=1)
    # Welch's error, the degrees of freedom of the smaller group, and the error over directions.
    over_trainings = stats.t.ppf(0.975, 2) * np.hypot(*map(stats.sem, means))
    paired = first.mean(axis=0) - second.mean(axis=0)
    over_directions = stats.t.ppf(0.975, 9) * stats.sem(paired)
    reach = np.hypot(over_trainings, over_directions)
    assert found.high - found.mean == pytest.approx(reach)
    # More directions do not make up for trainings.
    often = [np.repeat(part, 100, axis=1) for part in (first, second)]
    assert difference(*often, shared=True).high - found.mean > 0.99 * over_trainings
    # One network each: SciPy's paired test.
    paired = stats.ttest_rel(first[0], second[0]).confidence_interval()
    np.testing.assert_allclose(difference(first[:1], second[:1], shared=True)[1:], paired)


def test_a_table_says_what_its_intervals_are_over():
    several = Comparison.of(
        {
            "a": [line_of(0.4, 0.42, accuracy=0.9), line_of(0.41, 0.43, accuracy=0.92)],
            "b": [line_of(0.2, 0.21, accuracy=0.8), line_of(0.21, 0.22, accuracy=0.8)],
        },
        "accuracy",
        shared=True,
    )
    header, first, _, minus = str(several).splitlines()[:4]
    assert header.split() == ["trainings", "half-width", "accuracy"]
    assert first.split()[:3] == ["a", "2", "0.415"]
    assert minus.startswith("a − b")
    assert "over trainings" in str(several)
    assert several.differences[0].width.mean == pytest.approx(0.205, abs=1e-4)
    assert several.differences[0].metric.mean == pytest.approx(0.11)
    one = Comparison.of({"a": line_of(0.4, 0.42), "b": line_of(0.2, 0.21)}, shared=True)
    assert "say nothing about other trainings" in str(one)
    (found,) = one.differences
    assert found.verdict.startswith("The network “a” is flatter than the network “b”; one training")
    # A single value has no interval.
    assert np.isnan(found.metric.low)
    assert "nan" not in str(one)


def test_intervals_include_the_choice_of_samples(tmp_path):
    lines = {"a": line_of(0.4, 0.42), "b": line_of(0.2, 0.21)}
    (without,) = Comparison.of(lines, shared=True).differences
    errors = {"loss": np.full((2, len(ALPHAS)), 0.02)}
    lines = {label: dataclasses.replace(line, errors=errors) for label, line in lines.items()}
    comparison = Comparison.of(lines, shared=True)
    (found,) = comparison.differences
    # The errors at the model and at the half-width add up, so the loss has risen by 0.04 more.
    lost = {"a": 0.41 * (1 - np.sqrt(0.96)), "b": 0.205 * (1 - np.sqrt(0.96))}
    # Curves are interpolated linearly.
    assert comparison.sampling_errors == pytest.approx(lost, rel=0.02)
    reach = stats.norm.ppf(0.975) * sum(lost.values())
    expected = np.hypot(without.width.high - without.width.mean, reach)
    assert found.width.mean == without.width.mean
    assert found.width.high - found.width.mean == pytest.approx(expected, rel=0.01)
    assert "include the choice of samples: at most ±0.02" in str(comparison)
    comparison.save(tmp_path / "comparison.h5")
    loaded = Comparison.load(tmp_path / "comparison.h5")
    assert str(loaded) == str(comparison)
    np.testing.assert_array_equal(loaded.to_pandas()["loss_error"], 0.02)


def test_what_cannot_be_settled_is_not():
    line = line_of(0.4, 0.42)
    once = Comparison.of({"a": line, "b": [line_of(0.2, 0.21), line_of(0.22, 0.2)]})
    assert "“a” was trained once" in once.differences[0].verdict
    far = Comparison.of({"a": line, "b": line_of(0.4, 5)})
    assert "the loss does not rise that far" in far.differences[0].verdict
    for number in (1, 2):
        parts = {label: [line_of(5, 0.4)] * number for label in "ab"}
        far = Comparison.of(parts, shared=True)
        assert "the loss does not rise that far" in far.differences[0].verdict
        plot_comparison(far)
    alone = Comparison.of({"a": line_of(0.4), "b": line_of(0.2)}, shared=True)
    assert "one direction does not show" in alone.differences[0].verdict


def test_several_differences_hold_together():
    lines = {label: line_of(*widths) for label, widths in (("a", (0.4, 0.5, 0.7)),
             ("b", (0.3, 0.45, 0.6)), ("c", (0.2, 0.3, 0.4)))}  # fmt: skip
    found = Comparison.of(lines, shared=True)
    assert [(each.first, each.second) for each in found.differences] == [
        *map(tuple, ("ab", "ac", "bc"))
    ]
    paired = stats.ttest_rel((0.4, 0.5, 0.7), (0.3, 0.45, 0.6)).confidence_interval(1 - 0.05 / 3)
    np.testing.assert_allclose(found.differences[0].width[1:], paired, rtol=1e-3)
    assert "those of the 3 differences together (Bonferroni)" in str(found)


def test_saving_and_loading_loses_nothing(tmp_path):
    grid = np.meshgrid(ALPHAS[::20], ALPHAS[::20])
    planes = {
        label: LossSurface(
            ALPHAS[::20], ALPHAS[::20], {"loss": (grid[0] / width) ** 2 + (grid[1] / 0.5) ** 2},
            {"loss": 0.0}, {"seed": 0},
        )
        for label, width in (("a", 0.5), ("b", 0.25))
    }  # fmt: skip
    for values in (planes, {"a": line_of(0.4, 0.5), "b": line_of(0.2, 0.3)}):
        comparison = Comparison.of(values)
        comparison.save(tmp_path / "comparison.h5")
        loaded = Comparison.load(tmp_path / "comparison.h5")
        assert str(loaded) == str(comparison)
        assert repr(loaded) == repr(comparison)
        assert loaded.metadata == comparison.metadata
        np.testing.assert_array_equal(loaded.to_pandas(), comparison.to_pandas())
    # Along the axes of a plane, interpolated linearly between points 0.2 apart.
    np.testing.assert_allclose(Comparison.of(planes).half_widths["a"], [[0.5, 0.5]], atol=0.02)


def test_losses_without_penalties_are_compared_with_those_of_models_that_have_none():
    penalized = line_of(0.2, 0.2, center=1.0)
    penalized.values["data_loss"] = line_of(0.4, 0.42).values["loss"]
    penalized.center["data_loss"] = 0.0
    found = Comparison.of({"a": penalized, "b": line_of(0.4, 0.42)}, "data_loss", shared=True)
    np.testing.assert_allclose(found.half_widths["a"], found.half_widths["b"])
    # Nothing has penalties.
    assert (
        Comparison.of({"a": line_of(0.4), "b": line_of(0.2)}, "data_loss").metadata["metric"]
        == "loss"
    )


def test_a_comparison_is_drawn_as_its_lines_are():
    comparison = Comparison.of({"a": line_of(0.4), "b": line_of(0.2)})
    assert len(plot_line(comparison, labels=("a", "b")).lines) == 2


def test_what_does_not_match_is_refused():
    line = line_of(0.4, 0.5)
    for wrong, message in (
        ([line, line], "must be a dict by label"),
        ({"a": line}, "at least two labels"),
        ({1: line, "b": line}, "strings as labels. Received 1"),
        ({"a": line, "b": line_of(0.4)}, "as many directions"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Comparison.of(wrong)
    with pytest.raises(ValueError, match="`metric` must be one of 'loss'"):
        Comparison.of({"a": line, "b": line}, "accuracy")
