"""Shared by the experiments: flags, training that survives interruptions, saved measurements.

A network has two folders of the same name: one for its weights, too large for git, and one
for what was measured, small enough. It is trained only if a measurement is missing.
"""

import argparse
import csv
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import matplotlib as mpl
import tensorflow as tf
from images import DATASETS, load_images
from keras import layers
from networks import LOSS

from losslandscape import LossLine, WeightHistory, evaluate_line, random_directions
from losslandscape.values.measures import half_widths

ROOT = Path(__file__).parent.parent
# How far lines reach for each normalization: raw directions are much longer than the weights.
EXTENTS = {"filter": 1, None: 0.1}
# How far the loss rises within a half-width: guessing among ten classes has a loss of 2.3, and
# around the widest networks the loss rises no farther than 1 within the lines.
RISE = 0.5


class Setting(NamedTuple):
    """How a network is trained: what differs between the networks compared."""

    batch_size: int = 128
    weight_decay: float = 5e-4
    optimizer: str = "SGD"
    seed: int = 0
    # First learning rate; `None` for that of the flags.
    rate: float | None = None
    # Largest norm of each gradient, as in Keras' optimizers.
    clipnorm: float | None = None

    def __str__(self):
        decay = f"weight decay {self.weight_decay:g}" if self.weight_decay else "no weight decay"
        return f"{self.optimizer}, batch {self.batch_size}, {decay}"


class Trained(NamedTuple):
    """A trained network, which is loaded when first needed, and what is known of it.

    `results` are its number of parameters, its accuracies (without augmentation), the steps
    and seconds of its training and the kind of its device, `"cpu"` or `"gpu"`. `folder` is
    the folder of its measurements, `records` that of its weights after each epoch.
    """

    load: Callable[[], keras.Model]
    results: dict
    folder: Path
    records: Path


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
    add("--warmup", type=int, default=0, help="epochs of linearly growing learning rate")
    add("--no-augmentation", action="store_true", help="train on the images as they are")
    add("--points", type=int, default=51, help="points per axis of a plane")
    add("--line-points", type=int, default=31, help="points of a line")
    add("--directions", type=int, default=10, help="lines through each network")
    add("--measured", type=int, default=1000, help="training images measured at each point")
    add("--models", type=Path, default=ROOT / "models", help="folder for networks")
    add("--measurements", type=Path, default=ROOT / "examples/measured", help="folder for values")
    add("--output", type=Path, default=ROOT / "readme_files", help="folder for figures, tables")
    return parser


def prepare(arguments):
    """Makes the folder for figures and loads the images."""
    # Figures go to files, so no window is needed.
    mpl.use("Agg")
    arguments.output.mkdir(parents=True, exist_ok=True)
    return load_images(arguments.dataset, arguments.size, arguments.samples, arguments.data_folder)


def train(build, setting, data, arguments):
    """Finds the results of a network, or trains it, or resumes an interrupted training.

    Args:
        build: Function of `input_shape` and `weight_decay` that makes the
            uncompiled network.
        setting: A `Setting`.
        data: `(x_train, y_train), (x_test, y_test)`.
        arguments: The parsed `flags`.

    Returns:
        A `Trained`.
    """
    (x_train, _), _ = data
    keras.utils.set_random_seed(setting.seed)
    model = build(input_shape=x_train.shape[1:], weight_decay=setting.weight_decay)
    name = Path(collection(data, arguments), _folder(model, setting))
    load = functools.cache(
        functools.partial(_fit, model, setting, data, arguments, arguments.models / name)
    )
    folder = arguments.measurements / name
    results = measured_numbers(
        folder / "results.json",
        lambda: _summarize(load(), data, arguments.models / name / "history.csv"),
    )
    return Trained(load, results, folder, arguments.models / name / "records")


def collection(data, arguments):
    """The name of the folder of all networks that the same flags train on the same images."""
    (x_train, _), _ = data
    images = f"{arguments.dataset}-{x_train.shape[1]}px-{len(x_train)}"
    drops = ",".join(f"{part:.3g}" for part in arguments.drops)
    schedule = f"{arguments.epochs}epochs-rate{arguments.learning_rate:g}-drops{drops}"
    schedule += f"-warmup{arguments.warmup}" * bool(arguments.warmup)
    schedule += "-plain" * arguments.no_augmentation
    return f"{images}-{schedule}"


def measured(path, kind, measure):
    """Loads a measured line or surface, or measures and saves it.

    Args:
        path: Where it is saved.
        kind: Its class.
        measure: A function of `checkpoint=`, the path of a file that keeps what was
            measured before an interruption.
    """
    if path.exists():
        return kind.load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_suffix(".unfinished.h5")
    value = measure(checkpoint=checkpoint)
    value.save(path)
    checkpoint.unlink()
    return value


