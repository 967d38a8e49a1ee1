"""Evaluation: walks a model along directions and measures its loss at every point.

An engine moves the weights in place and measures; whatever happens, the model
gets back every bit it had.
"""

import contextlib
import numbers
import signal
import threading
from importlib.metadata import version

import keras
import numpy as np
from keras import ops

from losslandscape.datasets import one_dataset, read_datasets
from losslandscape.directions import (
    check_choice,
    check_compiled,
    check_directions,
    check_integer,
    random_directions,
    resolve_seed,
)
from losslandscape.engines import compiled_engine, evaluate_engine, to_tensors
from losslandscape.surfaces import LossLine, LossSurface, __version__

ENGINES = ("auto", "compiled", "evaluate")
# Below this number of points, compiling may take longer than it saves (benchmarks/RESULTS.md).
COMPILED_MINIMUM = 25


def evaluate_line(model, x, y=None, number_of_points=21, **options):
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
        TypeError: As `evaluate_lines`.
        ValueError: As `evaluate_lines`.

    Example:

    >>> line = evaluate_line(model, x_test, y_test, number_of_directions=5, seed=0)
    >>> line.values["loss"].shape
    (5, 21)
    """
    return evaluate_lines(model, [one_dataset(x, y)], number_of_points, **options)[0]


def evaluate_lines(
    model,
    datasets,
    number_of_points=21,
    *,
    directions=None,
    number_of_directions=1,
    extent=(-1.0, 1.0),
    metric="loss",
    seed=None,
    batch_size=None,
    engine="auto",
    verbose="auto",
):
    """Measures the loss along the same directions on one or several datasets.

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        datasets: One dataset or a tuple or list of several: arrays or tensors
            as `(x, y)` or `(x, y, sample_weight)`, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. Two elements of which the first is no tuple
            or dataset are one `(x, y)`; several inputs of a model come as a
            list or dict. The data stay in memory for the time of the call.
        number_of_points: Points along the line, at least 2. Defaults to 21.
        directions: List of directions to follow. `None` (the default) draws
            `number_of_directions` with `random_directions`.
        number_of_directions: How many random directions. Defaults to 1.
        extent: First and last coordinate. Defaults to `(-1.0, 1.0)`, where a
            filter-normalized direction is as long as the weights themselves.
        metric: The metric that the progress bar shows; it must be one that the
            model reports. All of them are measured anyway. Defaults to "loss".
        seed: Integer for the random directions. `None` (the default) draws one
            from NumPy's global random state; it is kept in the metadata.
        batch_size: Samples per batch, for arrays. `None` (the default) takes
            large ones, as the model's activations allow, which is fastest.
        engine: `"evaluate"` measures each point with `model.evaluate`;
            `"compiled"` puts the model's own `test_step` and many points into
            one TensorFlow graph. `"auto"` (the default) takes the compiled one
            where it applies and pays.
        verbose: `"auto"` or 1 shows a progress bar with the time left, 2 one
            line at the end, 0 nothing.

    Returns:
        A list with one `LossLine` per dataset.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a value that cannot be used; before any
            point is computed, and with the model untouched.

    Example:

    >>> train, test = evaluate_lines(model, ((x_train, y_train), (x_test, y_test)), seed=0)

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), sections 3 and 4.
    """
    check_evaluation(model, engine, verbose)
    alphas = coordinates(number_of_points, extent)
    check_integer("number_of_directions", number_of_directions, minimum=1)
    directions, origin = choose_directions(model, directions, number_of_directions, seed)
    data = read_datasets(model, datasets, batch_size)
    number = len(directions) * len(alphas)
    with patient_interrupts() as interrupt, preserved(model):
        candidates = _candidates(engine, number)
        measure, centers = _start(candidates, model, data, directions[:1], interrupt)
        check_choice("metric", metric, tuple(centers[0]))
        progress = Progress(number, metric, verbose)
        walks = [
            _walk(measure, [direction], alphas[:, np.newaxis], centers, progress)
            for direction in directions
        ]
    return [
        LossLine(
            alphas,
            {name: np.stack([walk[index][name] for walk in walks]) for name in centers[index]},
            centers[index],
            describe(model, dataset, origin),
        )
        for index, dataset in enumerate(data)
    ]


def evaluate_surface(
    model,
    x,
    y=None,
    number_of_points=21,
    *,
    directions=None,
    extent=(-1.0, 1.0),
    metric="loss",
    seed=None,
    batch_size=None,
    engine="auto",
    verbose="auto",
):
    """Measures the loss of a model over the plane of two directions.

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis, at least 2: an integer, or a pair for
            alpha and beta. Defaults to 21, which makes 441 points.
        directions: List of the two directions of alpha and beta. `None` (the
            default) draws them with `random_directions`.
        extent: First and last coordinate on both axes, or a pair of such pairs
            for alpha and beta. Defaults to `(-1.0, 1.0)`.
        metric: As in `evaluate_lines`.
        seed: As in `evaluate_lines`.
        batch_size: As in `evaluate_lines`.
        engine: As in `evaluate_lines`.
        verbose: As in `evaluate_lines`.

    Returns:
        A `LossSurface`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a value that cannot be used; before any
            point is computed, and with the model untouched.

    Example:

    >>> surface = evaluate_surface(model, x_test, y_test, number_of_points=(51, 26), seed=0)
    >>> surface.values["loss"].shape
    (26, 51)

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), sections 3 and 4.
    """
    check_evaluation(model, engine, verbose)
    axes = zip(*per_axis(number_of_points, extent), strict=True)
    alphas, betas = (coordinates(number, ends) for number, ends in axes)
    directions, origin = choose_directions(model, directions, 2, seed, exactly=True)
    # One by one, since large ones should not lie on the host and the device together.
    directions = [to_tensors([directions.pop(0)])[0] for _ in range(2)]
    data = read_datasets(model, [one_dataset(x, y)], batch_size)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(alphas, betas)], axis=1)
    (walk,), (center,) = measure_points(
        model, data, directions, grid, metric=metric, engine=engine, verbose=verbose
    )
    values = {name: walk[name].reshape(len(betas), len(alphas)) for name in center}
    return LossSurface(alphas, betas, values, center, describe(model, data[0], origin))


def measure_points(model, data, directions, points, *, metric, engine, verbose):
    """Measures a model at any points along directions; it is left as it was.

    Args:
        model: A compiled and built `keras.Model`.
        data: List of `Dataset`.
        directions: List of directions.
        points: Array of shape `(number of points, number of directions)`.
        metric: As in `evaluate_lines`.
        engine: As in `evaluate_lines`.
        verbose: As in `evaluate_lines`.

    Returns:
        Two lists with a dict per dataset: arrays with a value per point, and
        the values at the unperturbed weights.
    """
    with patient_interrupts() as interrupt, preserved(model):
        candidates = _candidates(engine, len(points))
        measure, centers = _start(candidates, model, data, directions, interrupt)
        check_choice("metric", metric, tuple(centers[0]))
        progress = Progress(len(points), metric, verbose)
        return _walk(measure, directions, points, centers, progress), centers


@contextlib.contextmanager
def preserved(model):
    """Gives a model back every bit of its state, however the block ends.

    Remembers the weights, the state of the optimizer, the metrics and the seed
    generators, and puts them back on return, exception and `KeyboardInterrupt`.

    Args:
        model: A built `keras.Model`.

    Example:

    >>> with preserved(model):
    ...     model.set_weights(others)
    ...     model.evaluate(x, y)
    """
    variables = _state_of(model)
    values = [ops.copy(variable) for variable in variables]
    try:
        yield
    finally:
        _put_back(model, variables, values)


def _state_of(model):
    optimizer = getattr(model, "optimizer", None)
    groups = (model.variables, model.metrics_variables, optimizer.variables if optimizer else ())
    return list({id(variable): variable for group in groups for variable in group}.values())


def _put_back(model, variables, values):
    try:
        # Metrics that were built meanwhile have no earlier state, but their initial one.
        model.reset_metrics()
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    except KeyboardInterrupt:
        # An impatient Ctrl-C must not leave the model half restored.
        _put_back(model, variables, values)
        raise


@contextlib.contextmanager
def patient_interrupts():
    """Lets Ctrl-C wait for the end of a batch, and a second one act at once.

    An exception between two arbitrary lines of TensorFlow breaks its own state,
    and with it the model. Yields the function to call at such an end.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda *_, **__: None
        return
    pending = []

    def remember(number, frame):
        if pending:
            signal.default_int_handler(number, frame)
        pending.append(number)

    def interrupt(*_, **__):
        if pending:
            pending.clear()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, remember)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt()


