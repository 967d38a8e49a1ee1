"""Stacks: measures many points in one call on Torch, where that is faster.

Most of the time that a small network takes on Torch goes into calling its layers, loss and
metrics one after the other. `torch.vmap` calls them once for a whole stack of points. It cannot
call everything, convolutions for example, and it would miss weights that only a module of Torch
knows, so the first stack is a trial.
"""

import time
import warnings

from losslandscape.checks import import_extra

# The most points in a stack; longer ones gain little.
LONGEST = 32
# The most weights in a stack: with more of them, time goes into computing, not into calls.
MOST_WEIGHTS = 2**22
# The fewest points for which a trial pays off.
MINIMUM = 16
# The largest relative difference between a point in a stack and the same point alone.
TOLERANCE = 1e-5


def stacked(measure_at, measure_beside, size):
    """Lets stacks of points take over, if a trial shows that they are faster and the same.

    Args:
        measure_at: A function of a point, an array of coordinates, and of anything else. It
            returns an array of what was measured there.
        measure_beside: The same without changing the model, which may not work for this one.
        size: The number of points in a stack.

    Returns:
        A function of an array of points, and of anything else, that returns an array with
        one row per point.
    """
    torch = import_extra("torch", "torch")
    is_better = False if size < 2 else None

    def measure(points, *others):
        nonlocal is_better

        def one(point):
            return measure_at(point, *others)

        # By default, it refuses random numbers, which would be others than in `evaluate`.
        stack = torch.vmap(lambda point: measure_beside(point, *others))

        def many(points):
            with warnings.catch_warnings():
                # Torch warns of whatever it can only do one by one.
                warnings.simplefilter("ignore")
                return stack(points)

        if is_better is None and len(points) >= MINIMUM:
            is_better = _is_better(many, one, points[:size])
        if is_better:
            return torch.cat([many(part) for part in points.split(size)])
        return torch.stack([one(point) for point in points])

    return measure


def _is_better(many, one, points):
    """Whether a stack takes less time than its points one by one, with the same values."""
    farthest = points.norm(dim=1).argmax()
    started = time.perf_counter()
    try:
        # On a GPU, only reading a value waits for it.
        found = many(points)[farthest].cpu()
    except Exception:
        # Whatever the model does that is impossible in a stack.
        return False
    between = time.perf_counter()
    expected = one(points[farthest]).cpu()
    is_faster = (between - started) / len(points) < time.perf_counter() - between
    return is_faster and found.allclose(expected, rtol=TOLERANCE, atol=0, equal_nan=True)
