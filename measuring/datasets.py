"""Datasets: whatever `model.evaluate` accepts, made ready to be read hundreds of times.

A landscape reads the same data at every point. So arrays, `tf.data` pipelines and `PyDataset`s all
become one batched `tf.data.Dataset` whose batches stay in memory after the first pass; even a
pipeline that shuffles or augments then shows the same samples at every point. Batches that would
fill the memory, also those of memory-mapped arrays, are streamed instead: read from their source at
each point, after a check that they are always the same. Keras itself reads arrays and `PyDataset`s,
so that a test step gets exactly the structure that `model.evaluate` gives it.
"""

import collections.abc
import dataclasses
import functools
import itertools
import math

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from losslandscape.backends.current import current
from losslandscape.backends.structures import arrays_of, in_structure_of, map_arrays
from losslandscape.basics.arrays import digest
from losslandscape.basics.checks import check_integer, memory, warn
from losslandscape.basics.internals import batches_of, flatten_layers

# Batches are as large as possible with each layer's output within this many bytes: several times
# faster than Keras' 32 samples, while larger batches gain nothing.
ACTIVATION_BUDGET = 10 * 2**20
BATCH_SIZE_BOUNDS = (32, 2048)
# A few samples are so many, or so many times a power of the ratio, which all are more by, too.
FEWEST, RATIO = 500, 6
# Batches that take more than this part of the memory are streamed: to join and cut them takes three
# times as much.
SHARE = 1 / 8


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One dataset, in memory or streamed.

    Attributes:
        name: What the dataset is called in errors.
        size: Number of samples.
        tensors: All samples in the structure that `model.evaluate` hands to a test step:
            `x`, `(x, y)` or `(x, y, sample_weight)`; or `None` if the batches differ in
            shape, are not dense, or are streamed.
        batch_size: Samples per batch, except the last; `None` if the batches differ in shape or
            are not dense.
        pipeline: A `tf.data.Dataset` of the batches if `tensors` is `None`.
        blocks: What is measured of the spread between batches; see `sampling`. Defaults to
            `None`, nothing.
        is_streamed: Whether the batches are read from their source each time.
    """

    name: str
    size: int
    tensors: tuple | None = None
    batch_size: int | None = None
    pipeline: tf.data.Dataset | None = None
    blocks: object = None
    is_streamed: bool = False

    @functools.cached_property
    def batches(self):
        """A `tf.data.Dataset` of batches in the structure of a test step, always the same."""
        if self.tensors is None:
            return self.pipeline
        starts = tf.data.Dataset.range(0, self.size, self.batch_size)
        return _untuned(starts.map(self._batch_at).cache())

    @functools.cached_property
    def digest(self):
        """A text that differs if any sample does; the same in memory and streamed."""
        return digest(self.once())

    def once(self):
        """Returns an iterator of the batches that keeps no copy of them."""
        if self.tensors is None:
            return iter(self.batches)
        return map(self._batch_at, range(0, self.size, self.batch_size))

    @functools.cached_property
    def keras_batches(self):
        """The batches for `model.evaluate`, of known size if all are equally large.

        Keras makes such batches of arrays, so the model may already have a graph for them. They
        are cut beforehand: to start a pass that cuts them takes longer than a small model's pass.
        """
        if self.tensors is None:
            return self.batches
        number, rest = divmod(self.size, self.batch_size)
        end = number * self.batch_size

        def stacked(tensor):
            whole = tensor[:end] if rest else tensor
            return tf.reshape(whole, [number, self.batch_size, *tensor.shape[1:]])

        batches = tf.data.Dataset.from_tensor_slices(map_arrays(stacked, self.tensors))
        if rest:
            last = map_arrays(lambda tensor: tensor[end:], self.tensors)
            batches = batches.concatenate(tf.data.Dataset.from_tensors(last))
        return _untuned(batches)

    @functools.cached_property
    def sizes(self):
        """Int array of the number of samples in each batch."""
        if self.batch_size is None:
            return np.array([batch_size_of(batch) for batch in self.once()])
        starts = np.arange(0, self.size, self.batch_size)
        return np.minimum(self.batch_size, self.size - starts)

    @property
    def first_batch(self):
        """A `Dataset` of the first batch alone."""
        return _from_batches(list(self.batches.take(1)), self.name)

    def part(self, numbers):
        """Returns a `Dataset` of the batches with these numbers, counted from 0."""
        chosen = [batch for number, batch in enumerate(self.once()) if number in numbers]
        return _from_batches(chosen, self.name)

    def _batch_at(self, start):
        return map_arrays(lambda tensor: tensor[start : start + self.batch_size], self.tensors)

    def __reduce__(self):
        """Makes it picklable, which a `tf.data.Dataset` is not."""
        if self.tensors is None:
            return _from_batches, (list(self.batches), self.name), {"blocks": self.blocks}
        parts = self.name, self.tensors, self.batch_size
        return _from_tensors, parts, {"blocks": self.blocks}


def split_datasets(datasets):
    """Distinguishes several datasets from one.

    A tuple or list holds several datasets if its first element is a tuple or a
    dataset object. Otherwise it is one `(x,)`, `(x, y)` or `(x, y, sample_weight)`,
    so several inputs or outputs of one model must be a list or dict.

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
    if isinstance(datasets[0], tuple) or is_batched(datasets[0]):
        return list(datasets)
    return [tuple(datasets)]