def _walk(measure, directions, points, centers, progress):
    """Measures every dataset at every point; one dict of arrays per dataset."""
    # The center is known already, and for short lines it counts.
    are_elsewhere = points.any(axis=1)
    progress.advance(np.count_nonzero(~are_elsewhere), centers[0])
    chunks = []
    for results in measure(directions, points[are_elsewhere]):
        chunks.append(results)
        last = {name: values[-1] for name, values in results[0].items()}
        progress.advance(len(next(iter(results[0].values()))), last)
    walks = [
        {name: np.full(len(points), value) for name, value in center.items()} for center in centers
    ]
    for walk, parts in zip(walks, zip(*chunks, strict=True), strict=True):
        for name, values in walk.items():
            values[are_elsewhere] = np.concatenate([part[name] for part in parts])
    return walks


def _candidates(engine, number_of_points):
    """The engines to try, the fastest first."""
    if engine == "compiled":
        return [compiled_engine]
    if engine == "evaluate" or number_of_points < COMPILED_MINIMUM:
        return [evaluate_engine]
    return [compiled_engine, evaluate_engine]


def _start(candidates, model, data, directions, interrupt):
    """Starts an engine: its measuring function, and the values where the model is."""
    *others, last = candidates
    at_center = np.zeros((1, len(directions)))
    for candidate in others:
        # What cannot be compiled the next one may still measure, or say what is wrong with it.
        with contextlib.suppress(Exception):
            measure = candidate(model, data, interrupt)
            return measure, _centers(measure, directions, at_center)
    measure = last(model, data, interrupt)
    return measure, _centers(measure, directions, at_center)


