"""Curves: trained connections between two models, along which the loss stays low.

A straight line between two trained networks often crosses a barrier that a curve can
avoid. The curves here are quadratic Bézier curves,
`φ(t) = (1 - t)²·w1 + 2t(1 - t)·θ + t²·w2`. The ends w1 and w2 are the models; the control
point θ is trained with a Keras optimizer, each step at a random point of the curve.
"""

import contextlib
import functools
from typing import Unpack

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from losslandscape.backends.current import check_differentiates
from losslandscape.backends.structures import map_arrays
from losslandscape.basics.architecture import check_same_architecture, counterparts
from losslandscape.basics.checks import check_compiled, check_integer
from losslandscape.basics.claims import claiming
from losslandscape.basics.internals import flatten_layers
from losslandscape.basics.types import Data, Verbose
from losslandscape.directions import resolve_seed
from losslandscape.evaluation import Evaluation
from losslandscape.measuring.datasets import all_datasets, one_dataset, read_dataset
from losslandscape.measuring.engines import evaluator
from losslandscape.measuring.grids import coordinates, line
from losslandscape.measuring.interrupts import patient_interrupts
from losslandscape.measuring.options import MeasuringBetween, evaluating
from losslandscape.measuring.progress import Progress, Status
from losslandscape.measuring.state import evaluated
from losslandscape.paths.interpolation import (
    between_models,
    check_mixtures,
    describe_mixtures,
    measure_mixtures,
    mixed_weights,
)
from losslandscape.values.surfaces import LossLine

# As in `model.fit`.
BATCH_SIZE = 32
# How far from the line between the models the control point starts, as a fraction of the line's
# length: if the loss is symmetric about the line, gradients on it never lead away from it.
OFFSET = 0.01


@claiming
def fit_curve(
    model: keras.Model,
    other: keras.Model,
    x: Data,
    y: Data = None,
    *,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    epochs: int = 20,
    batch_size: int | None = None,
    seed: int | None = None,
    verbose: Verbose = "auto",
) -> keras.Model:
    """Trains the control point of a curve of low loss from one model to another.

    Training minimizes the mean loss along the curve, `∫ L(φ(t)) dt` for t from 0 to 1. For
    each batch, a t is drawn, the gradient of `model.compute_loss` is computed at φ(t), in
    training mode, and multiplied by dφ/dθ = 2t(1 - t). The control point starts halfway
    between the models, a hundredth of their distance off the line.

    Example:

    >>> control = fit_curve(small_batch, large_batch, x_train, y_train, epochs=5)
    >>> (curve,) = evaluate_curve(small_batch, large_batch, control, (x_test, y_test))
    >>> plane = evaluate_plane([small_batch, large_batch, control], x_test, y_test)
    >>> ax = plot_curve(plane)

    Args:
        model: A compiled and built `keras.Model`, at t = 0. It is left as it was.
        other: A model of the same architecture, at t = 1; it need not be compiled.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`. Usually
            the training set.
        y: Targets. Defaults to `None`.
        optimizer: A Keras optimizer, or its name. A copy of it is used. Defaults to
            `"adam"`.
        epochs: Passes over the data, shuffled unless batches differ in shape or are not
            dense. Defaults to 20.
        batch_size: Samples per batch, for arrays. `None` (the default) takes 32; batched
            datasets keep theirs.
        seed: Integer seed for the points on the curve and the order of the samples. `None`
            (the default) draws one from NumPy's global random state.
        verbose: `"auto"` (the default) or 1 shows a progress bar, 2 one line at the end,
            0 nothing.

    Returns:
        A `keras.Model` like `model`, not compiled, whose weights are the control point.
        Weights that are not trained lie halfway between the models, so that they change
        along the curve as they do along the straight line.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, the backend is not TensorFlow,
            or the loss does not stay finite.

    Reference:
        [Garipov et al., 2018](https://arxiv.org/abs/1802.10026), equations 2 and 4.
    """
    check_differentiates("`fit_curve`", ["tensorflow"])
    check_compiled(model)
    check_same_architecture([model, other], ["model", "other"])
    check_integer("epochs", epochs, minimum=1)
    status = Status(verbose)
    optimizer = _copy(optimizer)
    generator = np.random.default_rng(resolve_seed(seed))
    data = _read(model, one_dataset(x, y), batch_size)
    progress = Progress(epochs, status, "loss", unit="epoch")
    with patient_interrupts() as interrupt, evaluated(model, between_models) as state:
        # Builds the loss, and fails if the model does not fit the data.
        evaluator(model, interrupt)(data.first_batch)
        state.restore()
        control = _halfway(model, other, data, generator)
        trained = counterparts(model, control)
        optimizer.build(trained)
        step = _stepper(state, other, control, trained, optimizer)
        if not model.run_eagerly:
            step = _traced(step, data.batches.element_spec)
        for epoch in range(epochs):
            losses = []
            for batch in _batches(data, generator):
                losses.append(step(batch, tf.constant(generator.uniform(), "float32")))
                interrupt()
            loss = float(np.mean(losses))
            _check_finite(loss, epoch)
            progress.advance(1, loss)
    # With `use_ema`, this sets the weights to the averages that the optimizer kept.
    optimizer.finalize_variable_values(trained)
    return control


