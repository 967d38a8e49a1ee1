"""Interpolation: the line through two models, and the plane through three.

Models of one architecture are mixed: each weight is a sum of theirs with shares
that add up to 1. On the way the moving statistics of `BatchNormalization`, which
belong to one model's weights, have to change with them: frozen ones would make a
barrier of any path.
"""

import contextlib

import keras
import numpy as np
from keras import layers, ops

from losslandscape.checkpoints import Checkpoint
from losslandscape.checks import check_choice, check_same_weights
from losslandscape.datasets import one_dataset, read_datasets, split_datasets
from losslandscape.engines import as_arrays, evaluator
from losslandscape.evaluation import (
    check_evaluation,
    coarse_to_fine,
    collect,
    coordinates,
    describe,
    grid_points,
    per_axis,
    surface_assembler,
)
from losslandscape.interrupts import patient_interrupts
from losslandscape.state import evaluated
from losslandscape.surfaces import LossLine, LossSurface

STATISTICS = ("interpolate", "estimate")


def evaluate_interpolation(
    model,
    other,
    datasets,
    number_of_points=41,
    *,
    extent=(-0.5, 1.5),
    statistics="interpolate",
    metric="loss",
    batch_size=None,
    checkpoint=None,
    verbose="auto",
):
    """Measures the loss on the line from one model to another.

    Args:
        model: A compiled and built `keras.Model`, at coordinate 0. It is left
            as it was.
        other: A model of the same architecture, at coordinate 1; it need not be
            compiled.
        datasets: One dataset or several; see `evaluate_lines`.
        number_of_points: Points along the line, at least 2. Defaults to 41,
            which has both models among them.
        extent: First and last coordinate. Defaults to `(-0.5, 1.5)`, half the
            distance beyond either model.
        statistics: What becomes of the moving statistics of normalization
            layers. `"interpolate"` (the default) mixes them like the weights,
            variances by their logarithms, since a straight line would go below
            0 beyond the models; the ends are then exactly the models.
            `"estimate"` takes them anew at each point from the first dataset,
            as training would, so that the ends are the models with such
            statistics.
        metric: The metric that the progress bar shows. Defaults to `"loss"`.
        batch_size: Samples per batch, for arrays; see `evaluate_lines`.
        checkpoint: As in `evaluate_lines`.
        verbose: As in `evaluate_lines`.

    Returns:
        A list with one `LossLine` per dataset, with one row each. `center` is
        at coordinate 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a value that cannot be used, or the
            models differ in their weights; before any point is computed.

    Example:

    >>> (line,) = evaluate_interpolation(small_batch, large_batch, (x_test, y_test))

    Reference:
        [Goodfellow et al., 2015](https://arxiv.org/abs/1412.6544).
    """
    models = [model, other]
    _check(models, statistics, verbose)
    alphas = coordinates(number_of_points, extent)
    saved = Checkpoint(checkpoint, LossLine, len(split_datasets(datasets)))
    data = read_datasets(model, datasets, batch_size)
    origin = _origin(models, statistics) | {"positions": [0, 1]}
    metadata = [describe(model, dataset, origin) for dataset in data]

    def assemble(index, walk, center):
        values = {name: array[np.newaxis] for name, array in walk.items()}
        return LossLine(alphas, values, center, metadata[index])

    shares = np.stack([1 - alphas, alphas], axis=1)
    options = {"statistics": statistics, "metric": metric, "verbose": verbose}
    return _measure_mixtures(models, data, shares, assemble, saved, **options)


def evaluate_plane(
    models,
    x,
    y=None,
    number_of_points=21,
    *,
    extent=(-0.5, 1.5),
    statistics="interpolate",
    metric="loss",
    batch_size=None,
    checkpoint=None,
    verbose="auto",
):
    """Measures the loss on the plane through three models.

    The axes are at right angles and have one unit, the distance from the first
    model to the second, so that the picture is true to lengths and angles. The
    first model is at (0, 0), the second at (1, 0); where the third is, the
    metadata tell under `"models"`.

    Args:
        models: List of three models of the same architecture, the first of
            which is compiled. They are left as they were.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis; see `evaluate_surface`. Defaults to 21.
        extent: First and last coordinate on both axes, or a pair of such pairs.
            Defaults to `(-0.5, 1.5)`.
        statistics: As in `evaluate_interpolation`.
        metric: As in `evaluate_interpolation`.
        batch_size: As in `evaluate_lines`.
        checkpoint: As in `evaluate_lines`.
        verbose: As in `evaluate_lines`.

    Returns:
        A `LossSurface`. `center` is at (0, 0), the first model.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a value that cannot be used, or the three
            models lie on one line.

    Reference:
        [Garipov et al., 2018](https://arxiv.org/abs/1802.10026), section 3.
    """
    if not isinstance(models, (list, tuple)) or len(models) != 3:
        raise ValueError(f"`models` must be a list of three models. Received {models!r}.")
    _check(models, statistics, verbose)
    axes = zip(*per_axis(number_of_points, extent), strict=True)
    alphas, betas = (coordinates(number, ends) for number, ends in axes)
    third = _coordinates_of_third(models)
    saved = Checkpoint(checkpoint, LossSurface)
    data = read_datasets(models[0], [one_dataset(x, y)], batch_size)
    grid = grid_points(alphas, betas)
    of_third = grid[:, 1] / third[1]
    of_second = grid[:, 0] - of_third * third[0]
    shares = np.stack([1 - of_second - of_third, of_second, of_third], axis=1)
    positions = {"positions": [[0.0, 0.0], [1.0, 0.0], third]}
    metadata = describe(models[0], data[0], _origin(models, statistics) | positions)
    assemble = surface_assembler(alphas, betas, metadata)
    options = {"statistics": statistics, "metric": metric, "verbose": verbose}
    order = coarse_to_fine(len(betas), len(alphas))
    return _measure_mixtures(models, data, shares, assemble, saved, order=order, **options)[0]


