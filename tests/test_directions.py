"""Directions: every kind of layer, every normalization, and what is refused."""

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from losslandscape import (
    direction_between,
    evaluate_line,
    evaluate_lines,
    evaluate_surface,
    evaluate_surfaces,
    random_directions,
)
from losslandscape.directions import filters, print_filters, register_filters, save_directions
from losslandscape.measuring import engines


def built(layer, *input_shape):
    """A model of one layer, with weights far from zero so that no filter is zero."""
    model = keras.Sequential([keras.Input(input_shape), layer])
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(generator.normal(1, 0.5, weight.shape))
    return model


class OutputFirstDense(layers.Layer):
    """A custom layer whose kernel has its outputs in the first axis."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(5, input_shape[-1]), name="kernel")
        self.gain = self.add_weight(shape=(5, 1), initializer="ones", name="gain")

    def call(self, inputs):
        return keras.ops.matmul(inputs, keras.ops.transpose(self.kernel * self.gain))


# How one filter is cut out of each layer's weights, written as slices, independently
# of the axes that the library names.
LAST = [(lambda w, i: w[..., i], -1)]
KERNELS = {
    "Dense": (layers.Dense(5), (4,), LAST),
    "Conv1D": (layers.Conv1D(5, 3), (8, 4), LAST),
    "Conv2D": (layers.Conv2D(6, 3, groups=2), (8, 8, 4), LAST),
    "Conv3D": (layers.Conv3D(5, 2), (4, 4, 4, 3), LAST),
    "Conv1DTranspose": (layers.Conv1DTranspose(5, 3), (8, 4), [(lambda w, i: w[:, i, :], 1)]),
    "Conv2DTranspose": (
        layers.Conv2DTranspose(5, 3),
        (8, 8, 4),
        [(lambda w, i: w[:, :, i, :], 2)],
    ),
    "Conv3DTranspose": (
        layers.Conv3DTranspose(5, 2),
        (4, 4, 4, 3),
        [(lambda w, i: w[:, :, :, i, :], 3)],
    ),
    "LSTM": (layers.LSTM(5), (6, 4), LAST * 2),
    "GRU": (layers.GRU(5), (6, 4), LAST * 2),
    "SimpleRNN": (layers.SimpleRNN(5), (6, 4), LAST * 2),
    "Bidirectional": (layers.Bidirectional(layers.LSTM(5)), (6, 4), LAST * 4),
    "ConvLSTM1D": (layers.ConvLSTM1D(5, 3), (4, 8, 3), LAST * 2),
    "ConvLSTM2D": (layers.ConvLSTM2D(5, 3), (4, 8, 8, 3), LAST * 2),
    "TimeDistributed": (layers.TimeDistributed(layers.Dense(5)), (6, 4), LAST),
    "Embedding": (layers.Embedding(7, 5), (6,), [(lambda w, i: w[i], 0)]),
    "EinsumDense": (
        layers.EinsumDense("...x,xy->...y", output_shape=5, bias_axes="y"),
        (6, 4),
        LAST,
    ),
    "EinsumDense, output first": (
        layers.EinsumDense("ab,cb->ac", output_shape=5, bias_axes="c"),
        (4,),
        [(lambda w, i: w[i, :], 0)],
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_filters_of_a_random_direction_have_the_norm_of_the_models(name):
    layer, input_shape, cuts = KERNELS[name]
    model = built(layer, *input_shape)
    (direction,) = random_directions(model, seed=0)
    weights = [weight.numpy() for weight in model.trainable_variables]
    kernels = [(d, w) for d, w in zip(direction, weights, strict=True) if np.any(d)]
    assert len(kernels) == len(cuts)
    for (d, w), (cut, axis) in zip(kernels, cuts, strict=True):
        norms = [np.linalg.norm(cut(d, i)) for i in range(w.shape[axis])]
        expected = [np.linalg.norm(cut(w, i)) for i in range(w.shape[axis])]
        np.testing.assert_allclose(norms, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "input_shape"),
    [
        (layers.DepthwiseConv1D(3, depth_multiplier=2), (8, 4)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4)),
        (layers.SeparableConv1D(5, 3, depth_multiplier=2), (8, 4)),
        (layers.SeparableConv2D(5, 3, depth_multiplier=2), (8, 8, 4)),
    ],
)
def test_depthwise_kernels_have_one_filter_per_channel_and_multiplier(layer, input_shape):
    model = built(layer, *input_shape)
    (direction,) = random_directions(model, seed=0)
    depthwise, weight = direction[0], model.trainable_variables[0].numpy()
    for channel in range(4):
        for copy in range(2):
            np.testing.assert_allclose(
                np.linalg.norm(depthwise[..., channel, copy]),
                np.linalg.norm(weight[..., channel, copy]),
                rtol=1e-5,
            )


def test_attention_has_one_filter_per_head_and_unit_and_its_flat_biases_stay_put():
    inputs = keras.Input((6, 8))
    outputs = layers.MultiHeadAttention(num_heads=2, key_dim=3)(inputs, inputs)
    model = keras.Model(inputs, outputs)
    entries = {entry.path.split("multi_head_attention/")[1]: entry for entry in filters(model)}
    assert entries["query/kernel"].shape == (8, 2, 3)
    assert entries["query/kernel"].axes == (0,)
    assert entries["query/kernel"].number == 6
    assert entries["query/bias"].shape == (2, 3)
    assert entries["query/bias"].axes is None
    assert entries["attention_output/kernel"].shape == (2, 3, 8)
    assert entries["attention_output/kernel"].axes == (0, 1)
    assert entries["attention_output/kernel"].number == 8


@pytest.mark.parametrize(
    ("layer", "input_shape"),
    [
        (layers.BatchNormalization(), (8, 8, 4)),
        (layers.LayerNormalization(axis=(1, 2)), (8, 4)),
        (layers.GroupNormalization(2), (8, 8, 4)),
        (layers.RMSNormalization(), (8, 4)),
        (layers.PReLU(), (8, 4)),
    ],
)
def test_normalization_and_prelu_parameters_move_only_on_request(layer, input_shape):
    model = built(layer, *input_shape)
    assert all(entry.axes is None and entry.number == 0 for entry in filters(model))
    with pytest.raises(ValueError, match="no filter to move.*`ignore=None`"):
        random_directions(model)
    (direction,) = random_directions(model, ignore=None, seed=0)
    for d, weight in zip(direction, model.trainable_variables, strict=True):
        np.testing.assert_allclose(np.abs(d), np.abs(weight.numpy()), rtol=1e-5)


def test_gru_bias_of_two_dimensions_stays_put():
    model = built(layers.GRU(5, reset_after=True), 6, 4)
    bias = model.trainable_variables[2]
    assert bias.shape == (2, 15)
    assert not random_directions(model, seed=0)[0][2].any()


def test_tied_embeddings_count_a_token_as_one_filter_both_ways():
    model = built(layers.ReversibleEmbedding(7, 5, tie_weights=False), 6)
    embeddings, reverse = filters(model)
    assert (embeddings.shape, embeddings.axes, embeddings.number) == ((7, 5), (1,), 7)
    assert (reverse.shape, reverse.axes, reverse.number) == ((5, 7), (0,), 7)


def test_unknown_layers_keep_their_outputs_last_until_registered():
    model = built(OutputFirstDense(), 4)
    assert [entry.axes for entry in filters(model)] == [(0,), (0,)]

    class RegisteredDense(OutputFirstDense):
        pass

    register_filters(RegisteredDense, kernel=0, gain=None)
    model = built(RegisteredDense(), 4)
    assert [entry.axes for entry in filters(model)] == [(1,), None]
    (direction,) = random_directions(model, seed=0)
    np.testing.assert_allclose(
        np.linalg.norm(direction[0], axis=1),
        np.linalg.norm(model.trainable_variables[0].numpy(), axis=1),
        rtol=1e-5,
    )


def test_shared_and_nested_layers_appear_once():
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared], name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="top")(shared(inner(inputs))))
    paths = [entry.path for entry in filters(model)]
    assert paths == ["inner/shared/kernel", "inner/shared/bias", "top/kernel", "top/bias"]


def test_subclassed_models_work_and_frozen_layers_stay_put():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Conv2DTranspose(3, 2, name="first")
            self.top = layers.Dense(2, name="top", trainable=False)

        def call(self, inputs):
            return self.top(self.first(inputs))

    model = Network()
    model(np.zeros((1, 4, 4, 5), "float32"))
    kernel, bias = filters(model)
    assert (kernel.shape, kernel.axes, kernel.number) == ((2, 2, 3, 5), (0, 1, 3), 3)
    assert bias.axes is None


def test_filters_of_norm_zero_get_a_direction_of_zero():
    model = built(layers.Dense(3), 4)
    kernel = model.trainable_variables[0].numpy()
    kernel[:, 1] = 0
    model.trainable_variables[0].assign(kernel)
    direction = random_directions(model, seed=0)[0][0]
    assert np.isfinite(direction).all()
    assert not direction[:, 1].any()
    assert direction[:, [0, 2]].all()


def test_other_normalizations_scale_layers_weights_or_nothing():
    model = built(layers.Dense(3), 4)
    weight = model.trainable_variables[0].numpy()
    draw, layer, product = (
        random_directions(model, normalize=normalize, seed=0)[0][0]
        for normalize in (None, "layer", "weight")
    )
    np.testing.assert_allclose(np.linalg.norm(layer), np.linalg.norm(weight), rtol=1e-5)
    np.testing.assert_allclose(
        layer / np.linalg.norm(layer), draw / np.linalg.norm(draw), rtol=1e-5
    )
    np.testing.assert_allclose(product, draw * weight, rtol=1e-6)


def test_raw_directions_are_standard_normal():
    model = built(layers.Dense(200), 500)
    draw = random_directions(model, normalize=None, seed=0)[0][0]
    # Five standard errors of 100,000 draws.
    assert abs(draw.mean()) < 5 / np.sqrt(1e5)
    assert abs(draw.std() - 1) < 5 / np.sqrt(2e5)


def test_the_seed_decides_and_what_is_ignored_changes_nothing_else(model):
    first, second = random_directions(model, 2, seed=0)
    (alone,) = random_directions(model, seed=0)
    (with_biases,) = random_directions(model, ignore=None, seed=0)
    (other,) = random_directions(model, seed=1)
    for a, b, c, d, e in zip(first, alone, second, with_biases, other, strict=True):
        np.testing.assert_array_equal(a, b)
        if a.any():
            np.testing.assert_array_equal(a, d)
            assert not np.allclose(a, c)
            assert not np.allclose(a, e)
        else:
            assert d.all()


def test_a_seed_of_zero_is_a_seed(model):
    for first, again in zip(*(random_directions(model, seed=0)[0] for _ in range(2)), strict=True):
        np.testing.assert_array_equal(first, again)


def test_without_a_seed_the_global_one_decides(model):
    keras.utils.set_random_seed(7)
    first, second = random_directions(model), random_directions(model)
    keras.utils.set_random_seed(7)
    again = random_directions(model)
    np.testing.assert_array_equal(first[0][0], again[0][0])
    assert not np.allclose(first[0][0], second[0][0])


def nested_model():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="low"), layers.BatchNormalization(name="norm")],
        name="block",
    )
    parts = [keras.Input((4,)), inner, layers.Dense(5, name="top"), layers.Dense(2, name="last")]
    model = keras.Sequential(parts, name="low_model")
    model.layers[-1].bias.assign([1, 2])
    return model


@pytest.mark.parametrize(
    ("chosen", "moving"),
    [
        ("top", ["top"]),
        (["top", "last"], ["top", "last"]),
        ("*t*", ["top", "last"]),
        # A pattern that only the model's own name matches must not move all of it.
        ("low*", ["low"]),
        ("block", ["low", "norm"]),
        (lambda model: model.layers[0], ["low", "norm"]),
        (lambda model: (model.get_layer("top"), "block/low"), ["top", "low"]),
    ],
)
def test_chosen_layers_move_as_they_do_with_all_others_which_stay_put(chosen, moving):
    model = nested_model()
    chosen = chosen(model) if callable(chosen) else chosen
    for kind in ({}, {"normalize": None, "ignore": None}):
        everything = random_directions(model, 2, seed=0, **kind)
        some = random_directions(model, 2, seed=0, layers=chosen, **kind)
        for whole, part in zip(everything, some, strict=True):
            for weight, all_moved, moved in zip(
                model.trainable_variables, whole, part, strict=True
            ):
                layer = weight.path.split("/")[-2]
                expected = all_moved if layer in moving else np.zeros_like(all_moved)
                np.testing.assert_array_equal(moved, expected, err_msg=weight.path)


def test_lines_and_surfaces_can_move_one_layer_at_a_time(model, data):
    top = model.layers[-1]
    options = {"seed": 0, "extent": (-0.1, 0.1), "verbose": 0}
    first, second = random_directions(model, 2, layers=top, seed=0)
    (line,) = evaluate_lines(model, data, number_of_points=3, layers=top.name, **options)
    (surface,) = evaluate_surfaces(model, data, number_of_points=3, layers=[top], **options)
    start = [weight.numpy() for weight in model.trainable_variables]
    for alpha, on_line, column in zip(
        line.alphas, line.values["loss"][0], surface.values["loss"].T, strict=True
    ):
        for beta, on_plane in zip(surface.betas, column, strict=True):
            for weight, value, a, b in zip(
                model.trainable_variables, start, first, second, strict=True
            ):
                weight.assign(value + alpha * a + beta * b)
            assert on_plane == pytest.approx(model.evaluate(*data, verbose=0)[0], rel=1e-5)
            if beta == 0:
                assert on_line == pytest.approx(on_plane, rel=1e-5)
        for weight, value in zip(model.trainable_variables, start, strict=True):
            weight.assign(value)
    assert line.metadata["layers"] == [top.name]
    assert surface.metadata["layers"] == [top.path]
    assert "layers" not in evaluate_line(model, *data, 3, **options).metadata
    single = evaluate_surface(model, *data, 3, layers=top, **options)
    np.testing.assert_array_equal(single.values["loss"], surface.values["loss"])
    with pytest.raises(ValueError, match="`layers` is for random directions.*Received layers='"):
        evaluate_line(model, *data, directions=[first], layers=top.name)
    with pytest.raises(TypeError, match="`layers` must be names.*Received 3"):
        evaluate_line(model, *data, layers=3)


def test_layers_that_cannot_move_are_refused():
    model = nested_model()
    with pytest.raises(ValueError, match=r"`layers` must be .* has \['block', .*Received 'conv\*'"):
        random_directions(model, layers="conv*")
    with pytest.raises(ValueError, match="Received 'stranger'"):
        random_directions(model, layers=["top", layers.Dense(2, name="stranger")])
    for wrong in (3, [None]):
        with pytest.raises(TypeError, match="`layers` must be names, patterns such as 'conv"):
            random_directions(model, layers=wrong)
    with pytest.raises(ValueError, match="no filter to move: .*`directions=random_directions"):
        random_directions(model, layers="norm")
    model.get_layer("last").trainable = False
    with pytest.raises(ValueError, match=r"must have trainable weights. Received \['last'\]"):
        random_directions(model, layers="last")


def test_direction_between_leads_from_one_model_to_the_other(model):
    other = keras.models.clone_model(model)
    # What the other model would train does not matter.
    other.layers[0].trainable = False
    direction = direction_between(model, other)
    other.layers[0].trainable = True
    for start, step, end in zip(
        model.trainable_variables, direction, other.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(start.numpy() + step, end.numpy(), atol=1e-6)


def test_direction_between_refuses_other_architectures(model):
    with pytest.raises(
        ValueError, match=r"`other` must have the architecture of `model`.*\(5, 3\)"
    ):
        direction_between(model, built(layers.Dense(3), 5))


def test_print_filters_lists_every_weight(model):
    printed = []
    print_filters(model, print_fn=printed.append)
    assert [line.split() for line in printed[:3]] == [
        ["weight", "shape", "filters", "norm", "over", "axes"],
        ["sequential/dense/kernel", "(4,", "8)", "8", "(0,)"],
        ["sequential/dense/bias", "(8,)", "-", "stays", "put"],
    ]
    assert len(printed) == 1 + len(model.trainable_variables)


def test_models_that_cannot_be_moved_are_refused(model):
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`. Received str"):
        random_directions("model")
    with pytest.raises(ValueError, match="not built.*Call it on a batch"):
        random_directions(keras.Sequential([layers.Dense(2)]))
    model.layers[0].quantize("int8")
    for layer in model.layers[1:]:
        layer.trainable = False
    with pytest.raises(ValueError, match="no filter to move.*Quantized.*enable_lora"):
        random_directions(model)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_adapters_on_quantized_layers_move_and_the_layers_stay_put(mode, data):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3)])
    first, _ = model.layers
    first.quantize(mode)
    first.enable_lora(2)
    first.lora_kernel_b.assign(np.random.default_rng(0).normal(size=(2, 8)))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    kernel = first.variables[0].numpy()
    options = {"seed": 0, "layers": first.name, "engine": "evaluate"}
    line = evaluate_line(model, *data, 3, **options)
    np.testing.assert_array_equal(first.variables[0].numpy(), kernel)
    (direction,) = random_directions(model, seed=0, layers=first.name)
    pairs = zip(model.trainable_variables, direction, strict=True)
    assert [weight.name for weight, array in pairs if array.any()] == [
        "lora_kernel_a",
        "lora_kernel_b",
    ]
    for weight, step in zip(model.trainable_variables, direction, strict=True):
        weight.assign_add(step)
    assert line.values["loss"][0, -1] == pytest.approx(model.evaluate(*data, verbose=0), rel=1e-6)


def reference_file(path, arrays, names=("xdirection", "ydirection")):
    """A file as `h5_util.write_list` of the paper's reference implementation writes it."""
    with h5py.File(path, "w") as file:
        for name in names:
            group = file.create_group(name)
            for index, array in enumerate(arrays):
                group.create_dataset(str(index), data=array)


