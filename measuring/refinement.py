"""Refinement: which points of a line or plane have to be measured, and what the others must be.

It is measured from coarse to fine. At each step a cubic spline through the coarser
points predicts the finer ones; where it agrees with what is then measured, the points
beyond are interpolated, and where it does not (ridges, holes, chaos), they are measured.
In the end some of the interpolated points are measured, too, as a check.
"""

import dataclasses

import numpy as np

from losslandscape.basics.checks import check_number, import_extra
from losslandscape.measuring.grids import levels

# The first level that is measured, of five points per axis: fewer tell nothing of the others.
COARSEST = 2
# A level with at most this share of all points is measured as a whole, or not at all.
SMALL = 1 / 8
# Where the predictions of such a level were as exact as this, times the accuracy, those of finer
# ones are trusted: with twice as many points, splines are up to 16 times as exact, at kinks twice.
# The second margin is for what fails the check after the first.
MARGINS = 4, 1
# The part of the interpolated points that is measured as a check, and how exact they must be, as a
# share of the accuracy: points that are not checked may be a little worse.
CHECKED, CHECK_MARGIN = 1 / 12, 0.75


@dataclasses.dataclass(frozen=True, eq=False)
class Refinement:
    """How lines and surfaces are measured where interpolation is good enough.

    Attributes:
        axes: List of the coordinates along the last axes of the values, in this order.
        accuracy: The largest error, as a share of the range of the values and, if all are
            positive, of their logarithms.
        metrics: Names of the metrics that must meet it.
        number: How many lines or surfaces with these axes there are; each is interpolated on
            its own. Defaults to 1.
    """

    axes: list
    accuracy: float
    metrics: tuple
    number: int = 1

    def __post_init__(self):
        import_extra("scipy.interpolate", "analysis")

    @property
    def shape(self):
        """The shape of the values of all lines or surfaces."""
        return self.number, *map(len, self.axes)

    def rounds(self, measured, is_missing, errors):
        """Yields the indices to measure next, until the rest can be interpolated.

        Args:
            measured: List with a dict of arrays per dataset, as far as they are measured. The
                caller fills in what is asked for before it asks again.
            is_missing: Boolean array of the points that are not, which the caller updates, too.
            errors: Dict that gets the largest error by metric of the points that were measured
                as a check, and how many these are.
        """
        for margin in MARGINS:
            while (wanted := self._wanted(measured, is_missing, margin)).size:
                yield wanted
            sample = self._to_check(measured, is_missing)
            guesses = [self._complete(values, is_missing) for values in measured]
            yield sample
            found = [self._complete(values, is_missing) for values in measured]
            errors.clear()
            errors.update(self._largest_errors(guesses, found, sample))
            if max(errors[name] for name in self.metrics) <= CHECK_MARGIN * self.accuracy:
                return
        # What was predicted cannot be trusted here.
        yield np.flatnonzero(is_missing)

    def interpolated(self, measured, metadata, is_missing, errors):
        """Returns the arrays with all values, and the metadata that say which are interpolated."""
        completed = [self._complete(each, is_missing) for each in measured]
        checked = errors.pop("checked", 0)
        described = {
            "accuracy": self.accuracy,
            "interpolated": np.flatnonzero(is_missing).tolist(),
            "interpolation_errors": errors,
            "interpolation_checks": checked,
        }
        return completed, [each | described for each in metadata]

    def _wanted(self, measured, is_missing, margin):
        """Returns the indices of the points to measure next; none if the rest can be interpolated.

        Args:
            measured: List with a dict of arrays per dataset, as far as they are measured.
            is_missing: Boolean array of the points that are not.
            margin: One of `MARGINS`.
        """
        known = ~is_missing.reshape(self.shape)
        for is_new, is_small, doubts, _ in self._levels(measured, known, margin):
            is_wanted = is_new & ~known & (doubts > self.accuracy)
            if is_wanted.any():
                return np.flatnonzero(is_new & ~known if is_small else is_wanted)
        return np.array([], int)

    def _to_check(self, measured, is_missing):
        """Returns the indices of some of the missing points, at random but always the same.

        Half of them are drawn evenly, the others in proportion to how wrong predictions were
        nearby.
        """
        missing = np.flatnonzero(is_missing)
        if not missing.size:
            return missing
        weights = np.ones(self.shape)
        for is_new, _, doubts, _ in self._levels(measured, ~is_missing.reshape(self.shape)):
            # Not 0, or there might not be enough to draw from.
            weights = np.where(is_new, np.clip(doubts, 1e-9, 1), weights)
        weights = weights.ravel()[missing]
        shares = (weights / weights.sum() + 1 / len(missing)) / 2
        number = int(np.ceil(CHECKED * len(missing)))
        return np.sort(np.random.default_rng(0).choice(missing, number, replace=False, p=shares))

    def _complete(self, values, is_missing):
        """Returns a dict of arrays with the missing values interpolated."""
        known = ~is_missing.reshape(self.shape)
        completed = {}
        for name, array in values.items():
            *_, (*_, (field,)) = _levels(self.axes, [array.reshape(self.shape)], known)
            completed[name] = field.ravel()
        return completed

    def _largest_errors(self, values, others, checked):
        """Returns the largest error by metric, as a share of the range, and how many were checked.

        Args:
            values: List with a dict of arrays per dataset, as they were interpolated.
            others: The same, as they were measured.
            checked: Indices of the points to compare.
        """
        largest = {
            name: max(
                float(np.max(_errors(one[name], other[name])[checked], initial=0.0))
                for one, other in zip(values, others, strict=True)
            )
            for name in values[0]
        }
        return largest | {"checked": len(checked)}

    def _levels(self, measured, known, margin=1):
        fields = [each[name].reshape(self.shape) for each in measured for name in self.metrics]
        return _levels(self.axes, fields, known, margin)