def _check(models, statistics, verbose):
    check_evaluation(models[0], "auto", None, verbose)
    check_choice("statistics", statistics, STATISTICS)
    for other in models[1:]:
        check_same_weights(models[0], other)


def _origin(models, statistics):
    names = [model.name for model in models]
    return {"directions": "between models", "models": names, "statistics": statistics}


def _coordinates_of_third(models):
    """Where the third model is, in units of the distance of the first two."""
    first, second, third = (
        [ops.convert_to_numpy(weight).astype(float) for weight in model.trainable_variables]
        for model in models
    )
    to_second, to_third = (
        [end - start for start, end in zip(first, other, strict=True)] for other in (second, third)
    )

    def product(one, other):
        return sum(np.vdot(a, b) for a, b in zip(one, other, strict=True))

    unit = product(to_second, to_second)
    alpha = product(to_second, to_third) / unit if unit else 0.0
    across = product(to_third, to_third) - alpha**2 * unit
    if unit == 0 or across <= 1e-9 * product(to_third, to_third):
        raise ValueError("`models` must not lie on one line, or there is no plane through them.")
    return [float(alpha), float(np.sqrt(across / unit))]


def _measure_mixtures(
    models, data, shares, assemble, saved, *, statistics, metric, verbose, order=None
):
    """Measures every dataset at every mixture, and at the first model."""
    model = models[0]
    others = [other.weights for other in models[1:]]
    saved.identify(model, data, models=others, coordinates=shares, statistics=statistics)
    place = _mixer(models)
    with patient_interrupts() as interrupt, evaluated(model) as state:
        evaluate = evaluator(model, interrupt)

        def measure_at(mixture):
            state.restore()
            place(mixture)
            if statistics == "estimate":
                _estimate_statistics(model, data[0].batches)
            return [evaluate(dataset) for dataset in data]

        def measure(missing):
            for position in missing:
                yield [position], as_arrays(measure_at(shares[position]))

        # The first model is the first mixture.
        centers = measure_at(np.eye(len(models))[0])
        options = {"metric": metric, "verbose": verbose, "order": order}
        return collect(measure, len(shares), centers, assemble, saved, **options)


def _mixer(models):
    """A function that gives the first model the weights of a mixture of all."""
    weights = [weight for weight in models[0].weights if keras.backend.is_float_dtype(weight.dtype)]
    parts = zip(*(model.weights for model in models), strict=True)
    values = {
        id(first): [ops.convert_to_numpy(part).astype("float64") for part in (first, *others)]
        for first, *others in parts
    }

    def place(shares):
        for weight in weights:
            mix = _mix_variances if "variance" in weight.name else _mix
            weight.assign(mix(values[id(weight)], shares))

    return place


def _mix(values, shares):
    return sum(share * value for share, value in zip(shares, values, strict=True))


def _mix_variances(values, shares):
    # The smallest normal number, for a channel that is always the same.
    tiny = np.finfo("float32").tiny
    return np.exp(_mix([np.log(np.maximum(value, tiny)) for value in values], shares))


def _estimate_statistics(model, batches):
    """Gives normalization layers the mean over batches of what they see in training."""
    normalizations = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, layers.BatchNormalization) and layer.trainable
    ]
    with contextlib.ExitStack() as stack:
        for layer in normalizations:
            stack.callback(setattr, layer, "momentum", layer.momentum)
        for index, (x, *_) in enumerate(batches):
            for layer in normalizations:
                # The mean of all batches so far, instead of one that forgets the first ones.
                layer.momentum = index / (index + 1)
            model(x, training=True)
