"""Trajectory: what is recorded, the plane it spans, and how faithful the picture is."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers
from quadratic import Quadratic, quadratic_model
from sklearn.decomposition import PCA

from losslandscape import LossTrajectory, WeightHistory, evaluate_trajectory
from losslandscape.paths.trajectory import last_step, random_walk_shares, read_history

DATA = np.zeros((4, 1), "float32"), np.zeros((4, 1), "float32")


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


@pytest.fixture(scope="module")
def six_epochs(tmp_path_factory):
    """The folder of the first history that `trained` needs; others get a copy."""
    return tmp_path_factory.mktemp("six") / "history"


@pytest.fixture
def trained(model, data, tmp_path, six_epochs):
    """A network with normalization layers, and the history of six epochs."""
    if not six_epochs.exists():
        callbacks = [WeightHistory(six_epochs)]
        model.fit(*data, epochs=6, batch_size=16, callbacks=callbacks, verbose=0)
    history = WeightHistory(shutil.copytree(six_epochs, tmp_path / "history"))
    *_, last = read_history(model, history)[1]
    model.set_weights(last)
    return model, history


def test_every_epoch_is_recorded_from_the_start(model, data, tmp_path):
    seen = [model.get_weights()]
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append([np.array(weight) for weight in model.weights])
    )
    history = WeightHistory(tmp_path / "history")
    model.fit(*data, epochs=12, batch_size=16, callbacks=[history, keep], verbose=0)
    names, records = read_history(model, history)
    # In the order of training, not in alphabetical order.
    assert names == [f"epoch-{number}.npz" for number in range(13)]
    for record, expected in zip(records, seen, strict=True):
        np.testing.assert_array_equal(flat(record), flat(expected))


def test_steps_are_recorded(model, data, tmp_path):
    model.optimizer.iterations.assign(0)
    history = WeightHistory(tmp_path / "history", every=3)
    # Four steps per epoch.
    model.fit(*data, epochs=2, batch_size=16, callbacks=[history], verbose=0)
    assert read_history(model, history)[0] == ["step-0.npz", "step-3.npz", "step-6.npz"]


class Truth(keras.callbacks.Callback):
    """All weights at the start of each fit, and after each epoch and each batch."""

    def __init__(self):
        super().__init__()
        self.starts, self.epochs, self.batches = [], [], []

    def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
        if len(self.starts) == len(self.epochs) == 0:
            self.starts.append(flat(self.model.get_weights()))

    def on_train_batch_end(self, batch, logs=None):  # noqa: ARG002
        self.batches.append(flat(self.model.get_weights()))

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
        self.epochs.append(flat(self.model.get_weights()))


def assert_records(model, history, expected):
    """Compares the records with pairs of a name and weights, in order."""
    names, records = read_history(model, history)
    assert names == [name for name, _ in expected]
    for record, (_, weights) in zip(records, expected, strict=True):
        np.testing.assert_array_equal(flat(record), weights)


@pytest.mark.parametrize("resume", ["the same", "another"])
def test_several_fits_make_one_history(resume, model, data, tmp_path):
    truth, history = Truth(), WeightHistory(tmp_path / "history")
    model.fit(*data, epochs=3, callbacks=[history, truth], verbose=0)
    # Fewer epochs, then from an initial epoch, then from 0 again; the optimizer changes, too.
    for options in ({"epochs": 2}, {"initial_epoch": 5, "epochs": 7}, {"epochs": 4}):
        if resume == "another":
            history = WeightHistory(tmp_path / "history", append=True)
        model.fit(*data, callbacks=[history, truth], verbose=0, **options)
        model.compile("sgd", model.loss)
    names = [f"epoch-{number}.npz" for number in range(12)]
    assert_records(model, history, list(zip(names, truth.starts + truth.epochs, strict=True)))


def test_steps_are_counted_over_all_fits(model, data, tmp_path):
    truth, history = Truth(), WeightHistory(tmp_path / "history", every=3)
    # Four steps per epoch.
    fit = {"batch_size": 16, "callbacks": [history, truth], "verbose": 0}
    model.fit(*data, epochs=2, **fit)
    model.compile("sgd", model.loss)
    model.fit(*data, epochs=1, **fit)
    steps = {0: truth.starts[0]} | {step: truth.batches[step - 1] for step in (3, 6, 9, 12)}
    assert_records(model, history, [(f"step-{step}.npz", steps[step]) for step in steps])
    # A later process has only the records: it counts from the last of them.
    fit["callbacks"][0] = history = WeightHistory(tmp_path / "history", every=5, append=True)
    model.fit(*data, epochs=1, **fit)
    steps[15] = truth.batches[14]
    assert_records(model, history, [(f"step-{step}.npz", steps[step]) for step in steps])


def test_steps_that_run_at_once_are_recorded_when_reported(model, data, tmp_path):
    model.compile("sgd", model.loss, steps_per_execution=3)
    truth, history = Truth(), WeightHistory(tmp_path / "history", every=2)
    # Four steps per epoch: three at once, and the fourth.
    model.fit(*data, batch_size=16, epochs=2, callbacks=[history, truth], verbose=0)
    weights = [*truth.starts, *truth.batches]
    names = [f"step-{step}.npz" for step in (0, 3, 4, 7, 8)]
    assert_records(model, history, list(zip(names, weights, strict=True)))


@pytest.mark.parametrize("every", ["epoch", 1])
def test_a_fit_from_other_weights_records_where_it_starts(every, model, data, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("the machine went down")

    history, truth = WeightHistory(tmp_path / "history", every), Truth()
    first = flat(model.get_weights())
    fit = {"callbacks": [history, truth], "batch_size": 64, "verbose": 0}
    model.fit(*data, epochs=1, **fit)
    starts, crash = [], keras.callbacks.LambdaCallback(on_train_batch_begin=fail)
    for factor in (0.5, 2):
        model.set_weights([factor * weight for weight in model.get_weights()])
        starts.append(flat(model.get_weights()))
        with pytest.raises(RuntimeError, match="the machine went down"):
            model.fit(*data, epochs=1, **fit | {"callbacks": [history, truth, crash]})
    model.fit(*data, epochs=1, **fit)
    unit = "epoch" if every == "epoch" else "step"
    expected = [
        (f"{unit}-0.npz", first),
        (f"{unit}-1.npz", truth.epochs[0]),
        (f"{unit}-1_start-1.npz", starts[0]),
        (f"{unit}-1_start-2.npz", starts[1]),
        (f"{unit}-2.npz", truth.epochs[1]),
    ]
    assert_records(model, history, expected)


def test_a_training_resumed_from_an_earlier_epoch_goes_back(model, data, tmp_path):
    folder, truth = tmp_path / "history", Truth()
    saved = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    model.fit(*data, epochs=3, callbacks=[WeightHistory(folder), truth, saved], verbose=0)
    model.load_weights(tmp_path / "2.weights.h5")
    resumed = WeightHistory(folder, append=True)
    model.fit(*data, initial_epoch=2, epochs=3, callbacks=[resumed, truth], verbose=0)
    names = [f"epoch-{number}.npz" for number in range(4)]
    expected = list(zip(names, truth.starts + truth.epochs[:3], strict=True))
    expected += [("epoch-3_start-1.npz", truth.epochs[1]), ("epoch-4.npz", truth.epochs[3])]
    assert_records(model, resumed, expected)


@pytest.mark.parametrize("keep_records", [True, False])
def test_training_starts_from_what_another_callback_restores(keep_records, model, data, tmp_path):
    def stop(epoch, _):
        if epoch == 2:
            raise RuntimeError

    def callbacks(folder):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [WeightHistory(tmp_path / folder, append=True), backup, truth]

    truth = Truth()
    stopping = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    with pytest.raises(RuntimeError):
        model.fit(*data, epochs=4, callbacks=[*callbacks("history"), stopping], verbose=0)
    # A new process starts with a new model.
    model.set_weights([np.ones(weight.shape) for weight in model.weights])
    folder = "history" if keep_records else "another"
    model.fit(*data, epochs=4, callbacks=callbacks(folder), verbose=0)
    weights = truth.starts + truth.epochs if keep_records else truth.epochs[1:]
    names = [f"epoch-{number}.npz" for number in range(len(weights))]
    assert_records(model, tmp_path / folder, list(zip(names, weights, strict=True)))


def test_the_end_is_the_model_that_early_stopping_restores(model, data, tmp_path):
    history, truth = WeightHistory(tmp_path / "history"), Truth()
    worsen = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(score=-epoch)
    )
    stopping = keras.callbacks.EarlyStopping("score", restore_best_weights=True, mode="max")
    model.fit(*data, epochs=4, callbacks=[worsen, stopping, history, truth], verbose=0)
    best = flat(model.get_weights())
    np.testing.assert_array_equal(best, truth.epochs[0])
    model.fit(*data, epochs=3, callbacks=[history, truth], verbose=0)
    names, records = read_history(model, history)
    position = names.index(f"epoch-{len(truth.epochs) - 3}_start-1.npz")
    np.testing.assert_array_equal(flat(records[position]), best)
    trajectory = evaluate_trajectory(model, history, *data, 2, verbose=0)
    assert trajectory.metadata["records"] == names
    np.testing.assert_allclose(trajectory.path[position], trajectory.path[1], atol=1e-6)


def test_folders_of_earlier_versions_are_read_and_appended_to(model, data, tmp_path):
    arrays = [np.array(weight) for weight in model.weights]
    for number in (0, 2, 10):
        np.savez(tmp_path / f"epoch-{number}.npz", *(arrays if number == 10 else arrays[::-1]))
    # Left by a killed process.
    (tmp_path / f".epoch-11.npz.{2**40}.part").write_bytes(b"half")
    history = WeightHistory(tmp_path, append=True)
    model.fit(*data, epochs=2, callbacks=[history], verbose=0)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [f"epoch-{number}.npz" for number in (0, 10, 11, 12, 2)]
    with pytest.raises(ValueError, match="`every` must count what.*Received 5 .*by epoch"):
        model.fit(*data, callbacks=[WeightHistory(tmp_path, every=5, append=True)], verbose=0)


def test_recording_does_not_change_training(data, tmp_path):
    def train(callbacks):
        keras.utils.set_random_seed(1)
        network = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.Dense(3)])
        network.compile("adam", "mse")
        network.fit(data[0], data[0][:, :3], epochs=3, callbacks=callbacks, verbose=0)
        return flat(network.get_weights())

    np.testing.assert_array_equal(train([WeightHistory(tmp_path / "history")]), train([]))


def test_an_interrupted_fit_leaves_whole_records_and_is_resumed(model, data, tmp_path):
    def stop(epoch, _):
        if epoch == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "history"
    interrupting = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data, epochs=9, callbacks=[WeightHistory(folder), interrupting], verbose=0)
    assert len(read_history(model, folder)[0]) == 4
    with pytest.raises(ValueError, match="records of another training.*append=True"):
        model.fit(*data, callbacks=[WeightHistory(folder)], verbose=0)
    resumed = WeightHistory(folder, append=True)
    model.fit(*data, initial_epoch=3, epochs=5, callbacks=[resumed], verbose=0)
    assert read_history(model, folder)[0] == [f"epoch-{number}.npz" for number in range(6)]


def test_a_crash_while_writing_leaves_no_record(model, tmp_path, monkeypatch):
    history = WeightHistory(tmp_path)
    history.set_model(model)

    def crash(file, *_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", crash)
    with pytest.raises(OSError, match="No space"):
        history.on_train_begin()
    assert not list(tmp_path.glob("*.npz"))
    assert not list(tmp_path.iterdir())


def test_intervals_are_checked(tmp_path):
    with pytest.raises(TypeError, match="`every` must be an integer. Received 'batch'"):
        WeightHistory(tmp_path, every="batch")
    with pytest.raises(ValueError, match="`every` must be at least 1. Received 0"):
        WeightHistory(tmp_path, every=0)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_checkpoints_of_keras_are_read_in_natural_order(model, data, tmp_path, suffix):
    path = str(tmp_path / f"epoch-{{epoch}}{suffix}")
    only_weights = suffix == ".weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=only_weights)
    history = WeightHistory(tmp_path / "history")
    model.fit(*data, epochs=11, callbacks=[checkpoint, history], verbose=0)
    before = flat(model.get_weights())
    names, records = read_history(model, tmp_path)
    assert names == [f"epoch-{number}{suffix}" for number in range(1, 12)]
    _, expected = read_history(model, history)
    for record, other in zip(records, expected[1:], strict=True):
        np.testing.assert_array_equal(flat(record), flat(other))
    np.testing.assert_array_equal(flat(model.get_weights()), before)


def test_models_are_read(model):
    others = [keras.models.clone_model(model) for _ in range(2)]
    names, records = read_history(model, others)
    assert names == [other.name for other in others]
    np.testing.assert_array_equal(flat(records[1]), flat(others[1].get_weights()))


def test_invalid_histories_are_refused(model, tmp_path):
    other = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="must hold weights of `model`.*Received"):
        read_history(model, [other])
    with pytest.raises(ValueError, match=r"files of one kind: .npz, .weights.h5, .keras"):
        read_history(model, tmp_path)
    with pytest.raises(TypeError, match="Received int"):
        read_history(model, 3)
    with pytest.raises(ValueError, match="`history` is an empty list"):
        read_history(model, [])
    with pytest.raises(TypeError, match="`history` must be a list of files or models.*None"):
        read_history(model, [None] * 4)


def test_records_of_inputs_that_were_normalized_differently_are_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 4))

    def network(shift):
        normalization = layers.Normalization()
        normalization.adapt(x + shift)
        return keras.Sequential([keras.Input((4,)), normalization, layers.Dense(1)])

    model, path = network(0), tmp_path / "other.weights.h5"
    network(1).save_weights(path)
    before = np.array(model(x))
    with pytest.raises(ValueError, match="`Normalization` layers keep.*mean.*adapt these"):
        read_history(model, [path])
    # Keras sets constants when it loads weights.
    np.testing.assert_array_equal(model(x), before)
    network(0).save_weights(path)
    assert len(read_history(model, [path])[1]) == 1


def test_files_of_several_kinds_and_damaged_ones_are_refused(trained, tmp_path):
    model, history = trained
    # A callback's folder may also hold checkpoints, but given as a folder it then has no order.
    model.save(history.folder / "best.keras")
    assert len(read_history(model, history)[0]) == 7
    with pytest.raises(ValueError, match=r"one kind of file,.*\.npz, \.keras.*list of files"):
        read_history(model, history.folder)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes((history.folder / "epoch-1.npz").read_bytes()[:500])
    for name in ("npz", "keras", "weights.h5"):
        path = damaged.rename(tmp_path / f"damaged.{name}")
        with pytest.raises(ValueError, match=f"`history` must be files.*damaged.{name}.*be read"):
            read_history(model, [path])
        damaged = path
    with pytest.raises(FileNotFoundError, match="`history` must be files.*none.npz.*not exist"):
        read_history(model, [tmp_path / "none.npz"])


@pytest.mark.parametrize("policy", ["float64", "bfloat16", "float16"])
def test_records_are_exact(policy, data, tmp_path):
    class Counting(layers.Layer):
        def build(self, _):
            self.count = self.add_weight(
                name="count", shape=(), dtype="int64", initializer="zeros", trainable=False
            )

        def call(self, x):
            return x + keras.ops.cast(self.count % 10, x.dtype)

    network = keras.Sequential(
        [keras.Input((4,)), Counting(), layers.Dense(3, dtype=policy), layers.Dense(1)]
    )
    network.compile(keras.optimizers.SGD(0.01), "mse")
    network.layers[0].count.assign(2**53 + 1)
    history, seen = WeightHistory(tmp_path / "history"), []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(network.get_weights())
    )
    x, y = data[0], data[0][:, :1]
    network.fit(x, y, epochs=4, callbacks=[history, keep], verbose=0)
    records = read_history(network, history)[1][1:]
    for record, weights in zip(records, seen, strict=True):
        for array, weight in zip(record, weights, strict=True):
            np.testing.assert_array_equal(array, weight.astype(array.dtype))
        assert int(record[0]) == 2**53 + 1
    trajectory = evaluate_trajectory(network, history, x, y, 2, verbose=0)
    assert int(network.layers[0].count) == 2**53 + 1
    for weights, value in zip(seen, trajectory.true_values["loss"][1:], strict=True):
        network.set_weights(weights)
        np.testing.assert_allclose(network.evaluate(x, y, verbose=0), value, rtol=1e-5)


def test_the_plane_and_path_of_a_quadratic_are_exact(tmp_path):
    model = quadratic_model()
    history = WeightHistory(tmp_path / "history")
    model.fit(*DATA, epochs=8, callbacks=[history], verbose=0)
    trajectory = evaluate_trajectory(model, history, *DATA, (5, 4), verbose=0)

    points = np.array([flat(record) for record in read_history(model, history)[1]])
    end = points[-1]
    reference = PCA(2, svd_solver="full").fit(points[:-1] - end)
    coordinates = (points - end) @ reference.components_.T
    np.testing.assert_allclose(np.abs(trajectory.path), np.abs(coordinates), atol=1e-5)
    np.testing.assert_allclose(trajectory.explained, reference.explained_variance_ratio_, atol=1e-5)
    rest = points - end - coordinates @ reference.components_
    np.testing.assert_allclose(trajectory.distances, np.linalg.norm(rest, axis=1), atol=1e-5)

    def loss(w):
        return w @ Quadratic.MATRIX @ w / 2 + Quadratic.SLOPE @ w

    # Training comes from where both coordinates are positive.
    signs = np.where(reference.components_ @ (points[0] - end) < 0, -1, 1)
    d1, d2 = signs[:, np.newaxis] * reference.components_
    expected = [
        [loss(end + alpha * d1 + beta * d2) for alpha in trajectory.alphas]
        for beta in trajectory.betas
    ]
    np.testing.assert_allclose(trajectory.values["loss"], expected, rtol=1e-4, atol=1e-5)
    on_plane = [loss(end + a * d1 + b * d2) for a, b in trajectory.path]
    np.testing.assert_allclose(trajectory.plane_values["loss"], on_plane, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        trajectory.true_values["loss"], [loss(point) for point in points], rtol=1e-4, atol=1e-5
    )


def test_the_path_ends_at_the_origin_with_the_models_own_loss(trained, data):
    model, history = trained
    trajectory = evaluate_trajectory(model, history, *data, number_of_points=3, verbose=0)
    expected = model.evaluate(*data, verbose=0, return_dict=True)
    np.testing.assert_array_equal(trajectory.path[-1], [0, 0])
    assert trajectory.distances[-1] == 0
    for name, value in expected.items():
        for found in (
            trajectory.center[name],
            trajectory.plane_values[name][-1],
            trajectory.true_values[name][-1],
        ):
            np.testing.assert_allclose(found, value, rtol=1e-5)


def test_true_values_are_those_of_each_recorded_model(trained, data):
    model, history = trained
    trajectory = evaluate_trajectory(model, history, *data, number_of_points=2, verbose=0)
    other = keras.models.clone_model(model)
    other.compile(loss=model.loss)
    for record, value in zip(
        read_history(model, history)[1], trajectory.true_values["loss"], strict=True
    ):
        # All weights, so with the statistics that the model had then.
        other.set_weights(record)
        np.testing.assert_allclose(other.evaluate(*data, verbose=0)[0], value, rtol=1e-5)


def test_the_plane_extends_beyond_the_path(trained, data):
    model, history = trained
    trajectory = evaluate_trajectory(model, history, *data, number_of_points=3, verbose=0)
    margin = 0.2 * np.ptp(trajectory.path, axis=0).max()
    for axis, values in ((trajectory.alphas, 0), (trajectory.betas, 1)):
        coordinates = trajectory.path[:, values]
        np.testing.assert_allclose(axis[0], coordinates.min() - margin)
        np.testing.assert_allclose(axis[-1], coordinates.max() + margin)


def test_biases_and_normalization_may_be_left_at_their_final_values(trained, data):
    model, history = trained
    whole, kernels = (
        evaluate_trajectory(
            model, history, *data, number_of_points=2, ignore=ignore, margin=0.5, verbose=0
        )
        for ignore in (None, "biasbn")
    )
    _, records = read_history(model, history)
    # The kernels of the two dense layers.
    points = np.array([flat([record[0], record[-2]]) for record in records])
    reference = PCA(2, svd_solver="full").fit(points[:-1] - points[-1])
    np.testing.assert_allclose(
        np.abs(kernels.path),
        np.abs((points - points[-1]) @ reference.components_.T),
        atol=1e-4,
    )
    # Weights left out move off the plane.
    assert (kernels.distances[:-1] > whole.distances[:-1]).all()


def test_the_model_is_the_end_if_training_continued(trained, data):
    model, history = trained
    model.fit(*data, epochs=1, verbose=0)
    trajectory = evaluate_trajectory(model, history, *data, number_of_points=2, verbose=0)
    assert len(trajectory.path) == 8
    assert trajectory.metadata["records"][-1] == model.name
    assert np.linalg.norm(trajectory.path[-2]) > 0


def test_histories_that_are_too_short_are_refused(trained, data):
    model, history = trained
    files = sorted(history.folder.glob("*.npz"))[-3:]
    with pytest.raises(ValueError, match="at least 3 records before.*Received 2"):
        evaluate_trajectory(model, files, *data)
    with pytest.raises(ValueError, match="`margin` must be greater than 0"):
        evaluate_trajectory(model, history, *data, margin=0)


def line_of(*points):
    """Models of a `Quadratic` at the given points."""
    models = []
    for point in points:
        models.append(quadratic_model())
        models[-1].layers[0].w.assign(np.reshape(point, (3, 1)))
    return models


def test_a_diverged_training_is_refused_with_the_record_named(tmp_path):
    model = quadratic_model()
    model.compile(keras.optimizers.SGD(1e20), model.loss)
    history = WeightHistory(tmp_path / "history")
    model.fit(*DATA, epochs=6, callbacks=[history], verbose=0)
    names, records = read_history(model, history)
    first = next(index for index, record in enumerate(records) if not np.isfinite(record).all())
    with pytest.raises(ValueError, match=f"finite weights.*{names[first]}.*the {first} records"):
        evaluate_trajectory(model, history, *DATA, verbose=0)


def test_diverged_statistics_are_measured_as_they_are(trained, data):
    model, history = trained
    _, records = read_history(model, history)
    copies = [keras.models.clone_model(model) for _ in records]
    for copy, record in zip(copies, records, strict=True):
        copy.set_weights(record)
    copies[1].layers[1].moving_mean.assign(np.full(8, np.nan))
    trajectory = evaluate_trajectory(model, copies, *data, 2, verbose=0)
    is_finite = np.isfinite(trajectory.true_values["loss"])
    np.testing.assert_array_equal(is_finite, np.arange(7) != 1)
    assert np.isfinite(trajectory.plane_values["loss"]).all()


def test_a_training_that_went_nowhere_is_refused(model, data, tmp_path):
    model.compile(keras.optimizers.SGD(0.0), model.loss)
    history = WeightHistory(tmp_path / "history")
    model.fit(*data, epochs=4, callbacks=[history], verbose=0)
    # Moving statistics changed, but they are not axes.
    with pytest.raises(ValueError, match="must hold a path.*5 records.*learning rate 0"):
        evaluate_trajectory(model, history, *data)
    only_biases = [keras.models.clone_model(model) for _ in range(4)]
    for index, other in enumerate(only_biases):
        other.set_weights(model.get_weights())
        other.layers[0].bias.assign_add(np.full(8, index + 1.0))
    with pytest.raises(ValueError, match="must hold a path.*`ignore='biasbn'` leaves out"):
        evaluate_trajectory(model, only_biases, *data, ignore="biasbn")
    evaluate_trajectory(model, only_biases, *data, 2, verbose=0)


def test_a_model_of_one_parameter_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    history = WeightHistory(tmp_path / "history")
    model.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=4, callbacks=[history], verbose=0)
    with pytest.raises(ValueError, match="two parameters that may move.*one with 1: use `eval"):
        evaluate_trajectory(model, history, np.ones((4, 1)), np.ones((4, 1)))


@pytest.mark.parametrize(
    ("points", "path", "explained", "is_random"),
    [
        # Along one straight line to the end.
        ([(4, 0, 0), (3, 0, 0), (1, 0, 0)], [(4, 0), (3, 0), (1, 0)], [1, 0], True),
        # On a straight line that misses the end.
        ([(4, 2, 0), (3, 2, 0), (1, 2, 0)], [(4, 2), (3, 2), (1, 2)], [1, 0], False),
        # All in one place, except the end.
        ([(3, 4, 0), (3, 4, 0), (3, 4, 0)], [(5, 0), (5, 0), (5, 0)], [1, 0], True),
        # In two dimensions.
        ([(4, 0, 0), (0, 3, 0), (2, 1, 0)], None, None, False),
    ],
)
def test_paths_of_fewer_dimensions_are_drawn_correctly(points, path, explained, is_random):
    end = np.array([1.0, -2, 0.5])
    *records, model = line_of(*(end + point for point in points), end)
    trajectory = evaluate_trajectory(model, records, *DATA, (4, 3), verbose=0)
    assert ("second_axis" in trajectory.metadata) == is_random
    if path:
        np.testing.assert_allclose(trajectory.path, [*path, (0, 0)], atol=1e-6)
        np.testing.assert_allclose(trajectory.explained, explained)
    np.testing.assert_allclose(trajectory.distances, 0, atol=1e-6)
    np.testing.assert_allclose(
        trajectory.plane_values["loss"], trajectory.true_values["loss"], rtol=1e-5, atol=1e-5
    )
    assert np.ptp(trajectory.alphas) > 0
    assert np.ptp(trajectory.betas) > 0
    # The loss varies along beta, even where that axis is random.
    assert np.ptp(trajectory.values["loss"], axis=0).min() > 0


def test_the_last_step_is_that_of_the_optimizer(tmp_path):
    model, truth = quadratic_model(), Truth()
    history = WeightHistory(tmp_path / "history", every=1)
    model.fit(*DATA, epochs=2, batch_size=2, callbacks=[history, truth], verbose=0)
    # Gradient descent with a rate of 0.1; the last record is the model itself.
    expected = -0.1 * (Quadratic.MATRIX @ truth.batches[-2] + Quadratic.SLOPE)
    np.testing.assert_allclose(flat(last_step(model, history)), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="must hold a step, but all 2 records"):
        last_step(model, [model, model])
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`"):
        last_step("model", history)


@pytest.mark.parametrize("center", [(1.0, -2, 0.5), (3.0, 0, 1)])
def test_several_runs_share_the_plane_of_all_their_records(center):
    first = np.array([(4, 1, 0), (2, 1, 1), (1.5, -1, 1), (1, -2, 0.5)])
    second = np.array([(4, 1, 0), (5, 3, 0), (5, 4, -1)])
    (model,) = line_of(center)
    runs = {"SGD": line_of(*first), "Adam": line_of(*second)}
    trajectory = evaluate_trajectory(model, runs, *DATA, (4, 3), verbose=0)

    points = np.concatenate([first, second])
    # A run's end at the center is not among the components, as in a single run.
    is_used = (points != center).any(axis=1)
    reference = PCA(2, svd_solver="full").fit(points[is_used])
    coordinates = (points - center) @ reference.components_.T
    np.testing.assert_allclose(np.abs(trajectory.path), np.abs(coordinates), atol=1e-5)
    np.testing.assert_allclose(trajectory.explained, reference.explained_variance_ratio_, atol=1e-5)
    rest = points - center - coordinates @ reference.components_
    np.testing.assert_allclose(trajectory.distances, np.linalg.norm(rest, axis=1), atol=1e-5)
    losses = [w @ Quadratic.MATRIX @ w / 2 + Quadratic.SLOPE @ w for w in points]
    np.testing.assert_allclose(trajectory.true_values["loss"], losses, rtol=1e-5)
    assert trajectory.runs == {"SGD": slice(0, 4), "Adam": slice(4, 7)}
    names = [f"{run}/{record.name}" for run, records in runs.items() for record in records]
    assert trajectory.metadata["records"] == names
    # Models do not say when they were recorded.
    assert trajectory.unit == "record"
    np.testing.assert_array_equal(trajectory.times, [0, 1, 2, 3, 0, 1, 2])
    assert "random_walk" not in trajectory.metadata


def test_one_model_measures_histories_of_different_lengths():
    points = [(0, 0, 0), (2, 0, 1), (3, 1, 0), (0, 1, 0), (1.0, 1, 1)]
    *models, model = line_of(*points)
    losses = [np.array(w) @ Quadratic.MATRIX @ w / 2 + Quadratic.SLOPE @ w for w in points]
    for first in (1, 0):
        records = models[first:]
        trajectory = evaluate_trajectory(model, records, *DATA, 2, engine="compiled", verbose=0)
        np.testing.assert_allclose(trajectory.true_values["loss"], losses[first:], rtol=1e-5)


def test_a_single_run_by_name_has_the_plane_of_that_run(trained, data, tmp_path):
    model, history = trained
    alone = evaluate_trajectory(model, history, *data, 2, verbose=0)
    named = evaluate_trajectory(model, {"Adam": history}, *data, 2, verbose=0)
    for name in ("alphas", "betas", "path", "explained", "distances"):
        np.testing.assert_array_equal(getattr(named, name), getattr(alone, name))
    for name in ("values", "plane_values", "true_values"):
        np.testing.assert_equal(getattr(named, name), getattr(alone, name))
    assert alone.runs == {"training": slice(0, 7)}
    named.save(tmp_path / "runs.h5")
    loaded = LossTrajectory.load(tmp_path / "runs.h5")
    assert loaded.runs == {"Adam": slice(0, 7)}
    for trajectory in (alone, named, loaded):
        assert trajectory.unit == "epoch"
        np.testing.assert_array_equal(trajectory.times, range(7))


def test_runs_that_span_no_plane_are_refused():
    model, *points = line_of((1, 1, 1), (0, 0, 0), (2, 0, 0), (np.nan, 0, 0))
    with pytest.raises(ValueError, match="`history` is an empty dict"):
        evaluate_trajectory(model, {}, *DATA)
    with pytest.raises(ValueError, match="at least 2 records of each run.*Received 1 of 'b'"):
        evaluate_trajectory(model, {"a": points[:2], "b": points[:1]}, *DATA)
    with pytest.raises(TypeError, match="name its runs with strings. Received 3"):
        evaluate_trajectory(model, {3: points[:2]}, *DATA)
    with pytest.raises(ValueError, match=f"NaN or inf in 'b/{points[2].name}'.*the 1 records"):
        evaluate_trajectory(model, {"a": points[:2], "b": points[1:]}, *DATA)


def test_a_random_walk_explains_what_the_closed_form_says():
    number, generator = 40, np.random.default_rng(0)
    walk = np.cumsum(generator.normal(size=(number, 50_000)), axis=0)
    reference = PCA(svd_solver="full").fit(walk).explained_variance_ratio_
    shares = random_walk_shares(number)
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(reference[: number - 1], shares, rtol=0.03)
    # Of a long walk, those of the paper: 60.8 %, 15.2 %, …
    long = random_walk_shares(10_000)[:5]
    np.testing.assert_allclose(long, 6 / (np.pi * np.arange(1, 6)) ** 2, rtol=1e-5)
    assert [f"{share:.1%}" for share in long[:2]] == ["60.8%", "15.2%"]


def test_the_shares_of_a_random_walk_stand_beside_those_of_a_path(tmp_path):
    model = keras.Sequential([keras.Input((1,)), layers.Dense(20_000, use_bias=False)])
    model.compile("sgd", loss=lambda _, output: keras.ops.mean(output))
    generator = np.random.default_rng(0)
    walk = np.cumsum(generator.normal(size=(12, 1, 20_000)), axis=0).astype("float32")
    for number, weights in enumerate(walk):
        np.savez(tmp_path / f"step-{number}.npz", weights)
    model.set_weights([walk[-1]])
    trajectory = evaluate_trajectory(model, tmp_path, *DATA, 2, verbose=0)
    # The end is not among the components.
    expected = 6 / (4 * (11**2 - 1) * np.sin(np.pi * np.array([1, 2]) / 22) ** 2)
    np.testing.assert_allclose(trajectory.metadata["random_walk"], expected)
    np.testing.assert_allclose(trajectory.explained, expected, rtol=0.03)


def test_layers_frozen_at_the_end_lie_off_the_plane(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)), rng.normal(size=(32, 1))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
    model.compile("sgd", "mse")
    history = WeightHistory(tmp_path / "history")
    model.fit(x, y, epochs=2, callbacks=[history], verbose=0)
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    model.fit(x, y, epochs=4, callbacks=[history], verbose=0)
    trajectory = evaluate_trajectory(model, history, x, y, 2, verbose=0)
    _, records = read_history(model, history)
    frozen, trained = (
        np.array([flat(record[part]) for record in records]) for part in (slice(2), slice(2, 4))
    )
    steps = trained - trained[-1]
    components = PCA(2, svd_solver="full").fit(steps[:-1]).components_
    off_plane = np.hstack([steps - steps @ components.T @ components, frozen - frozen[-1]])
    expected = np.linalg.norm(off_plane, axis=1)
    assert expected[0] > 0.01
    np.testing.assert_allclose(trajectory.distances, expected, rtol=1e-4, atol=1e-6)
    for record, value in zip(records, trajectory.true_values["loss"], strict=True):
        model.set_weights(record)
        np.testing.assert_allclose(model.evaluate(x, y, verbose=0), value, rtol=1e-5)


@pytest.mark.parametrize("engine", ["evaluate", "compiled"])
def test_workers_measure_the_plane_and_the_records(engine, trained, data):
    model, history = trained
    options = {"number_of_points": 3, "engine": engine, "verbose": 0}
    with ThreadPoolExecutor(1) as executor:
        shared = evaluate_trajectory(model, history, *data, executor=executor, **options)
    serial = evaluate_trajectory(model, history, *data, **options)
    assert shared.metadata["engine"] == serial.metadata["engine"] == engine
    for name in ("values", "plane_values", "true_values"):
        np.testing.assert_equal(getattr(shared, name), getattr(serial, name))


def test_records_are_measured_in_groups_that_fit_into_memory(trained, data, monkeypatch):
    model, history = trained
    whole = evaluate_trajectory(model, history, *data, 2, verbose=0)
    monkeypatch.setattr("losslandscape.paths.trajectory.BUDGET", 1)
    apart = evaluate_trajectory(model, history, *data, 2, verbose=0)
    for name, values in whole.true_values.items():
        np.testing.assert_allclose(apart.true_values[name], values, rtol=1e-6)


def test_the_model_is_left_alone(trained, data):
    model, history = trained
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [np.array(variable) for variable in variables]
    evaluate_trajectory(model, history, *data, number_of_points=2, verbose=0)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_a_trajectory_is_saved_and_loaded(trained, data, tmp_path):
    model, history = trained
    trajectory = evaluate_trajectory(model, history, *data, number_of_points=3, verbose=0)
    trajectory.save(tmp_path / "trajectory.h5")
    loaded = LossTrajectory.load(tmp_path / "trajectory.h5")
    for name in ("path", "explained", "distances"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(trajectory, name))
    np.testing.assert_array_equal(loaded.true_values["loss"], trajectory.true_values["loss"])
    assert loaded.metadata == trajectory.metadata
