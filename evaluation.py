"""Evaluation: walks a model along directions and measures its loss at every point.

An engine moves the weights in place and measures; whatever happens, the model
is restored to the last bit.
"""

import dataclasses
import functools

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
from losslandscape.basics.claims import claiming
from losslandscape.basics.hints import hinted
from losslandscape.directions import (
    RandomDirections,
    check_directions,
    layer_names,
    resolve_seed,
)
from losslandscape.measuring.checkpoints import Checkpoint
from losslandscape.measuring.datasets import one_dataset, read_datasets, split_datasets
from losslandscape.measuring.engines import (
    ENGINES,
    as_arrays,
    candidates,
    evaluate_engine,
    evaluator,
    measure_center,
    start,
    to_tensors,
)
from losslandscape.measuring.grids import Grid, check_points, coordinates, line
from losslandscape.measuring.interrupts import patient_interrupts
from losslandscape.measuring.progress import Progress, Status, check_verbose
from losslandscape.measuring.refinement import CHECK_MARGIN, MARGINS, Refinement, check_tolerance
from losslandscape.measuring.state import evaluated
from losslandscape.measuring.walks import along_directions
from losslandscape.measuring.workers import check_executor, distribute
from losslandscape.values.surfaces import LossLine, LossSurface, __version__

# An automatic extent ends where the loss is this many times that of the model; it lies between
# 2 to the powers of these exponents.
RISE = 10
EXPONENTS = (-10, 4)
# The relative difference allowed between two evaluations at the same weights.
CENTER_TOLERANCE = 1e-5


@hinted
def evaluate_line(model, x, y=None, number_of_points=21, **options) -> LossLine:
    """Measures the loss of a model along random directions, on one dataset.

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points along the line. Defaults to 21.
        **options: The keyword arguments of `evaluate_lines`.

    Returns:
        A `LossLine`.

    Raises:
        TypeError: As in `evaluate_lines`.
        ValueError: As in `evaluate_lines`.

    Example:

    >>> line = evaluate_line(model, x_test, y_test, number_of_directions=5, seed=0)
    >>> line.values["loss"].shape
    (5, 21)
    """
    return evaluate_lines(model, [one_dataset(x, y)], number_of_points, **options)[0]