def read_dataset(model, dataset, batch_size=None, name="dataset"):
    """Reads one dataset as batches, into memory if they fit there.

    Args:
        model: The `keras.Model` that will read the data; its layers decide the
            automatic batch size.
        dataset: Arrays or tensors as `(x,)`, `(x, y)` or `(x, y,
            sample_weight)`, where `x` and `y` may be lists or dicts for models
            with several inputs or outputs; or a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or another sized iterable of batches.
        batch_size: Samples per batch for arrays. `None` (the default) takes
            batches as large as the model's activations allow. Batched datasets
            keep theirs.
        name: What the dataset is called in errors.

    Returns:
        A `Dataset`.

    Raises:
        TypeError: If `dataset` is none of the above, or `batch_size` not an integer.
        ValueError: If it is empty or endless, its arrays differ in length, or
            `batch_size` is below 1, or given for a dataset that is already batched; or if
            it does not fit into memory and gives other batches each time.
    """
    if batch_size is not None:
        check_integer("batch_size", batch_size, minimum=1)
    parts = dataset if isinstance(dataset, tuple) else (dataset,)
    if any(isinstance(part, collections.abc.Iterator) for part in parts):
        raise TypeError(
            f"`{name}` must be readable more than once. Received an iterator or generator, which "
            "can be read only once. Wrap it in `tf.data.Dataset.from_generator`."
        )
    if not is_batched(dataset):
        return _read_arrays(model, parts, batch_size, name)
    if batch_size is not None:
        raise ValueError(
            f"`batch_size` is for arrays, but `{name}` is a {type(dataset).__name__}, which is "
            f"already batched. Received batch_size={batch_size}. Leave it out."
        )
    if isinstance(dataset, tf.data.Dataset):
        return _read_pipeline(dataset, name)
    return _read_batches(dataset, name)


def read_datasets(model, datasets, batch_size=None):
    """Reads one dataset or several, into memory if they fit there.

    Args:
        model: The `keras.Model` that will read the data.
        datasets: List of datasets.
        batch_size: Samples per batch for arrays, or `None`.

    Returns:
        A list of `Dataset`.

    Raises:
        TypeError: If `read_dataset` refuses one of them.
        ValueError: If `read_dataset` refuses one of them.
    """
    number = len(datasets)
    names = ["dataset"] if number == 1 else [f"datasets[{index}]" for index in range(number)]
    pairs = zip(datasets, names, strict=True)
    return [read_dataset(model, dataset, batch_size, name) for dataset, name in pairs]


