"""Engines: the ways to measure a model at many points.

Both move the model to a point and measure every dataset there. The `evaluate`
engine calls `model.evaluate` at each point and works for all models and data
that `model.evaluate` accepts. The `compiled` engine puts the model's own
`test_step`, the loop over batches and the loop over points into one TensorFlow or
JAX graph; Torch runs them without a graph, and still without the overhead of
`model.evaluate`.

An engine is a function of directions and points, an array of shape `(number of
points, number of directions)`. It yields the indices of some points in that array
and their results: a list with a dict of arrays, by name of the metric, per dataset.
"""

import contextlib
import dataclasses
import math
import time

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from losslandscape.backends.current import current
from losslandscape.backends.reports import in_order, names_of, penalty, regularized_weights
from losslandscape.backends.structures import arrays_of
from losslandscape.basics.checks import memory
from losslandscape.measuring.centers import measure_center
from losslandscape.measuring.sampling import Blocks, errors_of, errors_of_rows, means_among

# The most bytes of weights, in single precision, of which directions are kept on the device, and
# how many copies of the weights the memory must hold for that.
LARGE, COPIES = 2**30, 8
BY_WEIGHT = "one weight of a direction at a time"
# The most data that the compiled engine keeps on the device, in bytes.
DATA_BUDGET = 2**31
# How long a chunk of points may run before progress is shown and Ctrl-C acts, in seconds.
PATIENCE = 0.5
# The most points in a chunk. The graph is compiled for arrays of this length.
CHUNK = 256
# The relative error of a sum over many batches or weights in single precision.
ROUNDING = 2e-6


def candidates(engine, model, number_of_points):
    """Returns the engines to try, the fastest first.

    Args:
        engine: `"auto"` or one of `ENGINES`.
        model: The `keras.Model` that will be measured.
        number_of_points: How many points will be measured in total.

    Returns:
        A dict of functions that make an engine, by name.
    """
    if engine != "auto":
        names = [engine]
    elif number_of_points < current().break_even(model):
        names = ["evaluate"]
    else:
        names = ["compiled", "evaluate"]
    return {name: ENGINES[name] for name in names}


def start(engines, state, data, *, directions, interrupt):
    """Starts the first engine that works.

    Args:
        engines: Dict of functions that make an engine, by name; see `candidates`.
        state: The `State` of a model at the weights to start from.
        data: List of `Dataset`.
        directions: Some of the directions to be measured.
        interrupt: A function to call now and then; it lets waiting signals act,
            which may raise `KeyboardInterrupt`.

    Returns:
        The engine; a list with a dict of floats per dataset, the values at the center;
        and a dict for the metadata: the name of the engine; under `"not_compiled"`, why
        `"auto"` did not choose the compiled one; and under `"memory"`, if the weights are
        large, that directions are not kept.
    """
    *others, last = engines
    reason = {"memory": BY_WEIGHT} if are_large(state.moved) else {}

    def begin(name):
        measure = engines[name](state, data, interrupt)
        return measure, measure_center(measure, directions), {"engine": name, **reason}

    for name in others:
        try:
            return begin(name)
        except Exception as error:
            # The next one may work, or say what is wrong.
            reason |= {f"not_{name}": str(error) or type(error).__name__}
            state.restore()
    return begin(last)


def evaluate_engine(state, data, interrupt, adjust=None):
    """Measures point by point with `model.evaluate`.

    Args:
        state: The `State` of a model at the weights to start from.
        data: List of `Dataset`.
        interrupt: A function to call now and then; it lets waiting signals act,
            which may raise `KeyboardInterrupt`.
        adjust: A function of the model, the batches of the first dataset and
            `interrupt`, called at each point before measuring, for example to
            estimate statistics. Defaults to `None`.

    Returns:
        An engine.
    """
    evaluate = evaluator(state.model, interrupt)

    def measure_here(_):
        if adjust is not None:
            adjust(state.model, data[0].batches, interrupt)
        return [evaluate(dataset) for dataset in data]

    return point_by_point(state, measure_here)


def point_by_point(state, measure_here):
    """Makes an engine that moves the model from point to point.

    Args:
        state: The `State` of a model at the weights to start from.
        measure_here: A function of a point that measures the model there, as its weights are
            now; it returns a list with a dict of floats per dataset.
    """

    def measure(directions, points):
        tensors = on_device(directions, state.moved)
        for position, point in enumerate(points):
            state.rewind()
            # Without a graph, since many points and few must give the same bits.
            state.move(state.values, tensors, ops.convert_to_tensor(point))
            yield [position], as_arrays(measure_here(point))

    return measure