def _centers(measure, directions, point):
    (chunk,) = measure(directions, point)
    return [{name: float(values[0]) for name, values in results.items()} for results in chunk]


class Progress:
    """A Keras progress bar over points that shows the last value of one metric."""

    def __init__(self, number_of_points, metric, verbose):
        self._bar = keras.utils.Progbar(
            number_of_points,
            verbose=1 if verbose == "auto" else verbose,
            stateful_metrics=[metric],
            unit_name="point",
        )
        self._metric = metric
        self._done = 0

    def advance(self, number, results):
        """Counts points, and shows the metric of the last one."""
        self._done += number
        self._bar.update(self._done, [(self._metric, results[self._metric])])


def choose_directions(model, directions, number, seed, exactly=False):
    """The directions to follow, and the metadata that say where they come from."""
    if directions is None:
        seed = resolve_seed(seed)
        origin = {"directions": "random", "seed": seed, "normalize": "filter", "ignore": "biasbn"}
        return random_directions(model, number, seed=seed), origin
    if seed is not None:
        raise ValueError(
            f"`seed` is for random directions, but `directions` were given. Received seed={seed!r}."
            " Leave it out, or pass it to `random_directions`."
        )
    check_directions(model, directions, number if exactly else None)
    return list(directions), {"directions": "given"}


def describe(model, dataset, origin):
    """The metadata of a measurement, after what tells where its directions come from."""
    return {
        **origin,
        "model": model.name,
        "parameters": model.count_params(),
        "dataset_size": dataset.size,
        "batch_size": dataset.batch_size,
        "backend": keras.backend.backend(),
        "versions": {"losslandscape": __version__}
        | {package: version(package) for package in ("keras", "numpy", "tensorflow")},
    }


def check_evaluation(model, engine, verbose):
    """Refuses what cannot be evaluated, and how."""
    check_compiled(model)
    check_choice("engine", engine, ENGINES)
    check_choice("verbose", verbose, ("auto", 0, 1, 2))


def per_axis(number_of_points, extent):
    """The number of points and the extent of alpha and of beta."""
    is_single = isinstance(number_of_points, numbers.Integral)
    numbers_of_points = [number_of_points] * 2 if is_single else number_of_points
    extents = extent if np.ndim(extent) == 2 else [extent] * 2
    for name, value in (("number_of_points", numbers_of_points), ("extent", extents)):
        if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
            raise TypeError(
                f"`{name}` must be for both axes, or a pair for alpha and beta. Received {value!r}."
            )
    return numbers_of_points, extents


def coordinates(number_of_points, extent):
    """The points along one axis; refuses what makes none."""
    check_integer("number_of_points", number_of_points, minimum=2)
    is_pair = isinstance(extent, (tuple, list, np.ndarray)) and len(extent) == 2
    if not is_pair or not all(isinstance(end, numbers.Real) for end in extent):
        raise TypeError(f"`extent` must be two numbers, such as (-1, 1). Received {extent!r}.")
    if not np.isfinite(extent).all() or extent[0] >= extent[1]:
        raise ValueError(
            "`extent` must be two finite numbers, the smaller first, such as (-1, 1). Received "
            f"{extent!r}."
        )
    return np.linspace(*extent, number_of_points)
