"""Workers: the same engines in other threads, processes or machines.

Points go out in small tasks to any `concurrent.futures.Executor`. What all tasks
share, the model with the data and the directions, goes only to workers that say
they do not have it, since it may be large.
"""

import collections
import concurrent.futures
import os
import pickle
import socket
import threading
import uuid

import numpy as np
from keras import ops, tree

from losslandscape.engines import as_arrays, start, to_tensors

# So that progress shows and little is lost with a worker, yet tasks are not all overhead.
TASKS = 100
# How long to wait for results before Ctrl-C is heard, in seconds.
PATIENCE = 0.2
# Of each thread of a worker: a model can be measured at but one point at a time.
_received = threading.local()


def check_executor(executor):
    """Refuses what is no executor, or would hang."""
    if not isinstance(executor, concurrent.futures.Executor):
        raise TypeError(
            "`executor` must be a `concurrent.futures.Executor`, such as "
            "`ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('spawn'))`. Received "
            f"{type(executor).__name__}."
        )
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "`executor` must not fork, since TensorFlow hangs in forked processes. Make it with "
            "`mp_context=multiprocessing.get_context('spawn')`."
        )


def distribute(executor, engine, number_of_points, model, data, *, interrupt):
    """Makes an engine whose points are measured by workers.

    Args:
        executor: A `concurrent.futures.Executor`.
        engine: As in `start`; each worker starts it.
        number_of_points: As in `start`.
        model: A compiled and built `keras.Model`, at the weights to start from.
        data: List of `Dataset`.
        interrupt: As in `evaluate_engine`.

    Returns:
        An engine. It yields points as they are done, in any order.
    """
    setup_key, setup = uuid.uuid4(), pickle.dumps((engine, number_of_points, model, data))
    size = max(1, number_of_points // TASKS)
    latest = (None, None, None)

    def measure(directions, points):
        nonlocal latest
        # The center and the first points lie along the same directions.
        if latest[0] is not directions:
            arrays = tree.map_structure(ops.convert_to_numpy, directions)
            latest = directions, (setup_key, uuid.uuid4()), (setup, pickle.dumps(arrays))
        _, keys, contents = latest
        tasks = np.split(np.arange(len(points)), range(size, len(points), size))
        yield from _run(executor, keys, contents, points=points, tasks=tasks, interrupt=interrupt)

    return measure


def _run(executor, keys, contents, *, points, tasks, interrupt):
    """Hands out tasks, with the contents to workers that ask for them."""
    tasks, running, workers = collections.deque(tasks), {}, set()

    def submit(positions, contents=None):
        running[executor.submit(_work, keys, contents, points[positions])] = positions

    try:
        while tasks or running:
            # Few at a time: what is sent again, with the contents, has to wait for all others.
            while tasks and len(running) < 2 * (len(workers) + 1):
                submit(tasks.popleft())
            for future in _finished(running, interrupt):
                positions = running.pop(future)
                worker, results = _result(future)
                workers.add(worker)
                if results is None:
                    submit(positions, contents)
                else:
                    yield positions, results
    finally:
        for future in running:
            future.cancel()


def _finished(futures, interrupt):
    """Waits for some futures to end; those that failed come last, for the others still count."""
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
            "A worker of `executor` failed. Where the call has a `checkpoint`, the points that "
            "were finished are there, and the same call goes on from them."
        )
        raise


def _work(keys, contents, points):
    """A task: the name of the worker, and the results or None if it needs the contents."""
    worker = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    here = vars(_received)
    if contents is not None and here.get("keys") != keys:
        # Safe: this library has pickled them, in the process that asks.
        setup, directions = contents
        here["directions"] = to_tensors(pickle.loads(directions))  # noqa: S301
        if here.get("keys", (None,))[0] != keys[0]:
            engine, number, model, data = pickle.loads(setup)  # noqa: S301
            start_at = {"directions": here["directions"], "interrupt": _ignore}
            here["measure"], here["centers"] = start(engine, number, model, data, **start_at)
        here["keys"] = keys
    if here.get("keys") != keys:
        return worker, None
    if not points.any():
        # The start has measured it.
        return worker, as_arrays(here["centers"])
    chunks = [results for _, results in here["measure"](here["directions"], points)]
    return worker, [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*chunks, strict=True)
    ]


def _ignore(*_, **__):
    """Ctrl-C is for the process that hands out the tasks."""
