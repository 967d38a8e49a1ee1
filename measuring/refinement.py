"""Refinement: which points of a line or plane have to be measured, and what the others must be.

It is measured from coarse to fine. At each step a cubic spline through the coarser
points predicts the finer ones; where it agrees with what is then measured, the points
beyond are interpolated, and where it does not (ridges, holes, chaos), they are measured.
In the end some of the interpolated points are measured, too, as a check.

What is already known of the values, for example on a few samples, is taken off first. The
difference is smoother than the landscape, so fewer points are enough for it; and where a check
just fails, the points that were checked correct it all around them, before others are checked.
"""

import dataclasses

import numpy as np

from losslandscape.basics.checks import check_number, import_extra
from losslandscape.measuring.grids import levels
from losslandscape.measuring.sampling import joined, split

# The first level that is measured, of five points per axis, since fewer tell nothing of the others;
# of a difference, which is smoother, three.
COARSEST, COARSEST_DIFFERENCE = 2, 1
# A difference that needs finer levels than this one, of nine points per axis, is not smoother than
# the landscape.
FINEST_DIFFERENCE = 3
# A level with at most this share of all points is measured as a whole, or not at all.
SMALL = 1 / 8
# How far predictions are trusted, step by step, as long as checks fail: after how many levels, and
# how many times as exact they may be as those of a small level were. With twice as many points,
# splines are up to 16 times as exact, at kinks twice. Differences are checked after each level.
TRUST = (2, 4), (2, 1)
TRUST_IN_DIFFERENCES = (1, np.inf), (2, np.inf), *TRUST
# The part of the interpolated points that is measured as a check, and how exact they must be, as a
# share of the accuracy: other points may be worse than some that were drawn, but hardly worse than
# those of which the least was known.
CHECKED, DRAWN_MARGIN, FARTHEST_MARGIN = 1 / 12, 0.75, 0.9
# The most points that are checked where few samples are measured; and of a difference, also again
# after a check has corrected it that failed by not more than this times the accuracy.
CHECKS_ON_FEW, CHECKS_OF_DIFFERENCES, CORRECTABLE = (5,), (4, 4), 1.5
# The accuracy of values of which only differences to others matter, as a share of that of these.
OF_BASES = 0.4


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
        bases: List with a dict of arrays per dataset: values at all points, of which only the
            differences to those to be measured are interpolated. Defaults to `None`: 0.
        checks: The most points of each check. Defaults to one check of any number.
        are_bases: Whether others will be measured as differences to them. Defaults to `False`.
    """

    axes: list
    accuracy: float
    metrics: tuple
    number: int = 1
    bases: list | None = None
    checks: tuple = (np.inf,)
    are_bases: bool = False

    def __post_init__(self):
        import_extra("scipy.interpolate", "analysis")

    @property
    def shape(self):
        """The shape of the values of all lines or surfaces."""
        return self.number, *map(len, self.axes)

    def of_bases(self):
        """The same, more exact, for values that others are measured as differences to."""
        checks = CHECKS_ON_FEW if self.bases is None else self.checks
        accuracy = OF_BASES * self.accuracy
        return dataclasses.replace(self, accuracy=accuracy, checks=checks, are_bases=True)

    def beyond(self, values, ratios):
        """The same for differences to what was measured on fewer samples.

        Args:
            values: List of lines or surfaces, one per dataset.
            ratios: For each, how many times as many samples there are now.
        """
        bases = []
        for each, ratio in zip(values, ratios, strict=True):
            # The error of a mean falls with the root of the number of samples.
            errors = {name: array / np.sqrt(ratio) for name, array in each.errors.items()}
            both = joined(each.values, errors)
            bases.append({name: array.ravel() for name, array in both.items()})
        return dataclasses.replace(self, bases=bases, checks=CHECKS_OF_DIFFERENCES)

    def rounds(self, measured, found):
        """Yields the indices to measure next, until the rest can be interpolated.

        Args:
            measured: List with a dict of arrays per dataset, as far as they are measured. The
                caller fills in what is asked for before it asks again.
            found: Dict that gets, by name, what `interpolated` needs: `"errors"`, the largest by
                metric of the points of the last check; `"number"`, how many these are;
                `"checked"`, a boolean array of the points by which the others are corrected; and
                `"bases"`, which are `None` if the differences to them turn out not to be smooth.
        """
        # Whatever else a checkpoint holds: a call that resumes decides like one that does not.
        known, checked = np.zeros((2, np.prod(self.shape)), bool)
        margin = DRAWN_MARGIN if self.bases is None else FARTHEST_MARGIN
        for trust in TRUST if self.bases is None else TRUST_IN_DIFFERENCES:
            while (wanted := self._wanted(measured, known, trust)).size:
                if self._is_rough(wanted):
                    if self.are_bases:
                        # What is wrong with them is found on more samples.
                        return
                    whole = dataclasses.replace(self, bases=None, checks=(np.inf,))
                    yield from whole.rounds(measured, found)
                    return
                yield wanted
                known[wanted] = True
            complete = self._complete(measured, known, checked)
            for most in self.checks:
                sample = self._to_check(measured, known | checked, most)
                yield sample
                checked[sample] = True
                guesses, complete = complete, self._complete(measured, known, checked)
                errors = self._largest_errors(guesses, complete, sample)
                found.update(errors=errors, number=len(sample), checked=checked, bases=self.bases)
                worst = max(errors[name] for name in self.metrics) / self.accuracy
                if worst <= margin:
                    return
                if worst > CORRECTABLE:
                    break
            known |= checked
            checked[:] = False
        # What was predicted cannot be trusted here.
        yield np.flatnonzero(~known)

    def interpolated(self, measured, is_missing, found):
        """Returns all values, and per dataset the metadata that say which are interpolated."""
        described = {
            "accuracy": self.accuracy,
            "interpolated": np.flatnonzero(is_missing).tolist(),
            "interpolation_errors": found["errors"],
            "interpolation_checks": found["number"],
        }
        used = dataclasses.replace(self, bases=found["bases"])
        checked = found["checked"]
        completed = used._complete(measured, ~is_missing & ~checked, checked)
        return completed, [described for _ in measured]

    def _wanted(self, measured, known, trust):
        """Returns the indices of the points to measure next; none if the rest can be interpolated.

        Args:
            measured: List with a dict of arrays per dataset.
            known: Boolean array of the points at which they are used.
            trust: One of `TRUST` or `TRUST_IN_DIFFERENCES`.
        """
        _, margin = trust
        for is_new, is_small, doubts, _ in self._levels(self._fields(measured), known, trust):
            is_wanted = is_new & ~known.reshape(self.shape) & (doubts > self.accuracy)
            if is_wanted.any():
                is_all = is_new & ~known.reshape(self.shape)
                return np.flatnonzero(is_all if is_small and margin < np.inf else is_wanted)
        return np.array([], int)

    def _to_check(self, measured, known, most):
        """Returns the indices of some of the missing points, always the same."""
        missing = np.flatnonzero(~known)
        if not missing.size:
            return missing
        number = int(min(np.ceil(CHECKED * len(missing)), most))
        if self.bases is None:
            return self._drawn(measured, known, missing, number)
        # A difference is smooth, so it is checked where the least is known of it; but only among
        # half of the points, since what the levels miss may be as regular as they are.
        candidates = np.random.default_rng(0).permutation(missing)
        return self._farthest(known, candidates[: max(number, len(missing) // 2)], number)

    def _drawn(self, measured, known, missing, number):
        """Half of them are drawn evenly, the others in proportion to how wrong predictions were."""
        weights = np.ones(self.shape)
        for is_new, _, doubts, _ in self._levels(self._fields(measured), known):
            # Not 0, or there might not be enough to draw from.
            weights = np.where(is_new, np.clip(doubts, 1e-9, 1), weights)
        weights = weights.ravel()[missing]
        shares = (weights / weights.sum() + 1 / len(missing)) / 2
        return np.sort(np.random.default_rng(0).choice(missing, number, replace=False, p=shares))

    def _farthest(self, known, candidates, number):
        """Each of them is as far as can be from all that are known, and those before it."""
        spatial = import_extra("scipy.spatial", "analysis")
        places = _places(self.axes)
        # Points of another line or surface are not close.
        apart = np.repeat(2 * places.shape[1] * np.arange(self.number), len(places))
        places = np.column_stack([apart, np.tile(places, (self.number, 1))])
        distances, _ = spatial.KDTree(places[known]).query(places[candidates])
        chosen = []
        for _ in range(number):
            # Which of equally distant points it is must not depend on rounding.
            chosen.append(candidates[np.argmax(np.round(distances, 9))])
            from_chosen = np.linalg.norm(places[candidates] - places[chosen[-1]], axis=1)
            distances = np.minimum(distances, from_chosen)
        return np.sort(chosen)

    def _complete(self, measured, known, checked):
        """Returns a list with a dict of arrays per dataset, the other values interpolated."""
        # Elsewhere, a point says nothing of those around it that the levels do not say.
        is_smooth = self.bases is not None and checked.any()
        used = known if is_smooth else known | checked
        completed = [{} for _ in measured]
        for index, values in enumerate(measured):
            for name, array in values.items():
                *_, (*_, (field,)) = self._levels([self._field(measured, index, name)], used)
                field = field.ravel()
                if is_smooth:
                    field = self._corrected(field, array, known, checked)
                completed[index][name] = field
        return completed

    def _corrected(self, field, values, known, checked):
        """A field that goes through the checked points, too: others get a part of their errors."""
        where = known | checked
        # In logarithms where it can be, so that what is positive stays so.
        scale, unscale = _scales(np.append(field, values[where]))[-1]
        with np.errstate(all="ignore"):
            heights, wanted = scale(field), scale(values)
        errors = np.where(where, wanted - heights, np.nan).reshape(self.number, -1)
        corrections = np.stack([_plate(self.axes, each) for each in errors])
        return np.where(where, values, unscale(heights + corrections.ravel()))

    def _largest_errors(self, values, others, checked):
        """Returns the largest error by metric, as a share of the range.

        Args:
            values: List with a dict of arrays per dataset, as they were interpolated.
            others: The same, as they were measured.
            checked: Indices of the points to compare.
        """
        return {
            name: max(
                float(np.max(_errors(one[name], other[name])[checked], initial=0.0))
                for one, other in zip(values, others, strict=True)
            )
            # Errors are interpolated, too, but not checked: they are rough themselves.
            for name in split(values[0])[0]
        }

    def _is_rough(self, wanted):
        """Whether differences are interpolated, and wanted at many points, of a fine level."""
        if self.bases is None or len(wanted) < CHECKED * np.prod(self.shape):
            return False
        finest = [levels(len(axis))[: FINEST_DIFFERENCE + 1][-1] for axis in self.axes]
        return not _mask(self.shape, finest).ravel()[wanted].all()

    def _fields(self, measured):
        indices = range(len(measured))
        return [self._field(measured, index, name) for index in indices for name in self.metrics]

    def _field(self, measured, index, name):
        """The values of a metric on a dataset, and those that are taken off."""
        base = None if self.bases is None else self.bases[index][name].reshape(self.shape)
        return measured[index][name].reshape(self.shape), base

    def _levels(self, fields, known, trust=TRUST[-1]):
        """Goes from coarse to fine.

        Args:
            fields: List of what `_field` returns.
            known: Boolean array of the points at which they are used.
            trust: One of `TRUST` or `TRUST_IN_DIFFERENCES`. Defaults to the least.

        Yields:
            For each level, which points are new in it; whether it is small; how wrong predictions
            were near each point, in this level or the coarser one, less the margin; and the fields
            with the points of this level complete, as far as they are known or can be interpolated.
        """
        known = known.reshape(self.shape)
        coarsest = COARSEST if self.bases is None else COARSEST_DIFFERENCE
        indices = [levels(len(axis))[coarsest:] or [np.arange(len(axis))] for axis in self.axes]
        number = max(map(len, indices))
        grids = [[each[min(level, len(each) - 1)] for each in indices] for level in range(number)]
        bases = [base for _, base in fields]
        fields = [np.where(known, field, np.nan) for field, _ in fields]
        (untold, margin), coarser, before = trust, None, 0.0
        for rank, level in enumerate(grids):
            inside = _mask(known.shape, level)
            is_new = inside if coarser is None else inside & ~_mask(known.shape, coarser)
            is_small = inside.mean() <= SMALL
            # Nothing is known of the first levels, for example of 5 and 9 points per axis.
            doubts = np.inf if rank < untold else before
            if coarser is not None and is_new.any():
                found = [
                    _best(self.axes, *pair, (coarser, level), is_new & known)
                    for pair in zip(fields, bases, strict=True)
                ]
                guesses, errors, disagreements = zip(*found, strict=True)
                error = np.max(errors, axis=0)
                before = _largest_around(np.where(is_new & known, error, 0), coarser)
                # Five points per axis are too few to tell how fast errors fall.
                before /= margin if (is_small and rank > 1) or margin == np.inf else 1
                # Also where a check, or the point beside it, has shown that this level is needed.
                doubts = np.max([before, doubts + np.zeros(before.shape), *disagreements], axis=0)
                fields = [
                    np.where(is_new & ~known, guess, field)
                    for field, guess in zip(fields, guesses, strict=True)
                ]
            yield is_new, is_small, doubts, fields
            coarser = level


def check_accuracy(accuracy):
    """Refuses what is not a share of a range."""
    if accuracy is None:
        return
    check_number("accuracy", accuracy, above=0, below=1)


def _mask(shape, level):
    mask = np.zeros(shape, bool)
    mask[:, *np.ix_(*level)] = True
    return mask


def _best(axes, field, base, grids, is_checked):
    """The field at the second of two levels as the first one predicts it, and how wrong it may be.

    Of values and of logarithms the smoother ones are interpolated, as the errors show. Where both
    predict a difference to a base, the last array says how far they are apart.
    """
    scales = _scales(field)
    guesses = [_predicted(axes, field, base, grids, scale) for scale in scales]
    pairs = [(guess, _errors(guess, field)) for guess in guesses]
    smoother = min(pairs, key=lambda pair: np.sum(np.minimum(pair[1][is_checked], 1)))
    apart = np.zeros(field.shape)
    if base is not None and len(scales) > 1:
        apart = np.nan_to_num(_errors(*guesses), posinf=0)
    return *smoother, apart


def _scales(values):
    """Pairs of functions, there and back: values as they are; if all are positive, logarithms."""
    finite = values[np.isfinite(values)]
    is_positive = finite.size and finite.min() > 0
    return [(np.asarray, np.asarray), (np.log, np.exp)][: 2 if is_positive else 1]


def _plate(axes, values):
    """A thin plate through the finite ones of some values, at all points; flat if there is none."""
    interpolate = import_extra("scipy.interpolate", "analysis")
    places, is_told = _places(axes), np.isfinite(values)
    if not values[is_told].any():
        return np.zeros(values.shape)
    return interpolate.RBFInterpolator(places[is_told], values[is_told])(places)


def _places(axes):
    """Array of shape `(points, axes)`: where points lie, from 0 to 1 along each axis."""
    units = [(axis - axis[0]) / (axis[-1] - axis[0]) for axis in axes]
    return np.stack(np.meshgrid(*units, indexing="ij"), axis=-1).reshape(-1, len(units))


def _predicted(axes, field, base, grids, scale):
    """The field at the second of two levels, by splines through the first one."""
    interpolate = import_extra("scipy.interpolate", "analysis")
    (coarser, finer), (scale, unscale) = grids, scale
    with np.errstate(all="ignore"):
        heights = scale(field)
        below = np.zeros(field.shape) if base is None else scale(base)
        heights = (heights - below)[:, *np.ix_(*coarser)]
    is_finite = np.isfinite(heights)
    # A spline through NaN would be NaN everywhere; here it is wrong, and its points are measured.
    heights = np.where(is_finite, heights, heights[is_finite].max() if is_finite.any() else 0.0)
    for number, (axis, some, more) in enumerate(zip(axes, coarser, finer, strict=True), start=1):
        degree = min(3, len(some) - 1)
        heights = interpolate.make_interp_spline(axis[some], heights, degree, axis=number)(
            axis[more]
        )
    predicted = np.full(field.shape, np.nan)
    where = slice(None), *np.ix_(*finer)
    with np.errstate(over="ignore"):
        predicted[where] = unscale(heights + below[where])
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
