"""TensorFlow: many points in one graph, and two derivatives, of which it silently drops parts.

The second derivatives of Keras' own layers are made exact here; `derivatives` checks everything
else that a model does.
"""

import contextlib
import threading

import keras
import tensorflow as tf
from keras import tree

from losslandscape.backends.losses import (
    Derivatives,
    assign,
    check_any,
    check_stateless,
    dense,
    is_any,
    not_twice,
    reported_loss,
    slope,
    weight_of,
)
from losslandscape.backends.plain import Plain
from losslandscape.backends.reports import in_a_row, names_of, regularized_weights, reported
from losslandscape.backends.structures import (
    arrays_of,
    in_structure_of,
    map_arrays,
    precise_dtypes,
    samples,
)
from losslandscape.basics.internals import without_penalties

# Functions in TensorFlow's modules are replaced for all threads.
LOCK = threading.RLock()
# The errors by which TensorFlow says that an operation, a rematerialized function or a loop (as in
# CTC) has no second derivative.
NOT_TWICE = LookupError, NotImplementedError, tf.errors.NotFoundError


class Backend(Plain):
    """TensorFlow."""

    def break_even(self, model):
        """Returns the number of points from which on a graph saves more time than it takes.

        Both grow with the model, but the time to make the graph grows faster: each weight array
        costs as much as half a point saves.
        """
        return 25 + len(model.weights) // 2

    def obstacle(self, model):
        """Refuses a model that a strategy distributes."""
        if model.distribute_strategy is not tf.distribute.get_strategy():
            return "the model is distributed by a strategy"
        return None

    def graph(self, state, dataset, length):
        """Puts the test step, the loop over batches and that over points into one graph."""
        return _graph(state, dataset, length)

    def differentiator(self, model, batches):
        """Differentiates in a graph for any batch size, or eagerly if the model runs eagerly."""
        return _differentiator(model, batches)

    def copies(self, variable):
        """Returns the copies that a strategy keeps.

        They may differ, as the moving statistics of `BatchNormalization` do.
        """
        value = variable if isinstance(variable, tf.Variable) else variable.value
        is_distributed = isinstance(value, tf.distribute.DistributedValues)
        return value.values if is_distributed else [variable]

    def to_tensor(self, array, variable):  # noqa: ARG002
        """Copies an array: a tensor that is made from one of NumPy takes its memory twice."""
        return array if tf.is_tensor(array) else tf.identity(array)

    def after(self, value):
        """Orders the weights: TensorFlow would compute and store all of them at once."""
        return tf.control_dependencies([value])


def _graph(state, dataset, length):
    """The names of the measured values, and the graph that measures them at many points."""
    model, move, structure = state.model, state.move, _specification(dataset.tensors)
    dtype = keras.config.floatx()
    # One eager step builds the metrics that build late, and shows what will be measured.
    logs = model.test_step(samples(dataset.tensors, 0, 1))
    regularized = regularized_weights(model, logs)
    measured = without_penalties(model) if regularized else model

    def test_step(arrays):
        return measured.test_step(in_structure_of(structure, arrays))

    names = names_of(reported(model, logs, regularized))
    shape = (1 if dataset.blocks is None else dataset.blocks.number, len(names))
    # For batches of any size, as in Keras' own graph: one trace, and the same numbers.
    specs = [tf.TensorSpec([None, *spec.shape[1:]], spec.dtype) for spec in arrays_of(structure)]
    step = tf.function(test_step, autograph=False, input_signature=[specs])

    def row(found):
        return in_a_row(reported(model, found, regularized), dtype)

    def measure_at(values, arrays, directions, point):
        move(values, directions, point)
        model.reset_metrics()
        if dataset.blocks is None:
            return row(_last_logs(step, arrays, dataset, logs))[tf.newaxis]
        return _running_rows(step, arrays, dataset, row, shape)

    def measure_all(directions, points, number, values, arrays):
        def measure_next(index, results):
            found = measure_at(values, arrays, directions, points[index])
            return index + 1, tf.tensor_scatter_nd_update(results, [[index]], [found])

        start = (0, tf.zeros([length, *shape], dtype))
        return tf.while_loop(lambda index, _: index < number, measure_next, start)[1]

    measure, arrays = _traced(measure_all), arrays_of(dataset.tensors)
    return names, lambda *arguments: measure(*arguments, state.values, arrays)


