"""Interrupts: signals that wait until a model may be left.

An exception between two arbitrary lines of TensorFlow breaks TensorFlow's own
state, and one while a model is being restored leaves it half restored. So while a
model is moved, signals wait for the end of a batch.
"""

import contextlib
import signal
import threading


@contextlib.contextmanager
def patient_interrupts():
    """Makes signals wait for the end of a batch; a second Ctrl-C acts at once.

    That holds for every signal with a Python handler, such as a SIGTERM that
    a batch system's script turns into `SystemExit`. Whatever still waits when
    the block ends acts then.

    Yields:
        The function to call at the end of a batch; it takes and ignores any
        arguments.
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
    """The function that lets a signal wait, and the one that lets all that wait act."""
    waiting = []
    was_hurried = False

    def wait(number, frame):
        nonlocal was_hurried
        # Once only: a third Ctrl-C must not stop the restoring that follows the second.
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
