"""Interpolation: the lines between two or more models, and the plane through three.

Models of the same architecture are mixed: each floating-point weight, trained,
frozen or not trainable, is a linear combination of the models' own, with coefficients
that add up to 1; integers and seeds stay those of the first model. Between the models,
the moving statistics of `BatchNormalization` have to change with the weights they
belong to: otherwise any line would seem to cross a barrier.
"""

import collections
import functools
import itertools
from collections.abc import Sequence
from typing import Unpack

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from losslandscape.basics.architecture import check_same_architecture, counterparts
from losslandscape.basics.arrays import dot
from losslandscape.basics.checks import check_choice, check_integer
from losslandscape.basics.internals import flatten_layers
from losslandscape.basics.types import Data, Extent, Pair, Points
from losslandscape.evaluation import Evaluation, Plan
from losslandscape.measuring.datasets import all_datasets, batch_size_of, one_dataset
from losslandscape.measuring.engines import evaluate_engine
from losslandscape.measuring.grids import Grid, coordinates, line
from losslandscape.measuring.options import BETWEEN, MeasuringBetween, evaluating
from losslandscape.measuring.state import check_copies
from losslandscape.values.surfaces import LossBarriers, LossLine, LossSurface

STATISTICS = ("interpolate", "estimate")
# How far the sum of coefficients may be from 1 in single precision.
ROUNDING = 1e-6


@evaluating(**BETWEEN)
def evaluate_interpolation(
    model: keras.Model,
    other: keras.Model,
    x: Data,
    y: Data = None,
    number_of_points: int = 41,
    *,
    extent: Pair = (-0.5, 1.5),
    **options: Unpack[MeasuringBetween],
) -> list[LossLine]:
    """Measures the loss on the line from one model to another.

    Example:

    >>> (line,) = evaluate_interpolation(small_batch, large_batch, (x_test, y_test))

    Args:
        model: A compiled and built `keras.Model`, at coordinate 0. It is left
            as it was.
        other: A model of the same architecture, at coordinate 1: only the values of
            its weights may differ, and names, seeds, initializers, constraints and
            what is trainable. It need not be compiled; the loss is that of `model`.
        x: Inputs, or if `y` is `None` one dataset or several; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points along the line, at least 2. Defaults to 41,
            which include both models.
        extent: First and last coordinate. Defaults to `(-0.5, 1.5)`, which goes
            beyond each model by half the distance between them.
        **options: How it is measured; see `MeasuringBetween` and `Measuring`.

    Returns:
        A list with one `LossLine` per dataset, each with one row. `center` is
        `model`, at coordinate 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, or the models differ in
            more than the values of their weights; raised before any point is
            computed.

    Reference:
        [Goodfellow et al., 2015](https://arxiv.org/abs/1412.6544).
    """
    models = [model, other]
    alphas = coordinates(number_of_points, extent)
    call = Evaluation(model, all_datasets(x, y), LossLine, options)
    check_mixtures(models, ["model", "other"], call)
    coefficients = np.stack([1 - alphas, alphas], axis=1)
    origin = describe_mixtures(models, call) | {"positions": [0, 1]}
    return measure_mixtures(call, models, coefficients, functools.partial(line, alphas), origin)


