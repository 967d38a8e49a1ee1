"""Evaluation: moves a model along directions and measures its loss at every point.

An engine moves the weights in place and measures. However the call ends, the model
is restored to the last bit.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import keras
import numpy as np
import tensorflow as tf

from losslandscape.basics.checks import (
    check_choice,
    check_compiled,
    check_complete,
    check_integer,
    check_metric,
    warn,
)
from losslandscape.basics.types import Data, Points
from losslandscape.directions import (
    RandomDirections,
    check_directions,
    layer_names,
    resolve_seed,
)
from losslandscape.measuring.centers import AT_ONCE, difference, measure_center
from losslandscape.measuring.checkpoints import Checkpoint
from losslandscape.measuring.datasets import (
    all_datasets,
    check_can_be_sent,
    check_targets,
    few_samples,
    is_batched,
    one_dataset,
    read_datasets,
)
from losslandscape.measuring.engines import (
    ENGINES,
    as_arrays,
    candidates,
    evaluate_engine,
    evaluator,
    find_means,
    on_device,
    start,
)
from losslandscape.measuring.grids import Grid, check_points, coordinates, highest_low, line
from losslandscape.measuring.interrupts import patient_interrupts
from losslandscape.measuring.options import AROUND, Measuring, MeasuringAround, evaluating
from losslandscape.measuring.progress import Progress, Status, check_verbose
from losslandscape.measuring.refinement import Refinement, check_accuracy
from losslandscape.measuring.sampling import in_blocks, in_blocks_like, split
from losslandscape.measuring.state import evaluated
from losslandscape.measuring.walks import along_directions
from losslandscape.measuring.workers import check_executor, distribute
from losslandscape.values.surfaces import LossLine, LossSurface, __version__

# An automatic extent ends where the loss is this many times that of the model; it is 2 to the power
# of an exponent between these, found by halving an interval of 1 this many times.
RISE = 10
EXPONENTS, HALVINGS = (-10, 4), 3


@evaluating(**AROUND)
def evaluate_line(
    model: keras.Model,
    x: Data,
    y: Data = None,
    number_of_points: int = 21,
    *,
    number_of_directions: int = 1,
    accuracy: float | None = None,
    **options: Unpack[MeasuringAround],
) -> LossLine:
    """Measures the loss of a model along random directions, on one dataset.

    Example:

    >>> line = evaluate_line(model, x_test, y_test, number_of_directions=5, seed=0)
    >>> line.values["loss"].shape
    (5, 21)

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points along the line, at least 2. Defaults to 21.
        number_of_directions: How many random directions. Defaults to 1.
        accuracy: Largest error of points that are interpolated instead of measured, as a
            share of the range; see `evaluate_lines`. Defaults to `None`.
        **options: Where and how it is measured; see `MeasuringAround` and `Measuring`.

    Returns:
        A `LossLine`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.
    """
    (measured,) = evaluate_lines(
        model,
        [one_dataset(x, y)],
        number_of_points=number_of_points,
        number_of_directions=number_of_directions,
        accuracy=accuracy,
        **options,
    )
    return measured


@evaluating(**AROUND)
def evaluate_lines(
    model: keras.Model,
    x: Data,
    y: Data = None,
    number_of_points: int = 21,
    *,
    number_of_directions: int = 1,
    accuracy: float | None = None,
    **options: Unpack[MeasuringAround],
) -> list[LossLine]:
    """Measures the loss along the same directions on one or several datasets.

    Example:

    >>> train, test = evaluate_lines(model, ((x_train, y_train), (x_test, y_test)), seed=0)

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        x: Inputs, or if `y` is `None` one dataset or a tuple or list of several: arrays
            or tensors as `(x, y)` or `(x, y, sample_weight)`, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. A pair whose first element is not a tuple or
            dataset is one `(x, y)`; several inputs of a model must be a list or dict.
            The data stay in memory during the call; batches that take more than an eighth
            of it are read again at each point.
        y: Targets. Defaults to `None`.
        number_of_points: Points along the line, at least 2. Defaults to 21.
        number_of_directions: How many random directions. Defaults to 1.
        accuracy: Largest error of points that are interpolated instead of measured, by
            cubic splines through coarser ones: a share of the range of `metric`, such as
            0.01, and of the range of its logarithms if it is positive. As a check, a
            twelfth of these points is measured, too; if two checks fail, all are. The
            metadata list the interpolated points under `"interpolated"`, and the largest
            errors of the check. Of a smooth line of 101 points about a fifth is measured.

            Of 3,000 samples or more, only 500 are measured at these points, drawn with
            `seed`, and of each class in proportion. More samples are measured at fewer
            points, each time six times as many until it is all of them, and only the
            differences are interpolated, which is checked at up to 8 points. The metadata
            then also have `"few_samples"`, with pairs of a number of samples and one of
            points, and further checkpoints are called `line-500.h5` and so on. This needs
            data that can be indexed: arrays, or batches of equal shapes.

            Needs the extra `analysis`. Defaults to `None`, where all points are measured.
        **options: Where and how it is measured; see `MeasuringAround` and `Measuring`.

    Returns:
        A list with one `LossLine` per dataset.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), sections 3 and 4.
    """
    check_accuracy(accuracy)
    is_auto = _is_auto(options["extent"])
    alphas = coordinates(number_of_points, (-1, 1) if is_auto else options["extent"])
    check_integer("number_of_directions", number_of_directions, minimum=1)
    check_points(int(number_of_directions) * len(alphas), "number_of_directions")
    if options["directions"] is not None and number_of_directions != 1:
        raise ValueError(
            "`number_of_directions` is for random directions, but `directions` were given. "
            f"Received {number_of_directions}. Leave one of them out."
        )
    call = Evaluation(model, all_datasets(x, y), LossLine, options)
    directions, origin = call.choose(number_of_directions)
    if is_auto:
        alphas *= call.radius(directions)
    # One direction at a time: all of them at once might not fit on the device.
    points = alphas[:, np.newaxis]
    legs = [(directions[index : index + 1], points) for index in range(len(directions))]
    depends = {"directions": directions, "coordinates": alphas}
    order = None
    if accuracy is not None:
        order = Refinement([alphas], accuracy, call.metrics, len(legs))
    return call.along(Plan(legs, depends, order=order), functools.partial(line, alphas), origin)


@evaluating(**AROUND)
def evaluate_surface(
    model: keras.Model,
    x: Data,
    y: Data = None,
    number_of_points: Points = 21,
    *,
    accuracy: float | None = None,
    **options: Unpack[MeasuringAround],
) -> LossSurface:
    """Measures the loss of a model over the plane of two directions.

    The grid is measured from coarse to fine, so what `LossSurface.load` reads of an
    unfinished checkpoint can be drawn as a preview.

    Example:

    >>> surface = evaluate_surface(model, x_test, y_test, number_of_points=(51, 26), seed=0)
    >>> surface.values["loss"].shape
    (26, 51)

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis, at least 2: an integer, or a pair for
            alpha and beta. Defaults to 21, which makes 441 points.
        accuracy: Largest error of points that are interpolated instead of measured, as a
            share of the range; see `evaluate_lines`. Of a smooth surface of 49x49 points
            about an eighth is measured. Defaults to `None`.
        **options: Where and how it is measured; see `MeasuringAround` and `Measuring`.

    Returns:
        A `LossSurface`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), sections 3 and 4.
    """
    datasets = [one_dataset(x, y)]
    (surface,) = evaluate_surfaces(
        model, datasets, number_of_points=number_of_points, accuracy=accuracy, **options
    )
    return surface


@evaluating(**AROUND)
def evaluate_surfaces(
    model: keras.Model,
    x: Data,
    y: Data = None,
    number_of_points: Points = 21,
    *,
    accuracy: float | None = None,
    **options: Unpack[MeasuringAround],
) -> list[LossSurface]:
    """Measures the loss over the same plane on one or several datasets.

    Example:

    >>> surfaces = evaluate_surfaces(model, ((x_train, y_train), (x_test, y_test)), seed=0)
    >>> axes = plot_levels(surfaces, labels=("training set", "test set"))

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        x: Inputs, or if `y` is `None` one dataset or several; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis, at least 2: an integer, or a pair for
            alpha and beta. Defaults to 21, which makes 441 points.
        accuracy: Largest error of points that are interpolated instead of measured, as a
            share of the range; see `evaluate_lines`. Defaults to `None`.
        **options: Where and how it is measured; see `MeasuringAround` and `Measuring`.

    Returns:
        A list with one `LossSurface` per dataset.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.
    """
    check_accuracy(accuracy)
    is_auto = _is_auto(options["extent"])
    grid = Grid.of(number_of_points, (-1, 1) if is_auto else options["extent"])
    call = Evaluation(model, all_datasets(x, y), LossSurface, options)
    directions, origin = call.choose(2, exactly=True)
    if is_auto:
        grid = grid.scaled(call.radius(directions))
    if options["executor"] is None:
        directions = on_device(directions, model.trainable_variables)
    depends = {"directions": directions, "coordinates": grid.axes}
    order = grid.order
    if accuracy is not None:
        order = Refinement([grid.betas, grid.alphas], accuracy, call.metrics)
    plan = Plan([(directions, grid.points)], depends, order=order)
    return call.along(plan, grid.surface, origin)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What a call measures: points along directions, and how each becomes a model.

    Attributes:
        legs: List of pairs of directions and points along them, an array of shape
            `(number of points, number of directions)`.
        depends: Dict of arrays, or nested lists of them, on which the values depend, by the
            name that errors give them. A checkpoint that belongs to others is refused; model
            and data are compared anyway.
        walk: Which variables move, and how; see `walks`. By default, the trainable ones along
            directions.
        order: All indices of the points in the order to measure them, or a `Refinement`, which
            decides as it goes. Defaults to `None`, ascending.
        engines: Dict of functions that make an engine, by name. Defaults to `None`, those that
            the option `engine` stands for.
        compared: Names of the values at the center that are checked to be the same each time
            they are measured. Defaults to `None`, all of them.
    """

    legs: list
    depends: dict
    walk: Callable = along_directions
    order: np.ndarray | Refinement | None = None
    engines: dict | None = None
    compared: list | None = None

    @property
    def number(self):
        """How many points there are."""
        return sum(len(points) for _, points in self.legs)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """One call that measures: a model, its data, and how it is measured.

    The methods are the steps of every such call, in this order: `choose` the
    directions, find the `radius` of an automatic extent, then measure `along` the
    directions.

    Attributes:
        model: A compiled and built `keras.Model`. It is left as it was.
        datasets: List of datasets.
        kind: The class of what is measured, such as `LossSurface`.
        options: How it is measured, as `evaluating` completes it.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the model cannot be evaluated, or not as the arguments ask.
    """

    model: keras.Model
    datasets: list
    kind: type
    options: Measuring

    def __post_init__(self):
        check_compiled(self.model)
        check_metric(self.options["metric"])
        if self.options["executor"] is not None:
            check_executor(self.options["executor"])
        check_choice("engine", self.options["engine"], ("auto", *ENGINES))
        check_choice("sampling_error", self.options["sampling_error"], (False, True))
        if self.options["sampling_error"] and self.kind not in (LossLine, LossSurface):
            raise ValueError(
                "`sampling_error` is for lines and surfaces, whose values are means over samples. "
                f"Received True for a {self.kind.__name__}, which has no such errors. Leave it out."
            )
        check_verbose(self.options["verbose"])
        # Counted before directions are chosen.
        _ = self._number_of_weights

    @functools.cached_property
    def data(self):
        """List of `Dataset`, read once."""
        data = read_datasets(self.model, self.datasets, self.options["batch_size"])
        check_targets(self.model, data)
        if self.options["executor"] is not None:
            check_can_be_sent(data)
        if not self.options["sampling_error"]:
            return data
        return [
            in_blocks(
                self.model, each, self.options["batch_size"], are_arrays=not is_batched(given)
            )
            for each, given in zip(data, self.datasets, strict=True)
        ]

    @property
    def metrics(self):
        """Tuple of the names of the metrics that are asked for."""
        metric = self.options["metric"]
        return (metric,) if isinstance(metric, str) else tuple(metric)

    @functools.cached_property
    def _number_of_weights(self):
        return len(self.model.weights)

    @functools.cached_property
    def _status(self):
        return Status(self.options["verbose"])

    @functools.cached_property
    def _saved(self):
        number = len(self.datasets)
        return Checkpoint(self.options["checkpoint"], self.kind, number)

    def choose(self, number, *, exactly=False):
        """Checks the given directions, or draws random ones, as `MeasuringAround` says.

        Args:
            number: How many random directions to draw.
            exactly: Whether there must also be `number` given directions. Defaults to
                `False`.

        Returns:
            A list of directions, and a dict for the metadata that says where they come
            from.
        """
        directions, layers, seed = map(self.options.get, ("directions", "layers", "seed"))
        if directions is None:
            seed = self.seed(seed)
            origin = {
                "directions": "random",
                "seed": seed,
                "normalize": "filter",
                "ignore": "biasbn",
            }
            drawn = RandomDirections(self.model, number, seed, layers=layers)
            if layers is not None:
                origin["layers"] = layer_names(layers)
            return drawn, origin
        for name, value in (("seed", seed), ("layers", layers)):
            if value is not None:
                raise ValueError(
                    f"`{name}` is for random directions, but `directions` were given. Received "
                    f"{name}={value!r}. Leave it out, or pass it to `random_directions`."
                )
        directions = check_directions(self.model, directions, number if exactly else None)
        return directions, {"directions": "given"}

    def seed(self, seed):
        """Returns the given seed, or else that of the checkpoint, or draws one."""
        return resolve_seed(self._saved.seed if seed is None else seed)

    def radius(self, directions):
        """Finds how far the loss stays low along all directions, rounded down to two digits."""
        self._status.announce("Looking for the extent")
        with patient_interrupts() as interrupt, evaluated(self.model) as state:
            measure = evaluate_engine(state, self.data[:1], interrupt)
            (values,) = measure_center(measure, directions[:1])
            self._check_measured(values)
            check_complete(self.model, self._number_of_weights)
            name = "loss" if "loss" in values else self.metrics[0]
            loss = values[name]
            if not 0 < loss < np.inf:
                raise ValueError(
                    f"`extent='auto'` needs a finite {name} above 0. Received a model with "
                    f"{loss:g}. Give the first and last coordinate, such as (-1, 1)."
                )

            def is_low(exponent):
                ends = np.array([[-(2.0**exponent)], [2.0**exponent]])
                return all(
                    results[0][name][0] <= RISE * loss
                    for direction in directions
                    for _, results in measure([direction], ends)
                )

            exponent = highest_low(is_low, 0, EXPONENTS, HALVINGS)
        digits = 1 - int(np.floor(np.log10(2.0**exponent)))
        return np.floor(2.0**exponent * 10.0**digits) / 10.0**digits

    def along(self, plan, assemble, origin):
        """Measures the points of a plan, or what a checkpoint does not hold of them.

        Args:
            plan: A `Plan`.
            assemble: A function of a dict of arrays with a value per point, a dict of floats
                for the center, and the metadata; it returns what is saved, such as a
                `LossSurface`.
            origin: Dict for the metadata that says where the points come from.

        Returns:
            A list of what `assemble` returned, one per dataset.
        """
        self._check_engine(plan.engines)
        self._saved.identify(self.model, self.data, **plan.depends)
        with patient_interrupts() as interrupt, evaluated(self.model, plan.walk) as state:
            if plan.engines is None:
                self._check_metrics(state, interrupt)
                engines = candidates(self.options["engine"], self.model, plan.number)
                plan = dataclasses.replace(plan, engines=engines)
            data = self._with_means(state, plan, interrupt)
            levels = [*self._few_samples(data, plan, origin), data]
            number = plan.number * len(levels)
            # One bar for all, which starts with the first point.
            begin = functools.cache(lambda: Progress(number, self._status, self.metrics[0]))

            def assembled(values, center, dataset, more):
                metadata = _describe(self.model, dataset, origin) | more
                return _assembled(assemble, values, center, metadata)

            how = {"interrupt": interrupt, "assemble": assembled, "begin": begin}
            measured = functools.partial(self._measured, state, **how)
            self._status.announce(f"Preparing {plan.number} points")
            values = self._by_levels(measured, plan, levels, state)
            begin().finish()
            return values

    def _by_levels(self, measured, plan, levels, state):
        """Measures on ever more samples, each time only what differs from those before."""
        order, described = plan.order, [[] for _ in self.data]
        for few, more in itertools.pairwise(levels):
            begun = dataclasses.replace(plan, order=order.of_bases())
            bases = measured(begun, few, self._saved_on_few(few, plan))
            # Workers get the model as it is.
            state.restore()
            pairs = zip(few, more, strict=True)
            order = plan.order.beyond(bases, [other.size / one.size for one, other in pairs])
            for each, base, some in zip(described, bases, few, strict=True):
                each.append([some.size, int(np.count_nonzero(~base.interpolated))])
        values = measured(dataclasses.replace(plan, order=order), levels[-1], self._saved)
        return [_with_few(*each) for each in zip(values, described, strict=True)]

    def _with_means(self, state, plan, interrupt):
        """The data and, where they are in blocks, the names of the values that have errors."""
        if not self.options["sampling_error"]:
            return self.data
        directions, points = plan.legs[0]
        # At the center, a metric may be perfect on any samples.
        farthest = points[np.abs(points).sum(axis=1).argmax()]
        points = np.stack([np.zeros(farthest.shape), farthest])
        found = find_means(state, self.data, directions, points, interrupt=interrupt)
        state.restore()
        # A metric that is perfect on one dataset looks like a mean there.
        common = set.intersection(*map(set, found))
        blocks = [
            dataclasses.replace(
                dataset.blocks, means={name: means[name] for name in means if name in common}
            )
            for dataset, means in zip(self.data, found, strict=True)
        ]
        pairs = zip(self.data, blocks, strict=True)
        return [dataclasses.replace(dataset, blocks=each) for dataset, each in pairs]

    def _few_samples(self, data, plan, origin):
        """Lists of a few samples of each dataset, ever more of them, if the plan can use them."""
        levels = [data]
        while isinstance(plan.order, Refinement):
            few = [few_samples(dataset, origin.get("seed", 0)) for dataset in levels[0]]
            pairs = list(zip(few, levels[0], strict=True))
            if all(one is other for one, other in pairs):
                break
            if data[0].blocks is not None:
                few = [in_blocks_like(*pair) for pair in pairs]
            levels = [few, *levels]
        return levels[:-1]

    def _saved_on_few(self, few, plan):
        """The checkpoint beside the other one, such as `line-500.h5` for `line.h5`."""
        path = self.options["checkpoint"]
        if path is not None:
            number = max(each.size for each in few)
            path = Path(path).with_stem(f"{Path(path).stem}-{number}")
        saved = Checkpoint(path, self.kind, len(few))
        saved.identify(self.model, few, **plan.depends)
        return saved

    def _measured(self, state, plan, data, saved, *, interrupt, assemble, begin):
        """Measures the points of a plan on some data; returns a list, of what `assemble` does."""
        directions, _ = plan.legs[0]
        options = {"directions": directions, "interrupt": interrupt}
        parts = (plan.engines, state, data)
        if self.options["executor"] is None:
            measure, centers, how = start(*parts, **options)
        else:
            options["compared"] = plan.compared
            measure, centers, how = distribute(self.options["executor"], *parts, **options)
        check_complete(self.model, self._number_of_weights)
        self._check_measured(centers[0])

        def measure_some(indices):
            return _along(measure, plan.legs, centers, indices)

        def assemble_all(values, metadata):
            return [
                # Workers report their engine only once they have started.
                assemble(each, center, dataset, how | more)
                for each, center, dataset, more in zip(values, centers, data, metadata, strict=True)
            ]

        restored = saved.restore(plan.number, centers, plan.compared)
        shown = {"assemble": assemble_all, "progress": begin()}
        values = self._collect(measure_some, plan, saved, restored, **shown)
        _check_state(centers, measure_center(measure, directions), plan.compared)
        return values

    def _check_engine(self, engines):
        """Refuses an engine that is not among those of this measurement."""
        if engines is None:
            return
        if self.options["sampling_error"] and not set(engines) <= set(ENGINES):
            raise ValueError(
                "`sampling_error` is for values that are means over samples. Received True for "
                f"a call that measures something else, with the engine {', '.join(engines)}. "
                "Leave it out."
            )
        if self.options["engine"] not in ("auto", *engines):
            raise ValueError(
                f"`engine` must be 'auto' here: only the engine of its own, {', '.join(engines)}, "
                f"measures this. Received {self.options['engine']!r}. Omit it."
            )

    def check_metrics(self):
        """Refuses a metric that is not measured, before anything else is."""
        with patient_interrupts() as interrupt, evaluated(self.model) as state:
            self._check_metrics(state, interrupt)

    def _check_metrics(self, state, interrupt):
        """Refuses a metric that is not measured, on one batch instead of all data."""
        if self.metrics == ("loss",):
            return
        data, *_ = self.data
        self._check_measured(evaluator(self.model, interrupt)(data.first_batch))
        state.restore()

    def _check_measured(self, values):
        for metric in self.metrics:
            if metric == "data_loss" and metric not in values:
                raise ValueError(
                    "`metric` must be 'loss', since the model has no weight penalties that a "
                    "'data_loss' would leave out. Received 'data_loss'."
                )
            check_choice("metric", metric, tuple(split(values)[0]))

    def _collect(self, measure, plan, saved, restored, *, assemble, progress):
        """Measures what the checkpoint does not hold yet, and saves it there.

        Args:
            measure: A function of indices of points that yields some of them and their
                results, as an engine does.
            plan: A `Plan`.
            saved: A `Checkpoint`.
            restored: What it holds: values, and which points are missing.
            assemble: A function of a list with a dict of arrays per dataset, and of a list
                with more metadata for each.
            progress: A `Progress` that counts points.

        Returns:
            What `assemble` returned.
        """
        measured, is_missing = restored
        order = np.arange(plan.number) if plan.order is None else plan.order
        first, *_ = self.metrics
        progress.leave_out(np.count_nonzero(~is_missing))
        found, nothing = {}, [{} for _ in measured]
        rounds = order.rounds(measured, found) if isinstance(order, Refinement) else [order]
        try:
            for wanted in rounds:
                for indices, results in measure(wanted[is_missing[wanted]]):
                    _store(results, measured, indices)
                    is_missing[indices] = False
                    progress.advance(len(indices), results[0][first][-1])
                    if saved.is_due():
                        saved.write(assemble(measured, nothing), is_missing)
        except BaseException as error:
            # Also when interrupted, or when a worker is lost.
            saved.write(assemble(measured, nothing), is_missing)
            error.add_note(saved.describe(is_missing))
            raise
        saved.write(assemble(measured, nothing), is_missing)
        progress.leave_out(np.count_nonzero(is_missing))
        if isinstance(order, Refinement):
            return assemble(*order.interpolated(measured, is_missing, found))
        return assemble(measured, nothing)


