"""Workers: the same engines in other threads or processes, or on other machines.

Points go out in small tasks to any `concurrent.futures.Executor`. The model, the data
and the directions are the same for all tasks and may be large, so they go only to
workers that say they do not have them.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import pickle
import socket
import threading
import uuid

import numpy as np
from keras import ops

from losslandscape.measuring.centers import AT_ONCE, difference, measure_center, tolerance_of
from losslandscape.measuring.engines import on_device, start
from losslandscape.measuring.state import State

# How many tasks: enough to show progress and lose little with a worker, few enough to keep the
# overhead low.
TASKS = 100
# How long to wait for results before Ctrl-C acts, in seconds.
PATIENCE = 0.2
# The calls of this process whose points are being measured, by key.
_running = {}
# What a worker holds for each call, by key. One per thread: a model can be measured at only one
# point at a time.
_received = threading.local()


def check_executor(executor):
    """Refuses what is not an executor, and executors that would hang."""
    if not isinstance(executor, concurrent.futures.Executor):
        raise TypeError(
            "`executor` must be a `concurrent.futures.Executor`, such as "
            "`ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('spawn'))`. Received "
            f"{type(executor).__name__}."
        )
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "`executor` must not fork, because TensorFlow hangs in forked processes. Make it with "
            "`mp_context=multiprocessing.get_context('spawn')`."
        )
    # To submit a task would show this, too, but start a worker.
    if any(getattr(executor, name, False) for name in ("_shutdown", "_shutdown_thread", "_broken")):
        raise ValueError(
            "`executor` must take tasks, but it was shut down or has lost a worker. Make a new "
            "one, and leave its `with` block only after the call."
        )


def distribute(executor, engines, state, data, *, directions, interrupt, compared=None):
    """Starts an engine whose points are measured by workers.

    The engine starts here, as in a call without workers, and they use the one that works here, so
    that both kinds of call give the same bits. The center is measured in each worker, too;
    otherwise nobody would notice that a model has changed on its way there.

    Args:
        executor: A `concurrent.futures.Executor`.
        engines: Dict of functions that make an engine, by name.
        state: The `State` of a model at the weights to start from.
        data: List of `Dataset`.
        directions: Some of the directions to be measured.
        interrupt: A function to call now and then; it lets waiting signals act,
            which may raise `KeyboardInterrupt`.
        compared: Names of the values at the center that must be the same in each
            worker. Defaults to `None`, all of them.

    Returns:
        What `start` returns. The engine yields points as they finish, in any order.
    """
    _, centers, metadata = start(engines, state, data, directions=directions, interrupt=interrupt)
    state.restore()
    make = engines[metadata["engine"]]
    key, setup = uuid.uuid4().hex, pickle.dumps((make, state.model, state.walk, data))
    latest, number, contents = None, 0, None
    tolerance = tolerance_of(state.model, AT_ONCE)

    def check(found):
        _check_centers(difference(centers, found, tolerance, compared))

    def measure(directions, points):
        nonlocal latest, number, contents
        # Directions that the workers already have are not sent again.
        if latest is not directions:
            portable = pickle.dumps([_portable(direction) for direction in directions])
            latest, number, contents = directions, number + 1, (setup, portable)
        size = max(1, len(points) // TASKS)
        tasks = np.split(np.arange(len(points)), range(size, len(points), size))
        _running[key] = None
        try:
            run = functools.partial(_run, executor, (key, number), contents)
            yield from run(points=points, tasks=tasks, check=check, interrupt=interrupt)
        finally:
            del _running[key]

    return measure, centers, metadata


def _portable(direction):
    """A direction without tensors; workers draw or read those that are drawn or read here."""
    is_list = isinstance(direction, list)
    return [ops.convert_to_numpy(array) for array in direction] if is_list else direction


def _check_centers(found):
    """Refuses a worker in which the center is not the same."""
    if found is None:
        return
    index, name, here, there = found
    raise ValueError(
        f"`executor` has a worker whose model is different: on dataset {index} its "
        f"{name!r} is {there}, here it is {here}, with the same weights. A "
        "model is sent as `model.save` writes it: either the `get_config` of a custom "
        "layer, loss or metric leaves out an argument, or the worker imports "
        "another version of your code."
    )


def _run(executor, keys, contents, *, points, tasks, check, interrupt):
    """Hands out tasks, and the contents to workers that ask for them."""
    tasks, running, workers = collections.deque(tasks), {}, set()

    def submit(indices, contents=None):
        running[executor.submit(_work, keys, contents, points[indices])] = indices

    def submit_with_contents(indices):
        # Told late which calls run, since others may have begun in the meantime.
        submit(indices, (*contents, tuple(_running)))

    try:
        while tasks or running:
            # Few at a time: a task sent again, with the contents, has to wait for all others.
            # One at first, or a worker would get the contents twice.
            while tasks and len(running) < (2 * (len(workers) + 1) if workers else 1):
                submit(tasks.popleft())
            for future in _finished(running, interrupt):
                indices = running.pop(future)
                worker, centers, results = _result(future)
                workers.add(worker)
                if results is None:
                    submit_with_contents(indices)
                else:
                    check(centers)
                    yield indices, results
    finally:
        for future in running:
            future.cancel()


def _finished(futures, interrupt):
    """Waits for some futures to end; failed ones come last, because the others still count."""
    done, _ = concurrent.futures.wait(
        futures, timeout=PATIENCE, return_when=concurrent.futures.FIRST_COMPLETED
    )
    interrupt()
    return sorted(done, key=lambda future: future.exception() is not None)


def _result(future):
    try:
        return future.result()
    except Exception as error:
        error.add_note(
            "A worker of `executor` failed. If the call has a `checkpoint`, the finished points "
            "are there, and the same call resumes from them."
        )
        raise


@dataclasses.dataclass
class _Call:
    """What a worker holds for a call."""

    state: State
    measure: object
    centers: list
    number: int
    directions: list


def _work(keys, contents, points):
    """Runs a task: returns the name of the worker, the center as measured there, and the results.

    The last two are `None` if it needs the contents.
    """
    worker = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    key, number = keys
    if contents is not None:
        _receive(key, number, *contents)
    here = vars(_received).get(key)
    if here is None or here.number != number:
        return worker, None, None
    chunks = [results for _, results in here.measure(here.directions, points)]
    results = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*chunks, strict=True)
    ]
    return worker, here.centers, results


def _receive(key, number, setup, directions, running):
    """Takes what a call shares, unless it is here, and forgets calls that have ended."""
    calls = vars(_received)
    for ended in calls.keys() - {*running}:
        del calls[ended]
    if key in calls and calls[key].number == number:
        return
    # Safe: this library pickled them, in the calling process.
    directions = pickle.loads(directions)  # noqa: S301
    if key in calls:
        here = calls[key]
        here.number, here.directions = number, on_device(directions, here.state.moved)
        return
    make, model, walk, data = pickle.loads(setup)  # noqa: S301
    # No optimizer: this is the worker's own copy, which is never given back.
    state = State(model, walk, with_optimizer=False)
    measure, directions = make(state, data, _ignore), on_device(directions, state.moved)
    centers = measure_center(measure, directions)
    calls[key] = _Call(state, measure, centers, number, directions)


def _ignore(*_, **__):
    """Only the process that hands out the tasks handles Ctrl-C."""