@pytest.mark.parametrize("are_large", [False, True])
def test_saved_directions_take_the_place_of_their_arrays(
    model, data, are_large, tmp_path, monkeypatch
):
    directions = random_directions(model, 3, seed=0)
    expected = evaluate_lines(model, data, number_of_points=5, directions=directions)
    save_directions(directions, tmp_path / "directions.h5")
    if are_large:
        monkeypatch.setattr(engines, "LARGE", 0)
    options = {"directions": tmp_path / "directions.h5", "engine": "evaluate"}
    saved = evaluate_lines(model, data, number_of_points=5, **options)
    for one, other in zip(saved, expected, strict=True):
        np.testing.assert_allclose(one.values["loss"], other.values["loss"], rtol=1e-6)


def test_directions_of_the_reference_implementation_have_the_axes_of_torch(tmp_path):
    model = keras.Sequential(
        [
            *(keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()),
            *(layers.GlobalAveragePooling2D(), layers.Dense(4)),
        ]
    )
    torch_shapes = [(4, 3, 3, 3), (4,), (4,), (4,), (4, 4), (4,)]
    generator = np.random.default_rng(0)
    arrays = [generator.normal(size=shape).astype("float32") for shape in torch_shapes]
    reference_file(tmp_path / "reference.h5", arrays)
    x, y = generator.normal(size=(20, 8, 8, 3)), generator.integers(0, 4, 20)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    surface = evaluate_surface(model, x, y, 2, directions=str(tmp_path / "reference.h5"))
    # Both directions are the same, so at (1, 1) the weights are twice as far.
    conv, *others, dense, bias = arrays
    moved = [np.einsum("oihw->hwio", conv), *others, dense.T, bias]
    for weight, step in zip(model.trainable_variables, moved, strict=True):
        weight.assign_add(2 * step)
    expected = model.evaluate(x, y, verbose=0)
    assert surface.values["loss"][1, 1] == pytest.approx(expected, rel=1e-5)