def evaluator(model, interrupt):
    """Makes the function that measures a model at its current weights.

    The function makes its own graphs, one for each kind of data, and holds them as long as it
    lives: a graph that Keras made for an earlier call may have read a number that has changed
    since. The model keeps one of these graphs, so call it in `state.evaluated` or `preserved`.

    Args:
        model: A compiled and built `keras.Model`.
        interrupt: A function to call now and then; it lets waiting signals act,
            which may raise `KeyboardInterrupt`.

    Returns:
        A function of a `Dataset` that returns a dict of floats: all that
        `model.evaluate` reports and, if weights are regularized, `"data_loss"`.
    """
    regularized = regularized_weights(model)
    functions = {}

    def evaluate(dataset):
        batches, running = dataset.keras_batches, []

        def end_batch(batch, logs):  # noqa: ARG001, as Keras calls it
            interrupt()
            if dataset.blocks is not None:
                running.append(_numbers(logs))

        callbacks = [keras.callbacks.LambdaCallback(on_test_batch_end=end_batch)]
        options = {"verbose": 0, "return_dict": True, "callbacks": callbacks}
        kind = repr(batches.element_spec), dataset.blocks is None
        model.test_function = functions.get(kind)
        one_by_one = contextlib.nullcontext() if dataset.blocks is None else _one_by_one(model)
        try:
            # Keras makes the function within `evaluate`, after the metrics that a distributed one
            # needs.
            with _silent_retracing(), _new_step(model), one_by_one:
                logs = model.evaluate(batches, **options)
            functions[kind] = model.test_function
        except Exception as error:
            error.add_note(f"`model.evaluate` failed on `{dataset.name}`.{_hint(dataset)}")
            raise
        if regularized and "data_loss" not in logs:
            penalties = penalty(regularized)
            logs["data_loss"] = _difference(logs["loss"], penalties)
            for row in running:
                row["data_loss"] = row["loss"] - float(ops.convert_to_numpy(penalties))
        values = _numbers(logs)
        return values | errors_of_rows(dataset.blocks, running, values)

    return evaluate


def _numbers(logs):
    """A dict of floats by name, in an order that does not depend on the engine."""
    logs = in_order(logs)
    # On Torch the penalty carries a gradient, which only Keras' own conversion drops.
    values = [np.ravel(ops.convert_to_numpy(value)) for value in logs.values()]
    return dict(zip(names_of(logs), np.concatenate(values).tolist(), strict=True))