def check_accuracy(accuracy):
    """Refuses what is not a share of a range."""
    if accuracy is None:
        return
    check_number("accuracy", accuracy, above=0, below=1)


def _levels(axes, fields, known, margin=1):
    """Goes from coarse to fine.

    Yields, for each level, which points are new in it; whether it is small; how wrong predictions
    were near each point, in this level or the coarser one, less the margin; and the fields with
    the points of this level complete, as far as they are known or can be interpolated.
    """
    indices = [levels(len(axis))[COARSEST:] or [np.arange(len(axis))] for axis in axes]
    number = max(map(len, indices))
    both = [[each[min(level, len(each) - 1)] for each in indices] for level in range(number)]
    fields = [np.array(field) for field in fields]
    # Nothing is known of the first two levels, of 5 and 9 points per axis.
    coarser, before = None, np.inf
    for rank, level in enumerate(both):
        inside = _mask(known.shape, level)
        is_new = inside if coarser is None else inside & ~_mask(known.shape, coarser)
        is_small = inside.mean() <= SMALL
        doubts = before
        if coarser is not None and is_new.any():
            pairs = [_best(axes, field, (coarser, level), is_new & known) for field in fields]
            error = np.max([error for _, error in pairs], axis=0)
            before = _largest_around(np.where(is_new & known, error, 0), coarser)
            # Five points per axis are too few to tell how fast errors fall.
            before /= margin if is_small and rank > 1 else 1
            # Also where a check, or the point beside it, has shown that this level is needed.
            doubts = np.maximum(doubts, before)
            fields = [
                np.where(is_new & ~known, guess, field)
                for field, (guess, _) in zip(fields, pairs, strict=True)
            ]
        yield is_new, is_small, doubts, fields
        coarser = level


def _mask(shape, level):
    mask = np.zeros(shape, bool)
    mask[:, *np.ix_(*level)] = True
    return mask


def _best(axes, field, levels, is_checked):
    """The field at the second of two levels as the first one predicts it, and the errors.

    Of values and of logarithms the smoother ones are interpolated, as the errors show.
    """
    finite = field[np.isfinite(field)]
    scales = [(np.asarray, np.asarray)]
    if finite.size and finite.min() > 0:
        scales.append((np.log, np.exp))
    guesses = [_predicted(axes, field, levels, *scale) for scale in scales]
    pairs = [(guess, _errors(guess, field)) for guess in guesses]
    return min(pairs, key=lambda pair: np.sum(np.minimum(pair[1][is_checked], 1)))


def _predicted(axes, field, levels, scale, unscale):
    """The field at the second of two levels, by splines through the first one."""
    interpolate = import_extra("scipy.interpolate", "analysis")
    coarser, finer = levels
    known = field[:, *np.ix_(*coarser)]
    is_finite = np.isfinite(known)
    # A spline through NaN would be NaN everywhere; here it is wrong, and its points are measured.
    heights = scale(np.where(is_finite, known, known[is_finite].max() if is_finite.any() else 1.0))
    for number, (axis, some, more) in enumerate(zip(axes, *levels, strict=True), start=1):
        degree = min(3, len(some) - 1)
        heights = interpolate.make_interp_spline(axis[some], heights, degree, axis=number)(
            axis[more]
        )
    predicted = np.full(field.shape, np.nan)
    with np.errstate(over="ignore"):
        predicted[:, *np.ix_(*finer)] = unscale(heights)
    return predicted


def _errors(guess, values):
    """Differences as shares of the range, also of the logarithms; inf where one is not finite."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.full(values.shape, np.inf)
    errors = _shares(guess, values, finite)
    if finite.min() > 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithms = np.log(guess), np.log(values), np.log(finite)
        errors = np.maximum(errors, _shares(*logarithms))
    return np.where(np.isfinite(values), errors, np.inf)


def _shares(guess, values, finite):
    span = np.ptp(finite)
    # What differs by rounding only is flat.
    if span <= 1e-13 * np.abs(finite).max():
        return np.zeros(values.shape)
    return np.nan_to_num(np.abs(guess - values) / span, nan=np.inf)


def _largest_around(values, coarser):
    """The largest value around each point, as far away as the points of the coarser level are."""
    image = import_extra("scipy.ndimage", "analysis")
    reach = [int(np.diff(indices).max(initial=1)) for indices in coarser]
    return image.maximum_filter(values, [1, *(2 * far + 1 for far in reach)])
