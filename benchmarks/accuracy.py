"""Measures what `accuracy=0.01` costs on 60,000 images, and how large its true error is.

Run with `PYTHONPATH=examples:benchmarks python benchmarks/accuracy.py`; the table goes to
`benchmarks/ACCURACY.md`. The truth is the same surface with all samples at all points.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from images import load_images
from keras import layers
from networks import LOSS
from speed import table

from losslandscape import evaluate_surface

ACCURACY, POINTS = 0.01, 25
RESULTS = Path(__file__).parent / "ACCURACY.md"
HEADER = (
    *("seed", "points on all", "points on few", "few samples"),
    *("sample evaluations", "largest error", "error of logarithms", "largest error found"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    model, x, y = trained_network()
    rows = [measure(model, x, y, seed) for seed in seeds]
    RESULTS.write_text(
        f"# Cost of accuracy\n\nMade by `benchmarks/accuracy.py`: surfaces of {POINTS}x{POINTS} "
        f"points with `accuracy={ACCURACY}`, of a network with {model.count_params():,} weights "
        f"on Fashion-MNIST's {len(x):,} training images. Errors are shares of the range, against "
        "all samples at all points; sample evaluations are a share of those, checks included.\n\n"
        f"{table(HEADER, rows)}\n"
    )
    print(RESULTS.read_text())


def trained_network():
    """A small network after three epochs, and the images it was trained on."""
    keras.utils.set_random_seed(0)
    (x, y), _ = load_images("fashion_mnist")
    model = keras.Sequential(
        [
            *(keras.Input(x.shape[1:]), layers.Flatten()),
            *(layers.Dense(48, activation="relu"), layers.Dense(10)),
        ]
    )
    model.compile("adam", LOSS)
    model.fit(x, y, batch_size=128, epochs=3, verbose=0)
    return model, x, y


def measure(model, x, y, seed):
    """A row of the table: what one surface cost, and how far off it was."""

    def surface(accuracy):
        return evaluate_surface(model, x, y, POINTS, accuracy=accuracy, seed=seed, verbose=0)

    some, whole = surface(ACCURACY), surface(None).values["loss"]
    values, told = some.values["loss"], some.metadata
    on_all = np.count_nonzero(~some.interpolated)
    on_few, samples = told.get("points_on_few_samples", 0), told.get("few_samples", 0)
    cost = (on_all + on_few * samples / len(x)) / whole.size
    logarithms = np.abs(np.log(values / whole)).max() / np.ptp(np.log(whole))
    return (
        *(seed, f"{on_all} of {whole.size}", on_few, samples, f"1 in {1 / cost:.1f}"),
        *(f"{np.abs(values - whole).max() / np.ptp(whole):.2%}", f"{logarithms:.2%}"),
        f"{told['interpolation_errors']['loss']:.2%}",
    )


if __name__ == "__main__":
    main()
