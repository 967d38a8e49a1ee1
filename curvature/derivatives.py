"""Derivatives: the mean loss over all data, differentiated twice, and checks of the result.

The derivatives that the backend computes are used only if they are those of the loss that
`model.evaluate` reports.
"""

import numpy as np
import tensorflow as tf
from keras import ops

from losslandscape.backends.current import current
from losslandscape.backends.structures import map_arrays, precise_dtypes
from losslandscape.basics.arrays import flat, plus
from losslandscape.basics.internals import flatten_layers
from losslandscape.measuring.datasets import handed_over
from losslandscape.measuring.engines import evaluator
from losslandscape.measuring.state import evaluated

# How many samples the checks use: few, so that a small step crosses few kinks of ReLUs.
SAMPLES = 4
# The relative rounding error in half precision.
EPSILONS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def differentiator(model, dataset):
    """Makes the function that differentiates the loss of a batch.

    Args:
        model: A compiled and built `keras.Model`.
        dataset: A `Dataset`.

    Returns:
        A function that takes a batch and a direction, and returns `Derivatives`; and the
        batches. The function changes the state that the model's own test step would
        change, except the metrics.
    """
    batches = handed_over(dataset)
    try:
        return current().differentiator(model, batches), batches
    except (TypeError, ValueError) as error:
        if isinstance(dataset.batches.element_spec, tuple):
            raise
        raise ValueError(
            "`y` must be the targets that the loss of `model` compares outputs with, or `x` a "
            "whole dataset such as (x, y). Received inputs alone, of which the loss cannot be "
            f"computed: {error}"
        ) from error


def mean_derivative(state, differentiate, batches, direction, part):
    """Differentiates the mean loss over all batches.

    Args:
        state: The `State` to start from, with the weights that the model has now. Changes that
            the batches make to the model's state are not undone.
        differentiate: The function that `differentiator` returned.
        batches: The batches that it returned.
        direction: A list of arrays, one per trainable weight.
        part: `"gradient"` or `"product"`, which of the `Derivatives` to average.

    Returns:
        The mean loss, a float, and that part of its derivatives, a list of arrays.
    """
    vector = _tensors(state.model, direction)
    loss, count, sums = 0.0, 0.0, None
    state.start_over()
    for batch in batches:
        found = differentiate(batch, vector)
        loss += found.count * found.loss
        count += found.count
        terms = [ops.cast(found.count, each.dtype) * each for each in getattr(found, part)]
        sums = terms if sums is None else plus(sums, terms)
    count = float(count)
    return float(loss) / count, [ops.convert_to_numpy(each) / count for each in sums]


def reported_loss(model, data):
    """Returns the loss that `model.evaluate` reports.

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        data: A `Dataset`.
    """
    with evaluated(model):
        return evaluator(model, lambda *_, **__: None)(data)["loss"]


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


def check_derivatives(state, differentiate, batch):
    """Compares the derivatives with the loss itself on a few samples; refuses wrong ones.

    Args:
        state: The `State` from which each derivative starts, with the weights that the model
            has now. Changes that the batch makes to the model's state are not undone.
        differentiate: The function that `differentiator` returned.
        batch: A batch of the data.

    Returns:
        Whether the check could decide; it cannot if derivatives are not finite.

    Raises:
        ValueError: If a check fails.
    """
    model = state.model
    batch, is_cut = _few_samples(model, batch)
    generator = np.random.default_rng(0)
    first, second = (_random_direction(model, generator) for _ in range(2))

    def differentiate_again(batch, direction):
        # Each time from the same state, so that a seed generator draws the same numbers.
        state.start_over()
        return differentiate(batch, direction)

    found, other = (differentiate_again(batch, direction) for direction in (first, second))
    if not np.isfinite(flat([*found.gradient, *found.product, *other.product])).all():
        return False
    if is_cut:
        state.start_over()
        _check_mean(differentiate, batch, first)
    third = _random_direction(model, generator)
    _check_slopes(model, differentiate_again, batch, (first, second, third), found)
    _check_symmetry(model, (first, found), (second, other))
    _check_differences(model, differentiate_again, batch, first)
    return True


def _check_mean(differentiate, batch, direction):
    """Refuses a loss that changes if all samples are taken twice."""
    values = [float(differentiate(batch, direction).loss) for _ in range(4)]
    doubled = float(differentiate(_doubled(batch), direction).loss)
    # A random loss differs each time, and the next difference may be a few times as large.
    noise = 5 * np.ptp(values)
    if abs(doubled - values[0]) > 1e-3 * abs(values[0]) + noise + 1e-6:
        raise ValueError(
            f"The loss of `model` is not a mean over samples: it is {values[0]:g} for at most "
            f"{SAMPLES} samples, and {doubled:g} for the same samples taken twice. Its curvature "
            "would depend on how the data are cut into batches. Compile the model with a loss of "
            "`reduction='sum_over_batch_size'` (Keras' default), and divide what `add_loss` or "
            "`compute_loss` sums by the number of samples."
        )


