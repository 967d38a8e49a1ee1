"""Torch: many points in one loop, without the overhead of `model.evaluate`; two derivatives."""

import keras
import torch

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
from losslandscape.backends.plain import Plain, obstacle_of_distribution
from losslandscape.backends.reports import in_a_row, names_of, regularized_weights, reported
from losslandscape.backends.structures import of_backend, precise_dtypes, samples
from losslandscape.basics.internals import without_penalties


class Backend(Plain):
    """Torch."""

    def obstacle(self, model):
        """Refuses a model that Torch compiles, or Keras distributes."""
        if model.jit_compile:
            return "the model is compiled by Torch"
        return obstacle_of_distribution()

    def graph(self, state, dataset, length):  # noqa: ARG002
        """Makes a loop, which is quick enough without a graph."""
        return _loop(state, dataset)

    def differentiator(self, model, batches):  # noqa: ARG002
        """Differentiates eagerly."""
        return _differentiator(model)

    def generators(self):
        """Adds the generator of Torch."""
        return [(torch.get_rng_state, torch.set_rng_state)]


def _loop(state, dataset):
    """The names of the measured values, and a function that measures them at many points."""
    model, move = state.model, state.move
    size, batch_size, dtype = dataset.size, dataset.batch_size, keras.config.floatx()
    tensors = of_backend(dataset.tensors)
    # One step builds the metrics that build late, and shows what will be measured.
    with torch.no_grad():
        logs = model.test_step(samples(tensors, 0, 1))
    regularized = regularized_weights(model, logs)
    names = names_of(reported(model, logs, regularized))
    measured = without_penalties(model) if regularized else model

    def row(logs):
        return in_a_row(reported(model, logs, regularized), dtype)

    def measure_at(directions, point):
        state.rewind()
        move(state.values, directions, point)
        model.reset_metrics()
        rows = []
        for start in range(0, size, batch_size):
            logs = measured.test_step(samples(tensors, start, min(batch_size, size - start)))
            if dataset.blocks is not None:
                rows.append(row(logs))
        return torch.stack(rows or [row(logs)])

    @torch.no_grad()
    def measure_all(directions, points, number):
        # As `model.evaluate` does.
        model.eval()
        return torch.stack([measure_at(directions, point) for point in points[:number]])

    return names, measure_all


def _differentiator(model):
    # Torch's other kernels for attention have no second derivative.
    only_exact = torch.nn.attention.SDPBackend.MATH

    def differentiate(batch, direction):
        with torch.enable_grad(), torch.nn.attention.sdpa_kernel(only_exact):
            return _derivatives(model, batch, direction)

    return differentiate


def _derivatives(model, batch, direction):
    weights = [weight.value for weight in model.trainable_variables]
    dtypes = precise_dtypes(model.trainable_variables)

    def gradient_of(target, sources, **options):
        if not target.requires_grad:
            return [None for _ in sources]
        return torch.autograd.grad(target, sources, allow_unused=True, retain_graph=True, **options)

    loss, means, updates = reported_loss(model, batch)
    check_stateless(updates, lambda value: is_any(gradient_of(value.sum(), weights)))
    gradient = gradient_of(loss, weights, create_graph=True)
    check_any(gradient)
    gradient = dense(gradient, weights, dtypes)
    try:
        product = gradient_of(slope(gradient, direction), weights)
    except RuntimeError as error:
        if not any(words in str(error) for words in ("is not implemented", "differentiate twice")):
            raise
        raise not_twice("Torch", error) from error
    assign(updates)
    count = weight_of(batch, means, lambda total: gradient_of(loss, [total])[0])
    gradient = [part.detach() for part in gradient]
    return Derivatives(loss.detach().float(), count, gradient, dense(product, weights, dtypes))
