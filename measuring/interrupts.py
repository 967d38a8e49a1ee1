"""Interrupts: signals that wait until it is safe to leave a model.

An exception at an arbitrary line of TensorFlow breaks TensorFlow's own state, and
one during a restore leaves the model half restored. So while a model is moved,
signals wait for the end of a batch.
"""

import contextlib
import signal
import threading


@contextlib.contextmanager
def patient_interrupts():
    """Makes signals wait for the end of a batch; a second Ctrl-C acts at once.

    This holds for every signal with a Python handler, for example a SIGTERM that
    a cluster job turns into `SystemExit`. Signals that are still waiting when the
    block ends act then.

    Yields:
        The function to call at the end of a batch; it ignores its arguments.
    """
    if threading.current_thread() is not threading.main_thread():
        # Python runs signal handlers in the main thread only.
        yield lambda *_, **__: None
        return
    handlers = _python_handlers()
    wait, act = _waiting_room(handlers)
    for number in handlers:
        signal.signal(number, wait)
    try:
        yield act
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        act()


def _python_handlers():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {number: handler for number, handler in handlers.items() if callable(handler)}


def _waiting_room(handlers):
    """The function that makes a signal wait, and the one that lets all waiting ones act."""
    waiting = []
    was_hurried = False

    def wait(number, frame):
        nonlocal was_hurried
        # Only once: a third Ctrl-C must not stop the restore that follows the second.
        if number == signal.SIGINT and number in waiting and not was_hurried:
            was_hurried = True
            waiting.remove(number)
            handlers[number](number, frame)
        elif number not in waiting:
            waiting.append(number)

    def act(*_, **__):
        while waiting:
            number = waiting.pop(0)
            handlers[number](number, None)

    return wait, act