@claiming
@hinted
def evaluate_lines(
    model,
    datasets,
    number_of_points=21,
    *,
    directions=None,
    number_of_directions=1,
    layers=None,
    extent=(-1.0, 1.0),
    metric="loss",
    seed=None,
    batch_size=None,
    engine="auto",
    executor=None,
    checkpoint=None,
    tolerance=None,
    verbose="auto",
) -> list[LossLine]:
    """Measures the loss along the same directions on one or several datasets.

    Example:

    >>> train, test = evaluate_lines(model, ((x_train, y_train), (x_test, y_test)), seed=0)

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        datasets: One dataset or a tuple or list of several: arrays or tensors
            as `(x, y)` or `(x, y, sample_weight)`, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. A pair whose first element is not a tuple
            or dataset is one `(x, y)`; several inputs of a model must be a list
            or dict. The data stay in memory during the call.
        number_of_points: Points along the line, at least 2. Defaults to 21.
        directions: List of directions to follow. `None` (the default) draws
            `number_of_directions` with `random_directions`.
        number_of_directions: How many random directions. Defaults to 1.
        layers: The layers that random directions move, while all others stay put;
            see `random_directions`. Defaults to `None`, all of them.
        extent: First and last coordinate. Defaults to `(-1.0, 1.0)`, where a
            filter-normalized direction is as long as the weights themselves.
            `"auto"` goes as far to both sides as the loss on the first dataset
            stays below ten times that of the model, along all directions; `metric`
            if the model reports no loss.
        metric: The metric that the progress bar shows, one that the model
            reports. All of them are measured. Defaults to `"loss"`.
        seed: Integer seed for the random directions. `None` (the default) draws
            one from NumPy's global random state; it is in the metadata.
        batch_size: Samples per batch, for arrays. `None` (the default) makes
            batches as large as the model's activations allow, which is fastest.
        engine: `"evaluate"` measures each point with `model.evaluate`;
            `"compiled"` puts the model's own `test_step` and many points into
            one TensorFlow or JAX graph, or one loop on Torch. `"auto"` (the default) takes
            the compiled one where it applies and pays off.
        executor: A `concurrent.futures.Executor` whose workers do the measuring;
            processes must be spawned, not forked. Each worker gets a copy of
            the model and the data. Defaults to `None`, this process.
        checkpoint: Path of an HDF5 file that keeps points as they are measured;
            the same call resumes from it after a crash. `LossLine.load` reads
            it at any time. For several datasets, `line.h5` becomes `line-1.h5`,
            `line-2.h5`, … Defaults to `None`.
        tolerance: Interpolate points where cubic splines through coarser ones are
            as exact as this share of the range of `metric`, such as 0.01, and of
            its logarithms if it is positive. The metadata list these points under
            `"interpolated"`, and the largest errors at a twelfth of them, which is
            measured as a check; if it fails twice, all points are measured. Of a smooth
            line of 101 points about a fifth is measured. Needs the extra `analysis`.
            Defaults to `None`, where all points are measured.
        verbose: `"auto"` or 1 shows a progress bar with the time left, 2 one
            line at the end, 0 nothing.

    Returns:
        A list with one `LossLine` per dataset.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), sections 3 and 4.
    """
    check_tolerance(tolerance)
    is_auto = _is_auto(extent)
    alphas = coordinates(number_of_points, (-1, 1) if is_auto else extent)
    check_integer("number_of_directions", number_of_directions, minimum=1)
    check_points(int(number_of_directions) * len(alphas), "number_of_directions")
    if directions is not None and number_of_directions != 1:
        raise ValueError(
            "`number_of_directions` is for random directions, but `directions` were given. "
            f"Received {number_of_directions}. Leave one of them out."
        )
    call = Evaluation(
        model,
        datasets,
        LossLine,
        metric=metric,
        batch_size=batch_size,
        engine=engine,
        executor=executor,
        checkpoint=checkpoint,
        verbose=verbose,
    )
    directions, origin = call.choose(directions, number_of_directions, seed, layers=layers)
    if is_auto:
        alphas *= call.radius(directions)
    call.identify(directions=directions, coordinates=alphas)
    # One direction at a time: all of them at once might not fit on the device.
    points = alphas[:, np.newaxis]
    legs = [(directions[index : index + 1], points) for index in range(len(directions))]
    order = None
    if tolerance is not None:
        order = Refinement([alphas], tolerance, call.metrics, len(legs))
    return call.along(legs, functools.partial(line, alphas), origin, order=order)


@hinted
def evaluate_surface(
    model,
    x,
    y=None,
    number_of_points=21,
    *,
    directions=None,
    layers=None,
    extent=(-1.0, 1.0),
    metric="loss",
    seed=None,
    batch_size=None,
    engine="auto",
    executor=None,
    checkpoint=None,
    tolerance=None,
    verbose="auto",
) -> LossSurface:
    """Measures the loss of a model over the plane of two directions.

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
        directions: List of the two directions of alpha and beta. `None` (the
            default) draws them with `random_directions`.
        layers: As in `evaluate_lines`.
        extent: First and last coordinate on both axes, or a pair of such pairs
            for alpha and beta. Defaults to `(-1.0, 1.0)`. `"auto"` as in
            `evaluate_lines`.
        metric: As in `evaluate_lines`.
        seed: As in `evaluate_lines`.
        batch_size: As in `evaluate_lines`.
        engine: As in `evaluate_lines`.
        executor: As in `evaluate_lines`.
        checkpoint: As in `evaluate_lines`. The grid is computed from coarse to
            fine, so what `LossSurface.load` reads can be drawn as a preview.
        tolerance: As in `evaluate_lines`. Of a smooth surface of 49x49 points about
            an eighth is measured.
        verbose: As in `evaluate_lines`.

    Returns:
        A `LossSurface`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), sections 3 and 4.
    """
    options = {
        "directions": directions,
        "layers": layers,
        "extent": extent,
        "metric": metric,
        "seed": seed,
        "batch_size": batch_size,
        "engine": engine,
        "executor": executor,
        "checkpoint": checkpoint,
        "tolerance": tolerance,
        "verbose": verbose,
    }
    return evaluate_surfaces(model, [one_dataset(x, y)], number_of_points, **options)[0]