def _store(results, measured, indices):
    for values, arrays in zip(measured, results, strict=True):
        for name, array in arrays.items():
            values[name][indices] = array


def _with_few(value, described):
    """A value whose metadata also say how many points were measured on how few samples."""
    few = {"few_samples": described} if described else {}
    return dataclasses.replace(value, metadata=value.metadata | few)


def _assembled(assemble, measured, center, metadata):
    """What `assemble` makes of the values, with their errors."""
    (values, errors), (center, at_center) = split(measured), split(center)
    if "sampling_error" not in metadata:
        return assemble(values, center, metadata)
    without = [name for name in center if name not in at_center]
    described = metadata["sampling_error"] | {"center": at_center, "not_means": without}
    value = assemble(values, center, metadata | {"sampling_error": described})
    return dataclasses.replace(value, errors=assemble(errors, center, metadata).values)


def _describe(model, dataset, origin):
    """The metadata of a measurement, starting with where its points come from."""
    return {
        **origin,
        "model": model.name,
        "parameters": model.count_params(),
        "dataset_size": dataset.size,
        "batch_size": dataset.batch_size,
        **_describe_blocks(dataset.blocks),
        **({"streamed": True} if dataset.is_streamed else {}),
        "backend": keras.backend.backend(),
        "versions": {
            "losslandscape": __version__,
            # From the modules, because TensorFlow is installed under many names.
            **{module.__name__: module.__version__ for module in (keras, np, tf)},
        },
    }


