"""Derivatives: the loss that `model.evaluate` reports, differentiated twice.

TensorFlow silently loses a part of some second derivatives. Those that Keras itself
uses are exact here; whatever else a model does is checked before its derivatives are
used, and refused if they are not those of the loss.
"""

import contextlib
import threading
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from losslandscape.internals import flatten_layers
from losslandscape.state import evaluated
from losslandscape.walks import precise_dtypes

# How many samples the checks use: few, so that a small step crosses few kinks of ReLUs.
SAMPLES = 4
# The relative rounding error in half precision.
EPSILONS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
# Functions in TensorFlow's modules are replaced for all threads.
LOCK = threading.RLock()


class Derivatives(NamedTuple):
    """The derivatives of one batch's loss.

    Attributes:
        loss: The loss.
        count: The weight of the loss in a mean over batches.
        gradient: A list of tensors, one per trainable weight.
        product: The Hessian times a direction, a list like `gradient`.
    """

    loss: tf.Tensor
    count: tf.Tensor
    gradient: list
    product: list


def differentiator(model, signature):
    """Makes the function that differentiates the loss of a batch.

    Args:
        model: A compiled and built `keras.Model` that has been evaluated, so
            that its metrics are built.
        signature: The `element_spec` of the batches.

    Returns:
        A function of a batch and a direction that returns `Derivatives`. It
        changes what the model's own test step would change, except the metrics.
    """
    dtypes = precise_dtypes(model.trainable_variables)
    shapes = [weight.shape for weight in model.trainable_variables]
    vector = [tf.TensorSpec(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]

    def differentiate(batch, direction):
        with exact_operations():
            return _differentiate(model, batch, direction)

    if model.run_eagerly:
        return differentiate
    # For any batch size, so that there is one graph for all; made now, since TensorFlow warns of
    # functions that are traced often, as over many calls.
    traceable = tf.function(differentiate, input_signature=[signature, vector], autograph=False)
    return traceable.get_concrete_function()


def check_loss(model, loss, reported):
    """Refuses derivatives of any loss but the one that `model.evaluate` reports.

    Args:
        model: A compiled and built `keras.Model`.
        loss: The loss that was differentiated, a float.
        reported: The loss that `model.evaluate` reports for the same batches.

    Raises:
        ValueError: If the two differ by more than rounding.
    """
    if not np.isclose(loss, reported, rtol=max(1e-4, 10 * _epsilon(model)), atol=1e-6):
        raise ValueError(
            f"`model.evaluate` reports a loss of {reported:g}, but the loss that can be "
            f"differentiated is {loss:g}, so its curvature would be that of another function. "
            "Override `compute_loss` instead of `test_step`. If the loss is random, draw its "
            "random numbers with a `keras.random.SeedGenerator`."
        )


def check_derivatives(model, differentiate, batch):
    """Refuses second derivatives that are not those of the loss, on a few samples.

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        differentiate: What `differentiator` returned.
        batch: A batch of the data.

    Returns:
        Whether the check could decide; it cannot if derivatives are not finite.

    Raises:
        ValueError: If a check fails.
    """
    batch, is_cut = _few_samples(model, batch)
    generator = np.random.default_rng(0)
    first, second = (_random_direction(model, generator) for _ in range(2))

    def differentiate_again(batch, direction):
        # From the same state each time, for example of a seed generator.
        with evaluated(model):
            return differentiate(batch, direction)

    found, other = (differentiate_again(batch, direction) for direction in (first, second))
    if not np.isfinite(_flat([*found.gradient, *found.product, *other.product])).all():
        return False
    if is_cut:
        with evaluated(model):
            _check_mean(differentiate, batch, first)
    _check_symmetry(model, (first, found), (second, other))
    with evaluated(model):
        _check_differences(model, differentiate_again, batch, first)
    return True


@contextlib.contextmanager
def exact_operations():
    """Makes what is traced in a `with` block differentiable twice.

    `tf.nn.moments`, which LayerNormalization and GroupNormalization call, holds
    the mean constant where its first derivative vanishes, but its second does
    not; the gradient of `tf.image.resize` has no gradient itself. A user's
    `tf.function` may have been traced with these, so it is traced again, as
    part of the block.
    """
    with LOCK:
        moments, resize = tf.nn.moments, tf.image.resize
        are_eager = tf.config.functions_run_eagerly()
        try:
            tf.nn.moments, tf.image.resize = _moments, _resizer(resize)
            tf.config.run_functions_eagerly(True)
            yield
        finally:
            tf.nn.moments, tf.image.resize = moments, resize
            tf.config.run_functions_eagerly(are_eager)


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


def _differentiate(model, batch, direction):
    weights = [weight.value for weight in model.trainable_variables]
    dtypes = precise_dtypes(model.trainable_variables)
    with tf.GradientTape() as outer:
        # Persistent, because it is also asked what the loss and the state depend on.
        with tf.GradientTape(persistent=True) as inner:
            loss, metrics, updates = _reported_loss(model, batch)
        _check_stateless(inner, updates, weights)
        gradient = _gradient(inner, loss, weights)
        if all(part is None for part in gradient):
            raise ValueError(
                "The loss that `model.evaluate` reports depends on no trainable weight in a way "
                "that TensorFlow can differentiate. If the model has a custom `test_step`, "
                "override `compute_loss` instead."
            )
        gradient = _dense(gradient, weights, dtypes)
        slope = tf.add_n(
            [
                tf.cast(tf.reduce_sum(part * step), "float32")
                for part, step in zip(gradient, direction, strict=True)
            ]
        )
    product = _dense(_gradient(outer, slope, weights), weights, dtypes)
    for variable, value in updates:
        variable.assign(value)
    return Derivatives(
        tf.cast(loss, "float32"), _count(inner, loss, metrics, batch), gradient, product
    )


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
    with _Functional(model) as scope:
        model.reset_metrics()
        logs = model.test_step(batch)
        results = model.get_metrics_result()
        means = [
            (metric.total.value, metric.count.value)
            for metric in model.metrics
            if isinstance(metric, keras.metrics.Mean)
        ]
    # As in `model.evaluate`, a step's own logs count only if their names are not the metrics'.
    logs = results if results.keys() == dict(logs).keys() else logs
    if "loss" not in logs:
        raise ValueError(
            f"`model.test_step` reports no 'loss', only {sorted(logs)}, so there is nothing to "
            "differentiate."
        )
    own = {id(variable) for variable in model.metrics_variables}
    updates = [update for update in scope.updates.values() if id(update[0]) not in own]
    return logs["loss"], means, updates


def _gradient(tape, target, sources):
    """The gradient, with `None` where the target does not depend on a source."""
    try:
        return tape.gradient(target, sources)
    except LookupError as error:
        raise ValueError(
            "TensorFlow cannot differentiate the loss twice, because an operation of the model has "
            f"no second derivative: {error}. Write the layer that uses it with other operations."
        ) from error


def _dense(gradient, weights, dtypes):
    # Gradients of embeddings are sparse, those of half-precision weights in half precision.
    return [
        tf.zeros(weight.shape, dtype)
        if part is None
        else tf.cast(tf.convert_to_tensor(part), dtype)
        for part, weight, dtype in zip(gradient, weights, dtypes, strict=True)
    ]


def _count(tape, loss, means, batch):
    """The weight of a batch's loss in the mean it goes through, or else the batch size."""
    for total, count in means:
        if tape.gradient(loss, total) is not None:
            return tf.cast(count, "float32")
    leaves = [leaf for leaf in tf.nest.flatten(batch) if leaf is not None]
    return tf.cast(tf.shape(leaves[0])[0], "float32")


def _check_stateless(tape, updates, weights):
    carried = [
        variable.path
        for variable, value in updates
        if value.dtype.is_floating
        and any(part is not None for part in tape.gradient(value, weights))
    ]
    if carried:
        raise ValueError(
            f"The state of `model` passes from batch to batch and depends on its weights ({carried}"
            "), so the curvature of its loss is not a mean over batches. Make the layers "
            "stateless (`stateful=False`), and run them in the test step with `training=False`."
        )


def _check_mean(differentiate, batch, direction):
    """Refuses a loss that changes if all samples are taken twice."""
    values = [float(differentiate(batch, direction).loss) for _ in range(4)]
    doubled = float(differentiate(_doubled(batch), direction).loss)
    # A random loss differs each time, and possibly by a few times as much.
    noise = 5 * np.ptp(values)
    if abs(doubled - values[0]) > 1e-3 * abs(values[0]) + noise + 1e-6:
        raise ValueError(
            f"The loss of `model` is not a mean over samples: it is {values[0]:g} for at most "
            f"{SAMPLES} samples, and {doubled:g} for the same samples taken twice. Its curvature "
            "would depend on how the data are cut into batches. Compile the model with a loss of "
            "`reduction='sum_over_batch_size'` (Keras' default), and divide what `add_loss` or "
            "`compute_loss` sums by the number of samples."
        )


def _check_symmetry(model, one, other):
    (first, found), (second, also) = one, other
    first, second = _flat(first), _flat(second)
    moved, again = _flat(found.product), _flat(also.product)
    # Unrelated random vectors of n numbers have dot products of about their lengths over √n.
    lengths = np.linalg.norm(first) * np.linalg.norm(again)
    lengths += np.linalg.norm(second) * np.linalg.norm(moved)
    difference = abs(first @ again - second @ moved)
    if difference > max(1e-2, 100 * _epsilon(model)) * lengths / np.sqrt(len(first)):
        _refuse(f"is not symmetric (u·Hv - v·Hu = {first @ again - second @ moved:.2g})")


def _check_differences(model, differentiate, batch, direction):
    """Refuses products that are not what differences of gradients converge to.

    The differences over a longer and a shorter step agree if they converge. They do
    not where rounding or kinks (ReLU, max-pooling, absolute errors) dominate them;
    then they decide nothing.
    """
    step = min(0.1, max(1e-4, 100 * _epsilon(model)))
    coarse = _difference_of_gradients(model, differentiate, batch, direction, step)
    fine = _difference_of_gradients(model, differentiate, batch, direction, step / 4)
    product = _flat(differentiate(batch, direction).product)
    error = np.linalg.norm(fine - product)
    whole = np.linalg.norm(fine) + np.linalg.norm(product)
    has_converged = np.linalg.norm(coarse - fine) < 0.1 * error
    if has_converged and error > max(5e-2, 100 * _epsilon(model)) * whole:
        _refuse(f"is not the derivative of the gradient (off by {error / whole:.0%})")


def _refuse(fault):
    raise ValueError(
        f"TensorFlow's Hessian of this model {fault}: an operation loses a part of its second "
        "derivative, such as `tf.stop_gradient` or a custom gradient (`tf.custom_gradient`). "
        "Rewrite the layer that uses it."
    )


def _difference_of_gradients(model, differentiate, batch, direction, step):
    weights = model.trainable_variables
    starts = [weight.numpy() for weight in weights]
    gradients = []
    for coordinate in (step, -step):
        for weight, start, part in zip(weights, starts, direction, strict=True):
            weight.assign(tf.cast(start + coordinate * part.numpy(), weight.dtype))
        gradients.append(_flat(differentiate(batch, direction).gradient))
    for weight, start in zip(weights, starts, strict=True):
        weight.assign(start)
    return (gradients[0] - gradients[1]) / (2 * step)


def _random_direction(model, generator):
    """A random direction that is about as long as the weight itself in each weight."""
    direction, weights = [], model.trainable_variables
    for weight, dtype in zip(weights, precise_dtypes(weights), strict=True):
        size = np.sqrt(np.mean(np.square(weight.numpy().astype(float)))) or 0.1
        direction.append(tf.constant(size * generator.normal(size=weight.shape), dtype))
    return direction


def _few_samples(model, batch):
    """The first samples, and whether the model takes batches of any size."""
    if any(tensor.shape[0] is not None for tensor in getattr(model, "inputs", None) or ()):
        return batch, False
    return tf.nest.map_structure(_first, batch), True


def _first(tensor):
    if isinstance(tensor, tf.SparseTensor):
        size = np.minimum(tensor.shape, [SAMPLES, *tensor.shape[1:]])
        return tf.sparse.slice(tensor, np.zeros(len(size), "int64"), size)
    return None if tensor is None else tensor[:SAMPLES]


def _doubled(batch):
    def double(tensor):
        if isinstance(tensor, tf.SparseTensor):
            return tf.sparse.concat(0, [tensor, tensor])
        return None if tensor is None else tf.concat([tensor, tensor], axis=0)

    return tf.nest.map_structure(double, batch)


def _epsilon(model):
    """The largest relative rounding error of any layer."""
    return max(EPSILONS.get(layer.compute_dtype, 2.0**-23) for layer in flatten_layers(model))


def _flat(tensors):
    return np.concatenate([np.ravel(tensor) for tensor in tensors]).astype(float)
