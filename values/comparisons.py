"""Comparisons: how several trainings differ, and how sure that is.

The unit is the training. Ten directions through one network say much about that network,
and nothing about what another training of the same kind would have found.
"""

import collections.abc
import itertools
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from losslandscape.basics.checks import check_metric, check_number, import_extra
from losslandscape.basics.types import Array
from losslandscape.values.measures import Estimate, confidence_interval, half_widths
from losslandscape.values.surfaces import (
    LossLine,
    LossSurface,
    Saved,
    complete_values,
    values_of,
)

# How often all intervals of a comparison contain the true differences at the same time.
CONFIDENCE = 0.95


class Difference(NamedTuple):
    """How two labels of a comparison differ.

    Attributes:
        first: The first label.
        second: The second label.
        width: An `Estimate` of the half-width of the first minus that of the second.
        metric: An `Estimate` of the same difference in the metric at the models themselves.
        verdict: One sentence on which of both is flatter, if that is settled.
    """

    first: str
    second: str
    width: Estimate
    metric: Estimate
    verdict: str


# Half-widths may be infinite, and their differences undefined.
@np.errstate(invalid="ignore")
def difference(first, second, *, shared=False, confidence=CONFIDENCE):
    """Estimates how much larger a quantity is around some trainings than around others.

    Args:
        first: Float array of shape `(trainings, directions)`.
        second: Another one.
        shared: Whether both follow the same directions. Defaults to `False`.
        confidence: How often the interval contains the true difference. Defaults to 0.95.

    Returns:
        An `Estimate` of the first mean minus the second. With several trainings on both
        sides, the interval is over trainings, each of which counts once, as its mean over
        directions. With one on both sides, it is over directions through these two
        networks, paired if they share the directions. With one training on one side and
        several on the other, there is no interval: its ends are NaN.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if len(first) == len(second) == 1:
        if shared and first.size > 1:
            return confidence_interval((first - second)[0], confidence)
        return _apart(first[0], second[0], confidence)
    # Trainings are not paired: even two with the same seed have only their start in common, which
    # is soon forgotten, and there may be more of one kind than of the other.
    found = _apart(first.mean(axis=1), second.mean(axis=1), confidence)
    # All trainings of a kind follow the same directions. If these happen to be steep for this kind,
    # the variation between its trainings does not show it, so the error over directions is added.
    across = first.mean(axis=0), second.mean(axis=0)
    if not shared:
        return _widened(found, *(_reach(part, confidence) for part in across))
    if first.shape[1] == 1:
        return found
    return _widened(found, _reach(across[0] - across[1], confidence))


def verdict_of(labels, width, numbers):
    """Says which of two is flatter, if that is settled.

    Args:
        labels: Both labels.
        width: An `Estimate` of the half-width of the first minus that of the second.
        numbers: How many trainings each label has.

    Returns:
        A sentence.
    """
    first, second = (f"“{label}”" for label in labels)
    reason = None
    if not np.isfinite(width.mean):
        reason = (
            "the loss does not rise that far along all directions; take a larger `extent` or a "
            "smaller `rise`"
        )
    elif min(numbers) == 1 < max(numbers):
        once = first if numbers[0] == 1 else second
        reason = f"{once} was trained once, and only several trainings show how these vary"
    elif np.isnan(width.low):
        reason = "one direction does not show how directions vary"
    elif width.low <= 0 <= width.high:
        reason = "the interval of the difference contains 0"
    if reason is not None:
        return f"{first} or {second}: not settled, since {reason}."
    flatter, sharper = (first, second) if width.mean > 0 else (second, first)
    if max(numbers) == 1:
        return (
            f"The network {flatter} is flatter than the network {sharper}; one training each says "
            "nothing about others."
        )
    return f"{flatter} is flatter than {sharper}, over {numbers[0]} and {numbers[1]} trainings."


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Saved):
    """Several trainings, measured in the same way, and how they differ.

    `print` shows a comparison as a table, and `plot_comparison` draws it. Functions that draw
    or measure lines or surfaces accept a comparison in place of these, one per training.

    Example:

    >>> comparison = Comparison.load("batches.h5")
    >>> print(comparison)
    >>> [difference.verdict for difference in comparison.differences]

    **What the intervals are over.** A label with several trainings stands for a way to
    train: each training counts once, as its mean over directions, and the interval is over
    trainings, by Student's t. The interval of a difference allows for kinds that vary by
    different amounts (Welch's error, with the degrees of freedom of the smaller group), and
    includes the error of having followed only these directions. A label with one training
    stands for that network: the interval is over directions, and says nothing about other
    trainings. The difference of two such networks is paired by direction, if they share
    the directions. The intervals of all differences hold at the same time in 95 % of cases:
    with k differences, each has a confidence of 1 - 0.05 / k (Bonferroni). All of this is
    about the given samples. Only of trainings measured with `sampling_error=True`, the
    intervals of differences in half-width include how much these would differ, at most, had
    other samples been drawn; see `sampling_errors`.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates along each direction.
        betas: Float array of shape `(m,)`, the coordinates along the second axis of planes;
            empty for lines.
        values: Dict of float arrays, of shape `(trainings, directions, n)` for lines and
            `(trainings, m, n)` for planes. Where a model has no weight penalties,
            `"data_loss"` is its loss.
        centers: Dict of float arrays of shape `(trainings,)`, the same values at the
            models themselves.
        metadata: Dict of the `"labels"` of the trainings and the metadata of `"each"`, the
            `"metric"` and `"rise"` that are compared, and whether the directions are
            `"shared"`.
        errors: Dict of float arrays shaped like those of `values`: the standard errors of the
            choice of samples, if they were measured; see `LossLine`. Empty by default.
    """

    alphas: Array
    betas: Array
    values: dict[str, Array]
    centers: dict[str, Array]
    metadata: dict[str, Any]
    errors: dict[str, Array] = field(default_factory=dict, kw_only=True)

    @classmethod
    def of(cls, measured, metric="loss", rise=1.0, *, shared=False):
        """Compares lines or surfaces that have been measured already.

        Args:
            measured: Dict by label of a `LossLine` or `LossSurface` or, for several
                trainings, of a list with one of each; all with the same coordinates.
            metric: As in `compare`. Defaults to `"loss"`.
            rise: As in `compare`. Defaults to 1.0.
            shared: Whether all networks follow the same directions, normalized to the
                filters of each: networks of one architecture do, if measured with the
                same seed. Defaults to `False`.

        Returns:
            A `Comparison`.

        Raises:
            TypeError: If anything but lines or surfaces is given.
            ValueError: If their coordinates differ, or do not extend to both sides of the
                models, or `metric` was not measured.

        Example:

        >>> lines = {"batch 16": small_batch_line, "batch 100": large_batch_line}
        >>> comparison = Comparison.of(lines, rise=0.1, shared=True)
        """
        check_metric(metric, single=True)
        check_number("rise", rise, above=0, below=np.inf)
        pairs = [
            (label, part)
            for label, parts in check_labels("measured", measured).items()
            for part in values_of(f"measured[{label!r}]", parts, (LossLine, LossSurface))
        ]
        labels, parts = zip(*pairs, strict=True)
        _check_alike(parts)
        values, centers = (
            _stacked([getattr(part, name) for part in parts]) for name in ("values", "center")
        )
        if metric == "data_loss" and metric not in values and "loss" in values:
            metric = "loss"
        if metric not in values:
            accepted = ", ".join(map(repr, values))
            raise ValueError(f"`metric` must be one of {accepted}. Received {metric!r}.")
        metadata = {
            "labels": list(labels),
            "metric": metric,
            "rise": float(rise),
            "shared": bool(shared),
            "each": [part.metadata for part in parts],
        }
        betas = parts[0].betas if len(parts[0].axes) == 2 else np.empty(0)
        errors = _stacked([part.errors for part in parts])
        comparison = cls(parts[0].alphas, betas, values, centers, metadata, errors=errors)
        # Raises an error now if these values have no half-widths.
        _ = comparison.half_widths
        return comparison

    @property
    def labels(self):
        """List of the labels, each once."""
        return list(dict.fromkeys(self.metadata["labels"]))

    @property
    def lines(self):
        """List of `LossLine`, one per training; empty for planes."""
        return [] if len(self.betas) else list(self._parts(LossLine, self.alphas))

    @property
    def surfaces(self):
        """List of `LossSurface`, one per training; empty for lines."""
        return list(self._parts(LossSurface, self.alphas, self.betas)) if len(self.betas) else []

    @property
    def half_widths(self):
        """Dict of float arrays of shape `(trainings, directions)` by label.

        These are half-widths of `"loss"`, or of `"data_loss"` if that is compared. The
        directions of a plane are its two axes.
        """
        return self._half_widths(0)

    @property
    def sampling_errors(self):
        """Dict of floats by label: how uncertain the choice of samples makes the mean half-width.

        One standard error at most, as if the loss at the model and at the half-width were off in
        opposite directions. Empty unless the errors of the loss were measured.
        """
        if self._raised not in self.errors:
            return {}
        widths, others = self._half_widths(0), self._half_widths(1)
        # All trainings and directions see the same samples, so these errors do not average out.
        return {label: float(np.mean(widths[label] - others[label])) for label in self.labels}

    @property
    def curves(self):
        """Dict of `LossLine` by label: a row per training, its mean over directions.

        A label with one training has a row per direction. Empty for planes.
        """
        if len(self.betas):
            return {}
        found = {}
        for label in self.labels:
            here = self._of(label)
            rows = {name: array[here] for name, array in self.values.items()}
            rows = {
                name: each.mean(axis=1) if len(each) > 1 else each[0] for name, each in rows.items()
            }
            center = {name: float(array[here].mean()) for name, array in self.centers.items()}
            found[label] = LossLine(self.alphas, rows, center, {})
        return found

    @property
    def differences(self):
        """List of `Difference`, one for each pair of labels.

        Raises:
            ImportError: If SciPy is not installed (the extra `analysis`).
        """
        widths, values = self.half_widths, self.centers[self.metadata["metric"]]
        uncertain = self.sampling_errors
        pairs = list(itertools.combinations(self.labels, 2))
        confidence = 1 - (1 - CONFIDENCE) / max(1, len(pairs))
        found = []
        for pair in pairs:
            parts = [widths[label] for label in pair]
            width = difference(*parts, shared=self.metadata["shared"], confidence=confidence)
            if uncertain:
                width = _widened(width, _quantile(confidence) * sum(map(uncertain.get, pair)))
            values_of_pair = (values[self._of(label)][:, np.newaxis] for label in pair)
            metric = difference(*values_of_pair, shared=True, confidence=confidence)
            verdict = verdict_of(pair, width, list(map(len, parts)))
            found.append(Difference(*pair, width, metric, verdict))
        return found

    @property
    def notes(self):
        """List of sentences that say what was measured, and what the intervals are over."""
        widths = list(self.half_widths.values())
        number = widths[0].shape[1]
        along = "the two axes of a plane" if len(self.betas) else f"{number} directions"
        over = {
            (True,): "over trainings, each of which counts once, as its mean over directions",
            (False,): "over directions through these networks, of one training each: they say "
            "nothing about other trainings",
            (False, True): "over trainings, but over directions where there is one training only",
        }[tuple(sorted({len(each) > 1 for each in widths}))]
        pairs = len(self.labels) * (len(self.labels) - 1) // 2
        together = f"; those of the {pairs} differences together (Bonferroni)" * (pairs > 1)
        rise, name = self.metadata["rise"], self.metadata["metric"]
        return [
            f"Half-width: where the {'data ' * (name == 'data_loss')}loss has risen by {rise:g}, "
            f"along {'one direction' if number == 1 else along}.",
            f"95 % intervals {over}{together}.",
            "All networks follow the same directions, normalized to their own filters."
            if self.metadata["shared"]
            else "The networks follow directions of their own.",
            *self._sampling_notes,
        ]

    @property
    def _sampling_notes(self):
        uncertain = self.sampling_errors
        if not uncertain:
            return []
        largest = max(map(sum, itertools.combinations(uncertain.values(), 2)))
        return [
            "Intervals of differences in half-width include the choice of samples: at most "
            f"±{_quantile(CONFIDENCE) * largest:.2g}."
        ]

    def _table(self):
        names = np.array(self.metadata["labels"])
        first, *_ = self.values.values()
        across = {"beta": self.betas} if len(self.betas) else {}
        across = across or {"direction": np.arange(first.shape[1])}
        coordinates = {"training": np.arange(len(names)), **across, "alpha": self.alphas}
        columns = [(name, coordinates, array) for name, array in self.values.items()]
        columns += [(f"{name}_error", coordinates, array) for name, array in self.errors.items()]
        return coordinates, [("label", ("training",), names), *columns], self.metadata

    @property
    def _raised(self):
        """The name of the values whose half-widths are compared."""
        metric = self.metadata["metric"]
        return "loss" if metric != "data_loss" and "loss" in self.values else metric

    def _half_widths(self, errors):
        """Those of curves that are higher than measured by so many standard errors."""
        metric, rise = self._raised, self.metadata["rise"]
        cuts = [[each.slice(beta=0), each.slice(alpha=0)] for each in self.surfaces]
        cuts = cuts or [[line] for line in self.lines]
        if errors:
            cuts = [[_higher(line, metric, errors) for line in part] for part in cuts]
        widths = [
            np.concatenate([half_widths(line, rise, metric) for line in part]) for part in cuts
        ]
        return {label: np.array(widths)[self._of(label)] for label in self.labels}

    def _of(self, label):
        """Boolean array: which of the trainings have a label."""
        return np.array(self.metadata["labels"]) == label

    def _parts(self, kind, *axes):
        """Yields the line or surface around each training."""
        for number, metadata in enumerate(self.metadata["each"]):
            values = {name: array[number] for name, array in self.values.items()}
            center = {name: float(array[number]) for name, array in self.centers.items()}
            errors = {name: array[number] for name, array in self.errors.items()}
            yield kind(*axes, values, center, metadata, errors=errors)

    def __str__(self):
        metric, widths = self.metadata["metric"], self.half_widths
        rows = [("", "trainings", "half-width", metric.replace("_", " "))]
        for label in self.labels:
            part, values = widths[label], self.centers[metric][self._of(label)]
            width = _mean(part.mean(axis=1) if len(part) > 1 else part[0])
            rows.append((label, str(len(part)), _text(width), _text(_mean(values))))
        found = self.differences
        rows += [
            (f"{each.first} − {each.second}", "", _text(each.width), _text(each.metric))
            for each in found
        ]
        lengths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(length) for cell, length in zip(row, lengths, strict=True))
            for row in rows
        ]
        parts = [map(str.rstrip, lines), self.notes, (each.verdict for each in found)]
        return "\n\n".join("\n".join(part) for part in parts)

    def __repr__(self):
        labels = self.metadata["labels"]
        counted = ", ".join(f"{label!r} x {labels.count(label)}" for label in self.labels)
        kind = "planes" if len(self.betas) else "lines"
        return f"Comparison({counted}; {kind} of {', '.join(self.values)})"


def check_labels(name, labeled):
    """Refuses anything but a dict by label with at least two entries; returns it."""
    if not isinstance(labeled, collections.abc.Mapping):
        raise TypeError(
            f"`{name}` must be a dict by label, such as {{'batch 128': …, 'batch 2048': …}}. "
            f"Received {type(labeled).__name__}."
        )
    if len(labeled) < 2:
        raise ValueError(
            f"`{name}` must have at least two labels to compare. Received {list(labeled)}."
        )
    wrong = [label for label in labeled if not isinstance(label, str)]
    if wrong:
        raise TypeError(f"`{name}` must have strings as labels. Received {wrong[0]!r}.")
    return labeled


def _check_alike(parts):
    """Refuses lines or surfaces that are unfinished, or of different coordinates."""
    first, *others = parts
    shape = next(iter(first.values.values())).shape
    for part in parts:
        complete_values(part, next(iter(part.values)))
    for other in others:
        is_alike = len(other.axes) == len(first.axes) and all(
            np.array_equal(*axes) for axes in zip(first.axes, other.axes, strict=True)
        )
        if not is_alike or next(iter(other.values.values())).shape != shape:
            raise ValueError(
                "`measured` must be lines, or surfaces, of the same coordinates and as many "
                f"directions. Received {first!r} and {other!r}."
            )


def _stacked(dicts):
    """Dict of arrays with a row per training, by the names that all trainings have."""
    if any("data_loss" in each for each in dicts):
        # Without penalties, both losses are the same.
        dicts = [{"data_loss": each["loss"]} | each if "loss" in each else each for each in dicts]
    first, *others = dicts
    names = [name for name in first if all(name in other for other in others)]
    order = sorted(names, key=lambda name: name == "data_loss")
    return {name: np.array([each[name] for each in dicts], float) for name in order}


def _higher(line, metric, errors):
    """A line that is higher above its center by so many standard errors of both."""
    found = line.errors[metric]
    at_center = np.array([[np.interp(0, line.alphas, row)] for row in found])
    values = line.values[metric] + errors * (found + at_center)
    return replace(line, values={metric: values})


def _quantile(confidence):
    """How many standard errors an interval of the normal distribution reaches to both sides."""
    return float(import_extra("scipy.stats", "analysis").norm.ppf((1 + confidence) / 2))


def _mean(values):
    """An `Estimate`, without an interval if there is one value only."""
    if len(values) > 1:
        return confidence_interval(values)
    return Estimate(float(values[0]), np.nan, np.nan)


def _text(estimate):
    return f"{estimate.mean:.3g}" if np.isnan(estimate.low) else str(estimate)


def _apart(first, second, confidence):
    """An `Estimate` of the difference of two means, whose variances may differ."""
    stats = import_extra("scipy.stats", "analysis")
    number = min(len(first), len(second))
    mean = float(first.mean() - second.mean())
    if number < 2 or not np.isfinite(mean):
        return Estimate(mean, np.nan, np.nan)
    # Welch's standard error with the degrees of freedom of the smaller group, a choice that is
    # valid for any two variances (Hsu, 1938). Welch's own degrees of freedom are estimated, which
    # needs more values: for 2 trainings that vary three times as much as 5 others with the same
    # mean, one interval in ten would exclude 0.
    error = np.hypot(stats.sem(first), stats.sem(second))
    reach = float(stats.t.ppf((1 + confidence) / 2, number - 1) * error)
    return Estimate(mean, mean - reach, mean + reach)


def _reach(values, confidence):
    """Half the length of the confidence interval of a mean; NaN for a single value."""
    if len(values) < 2 or not np.isfinite(values).all():
        return np.nan
    mean, low, _ = confidence_interval(values, confidence)
    return mean - low


def _widened(estimate, *reaches):
    """An `Estimate` whose interval includes further errors, independent of its own."""
    reach = float(np.linalg.norm([estimate.mean - estimate.low, *reaches]))
    return Estimate(estimate.mean, estimate.mean - reach, estimate.mean + reach)
