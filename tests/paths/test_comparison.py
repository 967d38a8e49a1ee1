"""Comparison: models and files, measured alike, one at a time."""

import weakref

import keras
import numpy as np
import pytest
from keras import layers

from losslandscape import compare, evaluate_line, evaluate_lines, plot_loss
from losslandscape.paths.comparison import NUMBER_OF_DIRECTIONS


def network(seed, units=8, **options):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(units, "relu"), layers.Dense(3, "softmax")]
    )
    options = {"metrics": ["accuracy"], "jit_compile": False} | options
    model.compile("sgd", "sparse_categorical_crossentropy", **options)
    return model


@pytest.fixture
def models():
    return [network(seed) for seed in range(3)]


def test_all_models_follow_the_same_directions_one_in_memory_at_a_time(
    models, data, tmp_path, monkeypatch
):
    paths = [tmp_path / f"{number}.keras" for number in range(3)]
    for model, path in zip(models, paths, strict=True):
        model.save(path)
    load, loaded = keras.saving.load_model, []

    def load_alone(*args, **kwargs):
        assert [model for model in loaded if model() is not None] == []
        model = load(*args, **kwargs)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(keras.saving, "load_model", load_alone)
    given = {"two": [paths[0], str(paths[1])], "one": models[2]}
    options = {"metric": "accuracy", "rise": 0.01, "verbose": 0}
    found = compare(given, *data, 5, **options, checkpoint=tmp_path / "points.h5")
    # Once to check each before anything is measured, once to measure.
    assert len(loaded) == 4
    seed = found.metadata["each"][0]["seed"]
    assert found.metadata["labels"] == ["two", "two", "one"]
    assert found.metadata["shared"]
    for line, model in zip(found.lines, models, strict=True):
        expected = evaluate_line(
            model, *data, 5, number_of_directions=NUMBER_OF_DIRECTIONS, seed=seed, verbose=0
        )
        np.testing.assert_array_equal(line.values["accuracy"], expected.values["accuracy"])
    # Resumed from what the checkpoints hold, with the seed in them.
    assert {path.name for path in tmp_path.glob("points*")} == {f"points-{n}.h5" for n in (1, 2, 3)}
    again = compare(given, *data, 5, **options, checkpoint=tmp_path / "points.h5")
    np.testing.assert_array_equal(again.values["loss"], found.values["loss"])


def test_other_architectures_do_not_share_directions(models, data):
    other = network(0, units=9)
    options = {"number_of_directions": 2, "rise": 0.01, "verbose": 0}
    found = compare({"8": models[0], "9": other}, *data, 3, **options)
    assert not found.metadata["shared"]
    assert "directions of their own" in str(found)


def test_planes_are_measured_for_a_pair_of_numbers(models, data):
    first, second, _ = models
    found = compare({"a": first, "b": second}, data, None, (3, 5), rise=1e-3, verbose=0)
    assert [surface.values["loss"].shape for surface in found.surfaces] == [(5, 3)] * 2
    assert found.half_widths["a"].shape == (1, 2)


def test_mistakes_are_found_before_anything_is_measured(models, data, tmp_path, monkeypatch):
    first, second, _ = models
    third = network(3, metrics=[])
    pair = {"a": first, "b": second}
    monkeypatch.setattr("losslandscape.paths.comparison.evaluate_line", pytest.fail)
    (tmp_path / "damaged.keras").write_text("no model")
    for given, options, message in (
        ([first, second], {}, "`models` must be a dict by label"),
        ({"a": first, "b": []}, {}, "'b' has none"),
        ({"a": first, "b": first}, {}, "the same one for 'a' and 'b'"),
        ({"a": first, "b": 3}, {}, "`models\\['b'\\]` must be a `keras.Model`"),
        ({"a": first, "b": tmp_path / "none.keras"}, {}, "`models` must be saved models"),
        ({"a": first, "b": tmp_path / "damaged.keras"}, {}, "which cannot be read"),
        ({"a": first, "b": third}, {"metric": "accuracy"}, "`metric` must be one of 'loss'"),
        (pair, {"extent": (0, 1)}, "on both sides of 0"),
        (pair, {"extent": "auto"}, "`extent` must be"),
        (pair, {"directions": []}, "`compare` takes no argument 'directions'"),
        (pair, {"number_of_points": (3, 3), "number_of_directions": 2}, "is for lines"),
    ):
        with pytest.raises((TypeError, ValueError, OSError), match=message):
            compare(given, *data, **options)


def test_the_natural_call_says_what_to_call(models, data):
    for call in (plot_loss, evaluate_lines):
        for given in (models, {"a": models[0]}):
            with pytest.raises(TypeError, match="To compare several, call `compare"):
                call(given, data)
