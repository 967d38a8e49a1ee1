"""Monitoring: what training does to the landscape, in the logs of each epoch.

Whatever is measured at a model can be measured while it trains. Training itself takes the
same course, to the last bit.
"""

import keras
import numpy as np

from losslandscape.checks import check_integer, warn
from losslandscape.state import preserved


class LandscapeLogger(keras.callbacks.Callback):
    """Adds what is measured at a model to the logs of `fit`, every few epochs.

    `History`, `CSVLogger`, `TensorBoard`, `EarlyStopping` and other callbacks get the
    numbers like those of metrics, if they come later in the list. Epochs in between have
    NaN, since some callbacks want the same names in all epochs; so has a number that
    cannot be measured, for example because training diverged, which causes a warning.

    Training is bit-identical with and without this. It takes longer by what the measures
    take: an eigenvalue dozens of products with the Hessian, each about as long as two
    epochs on the same data; a line one evaluation per point. A part of the data is often
    enough.

    Args:
        measures: Dict of functions by the names that the numbers get in the logs. Each
            takes the model and returns a float. Those that draw random numbers should
            have a `seed`, so that only the model differs from epoch to epoch.
        every: How many epochs apart. Defaults to 1.

    Raises:
        TypeError: If `measures` is not a dict of functions, or `every` not an integer.
        ValueError: If `measures` is empty, or `every` is less than 1; or, when an epoch
            ends, if the logs already have one of the names.

    Example:

    >>> def largest_eigenvalue(model):
    ...     return hessian_eigenvalues(model, x_train, y_train, seed=0, verbose=0)[0][0]
    >>> def half_width(model):
    ...     return half_widths(evaluate_line(model, x_train, y_train, seed=0, verbose=0))[0]
    >>> measures = {"largest_eigenvalue": largest_eigenvalue, "half_width": half_width}
    >>> logger = LandscapeLogger(measures, every=2)
    >>> history = model.fit(x_train, y_train, epochs=4, callbacks=[logger], verbose=0)
    >>> sharpness = history.history["largest_eigenvalue"]

    Reference:
        [Cohen et al., 2021](https://arxiv.org/abs/2103.00065): in gradient descent with
        the learning rate η, the largest eigenvalue rises to about 2 / η.
    """

    def __init__(self, measures, every=1):
        super().__init__()
        check_integer("every", every, minimum=1)
        if not isinstance(measures, dict) or not all(map(callable, measures.values())):
            raise TypeError(
                f"`measures` must be a dict of functions by name. Received {measures!r}."
            )
        if not measures:
            raise ValueError("`measures` is empty. Pass a function of the model by its name.")
        self.measures = dict(measures)
        self.every = every

    def on_epoch_end(self, epoch, logs=None):
        """Adds the numbers to the logs."""
        logs = {} if logs is None else logs
        taken = sorted(self.measures.keys() & logs.keys())
        if taken:
            raise ValueError(
                f"`measures` must have names that the logs of training do not have. Received "
                f"{taken}, besides {sorted(logs)}."
            )
        is_due = (epoch + 1) % self.every == 0
        for name, measure in self.measures.items():
            logs[name] = self._number(name, measure) if is_due else np.nan

    def _number(self, name, measure):
        with preserved(self.model):
            # Hours of training must not end here.
            try:
                return float(measure(self.model))
            except Exception as error:
                warn(f"Could not measure {name!r}: {type(error).__name__}: {error}")
                return np.nan
