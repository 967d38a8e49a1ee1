"""JAX: many points in one compiled program, and two derivatives of a test step without state."""

import functools

import jax
import keras
import numpy as np
import tensorflow as tf
from jax.sharding import NamedSharding, PartitionSpec
from keras import ops, tree

from losslandscape.backends.losses import (
    Derivatives,
    assign,
    check_stateless,
    loss_among,
    means_of,
    size_of,
)
from losslandscape.backends.plain import Plain
from losslandscape.backends.reports import (
    in_a_row,
    in_order,
    names_of,
    regularized_weights,
    reported,
)
from losslandscape.backends.structures import map_arrays, of_backend, precise_dtypes, samples
from losslandscape.basics.internals import build_symbolically, without_penalties


class Backend(Plain):
    """JAX."""

    def break_even(self, model):  # noqa: ARG002
        """Returns a small number: JAX compiles for `model.evaluate`, too."""
        return 10

    def obstacle(self, model):
        """Refuses none."""

    def graph(self, state, dataset, length):
        """Compiles the test step, the loop over batches and that over points."""
        return _graph(state, dataset, length)

    def differentiator(self, model, batches):
        """Differentiates a compiled step, or an eager one if the model runs eagerly."""
        return _differentiator(model, batches)

    def parts_of_batch(self):
        """Returns how many devices share the samples of a batch."""
        distribution = keras.distribution.distribution()
        if distribution is None or distribution.batch_dim_name is None:
            return 1
        mesh = distribution.device_mesh
        return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]

    def to_tensor(self, array, variable):
        """Cuts an array like its variable: no device gets more than its own part."""
        sharding = variable.value.sharding
        is_whole = not isinstance(sharding, NamedSharding) or len(sharding.device_set) == 1
        # A number stands for an array of it.
        if is_whole or np.ndim(array) == 0:
            return super().to_tensor(array, variable)
        first = [None] * (array.ndim - variable.ndim)
        if first:
            sharding = NamedSharding(sharding.mesh, PartitionSpec(*first, *sharding.spec))
        return jax.device_put(array, sharding)

    def put_back(self, variable, value):
        """Restores a copy, since an evaluation on JAX reuses the memory of a model's values."""
        # Not through JAX for a variable of TensorFlow: its 64-bit integers would be truncated.
        variable.assign(value if isinstance(variable, tf.Variable) else ops.copy(value))


def _graph(origin, dataset, length):
    """The names of the measured values, and the graph that measures them at many points.

    JAX passes the model's variables in and out as values, so the model is not touched.
    """
    model, moved = origin.model, origin.moved
    size, batch_size, dtype = dataset.size, dataset.batch_size, keras.config.floatx()
    last, locate = (size - 1) // batch_size, origin.locate
    tensors = _on_all_devices(of_backend(dataset.tensors))
    # As `model.evaluate` does, for metrics that build late.
    build_symbolically(model, samples(tensors, 0, 1))
    regularized = regularized_weights(model, model.get_metrics_result())
    measured = without_penalties(model) if regularized else model

    report = functools.partial(_reported, model, regularized)

    # Compiled on its own, it is traced only once, whatever the number of directions.
    @functools.partial(jax.jit, static_argnames="size")
    def test_step(state, start, size, tensors):
        return measured.test_step(state, _shared_out(samples(tensors, start, size)))

    def last_step(state, tensors):
        start = last * batch_size
        return report(*test_step(state, start, size - start, tensors))

    def step_at(index, so_far, tensors):
        rows, state = so_far
        logs, state = test_step(state, index * batch_size, batch_size, tensors)
        if rows is not None:
            rows = rows.at[index].set(in_a_row(report(logs, state), dtype))
        return rows, state

    def measure_at(tensors, variables, directions, point):
        values = dict(zip(identities, tree.flatten(variables), strict=True))
        centers = [values[id(weight)] for weight in moved]
        there = dict(zip(map(id, moved), locate(centers, directions, point), strict=True))
        state = tree.pack_sequence_as(variables, list((values | there).values()))
        rows = None if dataset.blocks is None else ops.zeros((last, len(names)), dtype)
        step = functools.partial(step_at, tensors=tensors)
        rows, state = jax.lax.fori_loop(0, last, step, (rows, state))
        final = in_a_row(last_step(state, tensors), dtype)[None]
        return final if rows is None else ops.concatenate([rows, final])

    # Data and variables are arguments: JAX would compile constants into the program.
    @jax.jit
    def measure_all(directions, points, number, tensors, variables):
        def measure_next(index, results):
            values = measure_at(tensors, variables, directions, points[index])
            return results.at[index].set(values)

        results = ops.zeros((length, rows, len(names)), dtype)
        return jax.lax.fori_loop(0, number, measure_next, results)

    rows = 1 if dataset.blocks is None else dataset.blocks.number
    identities = [id(variable) for variable in tree.flatten(_groups(model))]
    variables = _variables(origin)
    # Put in order again, because JAX sorts a dict by its keys.
    names = names_of(in_order(jax.eval_shape(last_step, variables, tensors)))
    return names, lambda *arguments: measure_all(*arguments, tensors, variables)


