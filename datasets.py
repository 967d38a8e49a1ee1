"""Datasets: whatever `model.evaluate` accepts, made ready to be read hundreds of times.

A landscape reads the same data at every point. So arrays, `tf.data` pipelines
and `PyDataset`s all become one batched `tf.data.Dataset` whose batches stay in
memory after the first pass; a pipeline that shuffles or augments then shows the
same samples at every point, too.
"""

import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from losslandscape.checks import check_integer

# Batches are as large as fits a layer's output into this many bytes: large ones
# are several times faster than Keras' 32, and beyond this nothing is gained.
ACTIVATION_BUDGET = 10 * 2**20
BATCH_SIZE_BOUNDS = (32, 2048)


class Dataset(NamedTuple):
    """One dataset in memory.

    Attributes:
        name: What the dataset is called in errors.
        size: Number of samples.
        batches: A `tf.data.Dataset` of batches `(x,)`, `(x, y)` or `(x, y,
            sample_weight)`, the same at every pass.
        tensors: All samples in the same structure, or `None` if the batches
            differ in shape.
        batch_size: Samples per batch, but for the last one, or `None`.
    """

    name: str
    size: int
    batches: tf.data.Dataset
    tensors: tuple | None = None
    batch_size: int | None = None

    def __reduce__(self):
        """Lets it be pickled, which neither a `tf.data.Dataset` nor its tensors can be."""
        if self.tensors is None:
            return _read_batches, (list(self.batches.as_numpy_iterator()), self.name)
        tensors = tree.map_structure(np.asarray, self.tensors)
        return _from_arrays, (self.name, tensors, self.batch_size)


def split_datasets(datasets):
    """Tells several datasets from one.

    A tuple or list holds several datasets if its first element is a tuple or a
    dataset object. Else it is one `(x,)`, `(x, y)` or `(x, y, sample_weight)`;
    several inputs or outputs of one model therefore come as a list or dict.

    Args:
        datasets: One dataset, or a tuple or list of them.

    Returns:
        A list of datasets.

    Raises:
        ValueError: If `datasets` is an empty tuple or list.
    """
    if not isinstance(datasets, (tuple, list)):
        return [datasets]
    if len(datasets) == 0:
        raise ValueError(
            "`datasets` is empty. Pass `(x, y)`, a dataset, or a tuple of several such datasets."
        )
    if isinstance(datasets[0], tuple) or _is_batched(datasets[0]):
        return list(datasets)
    return [tuple(datasets)]


def read_dataset(model, dataset, batch_size=None, name="dataset"):
    """Puts one dataset into memory as batches.

    Args:
        model: The `keras.Model` that will read the data; its layers decide the
            automatic batch size.
        dataset: Arrays or tensors as `(x,)`, `(x, y)` or `(x, y,
            sample_weight)`, where `x` and `y` may be lists or dicts for models
            of several inputs or outputs; or a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or another sized iterable of batches.
        batch_size: Samples per batch for arrays. `None` (the default) takes
            batches as large as memory allows. Batched datasets keep theirs.
        name: What the dataset is called in errors.

    Returns:
        A `Dataset`.

    Raises:
        TypeError: If `dataset` is none of the above.
        ValueError: If it is empty or endless, its arrays differ in length, or
            `batch_size` is given for a dataset that has batches already.
    """
    if not _is_batched(dataset):
        return _read_arrays(model, dataset, batch_size, name)
    if batch_size is not None:
        raise ValueError(
            f"`batch_size` is for arrays; `{name}` is a {type(dataset).__name__}, which has "
            f"batches already. Received batch_size={batch_size}. Leave it out."
        )
    if isinstance(dataset, tf.data.Dataset):
        return _read_pipeline(dataset, name)
    return _read_batches(dataset, name)