def _last_logs(step, arrays, dataset, logs):
    """What a step returns after the last batch: metrics accumulate, so this covers all batches.

    Args:
        step: A function of a batch.
        arrays: List of the arrays of all samples.
        dataset: The `Dataset` that they belong to.
        logs: What a step returns, of any values.
    """
    # Small models take a tenth longer for a loop over a single batch.
    if dataset.size <= dataset.batch_size:
        return step(arrays)

    def step_at(start, _):
        return start + dataset.batch_size, step(_batch(arrays, dataset, start))

    # All batches pass through one call, because TensorFlow optimizes each call separately.
    nothing = tree.map_structure(tf.zeros_like, logs)
    return tf.while_loop(lambda start, _: start < dataset.size, step_at, (0, nothing))[1]


def _running_rows(step, arrays, dataset, row, shape):
    """What is reported after each batch; `row` makes a row of a step's logs, `shape` is of all."""

    def step_at(index, rows):
        logs = step(_batch(arrays, dataset, index * dataset.batch_size))
        return index + 1, tf.tensor_scatter_nd_update(rows, [[index]], [row(logs)])

    start = (0, tf.zeros(shape, keras.config.floatx()))
    return tf.while_loop(lambda index, _: index < shape[0], step_at, start)[1]


def _batch(arrays, dataset, start):
    # The last one may be smaller.
    return samples(arrays, start, tf.minimum(dataset.batch_size, dataset.size - start))


def _specification(tensors):
    """The shapes and types of a structure of tensors: a graph should not keep the data."""
    return map_arrays(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), tensors)


def _traced(function):
    """Makes graphs of a function of several arguments, one for each number and shape of them.

    A `tf.function` alone would warn that it is traced often, once there are many calls.
    """
    graphs = {}

    def call(*arguments):
        # Shapes are enough, which saves time at each point: the types are always the model's, and
        # the number of a trajectory's records is in the shape of their array.
        shapes = tuple(tuple(array.shape) for array in tree.flatten(arguments))
        if shapes not in graphs:
            traceable = tf.function(function, autograph=False)
            graphs[shapes] = traceable.get_concrete_function(*arguments)
        return graphs[shapes](*arguments)

    return call


def _differentiator(model, batches):
    def differentiate(batch, direction):
        with _exact_operations():
            return _derivatives(model, batch, direction)

    if model.run_eagerly:
        return differentiate
    weights = model.trainable_variables
    pairs = zip(weights, precise_dtypes(weights), strict=True)
    vector = [tf.TensorSpec(weight.shape, dtype) for weight, dtype in pairs]
    # One graph for all batch sizes. It is made here, since TensorFlow warns of a `tf.function` that
    # is traced often, as this would be over many calls.
    signature = [map_arrays(_of_any_size, batches.element_spec), vector]
    traceable = tf.function(differentiate, input_signature=signature, autograph=False)
    graph = traceable.get_concrete_function()

    def differentiate_in_graph(batch, direction):
        with _saying_what_is_missing():
            return graph(batch, direction)

    return differentiate_in_graph


def _of_any_size(spec):
    """The specification of an array, a sparse or a ragged tensor, for any number of samples."""
    # Of a missing part, such as one output's sample weights, it has no shape.
    if not hasattr(spec, "shape"):
        return spec
    shape = [None, *spec.shape[1:]]
    if isinstance(spec, tf.RaggedTensorSpec):
        kind = {"ragged_rank": spec.ragged_rank, "row_splits_dtype": spec.row_splits_dtype}
        return tf.RaggedTensorSpec(shape, spec.dtype, **kind)
    return type(spec)(shape, spec.dtype)


