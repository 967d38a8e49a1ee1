"""Gradients: the directions in which the loss rises fastest, and farthest.

Random directions nearly always miss these. "Fastest" depends on how the lengths of directions are
measured: here, in the units of random directions with the same normalization.
"""

__all__ = ["gradient_direction", "worst_direction"]

from typing import Literal

import keras
import numpy as np

from losslandscape.backends.current import check_differentiates
from losslandscape.basics.arrays import dot, times
from losslandscape.basics.checks import (
    check_compiled,
    check_integer,
    check_not_quantized,
    check_number,
)
from losslandscape.basics.claims import claiming
from losslandscape.basics.types import Data, Direction, Ignore, Normalize, Verbose
from losslandscape.curvature.derivatives import (
    check_derivatives,
    check_loss,
    differentiator,
    mean_derivative,
    reported_loss,
)
from losslandscape.directions import resolve_seed, scales
from losslandscape.measuring.datasets import one_dataset, read_dataset
from losslandscape.measuring.progress import Status, tracked
from losslandscape.measuring.state import evaluated


@claiming
def gradient_direction(
    model: keras.Model,
    x: Data,
    y: Data = None,
    *,
    normalize: Normalize = "filter",
    ignore: Ignore | Literal["auto"] = "auto",
    batch_size: int | None = None,
) -> Direction:
    """Computes the direction in which the loss of a model rises fastest.

    The direction is `d = √N · T²g / ‖Tg‖`, with the gradient g of the mean loss over
    all data, the diagonal matrix T of the scales of random directions, and the number
    N of entries that move. Random directions of the same normalization have
    `‖T⁻¹d‖ = √N`; of all directions with this length, the loss rises fastest along d.
    The same coordinate is therefore equally far away along d and along random
    directions, and both can be drawn on the same axes.

    With `"filter"` the n entries of a filter have the scale `‖θ_f‖ / √n`, with
    `"layer"` those of a weight array, and with `"weight"` each has `|θ|`, which is
    how adaptive sharpness-aware minimization (ASAM) perturbs the weights. With
    `None` all scales are 1, and d points along the gradient itself, where
    sharpness-aware minimization (SAM) looks for the worst loss. The perturbation of
    either method, `ρ · T²g / ‖Tg‖` with a radius ρ, lies at the coordinate `ρ / √N`.

    Example:

    >>> steepest = gradient_direction(model, x_train, y_train)
    >>> random, worst = (
    ...     evaluate_line(model, x_train, y_train, directions=directions, extent=(-0.2, 0.2))
    ...     for directions in (random_directions(model, 10, seed=0), [steepest])
    ... )
    >>> plot_line([random, worst], labels=("random", "steepest"))

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        normalize: What the length of a step is relative to, as in `random_directions`:
            the norm of each `"filter"` (the default) or `"layer"`, each `"weight"`, or
            nothing (`None`).
        ignore: What does not move, as in `random_directions`. `"auto"` (the default)
            is `"biasbn"`, or `None` with `normalize=None`.
        batch_size: Samples per batch, for arrays; it affects only memory and
            speed. `None` (the default) chooses one.

    Returns:
        A direction: a list of float32 arrays with the shapes of
        `model.trainable_variables`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, the gradient is 0 or not
            finite, or for any of the reasons that `Hessian` lists: derivatives are
            checked in the same way.

    Reference:
        [Foret et al., 2021](https://arxiv.org/abs/2010.01412), equation 2;
        [Kwon et al., 2021](https://arxiv.org/abs/2102.11600), section 3.
    """
    data, units = _prepared(model, (x, y), normalize, ignore, batch_size)
    with evaluated(model) as state:
        _, gradient = _differentiator(state, data)()
    direction = _steepest(units, gradient)
    if direction is None:
        raise ValueError(
            "The gradient of `model` is 0 in the weights that move, so the loss rises fastest in "
            "no direction. Use `worst_direction`."
        )
    return direction