@claiming
@hinted
def evaluate_surfaces(
    model,
    datasets,
    number_of_points=21,
    *,
    directions=None,
    layers=None,
    extent=(-1.0, 1.0),
    metric="loss",
    seed=None,
    batch_size=None,
    engine="auto",
    executor=None,
    checkpoint=None,
    tolerance=None,
    verbose="auto",
) -> list[LossSurface]:
    """Measures the loss over the same plane on one or several datasets.

    Example:

    >>> surfaces = evaluate_surfaces(model, ((x_train, y_train), (x_test, y_test)), seed=0)
    >>> axes = plot_levels(surfaces, labels=("training set", "test set"))

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        datasets: One dataset or a tuple or list of several; see `evaluate_lines`.
        number_of_points: As in `evaluate_surface`. Defaults to 21.
        directions: As in `evaluate_surface`.
        layers: As in `evaluate_lines`.
        extent: As in `evaluate_surface`; `"auto"` follows the first dataset.
        metric: As in `evaluate_lines`.
        seed: As in `evaluate_lines`.
        batch_size: As in `evaluate_lines`.
        engine: As in `evaluate_lines`.
        executor: As in `evaluate_lines`.
        checkpoint: As in `evaluate_lines`; `LossSurface.load` reads it.
        tolerance: As in `evaluate_surface`.
        verbose: As in `evaluate_lines`.

    Returns:
        A list with one `LossSurface` per dataset.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point
            is computed, with the model untouched.
    """
    check_tolerance(tolerance)
    is_auto = _is_auto(extent)
    grid = Grid.of(number_of_points, (-1, 1) if is_auto else extent)
    call = Evaluation(
        model,
        datasets,
        LossSurface,
        metric=metric,
        batch_size=batch_size,
        engine=engine,
        executor=executor,
        checkpoint=checkpoint,
        verbose=verbose,
    )
    directions, origin = call.choose(directions, 2, seed, exactly=True, layers=layers)
    if is_auto:
        grid = grid.scaled(call.radius(directions))
    call.identify(directions=directions, coordinates=grid.axes)
    # One by one, since large ones should not be on the host and the device together.
    if executor is None:
        directions = [to_tensors([direction])[0] for direction in directions]
    order = grid.order
    if tolerance is not None:
        order = Refinement([grid.betas, grid.alphas], tolerance, call.metrics)
    return call.along([(directions, grid.points)], grid.surface, origin, order=order)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """One call that measures: a model, its data, and how it is measured.

    The methods are the steps of every such call, in this order: `choose` the
    directions, find the `radius` of an automatic extent, `identify` what the values
    depend on, then measure `along` the directions.

    Attributes:
        model: A compiled and built `keras.Model`. It is left as it was.
        datasets: One dataset or a tuple or list of several; see `evaluate_lines`.
        kind: The class of what is measured, such as `LossSurface`.
        metric: The metric that the progress bar shows, or a list, of which it shows
            the first; they must be among those that are measured. Defaults to
            `"loss"`.
        batch_size: Samples per batch, for arrays. `None` (the default) chooses one.
        engine: `"auto"` (the default) or one of `ENGINES`.
        executor: A `concurrent.futures.Executor` whose workers do the measuring.
            Defaults to `None`, this process.
        checkpoint: Path of an HDF5 file that keeps points as they are measured.
            Defaults to `None`.
        verbose: `"auto"` (the default) or 1 for a progress bar, 2 for one line at the
            end, 0 for nothing.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the model cannot be evaluated, or not as the arguments ask.
    """

    model: keras.Model
    datasets: object
    kind: type
    metric: str | list = "loss"
    batch_size: int | None = None
    engine: str = "auto"
    executor: object = None
    checkpoint: object = None
    verbose: object = "auto"

    def __post_init__(self):
        check_compiled(self.model)
        check_metric(self.metric)
        if self.executor is not None:
            check_executor(self.executor)
        check_choice("engine", self.engine, ("auto", *ENGINES))
        check_verbose(self.verbose)
        # Looked up now, before directions are chosen.
        _ = self._number_of_weights

    @functools.cached_property
    def data(self):
        """List of `Dataset`, read once."""
        return read_datasets(self.model, self.datasets, self.batch_size)

    @property
    def metrics(self):
        """Tuple of the names of the metrics that are asked for."""
        return (self.metric,) if isinstance(self.metric, str) else tuple(self.metric)

    @functools.cached_property
    def _number_of_weights(self):
        return len(self.model.weights)

    @functools.cached_property
    def _status(self):
        return Status(self.verbose)

    @functools.cached_property
    def _saved(self):
        return Checkpoint(self.checkpoint, self.kind, len(split_datasets(self.datasets)))

    def choose(self, directions, number, seed, *, exactly=False, layers=None):
        """Checks the given directions, or draws random ones.

        Args:
            directions: List of directions, or `None` for random ones.
            number: How many random directions to draw.
            seed: Integer seed for random directions. `None` takes that of the
                checkpoint, or else draws one.
            exactly: Whether there must also be `number` given directions. Defaults to
                `False`.
            layers: The layers that random directions move, as in `random_directions`.
                Defaults to `None`, all of them.

        Returns:
            A list of directions, and a dict for the metadata that says where they come
            from.
        """
        if directions is None:
            seed = self.seed(seed)
            origin = {
                "directions": "random",
                "seed": seed,
                "normalize": "filter",
                "ignore": "biasbn",
            }
            # Drawn one by one: many would not fit into memory.
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

            exponent = _highest(is_low)
        digits = 1 - int(np.floor(np.log10(2.0**exponent)))
        return np.floor(2.0**exponent * 10.0**digits) / 10.0**digits

    def identify(self, **parts):
        """Refuses a checkpoint that belongs to other values.

        Args:
            **parts: Arrays, or nested lists of them, on which the values depend, by
                the name that errors give them. Model and data are compared anyway.
        """
        self._saved.identify(self.model, self.data, **parts)

    def along(
        self,
        legs,
        assemble,
        origin,
        *,
        order=None,
        walk=along_directions,
        engines=None,
        compared=None,
    ):
        """Measures the points of a walk.

        Args:
            legs: List of pairs of directions and points along them, an array of shape
                `(number of points, number of directions)`.
            assemble: As in `_collect`.
            origin: As in `_collect`.
            order: As in `_collect`.
            walk: Which variables move, and how; see `walks`. By default, the trainable
                ones along directions.
            engines: As in `start`. Defaults to `None`, those that `engine` stands for.
            compared: Names of the values at the center that are checked to be the same
                each time they are measured. Defaults to `None`, all of them.

        Returns:
            A list of what `assemble` returned, one per dataset.
        """
        number = sum(len(points) for _, points in legs)
        with patient_interrupts() as interrupt, evaluated(self.model, walk) as state:
            directions, _ = legs[0]
            if engines is None:
                self._check_metrics(state, interrupt)
                engines = candidates(self.engine, self.model, number)
            self._status.announce(f"Preparing {number} points")
            options = {"directions": directions, "interrupt": interrupt}
            if self.executor is None:
                measure, centers, how = start(engines, state, self.data, **options)
            else:
                parts = (engines, state, self.data)
                options["compared"] = compared
                measure, centers, how = distribute(self.executor, *parts, **options)
            check_complete(self.model, self._number_of_weights)

            def measure_some(indices):
                return _along(measure, legs, centers, indices)

            def assemble_with_engine(values, center, metadata):
                # Workers report their engine only once they have started.
                return assemble(values, center, metadata | how)

            values = self._collect(
                measure_some, number, centers, assemble_with_engine, origin, order=order
            )
            _check_state(measure_center(measure, directions), centers, compared)
            return values

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
            check_choice("metric", metric, tuple(values))

    def _collect(self, measure, number, centers, assemble, origin, *, order=None):
        """Measures what the checkpoint does not hold yet, and saves it there.

        Args:
            measure: A function of indices of points that yields some of them and their
                results, as an engine does.
            number: How many points there are.
            centers: List with a dict of floats per dataset, the values at the
                unperturbed weights.
            assemble: A function of a dict of arrays with a value per point, a dict
                of floats for the center, and the metadata; it returns what is saved,
                such as a `LossSurface`.
            origin: Dict for the metadata that says where the points come from.
            order: All indices in the order to measure them, or a `Refinement`, which
                decides as it goes. Defaults to `None`, ascending.

        Returns:
            A list of what `assemble` returned, one per dataset.
        """
        self._check_measured(centers[0])
        measured, is_missing = self._saved.restore(number, centers)
        metadata = [_describe(self.model, dataset, origin) for dataset in self.data]
        order = np.arange(number) if order is None else order
        first, *_ = self.metrics
        progress = Progress(np.count_nonzero(is_missing), self._status, first)
        errors = {}

        def values():
            return [assemble(*parts) for parts in zip(measured, centers, metadata, strict=True)]

        try:
            for wanted in _rounds(order, measured, is_missing, errors):
                for indices, results in measure(wanted):
                    _store(results, measured, indices)
                    is_missing[indices] = False
                    progress.advance(len(indices), results[0][first][-1])
                    if self._saved.is_due():
                        self._saved.write(values(), is_missing)
        except BaseException as error:
            # Also when interrupted, or when a worker is lost.
            self._saved.write(values(), is_missing)
            error.add_note(self._saved.describe(is_missing))
            raise
        self._saved.write(values(), is_missing)
        progress.finish()
        if isinstance(order, Refinement):
            measured, metadata = order.interpolated(measured, metadata, is_missing, errors)
        return values()


