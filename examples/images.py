"""Images of the experiments: CIFAR-10, Fashion-MNIST and scikit-learn's digits."""

import gzip
from pathlib import Path

import keras
import numpy as np

DATASETS = ("cifar10", "fashion_mnist", "digits")
# Where Debian's package `dataset-fashion-mnist` puts them.
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def load_images(name, size=None, samples=None, folder=None):
    """Loads images, standardized by the mean and deviation of each channel.

    Args:
        name: One of `DATASETS`.
        size: Height and width to average the images down to. `None` (the
            default) leaves them as they are.
        samples: How many of the training images to use. `None` (the default)
            takes all; test images always are.
        folder: For Fashion-MNIST, a folder with the four idx files. Defaults to
            that of the Debian package or, if it is not installed, to Keras'
            download.

    Returns:
        `(x_train, y_train), (x_test, y_test)`, images of shape `(number, height,
        width, channels)` as float32 and labels as integers.
    """
    (x_train, y_train), (x_test, y_test) = _load(name, folder)
    x_train, y_train = x_train[:samples], y_train[:samples].ravel()
    x_train, x_test = _average_down(x_train, size), _average_down(x_test, size)
    axes = (0, 1, 2)
    mean, deviation = x_train.mean(axes), x_train.std(axes)
    standardized = [(x - mean) / deviation for x in (x_train, x_test)]
    return (standardized[0], y_train), (standardized[1], y_test.ravel())


def _load(name, folder):
    if name == "cifar10":
        return keras.datasets.cifar10.load_data()
    if name == "digits":
        return _load_digits()
    if folder is None and not FASHION_MNIST_FOLDER.exists():
        return keras.datasets.fashion_mnist.load_data()
    return _read_idx_files(Path(folder or FASHION_MNIST_FOLDER))


def _load_digits():
    # Only this dataset needs scikit-learn.
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images, digits.target, test_size=0.5, random_state=0
    )
    return (x_train, y_train), (x_test, y_test)


def _read_idx_files(folder):
    return [
        (
            _read_idx(folder, f"{part}-images-idx3-ubyte"),
            _read_idx(folder, f"{part}-labels-idx1-ubyte"),
        )
        for part in ("train", "t10k")
    ]


def _read_idx(folder, name):
    """Reads an array of bytes: http://yann.lecun.com/exdb/mnist, plain or gzipped."""
    plain, zipped = folder / name, folder / f"{name}.gz"
    content = plain.read_bytes() if plain.exists() else gzip.decompress(zipped.read_bytes())
    dimensions = content[3]
    header = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:header], ">u4")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _average_down(images, size):
    images = images.reshape(*images.shape[:3], -1).astype("float32")
    if size is None or size == images.shape[1]:
        return images
    resized = keras.ops.image.resize(images, (size, size), antialias=True)
    return keras.ops.convert_to_numpy(resized)