def _describe_blocks(blocks):
    if blocks is None:
        return {}
    return {"sampling_error": {"blocks": blocks.number, "shuffled": blocks.is_shuffled}}


def _check_state(before, after, compared):
    """Warns if the model gives different values at the same weights."""
    if found := difference(before, after, AT_ONCE, compared):
        _, name, first, second = found
        warn(
            f"At the model's own weights {name!r} was {first:g} at first and {second:g} at the "
            "end, on the same data: something that cannot be restored changes with each "
            "evaluation, such as a Python counter or random numbers from outside Keras. "
            "The measured values are uncertain by that much."
        )


def _is_auto(extent):
    if isinstance(extent, str) and extent != "auto":
        raise ValueError(
            f"`extent` must be two numbers, such as (-1, 1), or 'auto'. Received {extent!r}."
        )
    return isinstance(extent, str)


def _along(measure, legs, centers, missing):
    """Measures the missing points, whose indices count through all legs."""
    first = 0
    for directions, points in legs:
        here = missing[(missing >= first) & (missing < first + len(points))]
        # The center is already known, which saves time on short lines.
        is_center = ~points[here - first].any(axis=1)
        away = here[~is_center]
        if is_center.any():
            yield here[is_center], as_arrays(centers)
        if len(away):
            for indices, results in measure(directions, points[away - first]):
                yield away[indices], results
        first += len(points)
