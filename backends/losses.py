"""Losses: the loss of one batch that `model.evaluate` would report, ready to be differentiated."""

from typing import NamedTuple

import keras
import tensorflow as tf
from keras import ops

from losslandscape.backends.structures import arrays_of
from losslandscape.basics.checks import check_complete


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


def reported_loss(model, batch):
    """The loss that `model.evaluate` would report if this batch were all the data.

    It comes with the total and count of each mean that the model keeps, and with all
    other variables that the step assigns and their new values.
    """
    number = len(model.weights)
    with _Functional(model) as scope:
        model.reset_metrics()
        loss = loss_among(model.test_step(batch), model.get_metrics_result())
        means = [(mean.total.value, mean.count.value) for mean in means_of(model)]
    check_complete(model, number)
    own = {id(variable) for variable in model.metrics_variables}
    updates = [update for update in scope.updates.values() if id(update[0]) not in own]
    return loss, means, updates


def loss_among(logs, results):
    """The loss in the logs of a test step, or in the results of the metrics."""
    # As in `model.evaluate`, a step's own logs count only if their names differ from the metrics'.
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


def means_of(model):
    """The metrics of a model that are means; the tracker of its loss usually is one."""
    return [metric for metric in model.metrics if isinstance(metric, keras.metrics.Mean)]


def is_any(gradient):
    """Whether something depends on any of the weights."""
    return any(part is not None for part in gradient)


def check_any(gradient):
    """Refuses a loss that depends on no weight."""
    if not is_any(gradient):
        raise ValueError(
            "The loss that `model.evaluate` reports depends on no trainable weight in a way that "
            "can be differentiated. If the model has a custom `test_step`, override `compute_loss` "
            "instead."
        )


def check_stateless(updates, depends):
    """Refuses variables to which the step assigns values that depend on the weights."""
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


def not_twice(backend, error):
    """The error to raise where an operation has no second derivative."""
    return ValueError(
        f"{backend} cannot differentiate the loss twice, because an operation of the model has "
        f"no second derivative: {_in_a_line(error)} Write what uses it with other "
        "operations, make the model without `keras.remat` (which saves memory in training only), "
        "or set `KERAS_BACKEND=jax`, which differentiates nearly everything, CTC included."
    )


def _in_a_line(error):
    """The last line of an error's message: in TensorFlow, the others say where it happened."""
    *_, last = str(error).strip().splitlines()
    return last.strip().rstrip(".") + "."


def dense(gradient, weights, dtypes):
    """A gradient with a tensor for each weight."""
    # Gradients of embeddings are sparse, those of half-precision weights in half precision.
    return [
        ops.zeros(weight.shape, dtype)
        if part is None
        else ops.cast(
            tf.convert_to_tensor(part) if isinstance(part, tf.IndexedSlices) else part, dtype
        )
        for part, weight, dtype in zip(gradient, weights, dtypes, strict=True)
    ]


def slope(gradient, direction):
    """How steeply the loss rises along a direction."""
    parts = zip(gradient, direction, strict=True)
    return sum(ops.cast(ops.sum(part * step), "float32") for part, step in parts)


def assign(updates):
    """Assigns the new values from a test step to its variables."""
    for variable, value in updates:
        variable.assign(value)


def weight_of(batch, means, slope_of):
    """The weight of a batch's loss: the count of the metric that averages it, or the batch size."""
    for total, count in means:
        if slope_of(total) is not None:
            return ops.cast(count, "float32")
    return size_of(batch)


def size_of(batch):
    """The number of samples in a batch, as a float."""
    return ops.cast(ops.shape(arrays_of(batch)[0])[0], "float32")
