"""Engines: the ways to measure a model at many points.

Both put the model at a point of a walk and measure every dataset there. The
`evaluate` engine calls `model.evaluate` at each point and works for whatever
that accepts. The `compiled` engine puts the model's own `test_step`, the loop
over batches and the loop over points into one TensorFlow or JAX graph; Torch needs
no graph to run them without the overhead of `model.evaluate`.

An engine is a function of directions and points, an array of shape `(number of
points, number of directions)`. It yields the indices of some points in that array
and their results: a list with a dict of arrays, by name of the metric, per dataset.
"""

import contextlib
import functools
import time

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from losslandscape.basics.checks import import_extra
from losslandscape.basics.internals import build_symbolically, without_penalties
from losslandscape.measuring.datasets import arrays_of, in_structure_of, map_arrays
from losslandscape.measuring.walks import locator, mover

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
    elif number_of_points < break_even(model):
        names = ["evaluate"]
    else:
        names = ["compiled", "evaluate"]
    return {name: ENGINES[name] for name in names}


def break_even(model):
    """Returns the number of points from which on a graph saves more time than it takes to make.

    Both grow with the model, but the time to make it grows faster: one more weight costs as
    much as about half a point saves. JAX compiles for `model.evaluate`, too, so
    there a graph costs little extra, and Torch makes none.
    """
    numbers = {"tensorflow": 25 + len(model.weights) // 2, "jax": 10}
    return numbers.get(keras.backend.backend(), 1)


def start(engines, state, data, *, directions, interrupt):
    """Starts the first engine that works.

    Args:
        engines: Dict of functions that make an engine, by name; see `candidates`.
        state: The `State` of a model at the weights to start from.
        data: List of `Dataset`.
        directions: Some of the directions to be measured.
        interrupt: As in `evaluate_engine`.

    Returns:
        The engine; a list with a dict of floats per dataset, the values at the center;
        and a dict for the metadata: the name of the engine and, under `"not_compiled"`,
        why `"auto"` did not choose the compiled one.
    """
    *others, last = engines
    reason = {}

    def begin(name):
        measure = engines[name](state, data, interrupt)
        return measure, measure_center(measure, directions), {"engine": name, **reason}

    for name in others:
        try:
            return begin(name)
        except Exception as error:
            # The next one may work, or say what is wrong.
            reason = {f"not_{name}": str(error) or type(error).__name__}
            state.restore()
    return begin(last)


def measure_center(measure, directions):
    """Measures the center; returns a list with a dict of floats per dataset."""
    ((_, chunk),) = measure(directions, np.zeros((1, len(directions))))
    return [{name: float(values[0]) for name, values in results.items()} for results in chunk]


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
    move, values, evaluate = mover(state), state.values, evaluator(state.model, interrupt)

    def measure(directions, points):
        tensors = to_tensors(directions)
        for position, point in enumerate(points):
            state.rewind()
            # Without a graph, since many points and few must give the same bits.
            move(values, tensors, ops.convert_to_tensor(point))
            if adjust is not None:
                adjust(state.model, data[0].batches, interrupt)
            results = [evaluate(dataset) for dataset in data]
            yield [position], as_arrays(results)

    return measure


def evaluator(model, interrupt):
    """Makes the function that measures a model at its current weights.

    It makes its own graphs, one for each kind of data, and holds them as long as it lives. What
    Keras made for an earlier call might have read a number that has changed since. The model
    is left with one of them, so this is used in `state.evaluated` or `preserved`.

    Args:
        model: A compiled and built `keras.Model`.
        interrupt: As in `evaluate_engine`.

    Returns:
        A function of a `Dataset` that returns a dict of floats: all that
        `model.evaluate` reports and, if weights are regularized, `"data_loss"`.
    """
    regularized = _regularized(model)
    callbacks = [keras.callbacks.LambdaCallback(on_test_batch_end=interrupt)]
    options = {"verbose": 0, "return_dict": True, "callbacks": callbacks}
    functions = {}

    def evaluate(dataset):
        batches = dataset.keras_batches
        kind = repr(batches.element_spec)
        model.test_function = functions.get(kind)
        try:
            # Here Keras makes it: a distributed one needs the metrics that it builds first.
            with _silent_retracing(), _new_step(model):
                logs = model.evaluate(batches, **options)
            functions[kind] = model.test_function
        except Exception as error:
            error.add_note(f"`model.evaluate` failed on `{dataset.name}`.{_hint(dataset)}")
            raise
        if regularized and "data_loss" not in logs:
            logs["data_loss"] = _difference(logs["loss"], _penalty(regularized))
        logs = _in_order(logs)
        # On Torch the penalty carries a gradient, which only Keras' own conversion drops.
        values = [np.ravel(ops.convert_to_numpy(value)) for value in logs.values()]
        return dict(zip(_result_names(logs), np.concatenate(values).tolist(), strict=True))

    return evaluate


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
    obstacle = _obstacle(state.model, data)
    if obstacle:
        raise ValueError(f"`engine='compiled'` does not apply: {obstacle}. Use 'auto'.")
    make = {"tensorflow": _tensorflow_graph, "jax": _jax_graph, "torch": _torch_loop}
    graphs = [_padded(*make[keras.backend.backend()](state, dataset)) for dataset in data]
    number = 1

    def measure(directions, points):
        nonlocal number
        tensors = to_tensors(directions)
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


def _padded(names, measure_all):
    """A function of directions and any number of points that measures one dataset."""

    def graph(directions, points):
        # Always of the same length, or the graph would be compiled again.
        padded = np.resize(points, (CHUNK, points.shape[1]))
        arguments = ops.convert_to_tensor(padded), ops.convert_to_tensor(len(points))
        values = ops.convert_to_numpy(measure_all(directions, *arguments))
        return dict(zip(names, values[: len(points)].T.astype(float), strict=True))

    return graph


def _tensorflow_graph(state, dataset):
    """The names of what is measured, and the graph that measures it at many points."""
    model, move, structure = state.model, mover(state), _specification(dataset.tensors)
    size, batch_size, dtype = dataset.size, dataset.batch_size, keras.config.floatx()
    # One eager step builds the metrics that build late, and shows what will be measured.
    logs = model.test_step(_slice(dataset.tensors, 0, 1))
    regularized = _regularized(model, but_for=logs)

    measured = without_penalties(model) if regularized else model

    def test_step(arrays):
        return measured.test_step(in_structure_of(structure, arrays))

    names = _result_names(_report(model, logs, regularized))
    # Of any length, as in Keras' graph for batches of two sizes: one trace, and the same numbers.
    specs = [tf.TensorSpec([None, *spec.shape[1:]], spec.dtype) for spec in arrays_of(structure)]
    step = tf.function(test_step, autograph=False, input_signature=[specs])

    def steps(arrays):
        def step_at(start, _):
            # The last batch may be smaller, and its logs are those of all batches.
            part = _slice(arrays, start, tf.minimum(batch_size, size - start))
            return start + batch_size, step(part)

        # One place for all batches, because TensorFlow optimizes each place on its own.
        nothing = tree.map_structure(tf.zeros_like, logs)
        return tf.while_loop(lambda start, _: start < size, step_at, (0, nothing))[1]

    def measure_at(values, arrays, directions, point):
        move(values, directions, point)
        model.reset_metrics()
        # Small models take a tenth longer for a loop over a single batch.
        found = step(arrays) if size <= batch_size else steps(arrays)
        return _in_a_row(_report(model, found, regularized), dtype)

    def measure_all(directions, points, number, values, arrays):
        def measure_next(index, results):
            found = measure_at(values, arrays, directions, points[index])
            return index + 1, tf.tensor_scatter_nd_update(results, [[index]], [found])

        start = (0, tf.zeros([CHUNK, len(names)], dtype))
        return tf.while_loop(lambda index, _: index < number, measure_next, start)[1]

    graph, arrays = _traced(measure_all), arrays_of(dataset.tensors)
    return names, lambda *arguments: graph(*arguments, state.values, arrays)


def _specification(tensors):
    """The same structure of shapes and types, because graphs should not keep data."""
    return map_arrays(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), tensors)