@evaluating(statistics="estimate")
def evaluate_curve(
    model: keras.Model,
    other: keras.Model,
    control: keras.Model,
    x: Data,
    y: Data = None,
    *,
    number_of_points: int = 21,
    **options: Unpack[MeasuringBetween],
) -> list[LossLine]:
    """Measures the loss on the curve from one model to another.

    Moving statistics of `BatchNormalization` are estimated, unless `statistics` says
    otherwise, because those of the control point were not computed from data.

    Example:

    >>> control = fit_curve(small_batch, large_batch, x_train, y_train, epochs=5)
    >>> (curve,) = evaluate_curve(small_batch, large_batch, control, (x_test, y_test))
    >>> barrier = loss_barrier(curve)

    Args:
        model: A compiled and built `keras.Model`, at t = 0. It is left as it was.
        other: A model of the same architecture, at t = 1.
        control: A model of the same architecture, the control point of the curve, as
            from `fit_curve`.
        x: Inputs, or if `y` is `None` one dataset or several; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points along the curve, at least 2, including both models.
            Defaults to 21.
        **options: How it is measured; see `MeasuringBetween` and `Measuring`.

    Returns:
        A list with one `LossLine` per dataset. Its coordinate is t, from 0 to 1, with the
        models at the ends, so it can be compared with the straight line between them, in
        `plot_line` and by `loss_barrier`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, or the models do not match;
            raised before any point is computed.

    Reference:
        [Garipov et al., 2018](https://arxiv.org/abs/1802.10026), section 3.
    """
    models = [model, other, control]
    times = coordinates(number_of_points, (0, 1))
    call = Evaluation(model, all_datasets(x, y), LossLine, options)
    check_mixtures(models, ["model", "other", "control"], call)
    coefficients = np.stack([(1 - times) ** 2, times**2, 2 * times * (1 - times)], axis=1)
    origin = describe_mixtures([model, other], call) | {
        "directions": "along a curve between models",
        "control": control.name,
        "positions": [0, 1],
    }
    return measure_mixtures(call, models, coefficients, functools.partial(line, times), origin)


def _check_finite(loss, epoch):
    if not np.isfinite(loss):
        raise ValueError(
            f"The loss along the curve must stay finite. It became {loss} in epoch {epoch + 1}. "
            "Lower the learning rate of `optimizer`, or check that both models have a finite loss."
        )


def _copy(optimizer):
    """A new optimizer with the same settings: the given one may already belong to a model."""
    found = None
    with contextlib.suppress(Exception):
        found = keras.optimizers.get(optimizer)
    if not isinstance(found, keras.optimizers.Optimizer):
        raise ValueError(
            f"`optimizer` must be a Keras optimizer, or the name of one. Received {optimizer!r}."
        )
    return type(found).from_config(found.get_config())


def _read(model, dataset, batch_size):
    are_arrays = isinstance(dataset, (tuple, list, dict)) or hasattr(dataset, "shape")
    if batch_size is None and are_arrays:
        batch_size = BATCH_SIZE
    return read_dataset(model, dataset, batch_size)