def find_means(state, data, directions, points, *, interrupt):
    """Finds the values that are means over samples: on some batches together, that of each.

    Args:
        state: The `State` of a model at the weights to start from.
        data: List of `Dataset` in blocks.
        directions: A list of directions.
        points: A few points along them.
        interrupt: As for an engine.

    Returns:
        List of what `means_among` returns, one per dataset.
    """
    # The first ones may all be of one class.
    ends = [dataset.blocks.number - 1 for dataset in data]
    numbers = [(0, end // 2, end) for end in ends]
    wholes = [dataset.part(some) for dataset, some in zip(data, numbers, strict=True)]
    wholes = [dataclasses.replace(whole, blocks=Blocks.of(whole)) for whole in wholes]
    parts = [
        dataset.part([each[rank]])
        for rank in range(3)
        for dataset, each in zip(data, numbers, strict=True)
    ]
    # One engine for all, since it makes a graph for each kind of batches.
    chunks = evaluate_engine(state, [*wholes, *parts], interrupt)(directions, points)
    measured = [
        {name: np.concatenate([one[name] for one in results]) for name in results[0]}
        for results in zip(*(results for _, results in chunks), strict=True)
    ]
    return [
        means_among(measured[index + len(data) :: len(data)], measured[index], whole.blocks.weights)
        for index, whole in enumerate(wholes)
    ]


def _hint(dataset):
    """What may be wrong with data that cannot be evaluated."""
    parts = dataset.batches.element_spec
    if not isinstance(parts, tuple):
        return " It has no targets: is `y` missing?"
    if isinstance(parts[0], tuple):
        return " It was read as one dataset; several are tuples: ((x1, y1), (x2, y2))."
    return ""


@contextlib.contextmanager
def _new_step(model):
    """Lets Keras trace the test step again: JAX takes a method for the one whose trace it has."""
    step, attributes = model.test_step, vars(model)
    before = attributes.get("test_step")

    def test_step(*arguments):
        return step(*arguments)

    attributes["test_step"] = test_step
    try:
        yield
    finally:
        del attributes["test_step"]
        if before is not None:
            attributes["test_step"] = before


@contextlib.contextmanager
def _one_by_one(model):
    """Lets Keras report after each batch, where a model takes several in one execution."""
    before = model.steps_per_execution
    model.steps_per_execution = 1
    try:
        yield
    finally:
        model.steps_per_execution = before


@contextlib.contextmanager
def _silent_retracing():
    """Silences TensorFlow's warnings of frequent retracing: each call makes and drops a graph."""

    def is_other(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def compiled_engine(state, data, interrupt):
    """Measures many points at a time, in one TensorFlow or JAX graph or in a loop on Torch.

    Args:
        state: The `State` of a model at the weights to start from.
        data: List of `Dataset`.
        interrupt: A function to call now and then; it lets waiting signals act,
            which may raise `KeyboardInterrupt`.

    Returns:
        An engine.

    Raises:
        ValueError: If this engine does not apply to the model or the data; the
            message says why.
    """
    obstacle = _obstacle(state, data)
    if obstacle:
        raise ValueError(f"`engine='compiled'` does not apply: {obstacle}. Use 'auto'.")
    graphs = [_padded(dataset, *current().graph(state, dataset, CHUNK)) for dataset in data]
    number = 1

    def measure(directions, points):
        nonlocal number
        tensors = on_device(directions, state.moved)
        positions = np.arange(len(points))
        while len(positions):
            chunk, positions = positions[:number], positions[number:]
            started = time.perf_counter()
            results = [graph(tensors, points[chunk]) for graph in graphs]
            seconds = time.perf_counter() - started
            number = int(np.clip(len(chunk) * PATIENCE / seconds, 1, CHUNK))
            yield chunk, results
            interrupt()

    return measure


ENGINES = {"compiled": compiled_engine, "evaluate": evaluate_engine}


def _padded(dataset, names, measure_all):
    """A function of directions and any number of points that measures one dataset."""

    def graph(directions, points):
        # Always of the same length, or the graph would be compiled again.
        padded = np.resize(points, (CHUNK, points.shape[1]))
        arguments = ops.convert_to_tensor(padded), ops.convert_to_tensor(len(points))
        values = ops.convert_to_numpy(measure_all(directions, *arguments))
        # A row per point, of a column per block.
        running = np.moveaxis(values[: len(points)].astype(float), -1, 0)
        running = dict(zip(names, running, strict=True))
        found = {name: columns[:, -1] for name, columns in running.items()}
        return found | errors_of(dataset.blocks, running)

    return graph


def _difference(loss, penalty):
    """The loss without the penalty, or NaN where that is only rounding error."""
    loss, penalty = (float(ops.convert_to_numpy(value)) for value in (loss, penalty))
    is_lost = abs(loss - penalty) < ROUNDING * abs(loss)
    return np.nan if is_lost else loss - penalty


def _obstacle(state, data):
    """Why the compiled engine does not apply, or None."""
    model = state.model
    if model.run_eagerly:
        return "the model runs eagerly"
    if getattr(model.evaluate, "__func__", None) is not keras.Model.evaluate:
        return "the model has a custom `evaluate`"
    if reason := current().obstacle(model):
        return reason
    if are_large(state.moved):
        return "the weights are so large that directions are drawn or read one array at a time"
    streamed = [dataset.name for dataset in data if dataset.is_streamed]
    if streamed:
        return f"{streamed} does not fit into memory, so it is streamed"
    irregular = [dataset.name for dataset in data if dataset.tensors is None]
    if irregular:
        return f"the batches of {irregular} differ in shape, or are not dense"
    arrays = arrays_of([dataset.tensors for dataset in data])
    size = sum(array.shape.num_elements() * array.dtype.size for array in arrays)
    if size > DATA_BUDGET:
        return f"the data take {size:,} bytes, more than the {DATA_BUDGET:,} kept on the device"
    return None


def as_arrays(results):
    """Turns one point's results into what an engine yields."""
    return [{name: np.array([value]) for name, value in each.items()} for each in results]


def on_device(directions, weights):
    """Puts directions where the weights lie that they move, unless these are large.

    Then they stay sequences of arrays, of which one at a time is drawn or read, at each point.

    Args:
        directions: Sequence of directions, each a sequence of arrays or tensors.
        weights: List of the variables that move.

    Returns:
        A list of directions.
    """
    if are_large(weights):
        return list(directions)
    to_tensor = current().to_tensor
    return [
        [to_tensor(*pair) for pair in zip(direction, weights, strict=True)]
        for direction in directions
    ]


def are_large(weights):
    """Whether several copies of some weights would take too much memory."""
    size = sum(4 * math.prod(weight.shape) for weight in weights)
    return size > min(LARGE, memory() / COPIES)