def check_targets(model, data):
    """Refuses data without the targets that a loss given to `compile` always takes.

    Args:
        model: A compiled `keras.Model`. One with a test step or `compute_loss` of its own may
            need no targets.
        data: List of `Dataset`.

    Raises:
        ValueError: If targets are missing.
    """
    is_keras_own = all(
        getattr(type(model), name) is getattr(keras.Model, name)
        for name in ("test_step", "compute_loss")
    )
    if not is_keras_own or model.loss is None:
        return
    for dataset in data:
        whole = dataset.pipeline.element_spec if dataset.tensors is None else dataset.tensors
        _, targets, _ = keras.utils.unpack_x_y_sample_weight(whole)
        if targets is None:
            raise ValueError(
                "`y` must be the targets that the loss of `model` compares outputs with, or `x` a "
                f"whole dataset such as (x, y). Received inputs alone, as `{dataset.name}`. For a "
                "loss that needs no targets, override `compute_loss`."
            )


def check_can_be_sent(data):
    """Refuses a list of `Dataset` if workers cannot get one of them."""
    streamed = [dataset.name for dataset in data if dataset.is_streamed]
    if streamed:
        raise ValueError(
            "`executor` needs data that fit into memory, to send them to workers. Received "
            f"{streamed} of more than {_most() / 2**30:.1f} GiB, an eighth of it. Leave "
            "`executor` out, or pass part of the data."
        )


def few_samples(dataset, seed):
    """Draws a few samples of a dataset, of each class in proportion.

    Args:
        dataset: A `Dataset`.
        seed: Integer seed; the same one draws the same samples.

    Returns:
        A `Dataset` with batches of the same size; or the given one, if it has too few samples, or
        none can be picked.
    """
    if dataset.batch_size is None or dataset.size < RATIO * FEWEST:
        return dataset
    number = FEWEST
    while number * RATIO**2 <= dataset.size:
        number *= RATIO
    number -= number % current().parts_of_batch()
    # At random within each class, and then at equal distances.
    shuffled = np.random.default_rng(seed).random(dataset.size)
    order = np.lexsort((shuffled, _classes(dataset)))
    chosen = np.sort(order[((np.arange(number) + 0.5) * dataset.size / number).astype(int)])
    return _from_tensors(dataset.name, _gathered(dataset, chosen), dataset.batch_size)


def _gathered(dataset, chosen):
    """Some samples, by their indices in ascending order."""
    starts = np.arange(0, dataset.size, dataset.batch_size)
    within = np.split(chosen, np.searchsorted(chosen, starts[1:]))
    parts = [
        map_arrays(functools.partial(tf.gather, indices=indices - start), batch)
        for start, indices, batch in zip(starts, within, dataset.once(), strict=True)
    ]
    return map_arrays(lambda *arrays: tf.concat(arrays, axis=0), *parts)


def _classes(dataset):
    """Numbers by which samples are told apart: labels, or a single target; else all the same."""
    found = [_classes_in(batch) for batch in dataset.once()]
    classes, are_classes = zip(*found, strict=True)
    return np.concatenate(classes) if all(are_classes) else np.zeros(dataset.size)


def _classes_in(batch):
    """The numbers of one batch, and whether they may tell its samples apart."""
    _, targets, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if not tf.is_tensor(targets):
        return [], False
    rows = np.reshape(targets, (len(targets), -1))
    if rows.shape[1] == 1:
        return rows[:, 0], True
    is_one_hot = np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all()
    return rows.argmax(axis=1), is_one_hot


def all_datasets(x, y=None):
    """Returns a list of the datasets that were given: one, or several in place of `x`.

    Args:
        x: Inputs, or what `split_datasets` takes if `y` is `None`.
        y: Targets. Defaults to `None`.

    Raises:
        TypeError: If `x` is `None`.
    """
    if x is None:
        raise TypeError("`x` must be inputs, or a whole dataset. Received None.")
    return split_datasets(x) if y is None else [(x, y)]