def _traced(function):
    """Makes graphs of a function of several arguments, one for each number and shape of them.

    A `tf.function` alone would warn that it is traced often, once there are many calls.
    """
    graphs = {}

    def call(*arguments):
        # The records of a trajectory are one array, whose shape is their number. Shapes alone: this
        # runs at each point, and types are those of the model.
        shapes = tuple(tuple(array.shape) for array in tree.flatten(arguments))
        if shapes not in graphs:
            traceable = tf.function(function, autograph=False)
            graphs[shapes] = traceable.get_concrete_function(*arguments)
        return graphs[shapes](*arguments)

    return call


def _jax_graph(origin, dataset):
    """The names of what is measured, and the graph that measures it at many points.

    JAX passes the model's variables in and out as values, so the model is not touched.
    """
    jax, model, moved = import_extra("jax", "jax"), origin.model, origin.moved
    size, batch_size, dtype = dataset.size, dataset.batch_size, keras.config.floatx()
    locate, regularized = locator(origin), _regularized(model)
    measured = without_penalties(model) if regularized else model
    last = (size - 1) // batch_size

    # A function of its own is traced once for all numbers of directions.
    @functools.partial(jax.jit, static_argnames="size")
    def test_step(state, start, size, tensors):
        return measured.test_step(state, _slice(tensors, start, size))

    def last_step(state, tensors):
        start = last * batch_size
        logs, state = test_step(state, start, size - start, tensors)
        pairs = zip(tree.flatten(groups), tree.flatten(state), strict=True)
        with keras.StatelessScope(pairs):
            return _report(model, logs, regularized)

    def measure_at(tensors, variables, directions, point):
        values = dict(zip(identities, tree.flatten(variables), strict=True))
        centers = [values[id(weight)] for weight in moved]
        there = dict(zip(map(id, moved), locate(centers, directions, point), strict=True))
        state = tree.pack_sequence_as(variables, list((values | there).values()))
        state = jax.lax.fori_loop(
            0,
            last,
            lambda index, state: test_step(state, index * batch_size, batch_size, tensors)[1],
            state,
        )
        return _in_a_row(last_step(state, tensors), dtype)

    # Data and variables are arguments: JAX would compile constants into the program.
    @jax.jit
    def measure_all(directions, points, number, tensors, variables):
        def measure_next(index, results):
            values = measure_at(tensors, variables, directions, points[index])
            return results.at[index].set(values)

        return jax.lax.fori_loop(0, number, measure_next, ops.zeros((CHUNK, len(names)), dtype))

    tensors = _of_backend(dataset.tensors)
    # As `model.evaluate` does, for metrics that build late.
    build_symbolically(model, _slice(tensors, 0, 1))
    groups = _groups(model)
    identities = [id(variable) for variable in tree.flatten(groups)]
    # In order, because JAX sorts them.
    variables = _jax_variables(origin)
    names = _result_names(_in_order(jax.eval_shape(last_step, variables, tensors)))
    return names, lambda *arguments: measure_all(*arguments, tensors, variables)