def read_datasets(model, datasets, batch_size=None):
    """Puts one dataset or several into memory.

    Args:
        model: The `keras.Model` that will read the data.
        datasets: What `split_datasets` takes.
        batch_size: Samples per batch for arrays, or `None`.

    Returns:
        A list of `Dataset`.

    Raises:
        TypeError: As `read_dataset`, or if `batch_size` is no integer.
        ValueError: As `read_dataset`.
    """
    if batch_size is not None:
        check_integer("batch_size", batch_size, minimum=1)
    parts = split_datasets(datasets)
    names = ["dataset"] if len(parts) == 1 else [f"datasets[{i}]" for i in range(len(parts))]
    return [
        read_dataset(model, part, batch_size, name) for part, name in zip(parts, names, strict=True)
    ]


def one_dataset(x, y=None):
    """Puts inputs and targets together; refuses several datasets.

    Args:
        x: Inputs, or a whole dataset if `y` is `None`.
        y: Targets. Defaults to `None`.

    Returns:
        One dataset, as `read_dataset` takes it.

    Raises:
        ValueError: If `x` holds several datasets.
    """
    if y is not None:
        return (x, y)
    parts = split_datasets(x)
    if len(parts) != 1:
        raise ValueError(
            f"`x` must be one dataset if `y` is not given. Received {len(parts)} datasets."
        )
    return parts[0]


def _read_arrays(model, dataset, batch_size, name):
    parts = dataset if isinstance(dataset, tuple) else (dataset,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"`{name}` must be (x,), (x, y) or (x, y, sample_weight). Received {len(parts)} "
            "elements."
        )
    tensors = tree.map_structure(_to_tensor, _standardize(parts))
    leaves = tree.flatten(tensors)
    if not leaves or any(tensor.shape.rank == 0 for tensor in leaves):
        raise TypeError(
            f"`{name}` must be arrays (x, y) with one entry per sample. Received "
            f"{[type(part).__name__ for part in parts]} with elements that are no arrays."
        )
    sizes = [tensor.shape[0] for tensor in leaves]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"The arrays of `{name}` must have the same number of samples. Received {sizes}. "
            "If these are several datasets, pass each as a tuple (x, y); if they are the inputs of "
            "one model, pass them as a list: ([x1, x2], y)."
        )
    _check_not_empty(sizes[0], name)
    if batch_size is None:
        # Of equal size: a small last one would take more than its share of time.
        number = math.ceil(sizes[0] / automatic_batch_size(model))
        batch_size = math.ceil(sizes[0] / number)
    return _from_tensors(name, tensors, batch_size)


def _from_arrays(name, arrays, batch_size):
    return _from_tensors(name, tree.map_structure(_to_tensor, arrays), batch_size)


def _from_tensors(name, tensors, batch_size):
    size = tree.flatten(tensors)[0].shape[0]
    step = min(size, batch_size)

    def batch_at(start):
        return tree.map_structure(lambda tensor: tensor[start : start + step], tensors)

    batches = tf.data.Dataset.range(0, size, step).map(batch_at).cache()
    return Dataset(name, size, _untuned(batches), tensors, step)


