"""Autodiff: the loss of one batch, differentiated twice, on each backend.

TensorFlow silently loses a part of some second derivatives. Those of Keras' own layers are
exact here; `derivatives` checks whatever else a model does.
"""

import contextlib
import functools
import threading
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import ops

from losslandscape.basics.checks import check_complete, import_extra
from losslandscape.basics.internals import build_symbolically
from losslandscape.measuring.datasets import arrays_of, handed_over, map_arrays
from losslandscape.measuring.walks import precise_dtypes

# Functions in TensorFlow's modules are replaced for all threads.
LOCK = threading.RLock()
# How TensorFlow says that an operation, a rematerialized function or a loop (as in CTC) has no
# second derivative.
NOT_TWICE = LookupError, NotImplementedError, tf.errors.NotFoundError


class Derivatives(NamedTuple):
    """The derivatives of one batch's loss.

    Attributes:
        loss: The loss.
        count: The weight of the loss in a mean over batches.
        gradient: A list of tensors, one per trainable weight.
        product: The Hessian times a direction, a list like `gradient`.
    """

    loss: object
    count: object
    gradient: list
    product: list


def differentiator(model, dataset):
    """Makes the function that differentiates the loss of a batch.

    Args:
        model: A compiled and built `keras.Model`.
        dataset: A `Dataset`.

    Returns:
        A function of a batch and a direction that returns `Derivatives`, and the
        batches. It changes what the model's own test step would change, except the
        metrics.
    """
    batches = handed_over(dataset)
    try:
        return DIFFERENTIATORS[keras.backend.backend()](model, batches), batches
    except (TypeError, ValueError) as error:
        if isinstance(dataset.batches.element_spec, tuple):
            raise
        raise ValueError(
            "`y` must be the targets that the loss of `model` compares outputs with, or `x` a "
            "whole dataset such as (x, y). Received inputs alone, of which the loss cannot be "
            f"computed: {error}"
        ) from error


def _tensorflow_differentiator(model, batches):
    def differentiate(batch, direction):
        with _exact_operations():
            return _tensorflow_derivatives(model, batch, direction)

    if model.run_eagerly:
        return differentiate
    weights = model.trainable_variables
    pairs = zip(weights, precise_dtypes(weights), strict=True)
    vector = [tf.TensorSpec(weight.shape, dtype) for weight, dtype in pairs]
    # For any batch size, so that there is one graph for all; made now, since TensorFlow warns of
    # functions that are traced often, as over many calls.
    signature = [map_arrays(_of_any_size, batches.element_spec), vector]
    traceable = tf.function(differentiate, input_signature=signature, autograph=False)
    graph = traceable.get_concrete_function()

    def differentiate_in_graph(batch, direction):
        with _saying_what_is_missing():
            return graph(batch, direction)

    return differentiate_in_graph


def _of_any_size(spec):
    """The specification of an array, a sparse or a ragged tensor, for any number of samples."""
    shape = [None, *spec.shape[1:]]
    if isinstance(spec, tf.RaggedTensorSpec):
        kind = {"ragged_rank": spec.ragged_rank, "row_splits_dtype": spec.row_splits_dtype}
        return tf.RaggedTensorSpec(shape, spec.dtype, **kind)
    return type(spec)(shape, spec.dtype)


def _tensorflow_derivatives(model, batch, direction):
    weights = [weight.value for weight in model.trainable_variables]
    dtypes = precise_dtypes(model.trainable_variables)
    with tf.GradientTape() as outer:
        # Persistent, because it is also asked what the loss and the state depend on.
        with tf.GradientTape(persistent=True) as inner:
            loss, means, updates = _reported_loss(model, batch)
        _check_stateless(updates, lambda value: _is_any(inner.gradient(value, weights)))
        gradient = _tensorflow_gradient(inner, loss, weights)
        _check_any(gradient)
        gradient = _dense(gradient, weights, dtypes)
        slope = _slope(gradient, direction)
    product = _dense(_tensorflow_gradient(outer, slope, weights), weights, dtypes)
    _assign(updates)
    count = _count(lambda total: inner.gradient(loss, total), means, batch)
    return Derivatives(tf.cast(loss, "float32"), count, gradient, product)


def _tensorflow_gradient(tape, target, sources):
    """The gradient, with `None` where the target does not depend on a source."""
    with _saying_what_is_missing():
        return tape.gradient(target, sources)


@contextlib.contextmanager
def _saying_what_is_missing():
    """Turns TensorFlow's errors for lack of a second derivative into one with a way out."""
    try:
        yield
    except NOT_TWICE as error:
        if isinstance(error, tf.errors.OpError) and "SymbolicGradient" not in str(error):
            # Something else was not found.
            raise
        raise _not_twice("TensorFlow", error) from error


