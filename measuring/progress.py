"""Progress: how far a call has come, as a bar on the screen or as plain lines in a file.

What cannot be shown is not shown: a full disk, a terminal that was closed or a program
without any standard output costs no numbers.
"""

import contextlib
import importlib
import io
import sys
import time

import keras

from losslandscape.basics.checks import check_choice

# Seconds between two lines of progress in a file.
PLAIN_INTERVAL = 30
# In fewer seconds than this, nothing was measured, only looked up.
NO_TIME = 0.5


def check_verbose(verbose):
    """Refuses what Keras would not accept as `verbose`."""
    check_choice("verbose", verbose, ("auto", 0, 1, 2))


class Status:
    """The line in which one call shows how far it has come.

    In a notebook it is one output, which changes in place: whatever is printed may be
    kept as an output of its own, hundreds of them, where no browser runs the notebook.

    Args:
        verbose: How much to show: `"auto"`, 0, 1 or 2; see `Measuring`.
    """

    def __init__(self, verbose):
        check_verbose(verbose)
        self.verbose, self._output = verbose, None

    @property
    def is_plain(self):
        """Whether it is written to a file, and cannot change."""
        return self.verbose == "auto" and not _is_interactive()

    @property
    def changes(self):
        """Whether it changes as the call goes on."""
        return self.verbose in ("auto", 1) and _is_interactive()

    def announce(self, text):
        """Says that something happens while a graph is made, where the bar will stand."""
        self._say(f"{text} …", end="\r")

    def conclude(self, text):
        """Says, in place of what was announced, that there is nothing to wait for."""
        # As wide as anything announced.
        self._say(f"{text:<40}", end="\n")

    def _say(self, text, end):
        if self.changes:
            with _at_best(), self.printing():
                print(text, end=end, flush=True)

    @contextlib.contextmanager
    def printing(self):
        """Puts what is printed in a `with` block into the line."""
        if not (self.changes and _is_cell()):
            yield
            return
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            yield
        # Keras goes back to the start of the line to draw the bar anew.
        text = printed.getvalue().replace("\b", "").strip("\r\n").rpartition("\r")[2]
        if text:
            self._display({"text/plain": text})
        if printed.getvalue().endswith("\n"):
            self._output = None

    def _display(self, content):
        if self._output is not None:
            self._output.update(content, raw=True)
            return
        display = importlib.import_module("IPython.display").display
        self._output = display(content, raw=True, display_id=True)


def tracked(items, status, unit):
    """Yields items, and counts them as they are done.

    Args:
        items: A sequence.
        status: A `Status`.
        unit: The name of what is counted.

    Yields:
        Each of the items.
    """
    progress = Progress(len(items), status, unit=unit)
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
        status: The `Status` in which it is shown.
        metric: The name of the values that are shown. Defaults to `None`, none.
        unit: The name of what is counted. Defaults to `"point"`.
    """

    def __init__(self, number, status, metric=None, unit="point"):
        self._status, self._is_plain = status, status.is_plain
        self._bar = None
        with _at_best():
            self._bar = keras.utils.Progbar(
                number,
                verbose=2 if status.is_plain else 1 if status.verbose == "auto" else status.verbose,
                stateful_metrics=[metric],
                unit_name=unit,
            )
        self._number, self._metric = number, metric
        self._done, self._shown = 0, time.monotonic()
        self._has_ended = False

    def leave_out(self, number):
        """Counts fewer units, since some turn out not to be needed."""
        self._number -= number
        if self._bar is not None:
            self._bar.target = self._number

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
        if self._number == 0:
            self._status.conclude("Nothing is left to do")
        if self._done and not self._has_ended and self._bar is not None:
            self._bar.target = self._number or self._done
            self._show(None, finalize=True)

    def _show(self, value, finalize):
        values = [] if value is None else [(self._metric, value)]
        self._has_ended = self._done == self._number
        with _at_best(), self._status.printing():
            if self._is_plain and self._bar.target is None:
                # Keras writes no lines if it does not know where the count ends.
                print(f"{self._done} {self._bar.unit_name}s", flush=True)
            self._bar.update(self._done, values, finalize=finalize)


def _at_best():
    """Lets what is printed in a `with` block fail: streams that users replaced raise anything."""
    return contextlib.suppress(Exception)


def _is_interactive():
    """Whether there is a terminal or notebook, in which a bar can move."""
    if "ipykernel" in sys.modules:
        return True
    with _at_best():
        return sys.stdout.isatty()
    return False


def _is_cell():
    """Whether what is printed goes to a cell of a notebook, and not, for example, to a string."""
    streams = sys.modules.get("ipykernel.iostream")
    return streams is not None and isinstance(sys.stdout, streams.OutStream)