@claiming
def worst_direction(
    model: keras.Model,
    x: Data,
    y: Data = None,
    radius: float = 0.1,
    steps: int = 10,
    *,
    normalize: Normalize = "filter",
    ignore: Ignore | Literal["auto"] = "auto",
    seed: int | None = None,
    batch_size: int | None = None,
    verbose: Verbose = "auto",
) -> Direction:
    """Searches for the direction in which the loss is highest at a given distance.

    Close to a minimum the gradient says little about the loss farther away. The search
    starts along `gradient_direction`, or a random direction where the gradient is 0, and
    repeats `d ← √N · T²g / ‖Tg‖` with the gradient g at the coordinate `radius` along
    d. At the minimum of a quadratic loss this is the power method: it ends along the
    largest eigenvalue λ of THT, where the loss rises most, by `N · radius² · λ / 2`.

    Example:

    >>> worst = worst_direction(model, x_train, y_train, 0.2, seed=0)
    >>> gradient = gradient_direction(model, x_train, y_train)
    >>> lines = [
    ...     evaluate_line(model, x_train, y_train, directions=directions, extent=(-0.2, 0.2))
    ...     for directions in (random_directions(model, 10, seed=0), [gradient], [worst])
    ... ]
    >>> plot_line(lines, labels=("random", "gradient", "worst"), scale="log")

    Args:
        model: As in `gradient_direction`.
        x: As in `gradient_direction`.
        y: Targets. Defaults to `None`.
        radius: The coordinate along the direction at which the loss is to be highest,
            greater than 0. Defaults to 0.1; at 1, a filter-normalized direction is as
            long as the weights themselves.
        steps: How many directions to try, at least 1. Each takes about as long as a
            product with the Hessian. Defaults to 10.
        normalize: As in `gradient_direction`.
        ignore: As in `gradient_direction`.
        seed: Integer seed for the random direction. `None` (the default) draws one
            from NumPy's global random state.
        batch_size: As in `gradient_direction`.
        verbose: As in `evaluate_lines`; the bar counts the steps.

    Returns:
        A direction, in the form that `gradient_direction` returns: the one with the
        highest loss of all that were tried. There may be even worse ones.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, the gradient is not finite, or
            for any of the reasons that `Hessian` lists.

    Reference:
        [Foret et al., 2021](https://arxiv.org/abs/2010.01412) and
        [Kwon et al., 2021](https://arxiv.org/abs/2102.11600), who take one step.
    """
    check_number("radius", radius, above=0, below=np.inf)
    check_integer("steps", steps, minimum=1)
    status = Status(verbose)
    generator = np.random.default_rng(resolve_seed(seed))
    data, units = _prepared(model, (x, y), normalize, ignore, batch_size)
    status.announce("Preparing gradients")
    found = []
    with evaluated(model) as state:
        differentiate = _differentiator(state, data)
        centers = [weight.numpy() for weight in model.trainable_variables]
        _, gradient = differentiate()
        for _ in tracked(range(steps), status, "step"):
            direction = _steepest(units, gradient)
            if direction is None:
                noise = [generator.normal(size=scale.shape) for scale in units]
                direction = _steepest(units, noise)
            _move(model, centers, direction, radius)
            loss, gradient = differentiate()
            found.append((loss, direction))
            if not np.isfinite(loss):
                # No loss is worse.
                return direction
            if not _are_finite(loss, gradient):
                # There is no way on from here.
                break
    return max(found, key=lambda pair: pair[0])[1]


def _prepared(model, dataset, normalize, ignore, batch_size):
    """The data in batches, and the scale of each entry of a random direction."""
    check_compiled(model)
    check_not_quantized(model)
    check_differentiates("A gradient")
    units = scales(model, normalize, ignore)
    return read_dataset(model, one_dataset(*dataset), batch_size), units


def _differentiator(state, data):
    """Makes the function that returns the loss on all data and its gradient; checks both first."""
    model = state.model
    differentiate, batches = differentiator(model, data)
    zeros = [np.zeros(weight.shape) for weight in model.trainable_variables]

    def loss_and_gradient():
        return mean_derivative(state, differentiate, batches, zeros, "gradient")

    reported = reported_loss(model, data)
    check_derivatives(state, differentiate, next(iter(batches)))
    loss, gradient = loss_and_gradient()
    if not _are_finite(loss, gradient):
        raise ValueError(
            "The loss or its gradient is not finite at the weights of `model`. Check the loss with "
            "`model.evaluate`; half precision overflows above 65504."
        )
    check_loss(model, loss, reported)
    return loss_and_gradient


def _are_finite(loss, gradient):
    return np.isfinite(loss) and all(np.isfinite(part).all() for part in gradient)


def _steepest(units, gradient):
    """The direction `√N · T²g / ‖Tg‖`, or `None` where the gradient is 0."""
    scaled = times(units, gradient)
    length = np.sqrt(dot(scaled, scaled))
    if length == 0:
        return None
    factor = np.sqrt(sum(map(np.count_nonzero, units))) / length
    return [(factor * part).astype(np.float32) for part in times(units, scaled)]


def _move(model, centers, direction, coordinate):
    for weight, center, step in zip(model.trainable_variables, centers, direction, strict=True):
        weight.assign(center + coordinate * step)