def _of_backend(tensors):
    """Tensors of another backend than TensorFlow."""
    return map_arrays(lambda tensor: ops.convert_to_tensor(tensor.numpy()), tensors)


def _groups(model):
    """The variables in the order in which a test step on JAX receives them."""
    return model.trainable_variables, model.non_trainable_variables, model.metrics_variables


def _jax_variables(state):
    """The values at the center of what a test step receives."""
    state.model.reset_metrics()
    *weights, metrics = _groups(state.model)
    values = [[state.value(variable) for variable in group] for group in weights]
    return (*values, [ops.copy(variable) for variable in metrics])


def _torch_loop(state, dataset):
    """The names of what is measured, and a function that measures it at many points."""
    torch, model, move = import_extra("torch", "torch"), state.model, mover(state)
    size, batch_size, dtype = dataset.size, dataset.batch_size, keras.config.floatx()
    tensors = _of_backend(dataset.tensors)
    # As for TensorFlow.
    with torch.no_grad():
        logs = model.test_step(_slice(tensors, 0, 1))
    regularized = _regularized(model, but_for=logs)
    names = _result_names(_report(model, logs, regularized))

    measured = without_penalties(model) if regularized else model

    def measure_at(directions, point):
        state.rewind()
        move(state.values, directions, point)
        model.reset_metrics()
        for start in range(0, size, batch_size):
            logs = measured.test_step(_slice(tensors, start, min(batch_size, size - start)))
        return _in_a_row(_report(model, logs, regularized), dtype)

    @torch.no_grad()
    def measure_all(directions, points, number):
        # As `model.evaluate` does.
        model.eval()
        return torch.stack([measure_at(directions, point) for point in points[:number]])

    return names, measure_all


