"""Workers: the same engines in other threads or processes, or on other machines.

Points go out in small tasks to any `concurrent.futures.Executor`. What all tasks
share (the model, the data and the directions) may be large, so it goes only to
workers that say they do not have it.
"""

import collections
import concurrent.futures
import functools
import os
import pickle
import socket
import threading
import uuid

import numpy as np
from keras import ops, tree

from losslandscape.engines import measure_center, start, to_tensors
from losslandscape.internals import flatten_layers
from losslandscape.state import State

# How many tasks: enough to show progress and lose little with a worker, few enough to keep the
# overhead low.
TASKS = 100
# How long to wait for results before Ctrl-C acts, in seconds.
PATIENCE = 0.2
# How closely the center in a worker must agree with the one in this process; in half precision,
# two engines round differently.
TOLERANCE, HALF_TOLERANCE = 1e-5, 1e-2
# One per thread of a worker: a model can be measured at only one point at a time.
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
    # A task would show it, too, but start a worker.
    if any(getattr(executor, name, False) for name in ("_shutdown", "_shutdown_thread", "_broken")):
        raise ValueError(
            "`executor` must take tasks, but it was shut down or has lost a worker. Make a new "
            "one, and leave its `with` block only after the call."
        )


def distribute(executor, engines, state, data, *, directions, interrupt, compared=None):
    """Starts an engine whose points are measured by workers.

    The center is measured here and in each worker; otherwise a model that changed
    on the way would go unnoticed.

    Args:
        executor: A `concurrent.futures.Executor`.
        engines: As in `start`; each worker starts one. The last is started here.
        state: As in `start`.
        data: List of `Dataset`.
        directions: As in `start`.
        interrupt: As in `evaluate_engine`.
        compared: Names of the values at the center that must be the same in each
            worker. Defaults to `None`, all of them.

    Returns:
        What `start` returns. The engine yields points as they finish, in any order;
        the metadata are complete only then.
    """
    setup = uuid.uuid4(), pickle.dumps((engines, state.model, state.walk, data))
    *_, make = engines.values()
    centers = measure_center(make(state, data, interrupt), directions)
    state.restore()
    metadata, latest = {}, (None, None, None)
    is_precise = all(
        layer.compute_dtype in ("float32", "float64") for layer in flatten_layers(state.model)
    )
    tolerance = TOLERANCE if is_precise else HALF_TOLERANCE

    def check(started):
        _check_centers(centers, started["centers"], compared, tolerance)
        metadata.update(started["metadata"])

    def measure(directions, points):
        nonlocal latest
        # Directions that the workers already have are not sent again.
        if latest[0] is not directions:
            arrays = tree.map_structure(ops.convert_to_numpy, list(directions))
            latest = directions, (setup[0], uuid.uuid4()), (setup[1], pickle.dumps(arrays))
        _, keys, contents = latest
        size = max(1, len(points) // TASKS)
        tasks = np.split(np.arange(len(points)), range(size, len(points), size))
        run = functools.partial(_run, executor, keys, contents, points=points, tasks=tasks)
        yield from run(check=check, interrupt=interrupt)

    return measure, centers, metadata


def _check_centers(expected, found, compared, tolerance):
    for index, (here, there) in enumerate(zip(expected, found, strict=True)):
        for name in compared or here:
            value = here[name]
            if not np.isclose(there.get(name, np.nan), value, tolerance, 0, equal_nan=True):
                raise ValueError(
                    f"`executor` has a worker whose model is different: on dataset {index} its "
                    f"{name!r} is {there.get(name)}, here it is {value}, with the same weights. A "
                    "model is sent as `model.save` writes it: either the `get_config` of a custom "
                    "layer, loss or metric leaves out an argument, or the worker imports "
                    "another version of your code."
                )


def _run(executor, keys, contents, *, points, tasks, check, interrupt):
    """Hands out tasks, and the contents to workers that ask for them."""
    tasks, running, workers = collections.deque(tasks), {}, set()

    def submit(indices, contents=None):
        running[executor.submit(_work, keys, contents, points[indices])] = indices

    try:
        while tasks or running:
            # Few at a time: a task sent again, with the contents, has to wait for all others.
            # One at first, or a worker would get the contents twice.
            while tasks and len(running) < (2 * (len(workers) + 1) if workers else 1):
                submit(tasks.popleft())
            for future in _finished(running, interrupt):
                indices = running.pop(future)
                worker, started, results = _result(future)
                workers.add(worker)
                if results is None:
                    submit(indices, contents)
                else:
                    check(started)
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


def _work(keys, contents, points):
    """Runs a task: returns the name of the worker, how it started, and the results.

    The last two are `None` if it needs the contents.
    """
    worker = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    here = vars(_received)
    if contents is not None and here.get("keys") != keys:
        # Safe: this library pickled them, in the calling process.
        setup, directions = contents
        here["directions"] = to_tensors(pickle.loads(directions))  # noqa: S301
        if here.get("keys", (None,))[0] != keys[0]:
            here["measure"], here["started"] = _begin(setup, here["directions"])
        here["keys"] = keys
    if here.get("keys") != keys:
        return worker, None, None
    chunks = [results for _, results in here["measure"](here["directions"], points)]
    results = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*chunks, strict=True)
    ]
    return worker, here["started"], results


def _begin(setup, directions):
    engines, model, walk, data = pickle.loads(setup)  # noqa: S301
    # No optimizer: this is the worker's own copy, which is never given back.
    state = State(model, walk, with_optimizer=False)
    measure, centers, metadata = start(
        engines, state, data, directions=directions, interrupt=_ignore
    )
    return measure, {"centers": centers, "metadata": metadata}


def _ignore(*_, **__):
    """Only the process that hands out the tasks handles Ctrl-C."""