def _store(results, measured, indices):
    for values, arrays in zip(measured, results, strict=True):
        for name, array in arrays.items():
            values[name][indices] = array


def _rounds(order, measured, is_missing, errors):
    """Yields the indices to measure: all at once, or as a `Refinement` asks for them."""
    if not isinstance(order, Refinement):
        yield order[is_missing[order]]
        return
    for margin in MARGINS:
        while (wanted := order.wanted(measured, is_missing, margin)).size:
            yield wanted
        sample = order.sample(measured, is_missing)
        guesses = [order.complete(values, is_missing) for values in measured]
        yield sample
        found = [order.complete(values, is_missing) for values in measured]
        errors.clear()
        errors.update(order.errors(guesses, found, sample))
        if max(errors[name] for name in order.metrics) <= CHECK_MARGIN * order.tolerance:
            return
    # What was predicted cannot be trusted here.
    yield np.flatnonzero(is_missing)


def _describe(model, dataset, origin):
    """The metadata of a measurement, starting with where its points come from."""
    return {
        **origin,
        "model": model.name,
        "parameters": model.count_params(),
        "dataset_size": dataset.size,
        "batch_size": dataset.batch_size,
        "backend": keras.backend.backend(),
        "versions": {
            "losslandscape": __version__,
            # From the modules, because TensorFlow is installed under many names.
            **{module.__name__: module.__version__ for module in (keras, np, tf)},
        },
    }


