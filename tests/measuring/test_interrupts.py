"""Interrupts: signals wait for the end of a batch, and none leaves a model half restored."""

import signal
import sys
import threading

import numpy as np
import pytest

from losslandscape import evaluate_line
from losslandscape.measuring.interrupts import patient_interrupts


@pytest.fixture
def handled():
    """Sets Python handlers for one test."""
    before = {}

    def handle(number, handler):
        before[number] = signal.signal(number, handler)

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


def leave(*_):
    sys.exit("time is up")


@pytest.mark.usefixtures("ctrl_c")
def test_the_first_interrupt_waits_and_the_second_acts_at_once():
    reached = []

    def interrupt_twice():
        with patient_interrupts():
            for number in (1, 2):
                signal.raise_signal(signal.SIGINT)
                reached.append(number)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    assert reached == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_acts_at_the_end_of_a_batch():
    reached = []

    def interrupt_in_a_batch():
        with patient_interrupts() as interrupt:
            signal.raise_signal(signal.SIGINT)
            reached.append("end of the batch")
            interrupt()
            reached.append("next batch")

    with pytest.raises(KeyboardInterrupt):
        interrupt_in_a_batch()
    assert reached == ["end of the batch"]


@pytest.mark.usefixtures("ctrl_c")
def test_a_third_interrupt_cannot_stop_the_restore():
    restored = False
    with pytest.raises(KeyboardInterrupt), patient_interrupts():  # noqa: PT012
        try:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        finally:
            for _ in range(4):
                signal.raise_signal(signal.SIGINT)
            restored = True
    assert restored


def test_any_signal_with_a_handler_waits_for_the_end_of_the_block(handled):
    handled(signal.SIGTERM, leave)
    reached = []

    def walk():
        with patient_interrupts():
            for _ in range(4):
                signal.raise_signal(signal.SIGTERM)
            reached.append("end")

    with pytest.raises(SystemExit, match="time is up"):
        walk()
    assert reached == ["end"]
    assert signal.getsignal(signal.SIGTERM) is leave


def test_other_threads_are_left_alone():
    acts = []

    def work():
        with patient_interrupts() as interrupt:
            acts.append(interrupt())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert acts == [None]


def test_signals_while_a_model_is_restored_leave_it_bit_identical(model, data, handled):
    handled(signal.SIGTERM, leave)
    before = [np.array(variable) for variable in model.variables]
    reset, resets = model.reset_metrics, []

    def reset_in_a_burst():
        # Called first in an evaluation and in a restore.
        resets.append(len(resets))
        for _ in range(4):
            signal.raise_signal(signal.SIGTERM)
        reset()

    model.reset_metrics = reset_in_a_burst
    for engine in ("evaluate", "compiled"):
        with pytest.raises(SystemExit, match="time is up"):
            evaluate_line(model, *data, 100_000, engine=engine, verbose=0)
        assert len(resets) < 10
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(np.array(variable), value)