def one_dataset(x, y=None):
    """Combines inputs and targets into one dataset; refuses several datasets.

    Args:
        x: Inputs, or a whole dataset if `y` is `None`.
        y: Targets. Defaults to `None`.

    Returns:
        One dataset, as `read_dataset` takes it.

    Raises:
        TypeError: If `x` is `None`.
        ValueError: If `x` holds several datasets.
    """
    parts = all_datasets(x, y)
    if len(parts) != 1:
        raise ValueError(
            f"`x` must be one dataset if `y` is not given. Received {len(parts)} datasets. For "
            "several, call `evaluate_lines`, `evaluate_surfaces` or `plot_loss_3D`; pass several "
            "inputs or targets of one model as lists: ([x1, x2], [y1, y2])."
        )
    return parts[0]


def handed_over(dataset):
    """Returns the batches of a `Dataset` as Keras hands them to a step of this backend.

    Args:
        dataset: A `Dataset`.

    Returns:
        A `tf.data.Dataset` on TensorFlow, otherwise a list, or what can be iterated again and
        again if the dataset is streamed.
    """
    if keras.backend.backend() == "tensorflow":
        return dataset.batches
    return _Stream(dataset.batches) if dataset.is_streamed else _recorded(dataset.batches)


def batch_size_of(batch):
    """Returns the number of samples in a batch, or `None` if its arrays disagree."""
    sizes = {part.shape[0] if len(part.shape) else None for part in arrays_of(batch)}
    return sizes.pop() if len(sizes) == 1 else None


def _read_arrays(model, parts, batch_size, name):
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"`{name}` must be (x,), (x, y) or (x, y, sample_weight). Received {len(parts)} "
            "elements."
        )
    size = _number_of_samples(parts, name)
    if batch_size is None:
        batch_size = _equal_batch_size(size, automatic_batch_size(model))
    _check_divisible([min(size, batch_size), size % batch_size], name)
    if _are_too_large_in_files(parts):
        read_again = functools.partial(_slices, parts, size, batch_size, name)
        return _streamed(next(read_again()), read_again(), read_again, name)
    # All at once, to be cut into batches.
    whole = _as_one_batch(parts, size, name)
    if _is_dense(whole):
        return _from_tensors(name, whole, batch_size)
    return _from_batches(_handed_over(*parts, batch_size=batch_size, name=name), name)


def _are_too_large_in_files(parts):
    """Whether some of these arrays are memory-mapped, and all would fill the memory."""
    leaves = [leaf for leaf in tree.flatten(parts) if leaf is not None]
    is_mapped = any(isinstance(leaf, np.memmap) for leaf in leaves)
    return is_mapped and sum(getattr(leaf, "nbytes", 0) for leaf in leaves) > _most()


def _slices(parts, size, batch_size, name):
    """Yields batches of arrays, each of them read from its file when it is asked for."""
    for start in range(0, size, batch_size):
        stop = min(start + batch_size, size)
        cut = functools.partial(_slice_of, start=start, stop=stop)
        yield _as_one_batch(tree.map_structure(cut, parts), stop - start, name)


def _slice_of(leaf, start, stop):
    part = None if leaf is None else leaf[start:stop]
    return np.asarray(part) if isinstance(part, np.memmap) else part


def _as_one_batch(parts, size, name):
    """All samples, as Keras hands them over."""
    if _are_plain(parts):
        return _cast(parts)
    (whole,) = _handed_over(*parts, batch_size=size, name=name)
    return whole


def _equal_batch_size(size, most):
    """The size of equal batches: a small last one would take more than its share of time."""
    divisor = current().parts_of_batch()
    number = math.ceil(size / most)
    return math.ceil(size / number / divisor) * divisor


