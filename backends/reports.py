"""Reports: the values that a test step reports, by name and in a fixed order.

The loss without weight penalties is reported, too: penalties may be much larger.
"""

import keras
import numpy as np
from keras import ops


def reported(model, logs, regularized):
    """The values that `model.evaluate` would report after the last step, and the data loss.

    Args:
        model: The `keras.Model` that has made its last test step.
        logs: The logs that this step returned.
        regularized: The weights that `regularized_weights` returns. If there are any, the
            step left their penalties out.

    Returns:
        Dict of tensors by name.
    """
    metrics = model.get_metrics_result()
    # The logs of a custom test step count only if their names differ from the metrics'.
    logs = metrics if metrics.keys() == logs.keys() else logs
    if regularized:
        # The penalty is added here, because subtracting a large one would round the data loss away.
        # Outside of a graph, some versions of Keras report Python's floats.
        loss = ops.convert_to_tensor(logs["loss"])
        penalized = loss + ops.cast(penalty(regularized), loss.dtype)
        logs = logs | {"loss": penalized, "data_loss": loss}
    return in_order(logs)


def regularized_weights(model, names=()):
    """The weights whose penalties are known to be in the loss.

    Only Keras' own test step is known to add them, so with a custom one there are none.
    Nor are there any if `names`, of the values that the model reports, hold `"data_loss"`.
    """
    if "data_loss" in names:
        return []
    is_keras_own = all(
        getattr(type(model), name) is getattr(keras.Model, name)
        for name in ("test_step", "compute_loss")
    )
    weights = model.trainable_variables if is_keras_own else []
    return [weight for weight in weights if weight.regularizer is not None]


def penalty(weights):
    """The sum of the penalties of some weights."""
    return sum(weight.regularizer(weight) for weight in weights)


def in_order(logs):
    """The logs in an order that does not depend on the engine."""
    first = [name for name in ("loss", "data_loss") if name in logs]
    return {name: logs[name] for name in (*first, *sorted(set(logs) - set(first)))}


def names_of(logs):
    """One name per number: `f1_score_0`, … for a metric that has one per class."""
    names = []
    for name, value in logs.items():
        shape = np.shape(value)
        names += [name] if shape == () else [f"{name}_{i}" for i in range(np.prod(shape))]
    return names


def in_a_row(logs, dtype):
    """All numbers of some logs in one tensor."""
    return ops.concatenate([ops.reshape(ops.cast(value, dtype), [-1]) for value in logs.values()])
