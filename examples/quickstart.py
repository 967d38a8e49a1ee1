"""Trains a small network on scikit-learn's digits and draws its loss landscape.

Run with `make quickstart`; the figures go to `readme_files/`, or with
`--output FOLDER` elsewhere.
"""

import argparse
from pathlib import Path

import keras
import matplotlib as mpl
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from losslandscape import plot_loss, plot_loss_3D

FIGURES = Path(__file__).parent.parent / "readme_files"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FIGURES, help="folder for the figures")
    folder = parser.parse_args(arguments).output
    folder.mkdir(parents=True, exist_ok=True)
    # Figures go to files, so no window is needed.
    mpl.use("Agg")
    keras.utils.set_random_seed(0)

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.data / 16, digits.target, test_size=0.5, random_state=0
    )
    model = train_network(x_train, y_train)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"Test accuracy: {accuracy:.3f}")

    both = (x_train, y_train), (x_test, y_test)
    labels = ("training set", "test set")
    plot_loss(model, (x_test, y_test), path=folder / "line.png")
    plot_loss(model, both, dataset_labels=labels, path=folder / "train-and-test.png")
    plot_loss(model, (x_test, y_test), number_of_points=41, path=folder / "points.png")
    plot_loss(
        model,
        both,
        dataset_labels=labels,
        number_of_directions=10,
        scale="log",
        path=folder / "directions.png",
    )
    plot_loss_3D(model, ("levels", "3d"), x_test, y_test, path=folder / "landscape.png")
    plot_loss_3D(model, "levels", x_test, y_test, metric="accuracy", path=folder / "accuracy.png")
    print(f"The figures are in {folder}")


def train_network(x, y):
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=40, verbose=0)
    return model


if __name__ == "__main__":
    main()
