"""Progress: how far a call has come, as a bar on the screen or as plain lines in a file."""

import sys
import time

import keras

from losslandscape.checks import check_choice

# Seconds between two lines of progress in a file.
PLAIN_INTERVAL = 30
# In fewer seconds than this, nothing was measured, only looked up.
NO_TIME = 0.5


def check_verbose(verbose):
    """Refuses what Keras would not accept as `verbose`."""
    check_choice("verbose", verbose, ("auto", 0, 1, 2))


def announce(text, verbose):
    """Says what is being prepared, in the place of the bar to come."""
    if verbose in ("auto", 1) and _is_interactive():
        print(f"{text} …", end="\r", flush=True)


def tracked(items, verbose, unit):
    """Yields items, and counts them as they are done.

    Args:
        items: A sequence.
        verbose: As in `evaluate_lines`.
        unit: The name of what is counted.

    Yields:
        Each of the items.
    """
    progress = Progress(len(items), verbose, unit=unit)
    try:
        for item in items:
            yield item
            progress.advance(1)
    finally:
        progress.finish()


class Progress:
    """A Keras progress bar that shows the last value of one metric.

    Written to a file, it is a plain line twice a minute.

    Args:
        number: How many units there are. `None` if nobody knows.
        verbose: As in `evaluate_lines`.
        metric: The name of the values that are shown. Defaults to `None`, none.
        unit: The name of what is counted. Defaults to `"point"`.
    """

    def __init__(self, number, verbose, metric=None, unit="point"):
        self._is_plain = verbose == "auto" and not _is_interactive()
        self._bar = keras.utils.Progbar(
            number,
            verbose=2 if self._is_plain else 1 if verbose == "auto" else verbose,
            stateful_metrics=[metric],
            unit_name=unit,
        )
        self._number, self._metric = number, metric
        self._done, self._shown = 0, time.monotonic()

    def advance(self, number, value=None):
        """Counts units, and shows the metric's value at the last one."""
        is_first, now = self._done == 0, time.monotonic()
        self._done += number
        is_last = self._done == self._number
        if is_first and not is_last and now - self._shown < NO_TIME:
            # The center is known, and would promise an end in 0 seconds.
            return
        if self._is_plain:
            if not is_last and now - self._shown < PLAIN_INTERVAL:
                return
            self._shown = now
        self._show(value, finalize=self._is_plain or None)

    def finish(self):
        """Ends the line of the bar, unless all units were counted and it has ended."""
        if 0 < self._done != self._number:
            self._bar.target = self._number or self._done
            self._show(None, finalize=True)

    def _show(self, value, finalize):
        if self._is_plain and self._bar.target is None:
            # Keras writes no lines if it does not know where the count ends.
            print(f"{self._done} {self._bar.unit_name}s", flush=True)
        values = [] if value is None else [(self._metric, value)]
        self._bar.update(self._done, values, finalize=finalize)


def _is_interactive():
    """Whether there is a terminal or notebook, in which a bar can move."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules
