"""Sampling: how far the measured values would move if other samples had been drawn.

All samples are measured in batches anyway, and the spread between batches tells how exactly
they give the mean over all samples there might have been. Batches are blocks of samples for
this purpose; what is reported after each of them is enough to know the mean over each block.
"""

import dataclasses
import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from losslandscape.backends.current import current
from losslandscape.backends.structures import map_arrays
from losslandscape.basics.internals import flatten_layers

# An error estimated from B blocks is itself uncertain by 1 / √(2(B - 1)): a sixth, a quarter.
BLOCKS, FEWEST = 20, 10
# How closely, relative to its size, a value of several batches must be the mean of those of each.
TOLERANCE = 1e-4
# How closely the last of the running values must be what is reported in the end.
ROUNDING = 1e-5
SEED = 0


class ErrorOf(NamedTuple):
    """The key of an error beside the values that it belongs to, whose names are any strings."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """The batches of a dataset as blocks of samples.

    Attributes:
        weights: Dict of arrays: how much each block counts in a mean, by what Keras may weigh it
            by. Losses and most metrics go by the number of `"samples"`, weighted metrics by the
            sum of `"sample weights"`, if there are any, and the losses of single outputs by
            `"batches"`, which all count the same.
        is_shuffled: Whether the samples are in random order. Defaults to `False`.
        means: Dict by the names of those values that are means over samples, of the key in
            `weights`. Only these have errors. Defaults to `None`, not known yet.
    """

    weights: dict
    is_shuffled: bool = False
    means: dict | None = None

    @classmethod
    def of(cls, dataset, **options):
        """Takes the batches of a `Dataset` as blocks."""
        weights = {"samples": dataset.sizes, "batches": np.ones(len(dataset.sizes))}
        given = keras.utils.unpack_x_y_sample_weight(dataset.batches.element_spec)[2]
        if isinstance(given, tf.TensorSpec):
            parts = map(keras.utils.unpack_x_y_sample_weight, dataset.once())
            weights["sample weights"] = np.array([np.sum(part) for _, _, part in parts])
        return cls(weights, **options)

    @property
    def number(self):
        """How many blocks there are."""
        return len(self.weights["samples"])


def in_blocks(model, dataset, batch_size, *, are_arrays):
    """Returns a dataset whose batches are fit to be blocks.

    Args:
        model: The `keras.Model` that will be measured.
        dataset: A `Dataset`.
        batch_size: The caller's choice for arrays, or `None`.
        are_arrays: Whether it was given as arrays. Their samples may come in any order, such as
            sorted by class, so they are shuffled, unless the model remembers earlier ones.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If there are too few samples or batches.
    """
    name, size = dataset.name, dataset.size
    if size < BLOCKS:
        raise ValueError(
            f"`{name}` must have at least {BLOCKS} samples to tell how much their choice matters. "
            f"Received {size}. Pass more, or leave out `sampling_error`."
        )
    has_memory = any(getattr(layer, "stateful", False) for layer in flatten_layers(model))
    is_shuffled = are_arrays and dataset.tensors is not None and not has_memory
    if is_shuffled:
        order = np.random.default_rng(SEED).permutation(size)
        tensors = map_arrays(lambda tensor: tf.gather(tensor, order), dataset.tensors)
        dataset = dataclasses.replace(dataset, tensors=tensors)
    if is_shuffled and batch_size is None:
        dataset = _in_small_batches(dataset)
    sizes = dataset.sizes
    if len(sizes) < FEWEST:
        most = math.ceil(size / BLOCKS)
        way = f"pass `batch_size={most}`" if are_arrays else f"batch it by {most} samples"
        raise ValueError(
            f"`{name}` must have at least {FEWEST} batches, whose spread tells how much the choice "
            f"of samples matters. Received {len(sizes)}, of up to {max(sizes)} samples: {way}, or "
            "leave out `sampling_error`."
        )
    return dataclasses.replace(dataset, blocks=Blocks.of(dataset, is_shuffled=is_shuffled))


def in_blocks_like(few, dataset):
    """Returns a few samples of a dataset in blocks, of which the same values are means."""
    if few is dataset:
        return dataset
    few, blocks = _in_small_batches(few), dataset.blocks
    blocks = Blocks.of(few, is_shuffled=blocks.is_shuffled, means=blocks.means)
    return dataclasses.replace(few, blocks=blocks)


def _in_small_batches(dataset):
    # Each device of a distribution gets as much of a batch.
    divisor = current().parts_of_batch()
    most = math.ceil(dataset.size / BLOCKS / divisor) * divisor
    return dataclasses.replace(dataset, batch_size=min(dataset.batch_size, most))


def means_among(parts, whole, weights):
    """Finds the values that are means over samples.

    Args:
        parts: List of dicts of arrays by name: what is measured on each of some batches.
        whole: The same on all of these together, with its errors.
        weights: Those of `Blocks`.

    Returns:
        Dict by name of the first key in `weights` that makes it a mean.
    """
    values, errors = split(whole)
    found = {}
    for name, value in values.items():
        columns = np.array([part[name] for part in parts])
        allowed = TOLERANCE * np.max(np.abs(columns), axis=0)
        if name == "data_loss" and "loss" in values:
            # It is a difference, of which rounding may leave little.
            allowed += ROUNDING * np.abs(values["loss"])
        for key, shares in weights.items():
            with np.errstate(invalid="ignore"):
                distances = np.abs(np.average(columns, axis=0, weights=shares) - value)
            # Where a test step reports each batch alone, there is no error.
            is_mean = (distances <= allowed) & np.isfinite(errors[name])
            if (is_mean | ~np.isfinite(distances)).all():
                found.setdefault(name, key)
    return found


def errors_of(blocks, running):
    """Returns the standard errors of means over samples.

    Args:
        blocks: `Blocks`, or `None` if no errors are wanted.
        running: Dict of arrays by name, whose last axis are the values of all samples so far,
            after each block.

    Returns:
        Dict of arrays without this axis, by `ErrorOf` the name.
    """
    if blocks is None:
        return {}
    means = dict.fromkeys(running, "samples") if blocks.means is None else blocks.means
    return {
        ErrorOf(name): _standard_error(blocks.weights[key], running[name])
        for name, key in means.items()
    }


def _standard_error(weights, running):
    shares = weights / weights.sum()
    with np.errstate(invalid="ignore", over="ignore"):
        # What a block adds is a small part of the sum, so the sums are rounded no further. That the
        # model rounds them to single precision adds a tenth at worst, for tens of thousands of
        # blocks whose samples differ by a hundredth.
        sums = np.diff(np.cumsum(shares) * running, prepend=0)
        deviations = sums - shares * running[..., -1:]
        # For B equal blocks the divisor is the familiar 1 - 1/B.
        return np.sqrt(np.sum(deviations**2, axis=-1) / (1 - np.sum(shares**2)))


def errors_of_rows(blocks, rows, final):
    """Returns the standard errors at one point, as `errors_of` does.

    Args:
        blocks: `Blocks`, or `None` if no errors are wanted.
        rows: List of dicts of floats by name, as they were reported after each batch.
        final: The dict that was reported in the end. Where it is not the last row, that was no
            running value (a test step may report each batch alone), and the error is NaN.
    """
    if blocks is None:
        return {}
    running = {}
    for name in final if blocks.means is None else blocks.means:
        column = np.array([row.get(name, np.nan) for row in rows])
        # A model with an `evaluate` of its own need not report all batches.
        is_whole = len(column) == blocks.number and np.isclose(column[-1], final[name], ROUNDING, 0)
        running[name] = column if is_whole else np.full(blocks.number, np.nan)
    return errors_of(blocks, running)


def split(measured):
    """Splits a dict of measured values into those of the metrics and, by name, their errors."""
    values = {key: each for key, each in measured.items() if not isinstance(key, ErrorOf)}
    errors = {key.name: each for key, each in measured.items() if isinstance(key, ErrorOf)}
    return values, errors


def joined(values, errors):
    """Undoes `split`."""
    return values | {ErrorOf(name): each for name, each in errors.items()}