def _check_slopes(model, differentiate, batch, directions, center):
    """Refuses a gradient whose integrals differ from the rises of the reported loss.

    The intervals are short, and medians are taken over them: kinks and jumps of the loss lie
    in few of them, but a part that the gradient leaves out shows in most. The difference
    that rounding and kinks may cause is estimated from how erratically the difference
    changes from one interval to the next.
    """
    epsilon = _epsilon(model)
    width = min(0.1, max(5e-3, 20 * epsilon))
    found = []
    for direction in directions:
        below, above = (
            _along(model, differentiate, batch, direction, width * steps)
            for steps in (np.arange(-3, 0), np.arange(1, 4))
        )
        found.append(_rises([*below, center, *above], direction, width))
    rises, integrals = np.swapaxes(found, 0, 1)
    faults = rises - integrals
    sizes = np.median(abs(rises) + abs(integrals), axis=1)
    noise = np.median(abs(np.diff(faults, 2)), axis=1).mean()
    rounding = epsilon * abs(float(center.loss))
    worst = np.median(abs(faults), axis=1).max()
    if worst > max(4 * noise, 4 * rounding, max(2e-3, 50 * epsilon) * sizes.max()):
        raise ValueError(
            "The gradient of this model is not that of the loss that `model.evaluate` reports, "
            f"which rises otherwise (off by {worst / sizes.max():.0%}): a part of the loss, or of "
            "what it is computed from, has no gradient or another one, such as `stop_gradient`, "
            "`numpy_function` or a custom gradient. Rewrite it with differentiable operations, or "
            "compile a copy of the model without that part."
        )


def _rises(found, direction, width):
    """The rises of the loss in the inner intervals of equidistant points, and the integrals."""
    losses = [float(each.loss) for each in found]
    slopes = np.array([flat(each.gradient) @ flat(direction) for each in found])
    # Integrates cubic slopes exactly.
    weights = np.array([-1, 13, 13, -1]) / 24
    return np.diff(losses)[1:-1], width * np.convolve(slopes, weights, "valid")


def _check_symmetry(model, one, other):
    (first, found), (second, also) = one, other
    first, second = flat(first), flat(second)
    moved, again = flat(found.product), flat(also.product)
    # The dot product of two random vectors of n numbers is about the product of their lengths / √n.
    lengths = np.linalg.norm(first) * np.linalg.norm(again)
    lengths += np.linalg.norm(second) * np.linalg.norm(moved)
    difference = abs(first @ again - second @ moved)
    if difference > max(1e-2, 100 * _epsilon(model)) * lengths / np.sqrt(len(first)):
        _refuse(f"is not symmetric (u·Hv - v·Hu = {first @ again - second @ moved:.2g})")


def _check_differences(model, differentiate, batch, direction):
    """Refuses products if the differences of gradients converge to something else.

    If they converge, the differences over a longer and a shorter step agree. Where
    rounding or kinks (ReLU, max-pooling, absolute errors) dominate, they do not agree,
    and nothing is refused.
    """
    step = min(0.1, max(1e-4, 100 * _epsilon(model)))
    coarse = _difference_of_gradients(model, differentiate, batch, direction, step)
    fine = _difference_of_gradients(model, differentiate, batch, direction, step / 4)
    product = flat(differentiate(batch, direction).product)
    error = np.linalg.norm(fine - product)
    whole = np.linalg.norm(fine) + np.linalg.norm(product)
    has_converged = np.linalg.norm(coarse - fine) < 0.1 * error
    if has_converged and error > max(5e-2, 100 * _epsilon(model)) * whole:
        _refuse(f"is not the derivative of the gradient (off by {error / whole:.0%})")


def _refuse(fault):
    raise ValueError(
        f"The Hessian of this model {fault}: an operation loses a part of its second derivative, "
        "such as `stop_gradient` or a custom gradient. Rewrite the layer that uses it."
    )


def _difference_of_gradients(model, differentiate, batch, direction, step):
    ends = _along(model, differentiate, batch, direction, (step, -step))
    above, below = (flat(each.gradient) for each in ends)
    return (above - below) / (2 * step)


def _along(model, differentiate, batch, direction, coordinates):
    """The derivatives at some coordinates along a direction."""
    weights = model.trainable_variables
    starts = [weight.numpy() for weight in weights]
    found = []
    for coordinate in coordinates:
        for weight, start, part in zip(weights, starts, direction, strict=True):
            weight.assign(start + coordinate * ops.convert_to_numpy(part))
        found.append(differentiate(batch, direction))
    for weight, start in zip(weights, starts, strict=True):
        weight.assign(start)
    return found


def _random_direction(model, generator):
    """A random direction whose part in each weight is about as long as the weight itself."""
    direction = []
    for weight in model.trainable_variables:
        size = np.sqrt(np.mean(np.square(weight.numpy().astype(float)))) or 0.1
        direction.append(size * generator.normal(size=weight.shape))
    return _tensors(model, direction)


def _tensors(model, direction):
    """A direction where the weights lie, in the types that they move in."""
    weights, to_tensor = model.trainable_variables, current().to_tensor
    parts = zip(direction, weights, precise_dtypes(weights), strict=True)
    return [ops.cast(to_tensor(array, weight), dtype) for array, weight, dtype in parts]


def _few_samples(model, batch):
    """The first samples, and `True`; the whole batch, and `False`, if its size is fixed."""
    if any(tensor.shape[0] is not None for tensor in getattr(model, "inputs", None) or ()):
        return batch, False
    return map_arrays(_first, batch), True


def _first(tensor):
    if isinstance(tensor, tf.SparseTensor):
        size = np.minimum(tensor.shape, [SAMPLES, *tensor.shape[1:]])
        return tf.sparse.slice(tensor, np.zeros(len(size), "int64"), size)
    return tensor[:SAMPLES]


def _doubled(batch):
    def double(tensor):
        if isinstance(tensor, tf.SparseTensor):
            return tf.sparse.concat(0, [tensor, tensor])
        # `ops.concatenate` does not take ragged tensors or strings.
        concatenate = tf.concat if tf.is_tensor(tensor) else ops.concatenate
        return concatenate([tensor, tensor], axis=0)

    return map_arrays(double, batch)


def _epsilon(model):
    """The largest relative rounding error of any layer."""
    return max(EPSILONS.get(layer.compute_dtype, 2.0**-23) for layer in flatten_layers(model))