def _report(model, logs, regularized):
    """What `model.evaluate` would report after the last step, and the data loss."""
    metrics = model.get_metrics_result()
    # The logs of a custom test step count only if their names differ from the metrics'.
    logs = metrics if metrics.keys() == logs.keys() else logs
    if regularized:
        # Measured without the penalty, next to which rounding may swallow the data loss.
        # Outside of a graph, some versions of Keras report Python's floats.
        loss = ops.convert_to_tensor(logs["loss"])
        penalty = ops.cast(_penalty(regularized), loss.dtype)
        logs = logs | {"loss": loss + penalty, "data_loss": loss}
    return _in_order(logs)


def _in_a_row(logs, dtype):
    return ops.concatenate([ops.reshape(ops.cast(value, dtype), [-1]) for value in logs.values()])


def _regularized(model, but_for=()):
    """The weights whose penalties are known to be in the loss.

    Only Keras' own test step is known to add them; a custom one may not, so there
    the loss is left whole. The same goes for a model that reports its own
    `"data_loss"`, a name in `but_for`.
    """
    if "data_loss" in but_for:
        return []
    is_keras_own = all(
        getattr(type(model), name) is getattr(keras.Model, name)
        for name in ("test_step", "compute_loss")
    )
    weights = model.trainable_variables if is_keras_own else []
    return [weight for weight in weights if weight.regularizer is not None]


def _penalty(weights):
    return sum(weight.regularizer(weight) for weight in weights)


def _difference(loss, penalty):
    """The loss without the penalty, or NaN where that is only rounding error."""
    loss, penalty = (float(ops.convert_to_numpy(value)) for value in (loss, penalty))
    is_lost = abs(loss - penalty) < ROUNDING * abs(loss)
    return np.nan if is_lost else loss - penalty


def _in_order(logs):
    """The logs in an order that does not depend on the engine."""
    first = [name for name in ("loss", "data_loss") if name in logs]
    return {name: logs[name] for name in (*first, *sorted(set(logs) - set(first)))}


def _result_names(logs):
    """One name per number: `f1_score_0`, … for a metric that has one per class."""
    names = []
    for name, value in logs.items():
        shape = np.shape(value)
        names += [name] if shape == () else [f"{name}_{i}" for i in range(np.prod(shape))]
    return names


def _obstacle(model, data):
    """Why the compiled engine does not apply, or None."""
    if model.run_eagerly:
        return "the model runs eagerly"
    if keras.backend.backend() == "torch" and model.jit_compile:
        return "the model is compiled by Torch"
    if getattr(model.evaluate, "__func__", None) is not keras.Model.evaluate:
        return "the model has a custom `evaluate`"
    if _is_distributed(model):
        return "the model is distributed by a strategy"
    irregular = [dataset.name for dataset in data if dataset.tensors is None]
    if irregular:
        return f"the batches of {irregular} differ in shape, or are not dense"
    arrays = arrays_of([dataset.tensors for dataset in data])
    size = sum(array.shape.num_elements() * array.dtype.size for array in arrays)
    if size > DATA_BUDGET:
        return f"the data take {size:,} bytes, more than the {DATA_BUDGET:,} kept on the device"
    return None


def _is_distributed(model):
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy is not tf.distribute.get_strategy()
    return keras.distribution.distribution() is not None


def _slice(tensors, start, size):
    def part(tensor):
        rest = tensor.shape[1:]
        return ops.slice(tensor, [start] + [0] * len(rest), [size, *rest])

    return map_arrays(part, tensors)


def as_arrays(results):
    """Turns one point's results into what an engine yields."""
    return [{name: np.array([value]) for name, value in each.items()} for each in results]


def to_tensors(directions):
    """Puts directions on the device; those already there stay."""
    return [[_to_tensor(array) for array in direction] for direction in directions]


def _to_tensor(array):
    if ops.is_tensor(array):
        return array
    # A tensor that TensorFlow makes from NumPy holds its memory twice; a copy of it does not.
    return tf.identity(array) if keras.backend.backend() == "tensorflow" else ops.copy(array)
