"""Workers: the time for a ResNet-20 surface with one and two Dask workers of one thread each.

Run with `make benchmark-workers`; it writes `benchmarks/WORKERS.md`.
"""

import os

# Inherited by the workers, which should not compete for cores with more threads.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

import importlib
import time
from pathlib import Path

from distributed import Client, LocalCluster
from networks import LOSS
from speed import resnet20_on_images

from losslandscape import evaluate_surface

POINTS = 11
RESULTS = Path(__file__).parent / "WORKERS.md"


def main():
    model, x, y = resnet20_on_images()
    model.compile("sgd", LOSS, metrics=["accuracy"])
    seconds = {number: measure(model, x, y, number) for number in (1, 2)}
    ratio = seconds[2] / seconds[1]
    RESULTS.write_text(
        f"# Workers\n\nMade by `make benchmark-workers` on {os.cpu_count()} cores. A surface of "
        f"{POINTS}x{POINTS} points of ResNet-20 on 1,000 images, with Dask workers of one "
        "thread each; the time to start their engines is included.\n\n"
        "| workers | seconds |\n| --- | --- |\n"
        f"| 1 | {seconds[1]:.1f} |\n| 2 | {seconds[2]:.1f} |\n\n"
        f"Two take {ratio:.2f} times as long as one (target: 0.6).\n"
    )
    print(RESULTS.read_text())


def measure(model, x, y, number):
    """The time for a surface with this many workers, in seconds."""
    options = {"n_workers": number, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        # Otherwise the workers would import the library with their first task.
        client.run(importlib.import_module, "losslandscape")
        started = time.perf_counter()
        evaluate_surface(
            model, x, y, POINTS, seed=0, executor=client.get_executor(), engine="compiled"
        )
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