def test_files_that_hold_no_directions_of_the_model_are_refused(model, data, tmp_path):
    path = tmp_path / "directions.h5"
    with pytest.raises(FileNotFoundError, match="directions.h5"):
        evaluate_line(model, *data, directions=path)
    reference_file(path, [np.ones(2)], ["surface"])
    with pytest.raises(ValueError, match="`directions` must be a file of.*no xdirection.*surface"):
        evaluate_line(model, *data, directions=path)
    reference_file(path, [np.ones((4, 8)), np.ones(8)])
    with pytest.raises(ValueError, match=r"shapes of `model.trainable_variables`.*\[\(4, 8\)"):
        evaluate_line(model, *data, directions=path)
    reference_file(path, [np.full(weight.shape, np.nan).T for weight in model.trainable_variables])
    with pytest.raises(ValueError, match="must be finite"):
        evaluate_line(model, *data, directions=path)
    with pytest.raises(ValueError, match="`directions` must be a list of directions.*str"):
        save_directions("directions.h5", path)


def test_models_without_trainable_weights_are_refused(model):
    model.trainable = False
    with pytest.raises(ValueError, match="no trainable weights.*trainable = True"):
        random_directions(model)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"normalize": "filters"}, ValueError, "`normalize` must be one of 'filter'.*'filters'"),
        ({"ignore": "bias"}, ValueError, "`ignore` must be one of 'biasbn', None.*'bias'"),
        ({"number": 0}, ValueError, "`number` must be at least 1. Received 0"),
        ({"seed": "zero"}, TypeError, "`seed` must be an integer. Received 'zero'"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0. Received -1"),
    ],
)
def test_arguments_are_checked(model, arguments, error, message):
    with pytest.raises(error, match=message):
        random_directions(model, **arguments)


def test_register_filters_checks_its_arguments():
    with pytest.raises(TypeError, match="`layer_class` must be a subclass of `keras.layers.Layer`"):
        register_filters("Dense", kernel=0)
    with pytest.raises(TypeError, match="`kernel` must be an integer. Received 'last'"):
        register_filters(OutputFirstDense, kernel="last")
