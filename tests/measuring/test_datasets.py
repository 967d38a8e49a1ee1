"""Datasets: what counts as one, how it is read, and what is refused."""

import itertools
import pickle

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers
from scipy import sparse

from losslandscape.measuring.datasets import (
    automatic_batch_size,
    few_samples,
    read_dataset,
    split_datasets,
)

X = np.arange(20, dtype="float64").reshape(10, 2)
Y = np.arange(10)


class Batches(keras.utils.PyDataset):
    """Ten samples in batches of four, four and two."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(4 * index, 4 * index + 4)
        return X[part], Y[part]


class EndlessBatches(Batches):
    num_batches = None


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((2,)), layers.Dense(1)])


def samples(dataset, part=0):
    return np.concatenate([batch[part].numpy() for batch in dataset.batches])


@pytest.mark.parametrize(
    ("datasets", "number"),
    [
        ((X, Y), 1),
        ([X, Y], 1),
        ((X, Y, np.ones(10)), 1),
        (([X, X], Y), 1),
        (({"a": X}, Y), 1),
        (X, 1),
        ((X,), 1),
        (((X, Y),), 1),
        (((X, Y), (X, Y)), 2),
        ([(X, Y), (X, Y), (X, Y)], 3),
        (tf.data.Dataset.from_tensors((X, Y)), 1),
        ((tf.data.Dataset.from_tensors((X, Y)), (X, Y)), 2),
        ([Batches(), Batches()], 2),
    ],
)
def test_one_dataset_is_distinguished_from_several(datasets, number):
    assert len(split_datasets(datasets)) == number


@pytest.mark.parametrize(
    "dataset",
    [
        (X, Y),
        (tf.constant(X, "float32"), tf.constant(Y)),
        (pd.DataFrame(X), pd.Series(Y)),
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(4),
        Batches(),
        Batches(workers=2),
    ],
    ids=["arrays", "tensors", "pandas", "tf.data", "PyDataset", "PyDataset, two workers"],
)
def test_every_kind_gives_the_same_samples_in_order(model, dataset, monkeypatch):
    in_memory = read_dataset(model, dataset)
    monkeypatch.setattr("losslandscape.measuring.datasets.SHARE", 0)
    read_without_memory = read_dataset(model, dataset)
    assert read_without_memory.is_streamed != isinstance(dataset, tuple)
    assert read_without_memory.digest == in_memory.digest
    for read in (in_memory, read_without_memory):
        assert read.size == 10
        assert read.batch_size == (10 if isinstance(dataset, tuple) else 4)
        for _ in range(2):
            np.testing.assert_array_equal(samples(read), X)
            # Keras makes a column out of a pandas Series.
            np.testing.assert_array_equal(np.ravel(samples(read, part=1)), Y)


def test_dicts_lists_and_weights_keep_their_structure(model):
    read = read_dataset(model, ({"a": X, "b": X[:, :1]}, [Y, Y], np.ones(10)), batch_size=4)
    inputs, targets, weights = next(iter(read.batches))
    assert {name: tuple(part.shape) for name, part in inputs.items()} == {"a": (4, 2), "b": (4, 1)}
    assert len(targets) == 2
    # Keras gives every output the weights.
    assert [tuple(part.shape) for part in weights] == [(4,), (4,)]


class Seen(keras.Model):
    """Keeps the structure, shapes and types of what `model.evaluate` passes to its test step."""

    def test_step(self, data):
        self.seen = keras.tree.map_structure(
            lambda part: (
                None if part is None else (type(part).__name__, part.shape[1:], part.dtype)
            ),
            data,
        )
        return {"loss": 0.0}


class InputsOnly(keras.utils.PyDataset):
    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.wrap(X[5 * index : 5 * index + 5])


WEIGHT = np.linspace(0, 1, 10)


@pytest.mark.parametrize(
    "dataset",
    [
        (X,),
        ({"a": X, "b": X},),
        ([X, X],),
        (X, Y),
        ([X, X], (Y, Y), WEIGHT),
        (X, [Y, Y], [WEIGHT, None]),
        (X, {"a": Y, "b": Y}, {"a": WEIGHT, "b": WEIGHT}),
        (pd.DataFrame(X), pd.Series(Y)),
        (pd.DataFrame(X), pd.DataFrame({"y": Y}), pd.Series(WEIGHT)),
        (sparse.csr_matrix(X), Y),
        (sparse.coo_matrix(X), Y),
        (tf.sparse.from_dense(X), Y),
        (tf.ragged.constant([[1.0], [1.0, 2.0]] * 5), Y),
        (np.array(list("abcdefghij"), dtype=object), Y),
        (X.astype("float16"), Y.astype(bool)),
        (InputsOnly(np.asarray),),
        (InputsOnly(lambda x: {"a": x}),),
        (InputsOnly(lambda x: [x, x]),),
        (InputsOnly(lambda x: ({"a": x}, x[:, 0])),),
        (tf.data.Dataset.from_tensor_slices(X).batch(5),),
        (tf.data.Dataset.from_tensor_slices((X,)).batch(5),),
        (tf.data.Dataset.from_tensor_slices({"a": X}).batch(5),),
        (tf.data.Dataset.from_tensor_slices(({"a": X}, Y, WEIGHT)).batch(5),),
        (tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(X), Y)).batch(5),),
    ],
    ids=lambda dataset: "-".join(type(part).__name__ for part in dataset),
)
def test_a_step_gets_what_evaluate_passes_to_it(dataset, monkeypatch):
    model = Seen()
    model.compile(run_eagerly=True)
    model.evaluate(*dataset[:2], sample_weight=(*dataset, None, None)[2], verbose=0)
    expected = model.seen
    is_array = hasattr(dataset[0], "shape") or isinstance(dataset[0], (list, dict))
    read = read_dataset(model, dataset if is_array else dataset[0])
    monkeypatch.setattr("losslandscape.measuring.datasets.SHARE", 0)
    streamed = read_dataset(model, dataset if is_array else dataset[0])
    for copy in (read, pickle.loads(pickle.dumps(read)), streamed):
        model.evaluate(copy.batches, verbose=0)
        assert model.seen == expected


def test_weights_without_targets_stay_weights():
    read = read_dataset(keras.Sequential(), (X, None, WEIGHT))
    ((_, targets, weights),) = read.batches
    assert targets is None
    np.testing.assert_allclose(weights, WEIGHT)


class Sized:
    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def test_loaders_may_yield_inputs_alone(model):
    for batches in ([X[:4], X[4:]], [{"a": X[:4]}, {"a": X[4:]}]):
        read = read_dataset(model, Sized(batches))
        for found, expected in zip(read.batches, batches, strict=True):
            keras.tree.map_structure(np.testing.assert_array_equal, found, expected)


def test_batch_size_leaves_a_smaller_last_batch(model):
    read = read_dataset(model, (X, Y), batch_size=4)
    assert [len(x) for x, _ in read.batches] == [4, 4, 2]


def test_a_pipeline_that_shuffles_is_read_once(model):
    pipeline = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(10).batch(4)
    read = read_dataset(model, pipeline)
    np.testing.assert_array_equal(samples(read), samples(read))
    np.testing.assert_array_equal(np.sort(samples(read, part=1)), Y)


def test_sequences_may_differ_in_length_between_batches(model, monkeypatch):
    class Ragged(Batches):
        def __getitem__(self, index):
            return np.ones((2, index + 1)), np.ones(2)

    for share in (1, 0):
        monkeypatch.setattr("losslandscape.measuring.datasets.SHARE", share)
        read = read_dataset(model, Ragged())
        assert read.batch_size is None
        assert [tuple(x.shape) for x, _ in read.batches] == [(2, 1), (2, 2), (2, 3)]


class Shuffled(Batches):
    """The batches in another order in each epoch, or at random."""

    def __init__(self, at_random):
        super().__init__()
        self.at_random = at_random
        self.order, self.drawn = np.arange(3), itertools.cycle((0, 1, 2, 0))

    def on_epoch_begin(self):
        self.order = np.roll(self.order, 1)

    def on_epoch_end(self):
        self.order = self.order[::-1]

    def __getitem__(self, index):
        return super().__getitem__(next(self.drawn) if self.at_random else self.order[index])


def test_what_does_not_fit_into_memory_is_streamed_if_it_is_always_the_same(model, monkeypatch):
    monkeypatch.setattr("losslandscape.measuring.datasets.SHARE", 0)
    slices = tf.data.Dataset.from_tensor_slices((X, Y))
    kept = slices.shuffle(10, seed=0, reshuffle_each_iteration=False).batch(4)
    for source in (kept, Shuffled(at_random=False), [(X[:5], Y[:5]), (X[5:], Y[5:])]):
        read = read_dataset(model, Sized(source) if isinstance(source, list) else source)
        assert read.is_streamed
        np.testing.assert_array_equal(samples(read), samples(read))
        np.testing.assert_array_equal(np.sort(samples(read, part=1)), Y)
    random = Shuffled(at_random=True)
    for source in (slices.shuffle(10).batch(4), random):
        with pytest.raises(ValueError, match="`dataset` .*same batches.*reshuffle_each_iteration"):
            read_dataset(model, source)
    unknown = slices.batch(4).filter(lambda *_: True)
    with pytest.warns(UserWarning, match="unknown length.*assert_cardinality"):
        read = read_dataset(model, unknown)
    assert read.size == 10


@pytest.mark.parametrize("rest", [(Y,), (Y, WEIGHT), ([Y, Y[:, np.newaxis]],)])
def test_memory_mapped_arrays_that_do_not_fit_are_read_batch_by_batch(
    model, rest, tmp_path, monkeypatch
):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    in_memory = read_dataset(model, (mapped, *rest), batch_size=4)
    assert not in_memory.is_streamed
    monkeypatch.setattr("losslandscape.measuring.datasets.SHARE", 0)
    streamed = read_dataset(model, (mapped, *rest), batch_size=4)
    assert streamed.is_streamed
    assert not read_dataset(model, (X, *rest)).is_streamed
    assert streamed.digest == in_memory.digest
    assert (streamed.size, streamed.batch_size) == (10, 4)
    for one, other in zip(streamed.batches, in_memory.batches, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, one, other)


def test_automatic_batches_shrink_with_the_largest_layer(model):
    assert automatic_batch_size(model) == 2048
    wide = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(16, 3, padding="same")])
    # 64·64·16 floats of 4 bytes are 256 KiB, of which 40 fit into 10 MiB.
    assert automatic_batch_size(wide) == 40
    huge = keras.Sequential([keras.Input((512, 512, 3)), layers.Conv2D(64, 3, padding="same")])
    assert automatic_batch_size(huge) == 32


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        ((X[:0], Y[:0]), ValueError, "`test` is empty"),
        (
            tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])).batch(4),
            ValueError,
            "`test` is empty",
        ),
        ((X, Y[:9]), ValueError, r"same number of samples. Received \[10, 9\]"),
        ((X, Y, Y, Y), ValueError, r"\(x, y, sample_weight\). Received 4 elements"),
        (
            tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).repeat(),
            ValueError,
            r"`test` is endless.*`.take\(n\)`",
        ),
        (EndlessBatches(), ValueError, "`test` is endless"),
        (
            tf.data.Dataset.from_tensor_slices((X, Y)),
            ValueError,
            r"must yield batches.*`.batch\(n\)`",
        ),
        ((1.0, 2.0), TypeError, "`test` must be arrays.*'float', 'float'"),
        (((x, y) for x, y in zip(X, Y, strict=True)), TypeError, "generator.*read only once"),
    ],
)
def test_unreadable_data_are_refused(model, dataset, error, message):
    with pytest.raises(error, match=message):
        read_dataset(model, dataset, name="test")


def test_batch_size_is_for_arrays(model):
    with pytest.raises(ValueError, match="`batch_size` is for arrays.*Received batch_size=4"):
        read_dataset(model, Batches(), batch_size=4)


def test_an_empty_tuple_is_refused():
    with pytest.raises(ValueError, match="`datasets` is empty"):
        split_datasets(())


def test_automatic_batches_are_of_equal_size():
    wide = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(16, 3, padding="same")])
    x = np.zeros((90, 64, 64, 3), "float32")
    # Three batches of 30 rather than of 40, 40 and 10.
    assert [len(batch) for batch in read_dataset(wide, (x,)).batches] == [30, 30, 30]
    assert read_dataset(wide, (x,), batch_size=40).batch_size == 40


def test_a_few_samples_have_the_classes_in_proportion(monkeypatch):
    network = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    labels = np.repeat([0, 1, 2], [4800, 1080, 120])
    x = np.arange(6000.0)[:, np.newaxis]
    one_hot = np.eye(3)[labels]
    for y in (labels, one_hot):
        data = read_dataset(network, (x, y, x[:, 0]), batch_size=400)
        few = few_samples(data, seed=0)
        assert few.size == 500
        assert [len(batch) for batch, *_ in few.batches] == [400, 100]
        chosen, targets, weights = map(np.asarray, few.tensors)
        assert len(np.unique(chosen)) == 500
        np.testing.assert_array_equal(weights, chosen[:, 0])
        np.testing.assert_array_equal(targets, y[chosen[:, 0].astype(int)])
        np.testing.assert_array_equal(np.bincount(labels[chosen[:, 0].astype(int)]), [400, 90, 10])
    again, other = (np.asarray(few_samples(data, seed=seed).tensors[0]) for seed in (0, 1))
    np.testing.assert_array_equal(again, chosen)
    monkeypatch.setattr("losslandscape.measuring.datasets.SHARE", 0)
    pipeline = tf.data.Dataset.from_tensor_slices((x, one_hot, x[:, 0])).batch(400)
    streamed = few_samples(read_dataset(network, pipeline), seed=0)
    np.testing.assert_array_equal(streamed.tensors[0], chosen)
    assert (other != chosen).any()
    small = read_dataset(network, (x[:2900], labels[:2900]))
    assert few_samples(small, seed=0) is small