def _number_of_samples(parts, name):
    shapes = [getattr(leaf, "shape", ()) for leaf in tree.flatten(parts) if leaf is not None]
    if not shapes or not all(len(shape) for shape in shapes):
        first, *_ = parts
        is_whole = len(parts) > 1 and (isinstance(first, tuple) or is_batched(first))
        raise TypeError(
            f"`{name}` must be arrays (x, y) with one entry per sample. Received "
            f"{[type(part).__name__ for part in parts]} with elements that are not arrays. "
            + (
                "The first is a whole dataset: pass what follows it by name, such as "
                "`number_of_points=5`."
                if is_whole
                else "Make arrays of lists with `np.asarray`."
            )
        )
    sizes = [shape[0] for shape in shapes]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"The arrays of `{name}` must have the same number of samples. Received {sizes}. "
            "If these are several datasets, pass each as a tuple (x, y); if they are the inputs of "
            "one model, pass them as a list: ([x1, x2], y)."
        )
    _check_not_empty(sizes[0], name)
    return sizes[0]


def _are_plain(parts):
    """Whether these are arrays of numbers `(x, y)`, of which Keras only casts the floats."""
    return (
        keras.backend.backend() == "tensorflow"
        and len(parts) == 2
        and all(type(part) is np.ndarray and part.dtype.kind in "fiub" for part in parts)
    )


def _cast(parts):
    """What Keras would hand over, without its detours, which take longer than small graphs."""
    floatx = keras.config.floatx()
    return tuple(
        _to_tensor(part.astype(floatx, copy=False) if part.dtype.kind == "f" else part)
        for part in parts
    )


class _Recorder(keras.Model):
    """Records what `model.evaluate` passes to a test step, on any backend."""

    def __init__(self):
        super().__init__()
        self.built = True
        self.batches = []
        self.compile(run_eagerly=True)

    def test_step(self, *arguments):
        """Records a batch; JAX passes the state of the model before it."""
        *state, batch = arguments
        self.batches.append(batch)
        # Keras needs a result.
        logs = {"recorded": 0.0}
        return (logs, *state) if state else logs


def _recorded(*data, **options):
    """The batches that a test step gets from `model.evaluate`."""
    recorder = _Recorder()
    recorder.evaluate(*data, verbose=0, **options)
    return recorder.batches


class _Stream:
    """Hands over one batch at a time."""

    def __init__(self, batches):
        self._batches = batches

    def __iter__(self):
        for batch in self._batches:
            yield from _recorded(tf.data.Dataset.from_tensors(batch))


def _handed_over(x, y=None, sample_weight=None, *, batch_size=None, name):
    """The batches that Keras makes from data, in its own structure."""
    # Keras drops weights without targets, but a custom loss of the model may need them.
    has_weights_only = y is None and sample_weight is not None
    targets, weights = (sample_weight, None) if has_weights_only else (y, sample_weight)
    try:
        recorded = _recorded(x, targets, sample_weight=weights, batch_size=batch_size)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"`{name}` must be data that `model.evaluate` can read. {error}"
        ) from error
    batches = [_to_tensors(batch) for batch in recorded]
    return [(x, None, weights) for x, weights in batches] if has_weights_only else batches


def _from_tensors(name, tensors, batch_size):
    size = batch_size_of(tensors)
    return Dataset(name, size, tensors, min(size, batch_size))


