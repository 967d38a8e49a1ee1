"""Trajectory: what is recorded, the plane it spans, and how true the picture is."""

import keras
import numpy as np
import pytest
from keras import layers
from quadratic import Quadratic, quadratic_model
from sklearn.decomposition import PCA

from losslandscape import LossTrajectory, WeightHistory, evaluate_trajectory, read_history

DATA = np.zeros((4, 1), "float32"), np.zeros((4, 1), "float32")


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


@pytest.fixture
def trained(model, data, tmp_path):
    """A network with normalization layers, and the history of six epochs."""
    history = WeightHistory(tmp_path / "history")
    model.fit(*data, epochs=6, batch_size=16, callbacks=[history], verbose=0)
    return model, history


def test_every_epoch_is_recorded_from_the_start_on(model, data, tmp_path):
    seen = [model.get_weights()]
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append([np.array(weight) for weight in model.weights])
    )
    history = WeightHistory(tmp_path / "history")
    model.fit(*data, epochs=12, batch_size=16, callbacks=[history, keep], verbose=0)
    names, records = read_history(model, history)
    # In the order of training, not of the alphabet.
    assert names == [f"epoch-{number}.npz" for number in range(13)]
    for record, expected in zip(records, seen, strict=True):
        np.testing.assert_array_equal(flat(record), flat(expected))


def test_steps_are_recorded(model, data, tmp_path):
    model.optimizer.iterations.assign(0)
    history = WeightHistory(tmp_path / "history", every=3)
    # Four steps per epoch.
    model.fit(*data, epochs=2, batch_size=16, callbacks=[history], verbose=0)
    assert read_history(model, history)[0] == ["step-0.npz", "step-3.npz", "step-6.npz"]


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


def test_histories_that_do_not_fit_are_refused(model, tmp_path):
    other = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="must hold weights of `model`.*Received"):
        read_history(model, [other])
    with pytest.raises(ValueError, match=r"with some of .npz, .weights.h5, .keras files"):
        read_history(model, tmp_path)
    with pytest.raises(TypeError, match="Received int"):
        read_history(model, 3)


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


def test_the_plane_reaches_around_the_path(trained, data):
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
    # What is left out is off the plane.
    assert (kernels.distances[:-1] > whole.distances[:-1]).all()


def test_the_model_is_the_end_where_training_went_on(trained, data):
    model, history = trained
    model.fit(*data, epochs=1, verbose=0)
    trajectory = evaluate_trajectory(model, history, *data, number_of_points=2, verbose=0)
    assert len(trajectory.path) == 8
    assert trajectory.metadata["records"][-1] == model.name
    assert np.linalg.norm(trajectory.path[-2]) > 0


def test_too_short_histories_are_refused(trained, data):
    model, history = trained
    files = sorted(history.folder.glob("*.npz"))[-3:]
    with pytest.raises(ValueError, match="at least 3 records before.*Received 2"):
        evaluate_trajectory(model, files, *data)
    with pytest.raises(ValueError, match="`margin` must be greater than 0"):
        evaluate_trajectory(model, history, *data, margin=0)


def test_the_model_is_left_alone(trained, data):
    model, history = trained
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [np.array(variable) for variable in variables]
    evaluate_trajectory(model, history, *data, number_of_points=2, verbose=0)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_a_file_gives_back_a_trajectory(trained, data, tmp_path):
    model, history = trained
    trajectory = evaluate_trajectory(model, history, *data, number_of_points=3, verbose=0)
    trajectory.save(tmp_path / "trajectory.h5")
    loaded = LossTrajectory.load(tmp_path / "trajectory.h5")
    for name in ("path", "explained", "distances"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(trajectory, name))
    np.testing.assert_array_equal(loaded.true_values["loss"], trajectory.true_values["loss"])
    assert loaded.metadata == trajectory.metadata