def _untuned(batches):
    """Turns off tf.data's own tuner, for which a pass may wait at its end.

    The tuner looks after 10 ms, 20 ms, 40 ms and so on; a pass that ends
    between two looks often waits for the next, which may double its time.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def automatic_batch_size(model):
    """Returns the number of samples whose largest layer output fits the budget."""
    smallest, largest = BATCH_SIZE_BOUNDS
    sizes = [size for layer in model._flatten_layers() for size in _output_sizes(layer)]
    if not sizes:
        return smallest
    bytes_per_sample = 4 * max(sizes)
    return int(np.clip(ACTIVATION_BUDGET // bytes_per_sample, smallest, largest))


def _output_sizes(layer):
    try:
        outputs = tree.flatten(layer.output)
    except (AttributeError, ValueError):
        # The layers of subclassed models do not know their outputs' shapes.
        return []
    return [int(np.prod([axis or 1 for axis in output.shape])) for output in outputs]


def _read_pipeline(pipeline, name):
    if pipeline.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"`{name}` is endless, its loss could never be known. Cut it with `.take(n)`, or drop "
            "`.repeat()`."
        )
    cached = pipeline.cache()
    batches = list(cached)
    sizes = [_batch_size(batch, name) for batch in batches]
    _check_not_empty(sum(sizes), name)
    if _are_uniform(batches, sizes):
        tensors = tree.map_structure(lambda *parts: tf.concat(parts, axis=0), *batches)
        return _from_tensors(name, tensors, sizes[0])
    # Keras warns about data that end without having said when.
    counted = cached.apply(tf.data.experimental.assert_cardinality(len(sizes)))
    return Dataset(name, sum(sizes), _untuned(counted))


def _are_uniform(batches, sizes):
    """Whether the batches could be cut from one tensor, only the last one being smaller."""
    leaves = [tree.flatten(batch) for batch in batches]
    are_plain = all(isinstance(tensor, tf.Tensor) for tensor in leaves[0])
    if not are_plain or set(sizes[:-1]) - {sizes[0]} or sizes[-1] > sizes[0]:
        return False
    return len({tuple(tuple(tensor.shape[1:]) for tensor in batch) for batch in leaves}) == 1


def _read_batches(iterable, name):
    if isinstance(iterable, keras.utils.PyDataset):
        if iterable.num_batches is None:
            raise ValueError(
                f"`{name}` is endless, its loss could never be known. Give it a length."
            )
        iterable = [iterable[index] for index in range(iterable.num_batches)]
    batches = [tree.map_structure(_to_array, _standardize(batch)) for batch in iterable]
    _check_not_empty(len(batches), name)
    signature = tree.map_structure(_spec, batches[0], *batches[1:])
    pipeline = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
    return _read_pipeline(pipeline, name)


def _spec(*arrays):
    """The shape that all arrays share, open where they differ and along samples."""
    sizes = zip(*(array.shape for array in arrays), strict=True)
    shape = [axis[0] if len(set(axis)) == 1 else None for axis in sizes]
    return tf.TensorSpec([None, *shape[1:]], arrays[0].dtype)


def _batch_size(batch, name):
    sizes = [tensor.shape[0] if tensor.shape.rank else None for tensor in tree.flatten(batch)]
    if None in sizes or len(set(sizes)) > 1:
        raise ValueError(
            f"`{name}` must yield batches, with as many targets as inputs. Received an element "
            f"with {sizes} entries along the first axis. Unbatched datasets take `.batch(n)`."
        )
    return sizes[0]


def _check_not_empty(size, name):
    if size == 0:
        raise ValueError(f"`{name}` is empty: it holds no samples to measure a loss on.")


def _is_batched(dataset):
    if isinstance(dataset, (tf.data.Dataset, keras.utils.PyDataset)):
        return True
    is_array = hasattr(dataset, "shape") or hasattr(dataset, "__array__")
    is_container = isinstance(dataset, (tuple, list, dict, str))
    return (
        hasattr(dataset, "__iter__") and hasattr(dataset, "__len__") and not is_array | is_container
    )


def _to_array(array):
    """Floats get Keras' own width, as `model.evaluate` would give them."""
    array = np.asarray(array)
    if array.dtype == object:
        raise TypeError(
            "A dataset must be numeric arrays (x, y), a tf.data.Dataset, a keras.utils.PyDataset "
            f"or a sized iterable of batches. Received an array of {type(array.flat[0]).__name__}. "
            "A generator can be read but once: wrap it in `tf.data.Dataset.from_generator`."
        )
    is_float = np.issubdtype(array.dtype, np.floating)
    return array.astype(keras.config.floatx() if is_float else array.dtype, copy=False)


def _to_tensor(array):
    # What TensorFlow makes of a NumPy array holds the memory twice; a copy of it does not.
    return array if tf.is_tensor(array) else tf.identity(tf.convert_to_tensor(_to_array(array)))


def _standardize(parts):
    """Drops a missing target or weight, and makes tuples of lists, which tf.data would stack."""
    return tuple(
        tuple(part) if isinstance(part, list) else part for part in parts if part is not None
    )