def _derivatives(model, batch, direction):
    weights = [weight.value for weight in model.trainable_variables]
    dtypes = precise_dtypes(model.trainable_variables)
    with tf.GradientTape() as outer:
        # Persistent, because it is also asked what the loss and the state depend on.
        with tf.GradientTape(persistent=True) as inner:
            loss, means, updates = reported_loss(model, batch)
        check_stateless(updates, lambda value: is_any(inner.gradient(value, weights)))
        gradient = _gradient(inner, loss, weights)
        check_any(gradient)
        gradient = dense(gradient, weights, dtypes)
        along = slope(gradient, direction)
    product = dense(_gradient(outer, along, weights), weights, dtypes)
    assign(updates)
    count = weight_of(batch, means, lambda total: inner.gradient(loss, total))
    return Derivatives(tf.cast(loss, "float32"), count, gradient, product)


def _gradient(tape, target, sources):
    """The gradient, with `None` where the target does not depend on a source."""
    with _saying_what_is_missing():
        return tape.gradient(target, sources)


@contextlib.contextmanager
def _saying_what_is_missing():
    """Turns TensorFlow's errors about a missing second derivative into one that says what to do."""
    try:
        yield
    except NOT_TWICE as error:
        if isinstance(error, tf.errors.OpError) and "SymbolicGradient" not in str(error):
            # Something else was not found.
            raise
        raise not_twice("TensorFlow", error) from error


@contextlib.contextmanager
def _exact_operations():
    """Makes what is traced in a `with` block differentiable twice.

    `tf.nn.moments`, which LayerNormalization and GroupNormalization call, treats the
    mean as a constant, which is right for the first derivative but not for the second.
    The gradients of `tf.image.resize` and of `tf.recompute_grad`, which rematerializes
    layers, have no gradient themselves; the latter is replaced by the function itself.
    A user's `tf.function` may have been traced with the originals, so it is traced
    again, as part of the block.
    """
    with LOCK:
        moments, resize, recompute = tf.nn.moments, tf.image.resize, tf.recompute_grad
        are_eager = tf.config.functions_run_eagerly()
        try:
            tf.nn.moments, tf.image.resize = _moments, _resizer(resize)
            tf.recompute_grad = _unchanged
            tf.config.run_functions_eagerly(True)
            yield
        finally:
            tf.nn.moments, tf.image.resize, tf.recompute_grad = moments, resize, recompute
            tf.config.run_functions_eagerly(are_eager)


def _unchanged(function):
    return function


def _moments(x, axes, shift=None, keepdims=False, name=None):  # noqa: ARG001 (as tf.nn.moments)
    x = tf.convert_to_tensor(x)
    # Half precision has too small a range for squares.
    precise = tf.cast(x, "float32") if x.dtype == "float16" else x
    mean = tf.reduce_mean(precise, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(precise - mean), axes, keepdims=True)
    if not keepdims:
        mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
    return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def _resizer(original):
    """Resizing is linear along each axis: a product with the resized unit matrix."""

    def resize(images, size, method="bilinear", preserve_aspect_ratio=False, **options):
        if preserve_aspect_ratio:
            return original(images, size, method, preserve_aspect_ratio, **options)
        images = tf.convert_to_tensor(images)

        def matrix(old, new):
            units = tf.eye(old)[tf.newaxis, :, tf.newaxis]
            return original(units, (new, 1), method, **options)[0, :, 0]

        height, width = tf.unstack(tf.shape(images)[-3:-1])
        rows, columns = matrix(height, size[0]), matrix(width, size[1])
        resized = tf.einsum("ph,qw,...hwc->...pqc", rows, columns, tf.cast(images, "float32"))
        static = [*images.shape[:-3], *map(tf.get_static_value, (size[0], size[1]))]
        resized = tf.ensure_shape(resized, [*static, images.shape[-1]])
        return tf.cast(resized, images.dtype) if method == "nearest" else resized

    return resize