def measured_numbers(path, measure):
    """Loads a dict of numbers, or measures and saves it."""
    if not path.exists():
        numbers = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(numbers))
    return json.loads(path.read_text())


def measure_lines(trained, data, arguments, normalize="filter"):
    """Measures the training loss along random directions, from the same seed for all networks."""
    x, y = (part[: arguments.measured] for part in data[0])
    number, points, extent = arguments.directions, arguments.line_points, EXTENTS[normalize]
    file = f"lines-{normalize or 'raw'}-{extent}-{points}-{len(x)}-{number}.h5"

    def evaluate(checkpoint):
        model = trained.load()
        options = {
            "directions": random_directions(model, number, normalize=normalize, seed=0),
            "extent": (-extent, extent),
            "checkpoint": checkpoint,
        }
        return evaluate_line(model, x, y, points, **options, verbose=2)

    return measured(trained.folder / file, LossLine, evaluate)


def widths_of(line):
    """The half-width along each direction: where the loss without penalty has risen by `RISE`."""
    return half_widths(line, RISE, "data_loss")


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


def minutes_of(results):
    """The time of the training, for tables; most networks are trained on a CPU."""
    return f"{results['seconds'] / 60:.1f}{' (GPU)' * (results.get('device') == 'gpu')}"


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


def _folder(model, setting):
    """The name of a folder per setting: no setting may find the network of another."""
    name = "-".join([model.name, setting.optimizer, str(setting.batch_size)])
    if setting.rate is not None:
        name += f"-rate{setting.rate:g}"
    if setting.clipnorm is not None:
        name += f"-clipnorm{setting.clipnorm:g}"
    return f"{name}-decay{setting.weight_decay:g}-seed{setting.seed}"


def _fit(model, setting, data, arguments, folder):
    """Trains a new network, resumes an interrupted training, or loads a finished network."""
    finished = folder / "model.keras"
    if finished.exists():
        return keras.saving.load_model(finished)
    print(f"Training {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    model.compile(_optimizer(setting, arguments), LOSS, metrics=["accuracy"])
    callbacks = [
        keras.callbacks.LearningRateScheduler(_schedule(setting, arguments)),
        EpochTimer(),
        keras.callbacks.CSVLogger(folder / "history.csv", append=True),
        keras.callbacks.BackupAndRestore(folder / "backup", double_checkpoint=True),
        WeightHistory(folder / "records", append=True),
    ]
    batches = _batches(*data[0], setting)
    if not arguments.no_augmentation:
        batches = _augmented(batches, setting, flip=arguments.dataset != "digits")
    # The batches are shuffled already.
    options = {"shuffle": False, "callbacks": callbacks, "verbose": 2}
    model.fit(batches, epochs=arguments.epochs, **options)
    model.save(finished)
    return model


def _optimizer(setting, arguments):
    rate = _first_rate(setting, arguments)
    if setting.optimizer == "Adam":
        return keras.optimizers.Adam(rate, clipnorm=setting.clipnorm)
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, clipnorm=setting.clipnorm)


def _first_rate(setting, arguments):
    if setting.rate is not None:
        return setting.rate
    return arguments.learning_rate / (100 if setting.optimizer == "Adam" else 1)


def _schedule(setting, arguments):
    """The learning rate of each epoch: it grows to the first rate, then drops in steps."""
    first = _first_rate(setting, arguments)
    drops = [round(part * arguments.epochs) for part in arguments.drops]

    def rate(epoch):
        passed = sum(epoch >= drop for drop in drops)
        return first * min(1, (epoch + 1) / (arguments.warmup + 1)) / 10**passed

    return rate


def _batches(x, y, setting):
    samples = tf.data.Dataset.from_tensor_slices((x, y))
    return samples.shuffle(len(x), seed=setting.seed).batch(setting.batch_size).prefetch(1)


def _augmented(batches, setting, flip):
    """Batches of shifted images, flipped as well unless they are digits."""
    seed = setting.seed
    shift = layers.RandomTranslation(
        1 / 8, 1 / 8, fill_mode="constant", interpolation="nearest", seed=seed
    )
    steps = [shift, layers.RandomFlip("horizontal", seed=seed)] if flip else [shift]
    augment = keras.Sequential(steps)
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
    return accuracies | {
        "parameters": model.count_params(),
        "steps": int(model.optimizer.iterations),
        "seconds": sum(seconds.values()),
        "device": _device_of(model),
    }


def _device_of(model):
    # Each backend has names of its own.
    name = str(model.variables[0].value.device).lower()
    return "gpu" if "gpu" in name or "cuda" in name else "cpu"