def _untuned(batches):
    """Turns off tf.data's own tuner, which may delay the end of a pass.

    The tuner runs after 10 ms, 20 ms, 40 ms and so on; a pass that ends
    between two runs often waits for the next, which may double its time.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def automatic_batch_size(model):
    """Returns the number of samples whose largest layer output fits the budget."""
    smallest, largest = BATCH_SIZE_BOUNDS
    sizes = [size for layer in flatten_layers(model) for size in _output_sizes(layer)]
    if not sizes:
        return smallest
    bytes_per_sample = 4 * max(sizes)
    return int(np.clip(ACTIVATION_BUDGET // bytes_per_sample, smallest, largest))


def _output_sizes(layer):
    try:
        outputs = tree.flatten(layer.output)
    except (AttributeError, ValueError):
        # The layers of subclassed models do not know their output shapes.
        return []
    return [int(np.prod([axis or 1 for axis in output.shape])) for output in outputs]


def _read_pipeline(pipeline, name):
    if pipeline.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"`{name}` is endless, so its loss can never be known. Cut it with `.take(n)`, or drop "
            "`.repeat()`."
        )
    return _read(pipeline.__iter__, name, pipeline)


def _read_batches(iterable, name):
    if not isinstance(iterable, keras.utils.PyDataset):
        return _read(lambda: map(_to_tensors, iterable), name)
    if iterable.num_batches is None:
        raise ValueError(f"`{name}` is endless, so its loss can never be known. Give it a length.")
    # Once, however often it is read: between two epochs it may shuffle.
    iterable.on_epoch_begin()
    read = _read(lambda: map(_to_tensors, batches_of(iterable)), name)
    if not read.is_streamed:
        iterable.on_epoch_end()
    return read


def _read(read_again, name, pipeline=None):
    """Reads batches into memory, or streams them if they turn out not to fit.

    Args:
        read_again: A function that begins a pass: it returns an iterator of the batches.
        name: What the dataset is called in errors.
        pipeline: A `tf.data.Dataset` of the same batches, if there is one.
    """
    kept, size, rest = collections.deque(), 0, iter(read_again())
    for batch in rest:
        kept.append(batch)
        size += _bytes_of(batch)
        if size > _most():
            _warn_if_unknown(pipeline, name)
            first_pass = itertools.chain(_freed(kept), rest)
            return _streamed(batch, first_pass, read_again, name, pipeline)
    return _from_batches(kept, name)


def _most():
    """How many bytes of batches are kept in memory."""
    return SHARE * memory()


def _freed(batches):
    """Yields batches from a queue that does not keep them."""
    while batches:
        yield batches.popleft()


def _warn_if_unknown(pipeline, name):
    if pipeline is not None and pipeline.cardinality() == tf.data.UNKNOWN_CARDINALITY:
        warn(
            f"`{name}` is of unknown length and takes more than {_most() / 2**30:.1f} GiB. It is "
            "read to its end; if it has none, interrupt and cut it with `.take(n)`. To avoid this "
            "warning, apply `tf.data.experimental.assert_cardinality(n)` to it."
        )


def _streamed(batch, first_pass, read_again, name, pipeline=None):
    """A dataset whose batches are read from their source each time; `batch` is one of them."""
    sizes, specs = [], _specs_of(batch)

    def noted():
        nonlocal specs
        for each in first_pass:
            sizes.append(_size_of(each, name))
            specs = _common(specs, _specs_of(each), name)
            yield each

    if digest(noted()) != digest(read_again()):
        raise ValueError(
            f"`{name}` takes more than {_most() / 2**30:.1f} GiB, an eighth of the memory, so it "
            "is read again at each point, and must give the same batches each time. The second "
            "time they were others. Shuffle with `reshuffle_each_iteration=False`, or not at all, "
            "and do not augment at random; or write what is drawn to a file, with `.cache(path)`."
        )
    _check_divisible(sizes, name)
    if pipeline is None:
        pipeline = _untuned(_pipeline(read_again, specs, batch).prefetch(1))
    batch_size = _uniform_size(sizes, specs)
    pipeline = _counted(pipeline, len(sizes))
    return Dataset(name, sum(sizes), None, batch_size, pipeline, is_streamed=True)


def _from_batches(batches, name):
    sizes = [_size_of(batch, name) for batch in batches]
    _check_not_empty(sum(sizes), name)
    _check_divisible(sizes, name)
    common = functools.partial(_common, name=name)
    specs = functools.reduce(common, map(_specs_of, batches))
    batch_size = _uniform_size(sizes, specs)
    if batch_size is not None:
        tensors = map_arrays(lambda *parts: tf.concat(parts, axis=0), *batches)
        return _from_tensors(name, tensors, batch_size)
    cached = _pipeline(lambda: batches, specs, batches[0]).cache()
    # Fills the cache now, because a pass that ends early would not keep it.
    collections.deque(cached, maxlen=0)
    return Dataset(name, sum(sizes), pipeline=_untuned(_counted(cached, len(batches))))


def _size_of(batch, name):
    size = batch_size_of(batch)
    if size is None:
        shapes = [tuple(part.shape) for part in arrays_of(batch)]
        raise ValueError(
            f"`{name}` must yield batches, with as many targets as inputs. Received an element of "
            f"arrays with shapes {shapes}. Batch an unbatched dataset with `.batch(n)`."
        )
    return size


def _bytes_of(batch):
    # A sparse or ragged tensor consists of several.
    parts = tf.nest.flatten(arrays_of(batch), expand_composites=True)
    return sum(part.shape.num_elements() * part.dtype.size for part in parts)


def _specs_of(batch):
    """The shapes and types of the arrays in a batch."""
    return [tf.type_spec_from_value(part) for part in arrays_of(batch)]


def _common(specs, others, name):
    """The shapes and types that arrays of both kinds have."""
    pairs = zip(specs, others, strict=True)
    common = [one.most_specific_common_supertype([other]) for one, other in pairs]
    if None in common:
        raise ValueError(
            f"`{name}` must yield batches of the same types and numbers of dimensions. Received "
            f"{specs} and {others}."
        )
    return common


def _uniform_size(sizes, specs):
    """The size of all batches but the last, if they could be cut from one tensor; or `None`."""
    if set(sizes[:-1]) - {sizes[0]} or sizes[-1] > sizes[0]:
        return None
    are_dense = all(isinstance(spec, tf.TensorSpec) for spec in specs)
    if not are_dense or not all(spec.shape[1:].is_fully_defined() for spec in specs):
        return None
    return sizes[0]


def _pipeline(read_again, specs, structure):
    """A `tf.data.Dataset` of batches that may differ in shape, including sparse and ragged ones."""

    def arrays():
        return (tuple(arrays_of(batch)) for batch in read_again())

    pipeline = tf.data.Dataset.from_generator(arrays, output_signature=tuple(specs))
    return pipeline.map(lambda *parts: in_structure_of(structure, parts))


def _counted(pipeline, number):
    """Says how many batches there are: Keras warns about data that end at an unknown length."""
    return pipeline.apply(tf.data.experimental.assert_cardinality(number))


def _is_dense(structure):
    return all(isinstance(part, tf.Tensor) for part in arrays_of(structure))


def _check_not_empty(size, name):
    if size == 0:
        raise ValueError(f"`{name}` is empty: it holds no samples to measure a loss on.")


def _check_divisible(sizes, name):
    parts = current().parts_of_batch()
    odd = [size for size in sizes if size % parts]
    if odd:
        raise ValueError(
            f"`{name}` must have batches that can be cut into {parts} equal parts, as "
            f"`keras.distribution` does. Received a batch of {odd[0]} samples. Leave out the last "
            "samples, or choose another batch size."
        )


def is_batched(dataset):
    """Whether a dataset comes in batches, rather than as arrays."""
    if isinstance(dataset, (tf.data.Dataset, keras.utils.PyDataset)):
        return True
    is_array = hasattr(dataset, "shape") or hasattr(dataset, "__array__")
    is_container = isinstance(dataset, (tuple, list, dict, str))
    return (
        hasattr(dataset, "__iter__") and hasattr(dataset, "__len__") and not is_array | is_container
    )


def _to_tensors(batch):
    # `tf.data` cannot hold lists; on TensorFlow, Keras makes tuples of them as well.
    return map_arrays(_to_tensor, tree.lists_to_tuples(batch))


def _to_tensor(array):
    if tf.is_tensor(array):
        return array
    if hasattr(array, "detach"):
        # A Torch tensor.
        array = array.detach().cpu()
    elif hasattr(array, "indices"):
        # A sparse JAX array.
        return tf.SparseTensor(array.indices, array.data, array.shape)
    # A tensor that TensorFlow makes of a NumPy array takes its memory twice; a copy of the tensor
    # takes it once.
    return tf.identity(tf.convert_to_tensor(np.asarray(array)))