@contextlib.contextmanager
def _exact_operations():
    """Makes what is traced in a `with` block differentiable twice.

    `tf.nn.moments`, which LayerNormalization and GroupNormalization call, holds
    the mean constant where its first derivative vanishes, but its second does
    not; the gradient of `tf.image.resize` has no gradient itself, nor has that of
    `tf.recompute_grad`, by which layers are rematerialized: it is the function
    itself. A user's `tf.function` may have been traced with these, so it is traced
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


def _torch_differentiator(model, _):
    torch = import_extra("torch", "torch")
    # Torch's other kernels for attention have no second derivative.
    only_exact = torch.nn.attention.SDPBackend.MATH

    def differentiate(batch, direction):
        with torch.enable_grad(), torch.nn.attention.sdpa_kernel(only_exact):
            return _torch_derivatives(torch, model, batch, direction)

    return differentiate


def _torch_derivatives(torch, model, batch, direction):
    weights = [weight.value for weight in model.trainable_variables]
    dtypes = precise_dtypes(model.trainable_variables)

    def gradient_of(target, sources, **options):
        if not target.requires_grad:
            return [None for _ in sources]
        return torch.autograd.grad(target, sources, allow_unused=True, retain_graph=True, **options)

    loss, means, updates = _reported_loss(model, batch)
    _check_stateless(updates, lambda value: _is_any(gradient_of(value.sum(), weights)))
    gradient = gradient_of(loss, weights, create_graph=True)
    _check_any(gradient)
    gradient = _dense(gradient, weights, dtypes)
    try:
        product = gradient_of(_slope(gradient, direction), weights)
    except RuntimeError as error:
        if not any(words in str(error) for words in ("is not implemented", "differentiate twice")):
            raise
        raise _not_twice("Torch", error) from error
    _assign(updates)
    count = _count(lambda total: gradient_of(loss, [total])[0], means, batch)
    gradient = [part.detach() for part in gradient]
    return Derivatives(loss.detach().float(), count, gradient, _dense(product, weights, dtypes))


def _jax_differentiator(model, batches):
    jax = import_extra("jax", "jax")
    # As `model.evaluate` does, for metrics that build late.
    build_symbolically(model, batches[0])
    weights, state = model.trainable_variables, model.non_trainable_variables
    dtypes = precise_dtypes(weights)
    derivatives = functools.partial(_jax_derivatives, model)
    if model.jit_compile and not model.run_eagerly:
        derivatives = jax.jit(derivatives)

    def differentiate(batch, direction):
        pairs = zip(weights, dtypes, strict=True)
        values = [ops.cast(weight.value, dtype) for weight, dtype in pairs]
        others = [variable.value for variable in state]
        found, after, depends = derivatives(values, others, batch, direction)
        _check_stateless(zip(state, depends, strict=True), bool)
        _assign(zip(state, after, strict=True))
        return found

    return differentiate


def _jax_derivatives(model, weights, state, batch, direction):
    """The derivatives, the state after the step, and which of it depends on the weights."""
    jax = import_extra("jax", "jax")

    def gradient(weights):
        # The total of a mean starts at 0, so the loss has the derivative 1 / count by it.
        totals = [ops.zeros_like(mean.total.value) for mean in _means(model)]
        (loss, after), (gradient, slopes) = jax.value_and_grad(
            functools.partial(_jax_loss, model, state, batch), argnums=(0, 1), has_aux=True
        )(weights, totals)
        return gradient, (loss, slopes, after)

    (found, (loss, slopes, after)), (product, (*_, moves)) = jax.jvp(
        gradient, (weights,), (direction,)
    )
    count = _size(batch)
    for slope in reversed(slopes):
        count = ops.where(slope == 0, count, 1 / slope)
    # Those of integers are of a type of their own, without values.
    depends = [move.dtype != jax.dtypes.float0 and ops.any(move != 0) for move in moves]
    return Derivatives(loss, ops.cast(count, "float32"), found, product), after, depends


def _jax_loss(model, state, batch, weights, totals):
    """The loss that `model.evaluate` would report if this batch were all the data."""
    means = [id(mean.total) for mean in _means(model)]
    values = dict(zip(means, totals, strict=True))
    with keras.StatelessScope():
        model.reset_metrics()
        metrics = [values.get(id(each), each.value) for each in model.metrics_variables]
    pairs = zip(weights, model.trainable_variables, strict=True)
    weights = [ops.cast(value, weight.dtype) for value, weight in pairs]
    logs, (_, state, metrics) = model.test_step((weights, state, metrics), batch)
    with keras.StatelessScope(zip(model.metrics_variables, metrics, strict=True)):
        loss = _loss_among(logs, model.get_metrics_result())
    return ops.cast(loss, "float32"), state


class _Functional(keras.StatelessScope):
    """Keeps assigned values as tensors, through which derivatives pass."""

    def __init__(self, model):
        # Regularizers look up the weights here.
        weights = [(weight, weight.value) for weight in model.trainable_variables]
        super().__init__(weights, collect_losses=True)
        self.updates = {}

    def add_update(self, update):
        super().add_update(update)
        self.updates[id(update[0])] = update


def _reported_loss(model, batch):
    """The loss that `model.evaluate` would report if this batch were all the data.

    Also the total and count of each mean that the model keeps, and all other
    variables that the step assigns, with their new values.
    """
    number = len(model.weights)
    with _Functional(model) as scope:
        model.reset_metrics()
        loss = _loss_among(model.test_step(batch), model.get_metrics_result())
        means = [(mean.total.value, mean.count.value) for mean in _means(model)]
    check_complete(model, number)
    own = {id(variable) for variable in model.metrics_variables}
    updates = [update for update in scope.updates.values() if id(update[0]) not in own]
    return loss, means, updates


def _loss_among(logs, results):
    # As in `model.evaluate`, a step's own logs count only if their names are not the metrics'.
    logs = results if results.keys() == dict(logs).keys() else logs
    if "loss" not in logs:
        raise ValueError(
            f"`model.test_step` reports no 'loss', only {sorted(logs)}, so there is nothing to "
            "differentiate."
        )
    loss = logs["loss"]
    if not ops.is_tensor(loss):
        raise ValueError(
            "The 'loss' that `model.test_step` reports must be a tensor, to be differentiated. "
            f"Received {type(loss).__name__} {loss!r}. Return it as it was computed, without "
            "`float()` or `.numpy()`."
        )
    return loss


def _means(model):
    return [metric for metric in model.metrics if isinstance(metric, keras.metrics.Mean)]


def _is_any(gradient):
    return any(part is not None for part in gradient)


def _check_any(gradient):
    if not _is_any(gradient):
        raise ValueError(
            "The loss that `model.evaluate` reports depends on no trainable weight in a way that "
            "can be differentiated. If the model has a custom `test_step`, override `compute_loss` "
            "instead."
        )


def _check_stateless(updates, depends):
    """Refuses variables that the step assigns, if what they get depends on the weights."""
    carried = [
        variable.path
        for variable, value in updates
        if keras.backend.is_float_dtype(variable.dtype) and depends(value)
    ]
    if carried:
        raise ValueError(
            f"The state of `model` passes from batch to batch and depends on its weights ({carried}"
            "), so the curvature of its loss is not a mean over batches. Make the layers "
            "stateless (`stateful=False`), and run them in the test step with `training=False`."
        )


def _not_twice(backend, error):
    return ValueError(
        f"{backend} cannot differentiate the loss twice, because an operation of the model has "
        f"no second derivative: {_in_a_line(error)} Write what uses it with other "
        "operations, make the model without `keras.remat` (which saves memory in training only), "
        "or set `KERAS_BACKEND=jax`, which differentiates nearly everything, CTC included."
    )


def _in_a_line(error):
    """The end of an error's message, since TensorFlow's begins with where it happened."""
    *_, last = str(error).strip().splitlines()
    return last.strip().rstrip(".") + "."


def _dense(gradient, weights, dtypes):
    # Gradients of embeddings are sparse, those of half-precision weights in half precision.
    return [
        ops.zeros(weight.shape, dtype)
        if part is None
        else ops.cast(
            tf.convert_to_tensor(part) if isinstance(part, tf.IndexedSlices) else part, dtype
        )
        for part, weight, dtype in zip(gradient, weights, dtypes, strict=True)
    ]


def _slope(gradient, direction):
    parts = zip(gradient, direction, strict=True)
    return sum(ops.cast(ops.sum(part * step), "float32") for part, step in parts)


def _assign(updates):
    for variable, value in updates:
        variable.assign(value)


def _count(slope_of, means, batch):
    """The weight of a batch's loss in the mean it goes through, or else the batch size."""
    for total, count in means:
        if slope_of(total) is not None:
            return ops.cast(count, "float32")
    return _size(batch)


def _size(batch):
    return ops.cast(ops.shape(arrays_of(batch)[0])[0], "float32")


DIFFERENTIATORS = {
    "jax": _jax_differentiator,
    "tensorflow": _tensorflow_differentiator,
    "torch": _torch_differentiator,
}