@evaluating(**BETWEEN)
def evaluate_plane(
    models: Sequence[keras.Model],
    x: Data,
    y: Data = None,
    number_of_points: Points = 21,
    *,
    extent: Extent = (-0.5, 1.5),
    **options: Unpack[MeasuringBetween],
) -> LossSurface:
    """Measures the loss on the plane through three models.

    The axes are at right angles and share one unit, the distance from the first
    model to the second, so the picture preserves lengths and angles. The first
    model is at (0, 0), the second at (1, 0); the metadata give the positions of
    all three under `"positions"`.

    Args:
        models: List of three models of the same architecture, of which the first
            must be compiled. They are left as they were.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis; see `evaluate_surface`. Defaults to 21.
        extent: First and last coordinate on both axes, or a pair of such pairs.
            Defaults to `(-0.5, 1.5)`.
        **options: How it is measured; see `MeasuringBetween` and `Measuring`.

    Returns:
        A `LossSurface`. `center` is at (0, 0), the first model.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, or the three models lie
            on one line; raised before any point is computed.

    Reference:
        [Garipov et al., 2018](https://arxiv.org/abs/1802.10026), section 3.
    """
    if not isinstance(models, (list, tuple)) or len(models) != 3:
        raise ValueError(f"`models` must be a list of three models. Received {models!r}.")
    grid = Grid.of(number_of_points, extent)
    call = Evaluation(models[0], [one_dataset(x, y)], LossSurface, options)
    check_mixtures(models, [f"models[{index}]" for index in range(3)], call)
    third = _coordinates_of_third(models)
    of_third = grid.points[:, 1] / third[1]
    of_second = grid.points[:, 0] - of_third * third[0]
    coefficients = np.stack([1 - of_second - of_third, of_second, of_third], axis=1)
    origin = describe_mixtures(models, call) | {"positions": [[0.0, 0.0], [1.0, 0.0], third]}
    return measure_mixtures(call, models, coefficients, grid.surface, origin, order=grid.order)[0]


@evaluating(**BETWEEN)
def evaluate_barriers(
    models: Sequence[keras.Model],
    x: Data,
    y: Data = None,
    number_of_points: int = 11,
    **options: Unpack[MeasuringBetween],
) -> LossBarriers:
    """Measures the loss on the straight lines between each pair of several models.

    For k models there are k·(k - 1)/2 such lines. `loss_barrier` turns them into a matrix
    of barriers, and `plot_barriers` draws the matrix as a heat map.

    Example:

    >>> barriers = evaluate_barriers([model, small_batch, large_batch], x_test, y_test)
    >>> loss_barrier(barriers).shape
    (3, 3)

    Args:
        models: List of at least two models of the same architecture, of which the
            first must be compiled. They are left as they were.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points on each line, at least 3, including both models.
            Defaults to 11.
        **options: How it is measured; see `MeasuringBetween` and `Measuring`.

    Returns:
        A `LossBarriers`. `center` is the first model.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; raised before any point is
            computed.

    Reference:
        [Entezari et al., 2022](https://arxiv.org/abs/2110.06296), section 2.
    """
    if not isinstance(models, (list, tuple)) or len(models) < 2:
        raise ValueError(f"`models` must be a list of at least two models. Received {models!r}.")
    check_integer("number_of_points", number_of_points, minimum=3)
    alphas = coordinates(number_of_points, (0, 1))
    call = Evaluation(models[0], [one_dataset(x, y)], LossBarriers, options)
    check_mixtures(models, [f"models[{index}]" for index in range(len(models))], call)
    units = np.eye(len(models))
    coefficients = [
        np.outer(1 - alphas, first) + np.outer(alphas, second)
        for first, second in itertools.combinations(units, 2)
    ]

    def assemble(values, center, metadata):
        values = {name: array.reshape(-1, len(alphas)) for name, array in values.items()}
        return LossBarriers(alphas, values, center, metadata)

    origin = describe_mixtures(models, call)
    return measure_mixtures(call, models, np.concatenate(coefficients), assemble, origin)[0]


def check_mixtures(models, names, call):
    """Refuses models that cannot be mixed, or whose statistics cannot be set as asked.

    Args:
        models: List of models.
        names: The names of the arguments that hold them, for errors.
        call: The `Evaluation` that will measure them.
    """
    statistics = call.options["statistics"]
    check_choice("statistics", statistics, STATISTICS)
    check_same_architecture(models, names)
    for model, name in zip(models, names, strict=True):
        check_copies(name, mixed_weights(model))
    if statistics == "estimate":
        _check_no_renorm(models[0], names[0])
        _check_not_compiled(call.options["engine"])


def describe_mixtures(models, call):
    """Returns the metadata of mixtures of models."""
    names = [model.name for model in models]
    return {
        "directions": "between models",
        "models": names,
        "statistics": call.options["statistics"],
    }


