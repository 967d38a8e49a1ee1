"""Examples: the experiments run on digits, resume after a crash, and show what they claim."""

import csv
import gc
import gzip
import importlib
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from losslandscape import LossLine, evaluate_line, random_directions

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.append(str(EXAMPLES))

import claims  # noqa: E402
import experiment  # noqa: E402
import paper  # noqa: E402
from experiment import Setting, train  # noqa: E402
from filter_normalization import FACTOR, rescale  # noqa: E402
from images import load_images  # noqa: E402
from networks import LOSS, resnet, vgg_like  # noqa: E402

# Networks of depth 2 have no blocks: a convolution and the classifier, fast to compile.
SMALL = (
    *("--dataset", "digits", "--samples", "200", "--measured", "60", "--epochs", "5"),
    *("--points", "3", "--line-points", "11", "--directions", "2", "--no-augmentation"),
)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The folder of all networks and what was measured of them, which the scripts share."""
    return tmp_path_factory.mktemp("networks")


@pytest.fixture
def run(networks, tmp_path):
    """Runs a script with flags of its own and returns the files that it writes, by name."""

    def run(script, *flags, models=networks / "models", output=tmp_path / "output"):
        folders = [f"--models={models}", f"--measurements={networks / 'measured'}"]
        main = importlib.import_module(script).main
        with warnings.catch_warnings():
            # Networks are hardly trained here: no loss rises far enough for a half-width.
            warnings.simplefilter("ignore")
            main([*SMALL, *folders, f"--output={output}", *flags])
        return {path.name: path for path in output.iterdir()}

    return run


def rows_of(path):
    return [line.strip("| ").split(" | ") for line in path.read_text().splitlines() if "|" in line]


def test_paper_draws_the_networks_side_by_side(run, networks, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "MAP_POINTS", 2)
    flags = ("--depths", "2", "--seeds", "1", "--widths", "--mapped", "2")
    files = run("paper", *flags)
    assert set(files) == {"paper-levels.png", "paper-3d.png", "paper-convexity.png", "paper.md"}
    header, _, *rows = rows_of(files["paper.md"])
    assert [row[:2] for row in rows] == [[name, "0"] for name in ("ResNet 2", "VGG-like 2")]
    assert all(len(row) == len(header) for row in rows)
    # The values alone are enough to draw everything again, and report the same.
    nowhere, other = tmp_path / "nowhere", tmp_path / "other"
    again = run("paper", *flags, models=nowhere, output=other)
    assert rows_of(again["paper.md"]) == [header, _, *rows]
    assert not nowhere.exists()
    few = run("paper", *flags, "--mapped", "--no-curvature", "--name", "few", output=other)
    without, _, *_ = rows_of(few["few.md"])
    assert [name for name in header if "λ" not in name and "map" not in name] == without
    flatness = rows_of(run("flatness", output=other)["flatness.md"])
    found = [path.parent.name for path in networks.glob("measured/*/*/lines-raw-*")]
    assert len(found) >= len(rows)
    numbers = [str(len(found)), str(len({name.split("-seed")[0] for name in found}))]
    assert [row[:3] for row in flatness[2:]] == [
        ["filter-normalized directions", *numbers],
        ["raw directions", *numbers],
        ["the first minus the second, paired", *numbers],
    ]


def test_the_cover_is_a_picture_and_on_demand_pages_meshes_and_films(run, monkeypatch):
    monkeypatch.setattr("losslandscape.plotting.FRAMES", 3)
    files = run("cover", "--depth", "2", "--pages")
    stems = ("cover-resnet-2", "cover-vgg-like-2")
    kinds = ("html", "vtp", "gif")
    assert set(files) == {"cover.png"} | {f"{stem}.{kind}" for stem in stems for kind in kinds}


def test_an_interrupted_measurement_goes_on_where_it_stopped(tmp_path):
    path, found = tmp_path / "folder" / "line.h5", []

    def measure(checkpoint):
        found.append(checkpoint.exists())
        of(0.5).line.save(checkpoint)
        if len(found) == 1:
            raise KeyboardInterrupt
        return LossLine.load(checkpoint)

    with pytest.raises(KeyboardInterrupt):
        experiment.measured(path, LossLine, measure)
    line = experiment.measured(path, LossLine, measure)
    np.testing.assert_array_equal(line.values["data_loss"], of(0.5).line.values["data_loss"])
    assert found == [False, True]
    assert list(path.parent.iterdir()) == [path]
    experiment.measured(path, LossLine, measure)
    assert len(found) == 2


def of(*widths):
    """What `paper.py` measures, of parabolas with these half-widths."""
    alphas = np.linspace(-1, 1, 201)
    values = np.array([experiment.RISE * (alphas / width) ** 2 for width in widths])
    line = LossLine(alphas, {"data_loss": values}, {"data_loss": 0.0}, {})
    return paper.Measured(results={}, line=line, curvature={})


def test_claims_are_confirmed_only_by_several_trainings():
    def trained(family, depth, width, *lines):
        return {paper.Network(family, depth, width, seed): line for seed, line in enumerate(lines)}

    rows = claims.claims_on_architecture(
        {
            **trained("ResNet", 20, 1, of(0.5, 0.51)),
            **trained("VGG-like", 20, 1, of(0.5, 0.52)),
            **trained("ResNet", 56, 1, of(0.5, 0.51), of(0.5, 0.52), of(0.51, 0.52)),
            **trained("VGG-like", 56, 1, of(0.3, 0.31), of(0.3, 0.31), of(0.31, 0.32)),
            **trained("ResNet", 20, 2, of(0.3, 0.31)),
            **trained("VGG-like", 20, 2, of(0.7, 0.71)),
        }
    )
    columns = [(row[1], row[3].split(":")[0], row[5], row[7], row[8]) for row in rows]
    assert columns == [
        ("without shortcuts, deeper is less convex", "VGG-like 20", "1 and 3", "-", "not settled"),
        ("shortcuts keep the landscape convex", "ResNet 56", "3 and 3", "trainings", "not settled"),
        ("shortcuts keep minima wide", "VGG-like 56", "3 and 3", "trainings", "confirmed"),
        ("wider layers make minima wider", "ResNet 20", "1 and 1", "directions", "not settled"),
        (
            "wider layers make minima wider",
            "VGG-like 20",
            "1 and 1",
            "directions",
            "seen in these networks",
        ),
    ]
    # Each training counts once: 0.505, 0.51 and 0.515 minus 0.305, 0.305 and 0.315.
    assert rows[2][6].mean == pytest.approx(0.51 - 0.925 / 3, abs=1e-3)


def test_flatness_and_generalization_are_related_only_beyond_chance(monkeypatch):
    monkeypatch.setattr("flatness.RESAMPLES", 500)
    generator = np.random.default_rng(0)
    widths = np.linspace(0.1, 1, 20)

    def verdicts(filtered, raw):
        pairs = zip(filtered, raw, strict=True)
        networks = {
            f"{number}-seed{seed}": {"error": 1 - width, "filter": one, "raw": other}
            for number, (width, (one, other)) in enumerate(zip(widths, pairs, strict=True))
            for seed in range(2)
        }
        rows = claims.claims_on_generalization(networks)
        assert {row[5] for row in rows} == {"40 of 20 settings"}
        return [row[-1] for row in rows]

    noise = generator.permutation(widths)
    assert verdicts(widths, noise) == ["confirmed", "confirmed"]
    assert verdicts(widths, widths) == ["confirmed", "not settled"]
    assert verdicts(noise, widths) == ["not settled", "contradicted"]


def test_trainings_of_one_setting_count_once():
    networks = {
        "a-seed0": {"error": 0.1, "filter": 1.0},
        "a-seed1": {"error": 0.3, "filter": 3.0},
        "b-seed0": {"error": 0.5, "filter": 5.0},
    }
    settings = claims.by_setting(networks)
    assert settings == {
        "a": {"error": pytest.approx(0.2), "filter": 2.0},
        "b": {"error": 0.5, "filter": 5.0},
    }


def test_a_claim_on_one_path_is_seen_and_not_confirmed():
    assert claims.claim_on_paths({"path": 0.8, "random walk": 0.76})[-1] == claims.SEEN
    assert claims.claim_on_paths({"path": 0.3, "random walk": 0.76})[-1] == claims.NOT_SEEN


def test_claims_are_told_of_all_networks(run, monkeypatch):
    monkeypatch.setattr(claims, "SEEDS", 2)
    monkeypatch.setattr(claims, "SMALL", 2)
    files = run("claims", "--depths", "2", "--seeds", "1", "--widths")
    header, _, *rows = rows_of(files["claims.md"])
    assert [row[0] for row in rows] == ["5"] * 4 + ["7"]
    assert all(len(row) == len(header) for row in rows)
    walk, path = (float(cell.split(":")[1]) for cell in rows[-1][3:5])
    assert 0 < path <= 1
    # Five points before the last: the inverse squared sines of 18, 36, 54 and 72 degrees.
    inverses = 1 / np.sin(np.pi * np.arange(1, 5) / 10) ** 2
    assert walk == pytest.approx(inverses[:2].sum() / inverses.sum(), abs=0.005)


def test_healthchecks_draw_the_pairs_and_report_the_results(run):
    files = run("healthchecks", "--depth", "2", "--seeds", "2")
    assert set(files) == {"healthchecks.png", "healthchecks.md", "healthchecks-verdict.md"}
    _, _, *rows = rows_of(files["healthchecks.md"])
    assert [row[:2] for row in rows[:2]] == [
        ["SGD, batch 128, weight decay 0.0005", "0"],
        ["SGD, batch 128, weight decay 0.0005", "1"],
    ]
    assert len(rows) == 8
    _, _, *verdicts = rows_of(files["healthchecks-verdict.md"])
    assert [row[0] for row in verdicts] == [
        "batch size: 2048 minus 128",
        "weight decay: none minus 5e-4",
        "optimizer: Adam minus SGD",
    ]
    accuracies = np.array([float(row[3]) for row in rows])
    # The first two rows are SGD's, the last two Adam's; the table has three digits.
    expected = accuracies[6:].mean() - accuracies[:2].mean()
    assert float(verdicts[2][2].split()[0]) == pytest.approx(expected, abs=2e-3)


def test_filter_normalization_compares_three_pairs(run):
    files = run("filter_normalization", "--depth", "2")
    assert set(files) == {"filter-normalization.png", "filter-normalization.md"}
    _, _, *rows = rows_of(files["filter-normalization.md"])
    assert [row[0] for row in rows] == [
        "no weight decay, batch 128",
        "no weight decay, batch 2048",
        "weight decay 5e-4, batch 128",
        "weight decay 5e-4, batch 2048",
        "the same function, as trained",
        "the same function, kernels x 3",
    ]
    # As the network that it repeats, and as the one that is the same function.
    assert rows[4][1:] == rows[2][1:]
    assert rows[5][2] == rows[4][2]


def test_beyond_draws_paths_and_curvature(run):
    files = run("beyond", "--depth", "2", "--points", "2", "--probes", "2", "--epochs", "3")
    curvature = {"beyond-convexity.png", "beyond-eigenvectors.png", "beyond-spectrum.png"}
    ways = {"beyond-interpolation.png", "beyond-plane.png"}
    training = {"beyond-trajectory.png", "beyond-fidelity.png", "beyond-trajectory.gif"}
    assert set(files) == curvature | ways | training | {"beyond.md"}
    _, _, *rows = rows_of(files["beyond.md"])
    assert [row[0] for row in rows] == ["batch 128", "batch 2048", "batch 128, other seed"]
    for _, _, largest, smallest, trace, _ in rows:
        assert float(smallest) < float(largest)
        assert float(largest) < float(trace.split()[0]) * 10


def test_hidden_draws_what_a_plane_does_not_show(run):
    files = run("hidden", "--points", "3", "--epochs", "3")
    lines, planes = {"layers", "one-layer", "worst"}, {"random", "eigenvectors"}
    pictures = lines | planes | {"barriers", "curve", "basins", "runs"}
    assert set(files) == {f"hidden-{name}.png" for name in pictures} | {"hidden.md"}
    _, _, *rows = rows_of(files["hidden.md"])
    assert [row[0] for row in rows] == ["random", "eigenvectors"]
    # Of one Hessian, whatever the plane.
    assert rows[0][1:3] == rows[1][1:3]


def test_rescaled_networks_are_the_same_function():
    model = vgg_like(8, (8, 8, 1))
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(generator.uniform(0.5, 2, weight.shape))
    x, y = generator.normal(size=(32, 8, 8, 1)), generator.integers(0, 10, 32)
    model.compile("sgd", LOSS)
    other = rescale(model, FACTOR)
    np.testing.assert_allclose(other.predict(x), model.predict(x), rtol=1e-4)

    def curve(network, normalize):
        directions = random_directions(network, normalize=normalize, seed=0)
        line = evaluate_line(network, x, y, 5, directions=directions, extent=(-0.5, 0.5))
        return line.values["data_loss"][0]

    np.testing.assert_allclose(curve(other, "filter"), curve(model, "filter"), rtol=1e-3)
    # Raw steps are a third as large for kernels three times as large.
    assert not np.allclose(curve(other, None), curve(model, None), rtol=0.05)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (56, 0.85)])
def test_networks_are_as_large_as_published(depth, millions):
    # He et al. (2015), table 6.
    network = resnet(depth)
    assert network.count_params() / 1e6 == pytest.approx(millions, rel=0.03)
    shortcuts = 16 * 32 + 32 * 64 + 4 * (32 + 64)
    assert vgg_like(depth).count_params() == network.count_params() - shortcuts


@pytest.mark.parametrize(("depth", "width", "millions"), [(40, 1, 0.6), (40, 4, 8.9), (16, 8, 11)])
def test_wide_networks_are_as_large_as_published(depth, width, millions):
    # Zagoruyko & Komodakis (2016), table 5, who count two of the shortcuts as layers.
    network = resnet(depth - 2, width=width)
    assert network.count_params() / 1e6 == pytest.approx(millions, rel=0.07)


@pytest.mark.parametrize("network", [resnet, vgg_like])
def test_networks_return_logits(network):
    outputs = network(8, (8, 8, 1)).predict(np.ones((2, 8, 8, 1)), verbose=0)
    assert not np.allclose(outputs.sum(axis=1), 1, atol=1e-3)
    # From probabilities, Keras would clip the loss on JAX and Torch.
    assert float(LOSS(np.array([0]), np.array([[-50.0, 50.0]]))) == pytest.approx(100)


def test_invalid_depths_are_refused():
    with pytest.raises(ValueError, match="6n \\+ 2.*Received 21"):
        resnet(21)


@pytest.fixture
def arguments(tmp_path):
    names = ["--dataset", "digits", "--epochs", "12", "--samples", "64"]
    folders = [f"--{name}={tmp_path / name}" for name in ("models", "measurements")]
    return experiment.flags("").parse_args([*names, *folders])


def build(input_shape, weight_decay):
    network = keras.Sequential(name="tiny")
    network.add(keras.Input(input_shape))
    network.add(layers.Flatten())
    regularizer = keras.regularizers.L2(weight_decay)
    network.add(layers.Dense(10, kernel_regularizer=regularizer))
    return network


def history_of(trained, arguments):
    folder = arguments.models / trained.folder.relative_to(arguments.measurements)
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_learning_rate_drops_as_in_the_paper(arguments):
    trained = train(build, Setting(), load_images("digits", samples=64), arguments)
    rates = [float(row["learning_rate"]) for row in history_of(trained, arguments)]
    # After 1/2, 3/4 and 11/12 of the epochs: 150, 225 and 275 of the paper's 300.
    np.testing.assert_allclose(rates, 6 * [0.1] + 3 * [0.01] + 2 * [0.001] + [0.0001], rtol=1e-5)


def test_the_learning_rate_warms_up(arguments):
    arguments.warmup, arguments.no_augmentation = 3, True
    trained = train(build, Setting(), load_images("digits", samples=64), arguments)
    rates = [float(row["learning_rate"]) for row in history_of(trained, arguments)]
    np.testing.assert_allclose(rates[:7], [0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.01], rtol=1e-5)


# Keras' CSVLogger leaves its file open after an exception.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_training_resumes_where_it_stopped(arguments, monkeypatch):
    data = load_images("digits", samples=64)
    log_epoch = experiment.EpochTimer.on_epoch_end

    def crash(self, epoch, logs=None):
        if epoch == 7:
            raise KeyboardInterrupt
        log_epoch(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(experiment.EpochTimer, "on_epoch_end", crash)
        with pytest.raises(KeyboardInterrupt):
            train(build, Setting(), data, arguments)
    gc.collect()
    trained = train(build, Setting(), data, arguments)
    rows = history_of(trained, arguments)
    assert [int(row["epoch"]) for row in rows] == list(range(12))
    # The optimizer is restored as well: its rate had dropped once before the crash.
    np.testing.assert_allclose(float(rows[7]["learning_rate"]), 0.01, rtol=1e-5)
    seconds = sum(float(row["seconds"]) for row in rows)
    assert trained.results["seconds"] == pytest.approx(seconds)
    again = train(build, Setting(), data, arguments)
    np.testing.assert_array_equal(again.load().get_weights()[0], trained.load().get_weights()[0])
    assert len(history_of(again, arguments)) == 12


def test_settings_do_not_find_each_others_networks(arguments, monkeypatch):
    data = load_images("digits", samples=64)
    # As if all were trained.
    monkeypatch.setattr(experiment, "measured_numbers", lambda *_: {})
    folders = {train(build, Setting(), data, arguments).folder}
    for other in (
        Setting(batch_size=32),
        Setting(weight_decay=0.0),
        Setting(optimizer="Adam"),
        Setting(seed=1),
        Setting(rate=0.01),
    ):
        folders.add(train(build, other, data, arguments).folder)
    arguments.learning_rate = 0.05
    folders.add(train(build, Setting(), data, arguments).folder)
    assert len(folders) == 7


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_fashion_mnist_is_read_from_idx_files(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (12, 28, 28), np.uint8)
    labels = generator.integers(0, 10, 12, np.uint8)
    for part, suffix in (("train", ".gz"), ("t10k", "")):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", labels)
    (x_train, y_train), (x_test, y_test) = load_images("fashion_mnist", folder=tmp_path, samples=8)
    assert (x_train.shape, x_test.shape) == ((8, 28, 28, 1), (12, 28, 28, 1))
    np.testing.assert_array_equal(y_train, labels[:8])
    np.testing.assert_array_equal(y_test, labels)
    # Standardized by the training images, and the test images by the same numbers.
    np.testing.assert_allclose([x_train.mean(), x_train.std()], [0, 1], atol=1e-5)
    np.testing.assert_allclose(x_test[:8], x_train, rtol=1e-6)
    # Averaged over squares of four pixels.
    (halved, _), _ = load_images("fashion_mnist", folder=tmp_path, size=14)
    means = images.reshape(12, 14, 2, 14, 2).mean((2, 4))
    expected = (means - means.mean()) / means.std()
    assert np.corrcoef(halved.ravel(), expected.ravel())[0, 1] > 0.9