def _check_state(now, then, compared):
    """Warns if the model gives different values at the same weights."""
    pairs = [
        (name, before[name], after[name])
        for before, after in zip(then, now, strict=True)
        for name in compared or before
    ]
    for name, before, after in pairs:
        if not np.isclose(after, before, rtol=CENTER_TOLERANCE, atol=0, equal_nan=True):
            warn(
                f"At the model's own weights {name!r} was {before:g} at first and {after:g} at the "
                "end, on the same data: something that cannot be restored changes with each "
                "evaluation, such as a Python counter or random numbers from outside Keras. "
                "The measured values are uncertain by that much."
            )
            return


def _is_auto(extent):
    if isinstance(extent, str) and extent != "auto":
        raise ValueError(
            f"`extent` must be two numbers, such as (-1, 1), or 'auto'. Received {extent!r}."
        )
    return isinstance(extent, str)


def _highest(is_low):
    """The highest exponent, in steps of an eighth, at which something is low."""
    lowest, highest = EXPONENTS
    exponent = 0.0
    while exponent < highest and is_low(exponent):
        exponent += 1
    while exponent > lowest and not is_low(exponent):
        exponent -= 1
    # It is low there, but not at twice the distance: halve the interval.
    for step in (0.5, 0.25, 0.125):
        exponent += step * (exponent < highest and is_low(exponent + step))
    return exponent


def _along(measure, legs, centers, missing):
    """Measures the missing points, which are numbered across all legs."""
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
