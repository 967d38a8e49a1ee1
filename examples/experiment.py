"""Shared by the experiments: flags, training that survives interruptions, saved measurements."""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import NamedTuple

import keras
import matplotlib as mpl
import tensorflow as tf
from images import DATASETS, load_images
from keras import layers

ROOT = Path(__file__).parent.parent


class Setting(NamedTuple):
    """How a network is trained: what differs between the networks compared."""

    batch_size: int = 128
    weight_decay: float = 5e-4
    optimizer: str = "SGD"
    seed: int = 0

    def __str__(self):
        decay = f"weight decay {self.weight_decay:g}" if self.weight_decay else "no weight decay"
        return f"{self.optimizer}, batch {self.batch_size}, {decay}"


class Trained(NamedTuple):
    """A trained network, its accuracies and training time, and its folder."""

    model: keras.Model
    results: dict
    folder: Path


def flags(description):
    """A parser for the flags that all experiments share; the defaults are the paper's."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", choices=DATASETS, default="cifar10")
    add("--data-folder", help="folder with the four idx files of Fashion-MNIST")
    add("--size", type=int, help="height and width of the images; default: unchanged")
    add("--samples", type=int, help="training images; default: all")
    add("--epochs", type=int, default=300)
    add("--learning-rate", type=float, default=0.1, help="of SGD; Adam takes a hundredth")
    add(
        "--drops",
        type=float,
        nargs="*",
        default=[1 / 2, 3 / 4, 11 / 12],
        metavar="PART",
        help="fractions of the epochs after which the learning rate is divided by 10",
    )
    add("--points", type=int, default=51, help="points per axis")
    add("--measured", type=int, default=1000, help="training images measured at each point")
    add("--models", type=Path, default=ROOT / "models", help="folder for networks")
    add("--output", type=Path, default=ROOT / "readme_files", help="folder for figures, tables")
    return parser


def prepare(arguments):
    """Makes the folder for figures and loads the images."""
    # Figures go to files, so no window is needed.
    mpl.use("Agg")
    arguments.output.mkdir(parents=True, exist_ok=True)
    return load_images(arguments.dataset, arguments.size, arguments.samples, arguments.data_folder)


def train(build, setting, data, arguments):
    """Trains a network, resumes an interrupted training, or loads a finished network.

    Args:
        build: Function of `input_shape` and `weight_decay` that makes the
            uncompiled network.
        setting: A `Setting`.
        data: `(x_train, y_train), (x_test, y_test)`.
        arguments: The parsed `flags`.

    Returns:
        A `Trained` whose `results` are `train_accuracy` (without augmentation),
        `test_accuracy` and `seconds`.
    """
    (x_train, y_train), _ = data
    keras.utils.set_random_seed(setting.seed)
    model = build(input_shape=x_train.shape[1:], weight_decay=setting.weight_decay)
    folder = _folder(model, setting, x_train, arguments)
    finished, summary, history = (
        folder / name for name in ("model.keras", "summary.json", "history.csv")
    )
    if summary.exists():
        return Trained(keras.saving.load_model(finished), json.loads(summary.read_text()), folder)
    print(f"Training {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    model.compile(
        _optimizer(setting, arguments), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    drops = [round(part * arguments.epochs) for part in arguments.drops]
    callbacks = [
        keras.callbacks.LearningRateScheduler(
            lambda epoch, rate: rate / 10 if epoch in drops else rate
        ),
        EpochTimer(),
        keras.callbacks.CSVLogger(history, append=True),
        keras.callbacks.BackupAndRestore(folder / "backup", double_checkpoint=True),
    ]
    batches = _augmented(x_train, y_train, setting, flip=arguments.dataset != "digits")
    # The batches are shuffled already.
    options = {"shuffle": False, "callbacks": callbacks, "verbose": 2}
    model.fit(batches, epochs=arguments.epochs, **options)
    model.save(finished)
    results = _summarize(model, data, history)
    summary.write_text(json.dumps(results))
    return Trained(model, results, folder)


def measured(path, kind, measure):
    """Loads a measured line or surface, or measures and saves it, with the seconds it took."""
    if path.exists():
        return kind.load(path)
    started = time.perf_counter()
    value = measure()
    value.metadata["seconds"] = time.perf_counter() - started
    value.save(path)
    return value


def describe(arguments, data):
    """A description of the data and the training, for the captions of tables."""
    (x_train, _), (x_test, _) = data
    height, width = x_train.shape[1:3]
    return (
        f"{arguments.dataset}, {len(x_train):,} training and {len(x_test):,} test images of "
        f"{height}x{width} pixels; {arguments.epochs} epochs, learning rate "
        f"{arguments.learning_rate:g} (Adam: {arguments.learning_rate / 100:g}). Losses without "
        f"penalty, on {min(arguments.measured, len(x_train)):,} of the training images."
    )


def write_table(path, caption, header, rows):
    """Writes a Markdown table with a caption below it."""
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    path.write_text(f"{table}\n\n{caption}\n")
    print(path.read_text())


class EpochTimer(keras.callbacks.Callback):
    """Logs the seconds of each epoch, so they add up over restarts."""

    def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
        logs["seconds"] = time.perf_counter() - self._started


def _folder(model, setting, x_train, arguments):
    """A folder per setting: no setting may find the network of another."""
    images = f"{arguments.dataset}-{x_train.shape[1]}px-{len(x_train)}"
    drops = ",".join(f"{part:.3g}" for part in arguments.drops)
    schedule = f"{arguments.epochs}epochs-rate{arguments.learning_rate:g}-drops{drops}"
    name = "-".join([model.name, setting.optimizer, str(setting.batch_size)])
    return (
        arguments.models
        / f"{images}-{schedule}"
        / f"{name}-decay{setting.weight_decay:g}-seed{setting.seed}"
    )


def _optimizer(setting, arguments):
    if setting.optimizer == "Adam":
        return keras.optimizers.Adam(arguments.learning_rate / 100)
    return keras.optimizers.SGD(arguments.learning_rate, momentum=0.9, nesterov=True)


def _augmented(x, y, setting, flip):
    """Shuffled batches of shifted images, flipped as well unless they are digits."""
    seed = setting.seed
    shift = layers.RandomTranslation(
        1 / 8, 1 / 8, fill_mode="constant", interpolation="nearest", seed=seed
    )
    steps = [shift, layers.RandomFlip("horizontal", seed=seed)] if flip else [shift]
    augment = keras.Sequential(steps)
    samples = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed)
    batches = samples.batch(setting.batch_size)
    augmented = batches.map(lambda images, labels: (augment(images, training=True), labels))
    return augmented.prefetch(1)


def _summarize(model, data, history):
    accuracies = {}
    for part, images in zip(("train", "test"), data, strict=True):
        logs = model.evaluate(*images, batch_size=500, verbose=0, return_dict=True)
        accuracies[f"{part}_accuracy"] = logs["accuracy"]
    with history.open() as file:
        # An epoch interrupted after it was logged appears twice.
        seconds = {row["epoch"]: float(row["seconds"]) for row in csv.DictReader(file)}
    return accuracies | {"seconds": sum(seconds.values())}