def _batches(data, generator):
    """The batches of one epoch, shuffled unless they differ in shape."""
    if data.tensors is None:
        yield from data.batches
        return
    order = generator.permutation(data.size)
    for start in range(0, data.size, data.batch_size):
        chosen = order[start : start + data.batch_size]
        yield map_arrays(functools.partial(tf.gather, indices=chosen), data.tensors)


def _halfway(model, other, data, generator):
    """A copy of the model, halfway to the other one and a little off the line between them."""
    control = _clone(model, next(iter(data.batches)))
    moves = between_models(model), mixed_weights(other), mixed_weights(control)
    for (weight, mix), end, twin in zip(*moves, strict=True):
        twin.assign(mix(weight.value, [end.value], [0.5]))
    ends = zip(model.trainable_variables, counterparts(model, other), strict=True)
    length = np.sqrt(sum(np.sum((_array(end) - _array(start)) ** 2) for start, end in ends))
    steps = [generator.normal(size=weight.shape) for weight in model.trainable_variables]
    scale = OFFSET * length / np.sqrt(sum(np.sum(step**2) for step in steps))
    for twin, step in zip(counterparts(model, control), steps, strict=True):
        twin.assign_add(ops.cast(scale * step, twin.dtype))
    return control


def _array(weight):
    return ops.convert_to_numpy(weight).astype(float)


def _clone(model, batch):
    """A copy of the model with the same weights; refuses a model that Keras cannot copy."""
    try:
        with _uncompiled(model):
            clone = keras.models.clone_model(model)
        if not clone.built:
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            clone(x)
        for weight, twin in zip(model.weights, clone.weights, strict=True):
            twin.assign(weight)
        for layer, twin in zip(flatten_layers(model), flatten_layers(clone), strict=True):
            if isinstance(layer, layers.Normalization):
                # This layer computes with constants that are derived from its weights.
                twin.finalize_state()
            if hasattr(layer, "lookup_table"):
                # A vocabulary that was learned from data is not in the configuration.
                twin.set_vocabulary(layer.get_vocabulary(include_special_tokens=False))
        check_same_architecture([model, clone], ["model", "its clone"])
    except Exception as error:
        raise ValueError(
            "`model` must be one that `keras.models.clone_model` can copy, for the control point. "
            "Give a subclassed model a `get_config`. Keras says: "
            f"{type(error).__name__}: {error}"
        ) from error
    clone.name = "control_point"
    return clone


@contextlib.contextmanager
def _uncompiled(model):
    """Lets Keras clone a model without its loss, since it cannot clone an unregistered one."""
    before = model.compiled
    try:
        model.compiled = False
        yield
    finally:
        model.compiled = before


def _stepper(state, other, control, trained, optimizer):
    """The function that trains the control point for one step, on a batch at a point t."""
    model, locate = state.model, state.locate
    centers = [state.value(weight) for weight in state.moved]
    # Copies, since both ends may be the same model.
    ends = [ops.copy(weight) for weight in mixed_weights(other)]

    def step(batch, t):
        factor = 2 * t * (1 - t)
        directions = [ends, [weight.value for weight in mixed_weights(control)]]
        values = locate(centers, directions, tf.stack([t**2, factor]))
        for weight, value in zip(state.moved, values, strict=True):
            weight.assign(value)
        with tf.GradientTape() as tape:
            loss = _loss(model, batch)
            scaled = optimizer.scale_loss(loss)
        weights = [weight.value for weight in model.trainable_variables]
        slopes = tape.gradient(scaled, weights, unconnected_gradients="zero")
        slopes = [tf.convert_to_tensor(slope) for slope in slopes]
        optimizer.apply([ops.cast(factor, slope.dtype) * slope for slope in slopes], trained)
        return loss

    return step


def _loss(model, batch):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    outputs = model(x, training=True)
    try:
        return model.compute_loss(x, y, outputs, sample_weight)
    except ValueError as error:
        error.add_note(
            "A curve is trained with `model.compute_loss`, not with the model's own `train_step`: "
            "pass a `loss` to `compile`, or override `compute_loss`."
        )
        raise


def _traced(step, signature):
    # Traced now, for any batch size: TensorFlow warns about functions that are traced often.
    inputs = [signature, tf.TensorSpec([], "float32")]
    return tf.function(step, input_signature=inputs, autograph=False).get_concrete_function()
