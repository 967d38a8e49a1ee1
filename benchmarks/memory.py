"""Measures whether memory grows with the number of points: 2,000 of them on the digits.

Run with `make benchmark`; the table goes to `benchmarks/MEMORY.md`.
"""

import gc
import os
from pathlib import Path

import keras
from keras import layers
from sklearn.datasets import load_digits

from losslandscape import evaluate_line, random_directions

POINTS, FIRST, LIMIT = 2000, 200, 0.05


def main():
    keras.utils.set_random_seed(0)
    digits = load_digits()
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    sizes = []
    evaluate = model.evaluate

    def evaluate_and_measure(*arguments, **options):
        results = evaluate(*arguments, **options)
        sizes.append(resident_mebibytes())
        return results

    model.evaluate = evaluate_and_measure
    directions = random_directions(model, seed=0)
    evaluate_line(model, digits.data / 16, digits.target, POINTS, directions=directions, verbose=2)
    gc.collect()
    rows = [(point, sizes[point]) for point in (1, FIRST, 500, 1000, 1500, POINTS)]
    growth = sizes[POINTS] / sizes[FIRST] - 1
    table = "\n".join(f"| {point} | {size:.1f} |" for point, size in rows)
    report = (
        "# Memory over many points\n\n"
        f"Made by `make benchmark`. A 64-32-10 network on the {len(digits.data)} digits, "
        f"{POINTS} points in one call.\n\n"
        f"| point | resident MiB |\n|---|---|\n{table}\n\n"
        f"Growth from point {FIRST} to point {POINTS}: {growth:.2%} (limit {LIMIT:.0%}).\n"
    )
    (Path(__file__).parent / "MEMORY.md").write_text(report)
    print(report)
    if growth > LIMIT:
        raise SystemExit("The resident size grows with the number of points.")


def resident_mebibytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