def _reported(model, regularized, logs, state):
    """What is reported after a step that returned these logs and this state."""
    pairs = zip(tree.flatten(_groups(model)), tree.flatten(state), strict=True)
    with keras.StatelessScope(pairs):
        return reported(model, logs, regularized)


def _on_all_devices(tensors):
    """Gives each device of a distribution all data, of which it takes its part of each batch."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return tensors

    def copied(tensor):
        whole = [None] * len(tensor.shape)
        layout = keras.distribution.TensorLayout(whole, distribution.device_mesh)
        return keras.distribution.distribute_tensor(tensor, layout)

    return map_arrays(copied, tensors)


def _shared_out(batch):
    """Gives each device of a distribution its part of a batch."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return batch

    def cut(tensor):
        layout = distribution.get_data_layout(tensor.shape)
        return keras.distribution.distribute_tensor(tensor, layout)

    return map_arrays(cut, batch)


def _groups(model):
    """The variables in the order in which a test step on JAX receives them."""
    return model.trainable_variables, model.non_trainable_variables, model.metrics_variables


def _variables(state):
    """The values at the center of the variables that a test step receives."""
    state.model.reset_metrics()
    *weights, metrics = _groups(state.model)
    values = [[state.value(variable) for variable in group] for group in weights]
    return (*values, [ops.copy(variable) for variable in metrics])


def _differentiator(model, batches):
    # As `model.evaluate` does, for metrics that build late.
    build_symbolically(model, next(iter(batches)))
    weights, state = model.trainable_variables, model.non_trainable_variables
    dtypes = precise_dtypes(weights)
    derivatives = functools.partial(_derivatives, model)
    if model.jit_compile and not model.run_eagerly:
        derivatives = jax.jit(derivatives)

    def differentiate(batch, direction):
        pairs = zip(weights, dtypes, strict=True)
        values = [ops.cast(weight.value, dtype) for weight, dtype in pairs]
        others = [variable.value for variable in state]
        found, after, depends = derivatives(values, others, batch, direction)
        check_stateless(zip(state, depends, strict=True), bool)
        assign(zip(state, after, strict=True))
        return found

    return differentiate


def _derivatives(model, weights, state, batch, direction):
    """The derivatives, the state after the step, and which variables in it depend on weights."""

    def gradient(weights):
        # The total of a mean starts at 0, so the loss has the derivative 1 / count by it.
        totals = [ops.zeros_like(mean.total.value) for mean in means_of(model)]
        (loss, after), (gradient, slopes) = jax.value_and_grad(
            functools.partial(_loss, model, state, batch), argnums=(0, 1), has_aux=True
        )(weights, totals)
        return gradient, (loss, slopes, after)

    (found, (loss, slopes, after)), (product, (*_, moves)) = jax.jvp(
        gradient, (weights,), (direction,)
    )
    count = size_of(batch)
    for slope in reversed(slopes):
        count = ops.where(slope == 0, count, 1 / slope)
    # JAX gives integers derivatives of type `float0`, which hold no values.
    depends = [move.dtype != jax.dtypes.float0 and ops.any(move != 0) for move in moves]
    return Derivatives(loss, ops.cast(count, "float32"), found, product), after, depends


def _loss(model, state, batch, weights, totals):
    """The loss that `model.evaluate` would report if this batch were all the data."""
    means = [id(mean.total) for mean in means_of(model)]
    values = dict(zip(means, totals, strict=True))
    with keras.StatelessScope():
        model.reset_metrics()
        metrics = [values.get(id(each), each.value) for each in model.metrics_variables]
    pairs = zip(weights, model.trainable_variables, strict=True)
    weights = [ops.cast(value, weight.dtype) for value, weight in pairs]
    logs, (_, state, metrics) = model.test_step((weights, state, metrics), batch)
    with keras.StatelessScope(zip(model.metrics_variables, metrics, strict=True)):
        loss = loss_among(logs, model.get_metrics_result())
    return ops.cast(loss, "float32"), state
