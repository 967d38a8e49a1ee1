"""Centers: what is measured at a model's own weights, and whether it is the same later.

A center is measured when a call begins and ends, in each of its workers, and when it resumes.
If it is not the same, another model or another function was measured in between.
"""

import numpy as np

from losslandscape.basics.internals import flatten_layers

# How far two values may be apart, relative to the first. In one process, and in workers that run
# the same engine, they are the same bits but for sums whose parts come in any order.
AT_ONCE = 1e-5
# A call may resume on another machine, engine or backend, which add up in another order.
RESUMED = 1e-3
# In half precision, sums in another order differ by this much.
HALF = 1e-2


def measure_center(measure, directions):
    """Measures the center; returns a list with a dict of floats per dataset."""
    ((_, chunk),) = measure(directions, np.zeros((1, len(directions))))
    return [{name: float(values[0]) for name, values in results.items()} for results in chunk]


def tolerance_of(model, tolerance):
    """Returns a tolerance, or a larger one if the model computes in half precision."""
    types = {layer.compute_dtype for layer in flatten_layers(model)}
    return tolerance if types <= {"float32", "float64"} else max(tolerance, HALF)


def difference(expected, found, tolerance, names=None):
    """Finds the first value that is not the same.

    Args:
        expected: List with a dict of floats per dataset.
        found: The same, measured at another time or place.
        tolerance: The largest relative difference.
        names: Names of the values to compare. Defaults to `None`, all that are expected.

    Returns:
        The index of the dataset, the name of the value, what was expected and what was found,
        which is NaN if it is missing; or `None` if all are the same.
    """
    for index, (here, there) in enumerate(zip(expected, found, strict=True)):
        # Errors have keys that are no strings. Where samples are alike, they are mere rounding.
        values = [name for name in here if isinstance(name, str)]
        for name in values if names is None else [name for name in names if name in values]:
            first, second = here[name], there.get(name, np.nan)
            if not np.isclose(second, first, rtol=tolerance, atol=0, equal_nan=True):
                return index, name, first, second
    return None