def measure_mixtures(call, models, shares, assemble, origin, *, order=None):
    """Measures every dataset at every mixture of models, and at the first model.

    Args:
        call: The `Evaluation`.
        models: List of models.
        shares: Float array of shape `(number of points, number of models)`; each row
            adds up to 1.
        assemble: As in `Evaluation.along`.
        origin: What `describe_mixtures` returned, and more.
        order: As in `Plan`.

    Returns:
        A list of what `assemble` returned, one per dataset.
    """
    first, *others = models
    statistics = origin["statistics"]
    weights = [other.weights for other in others]
    depends = {"models": weights, "coordinates": shares, "statistics": statistics}

    # Copies, since the same model may be passed more than once.
    directions = [[ops.copy(weight) for weight in mixed_weights(other)] for other in others]
    # The first model has the remaining share.
    legs = [(directions, shares[:, 1:])]
    estimates = statistics == "estimate" and _normalizations(first)
    engines = ESTIMATING if estimates else None
    plan = Plan(legs, depends, between_models, order, engines)
    return call.along(plan, assemble, origin)


def between_models(model):
    """The walk in the space of all floating-point weights, whose directions are other models.

    The coordinates are the coefficients of these models; the model itself has the rest.
    """
    epsilons = _epsilons(model)
    return [
        (
            weight,
            functools.partial(_mix_variances, epsilons[id(weight)])
            if id(weight) in epsilons
            else _mix,
        )
        for weight in mixed_weights(model)
    ]


def mixed_weights(model):
    """Returns the weights of a model that are mixed: all of a floating-point type."""
    return [weight for weight in model.weights if keras.backend.is_float_dtype(weight.dtype)]


def _check_no_renorm(model, name):
    renormalizing = [layer.name for layer in _normalizations(model) if _has_renorm(layer)]
    if renormalizing:
        raise ValueError(
            f"`statistics='estimate'` does not support `BatchNormalization(renorm=True)`, which in "
            f"training depends on earlier statistics. Received such layers in `{name}`: "
            f"{renormalizing}. Use 'interpolate'."
        )


def _check_not_compiled(engine):
    """Refuses the engine that cannot estimate statistics."""
    if engine == "compiled":
        raise ValueError(
            f"`statistics='estimate'` needs the `evaluate` engine. Received engine={engine!r}. "
            "Omit it, or use 'interpolate'."
        )


def _coordinates_of_third(models):
    """The third model's coordinates, in units of the distance between the first two."""
    first, second, third = (
        [ops.convert_to_numpy(weight).astype(float) for weight in counterparts(models[0], model)]
        for model in models
    )
    to_second, to_third = (
        [end - start for start, end in zip(first, other, strict=True)] for other in (second, third)
    )

    unit = dot(to_second, to_second)
    alpha = dot(to_second, to_third) / unit if unit else 0.0
    across = dot(to_third, to_third) - alpha**2 * unit
    if unit == 0 or across <= 1e-9 * dot(to_third, to_third):
        raise ValueError("`models` must not lie on one line: they would not span a plane.")
    return [float(alpha), float(np.sqrt(across / unit))]


def _mix(value, others, coordinates):
    return _weighted_sum(_coefficients(coordinates), [value, *others])


def _coefficients(coordinates):
    """The coefficients of all models, with that of the first one in front."""
    rest = 1 - sum(coordinates)
    # Between two other models, the first one has no part: the rest is rounding error.
    return ops.where(abs(rest) < ROUNDING, 0.0, rest), *coordinates


def _weighted_sum(coefficients, values):
    # NaN or inf in one model must not show where its coefficient is 0.
    pairs = zip(coefficients, values, strict=True)
    return sum(ops.where(factor == 0, 0.0, factor * part) for factor, part in pairs)


def _mix_variances(epsilon, value, others, coordinates):
    """Mixes logarithms, so that no variance becomes negative, whatever the coefficients."""
    values, coefficients = [value, *others], _coefficients(coordinates)
    # Models with the coefficient 0 must not matter.
    present = [
        ops.where(factor == 0, np.inf, part)
        for factor, part in zip(coefficients, values, strict=True)
    ]
    lowest = functools.reduce(ops.minimum, present)
    # For a channel that hardly varies, add epsilon, as its layer does.
    offset = epsilon * ops.cast(lowest < epsilon, lowest.dtype)
    is_positive = lowest + offset > 0
    logarithms = [ops.log(ops.where(is_positive, part + offset, 1.0)) for part in values]
    mixed = ops.exp(_weighted_sum(coefficients, logarithms)) - offset
    mixed = ops.maximum(mixed, ops.minimum(lowest, 0.0))
    mixed = ops.where(is_positive, mixed, _weighted_sum(coefficients, values))
    # A logarithm and back would not reproduce the models bit by bit.
    for factor, part in zip(coefficients, values, strict=True):
        mixed = ops.where(factor == 1, part, mixed)
    return mixed


def _epsilons(model):
    """The number that each layer adds to its moving variance or deviation, by that weight's id."""
    pairs = []
    for layer in _normalizations(model):
        pairs.append((layer.moving_variance, layer.epsilon))
        if _has_renorm(layer):
            # Deviations already include it.
            pairs += [(layer.moving_stddev, 0), (layer.renorm_stddev, 0)]
    return {id(weight): epsilon for weight, epsilon in pairs if not weight.trainable}


def _normalizations(model):
    return [
        layer
        for layer in flatten_layers(model)
        if isinstance(layer, layers.BatchNormalization) and layer.built
    ]


def _has_renorm(layer):
    # Keras before 3.14 has no `renorm`.
    return getattr(layer, "renorm", False)


def _estimate_statistics(model, batches, interrupt):
    """Sets moving statistics to means, over batches, of the statistics that training computes."""
    with _BatchStatistics(_updating(model, next(iter(batches)))) as statistics:
        for batch in batches:
            statistics.samples = batch_size_of(batch)
            _call_in_training(model, batch)
            interrupt()
    statistics.assign()


ESTIMATING = {"evaluate": functools.partial(evaluate_engine, adjust=_estimate_statistics)}


def _updating(model, batch):
    """The normalization layers whose statistics training changes; the others keep theirs."""
    with _BatchStatistics([]) as updates:
        _call_in_training(model, batch)
    return [
        layer
        for layer in _normalizations(model)
        if layer.momentum < 1 and updates.get_current_value(layer.moving_mean) is not None
    ]


def _call_in_training(model, batch):
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    model(x, training=True)


class _BatchStatistics(keras.StatelessScope):
    """Collects the statistics of batches, while all variables keep their values.

    A moving statistic that starts at 0 becomes `1 - momentum` times the batch's
    own in a training call. It is then reset to 0, since the layer may be called
    again.

    Args:
        normalizations: List of `BatchNormalization` layers.

    Attributes:
        samples: Number of samples in the next batch, its weight in the mean.
    """

    def __init__(self, normalizations):
        self._gains = {
            id(statistic): (statistic, 1 - layer.momentum)
            for layer in normalizations
            for statistic in (layer.moving_mean, layer.moving_variance)
        }
        self._sums, self._weights = collections.Counter(), collections.Counter()
        self.samples = 1
        zeros = [
            (statistic, ops.zeros(statistic.shape, statistic.dtype))
            for statistic, _ in self._gains.values()
        ]
        super().__init__(zeros)

    def add_update(self, update):
        """Collects the update of a statistic, and resets the statistic to 0."""
        variable, value = update
        if tf.is_symbolic_tensor(value):
            # The traced graph would be cached, without the updates that it should make.
            raise ValueError(
                "`statistics='estimate'` reads the statistics of each batch, which it cannot do "
                f"inside a `tf.function`. Received {variable.path!r} in one. Remove the decorator "
                "from the model's `call`, or use 'interpolate'."
            )
        if id(variable) in self._gains:
            _, gain = self._gains[id(variable)]
            batch = ops.convert_to_numpy(value).astype("float64") / gain
            self._sums[id(variable)] += self.samples * batch
            self._weights[id(variable)] += self.samples
            value = ops.zeros_like(value)
        super().add_update((variable, value))

    def assign(self):
        """Assigns the means; variables that were not updated keep their values."""
        for key, weight in self._weights.items():
            statistic, _ = self._gains[key]
            statistic.assign(self._sums[key] / weight)
