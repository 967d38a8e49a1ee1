"""Checks: what cannot be used is refused before anything is computed, by the argument's name."""

import concurrent.futures
import multiprocessing

import keras
import numpy as np
import pytest
from modules import public_names
from quadratic import quadratic_model

import losslandscape as ll
from losslandscape.evaluation import Evaluation
from losslandscape.measuring.state import preserved
from losslandscape.values.measures import half_widths
from losslandscape.values.surfaces import LayerCurvature, Spectrum

PUBLIC = public_names()

AXIS = np.linspace(-1, 1, 5)
DATA = np.zeros((4, 1), "float32"), np.zeros((4, 1), "float32")
LINE = ll.LossLine(AXIS, {"loss": np.stack([AXIS**2, AXIS**4])}, {"loss": 0.0}, {})
PAIR = {"models": ["first", "second"], "positions": [-0.5, 0.5]}
BOWL = np.hypot(*np.meshgrid(AXIS, AXIS)) + 1
SURFACE = ll.LossSurface(AXIS, AXIS, {"loss": BOWL}, {"loss": 1.0}, {})
PLANE = ll.LossSurface(
    AXIS, AXIS, {"loss": BOWL}, {"loss": 1.0}, {"positions": [[0, 0], [1, 0], [0, 1]]}
)
CONVEXITY = ll.LossSurface(AXIS, AXIS, {"convexity": BOWL}, {"convexity": 1.0}, {})
BARRIERS = ll.LossBarriers(AXIS, {"loss": BOWL[:1]}, {"loss": 1.0}, PAIR)
PATH = {"path": np.array([[1.0, 0.5], [0, 0.5], [0, 0]]), "distances": np.zeros(3)}
AT_PATH = {"plane_values": {"loss": np.zeros(3)}, "true_values": {"loss": np.zeros(3)}}
TRAJECTORY = ll.LossTrajectory(**vars(SURFACE), explained=np.array([0.8, 0.2]), **PATH, **AT_PATH)
SPECTRUM = Spectrum(np.array([[1.0, 2.0]]), np.array([[0.5, 0.5]]), {"parameters": 3})
LAYERS = LayerCurvature(np.ones(1), np.ones((1, 3)), {"layers": ["a"], "parameters": [3]})

# What cannot be a number, numbers that are none, and those beyond what is accepted.
NUMBERS = "a", None, [1.0], {"a": 1}, True, 1j, np.ones(2), np.nan
SHARES = *NUMBERS, 0, 1, 2, -1
SIZES = *NUMBERS, 0, -1, np.inf
# What is no name of a metric, and names that were not measured.
METRICS = ["loss"], {"loss": 1}, [], None, 3, np.ones(2), "auc"
LABELS = 3, {"a": "b"}, ["a", "b", "c", "d"]
PAIRS = 3, "ab", (1,), (1, 2, 3), ("a", "b"), (np.nan, 1), (1, np.inf), (1j, 2)
LIMITS = 3, "a", (2, 1), (0, np.nan), ("a", "b"), [[1], [2, 3]], None
# A number of contours.
LEVELS = (1, True, *LIMITS[1:-1])
COLORMAPS = 3, "no such colors", ["red"]
STYLE = {"metric": METRICS, "figsize": (*PAIRS, (0, 0)), "scale": ("symlog", ["log"], np.ones(2))}

# For each call on values, arguments that it accepts, and values of some of them that it refuses.
ON_VALUES = {
    "plot_line": ({"lines": LINE}, STYLE | {"lines": ([], [None], 3), "labels": LABELS}),
    "plot_metrics": ({"lines": LINE}, {"lines": ([],), "labels": LABELS}),
    "plot_levels": (
        {"surfaces": SURFACE},
        STYLE | {"surfaces": ([],), "levels": LEVELS, "cmap": COLORMAPS, "labels": LABELS},
    ),
    "plot_surface": (
        {"surfaces": SURFACE},
        STYLE | {"limits": LIMITS[:-1], "cmap": COLORMAPS, "view": PAIRS, "labels": LABELS},
    ),
    "plot_path": ({"trajectory": TRAJECTORY}, STYLE | {"trajectory": ([],), "cmap": COLORMAPS}),
    "plot_path_fidelity": ({"trajectory": TRAJECTORY}, STYLE),
    "plot_curve": ({"surface": PLANE}, STYLE | {"levels": LEVELS, "cmap": COLORMAPS}),
    "animate_path": ({"trajectory": TRAJECTORY, "path": "a.gif"}, {"fps": SIZES, "path": (3,)}),
    "plot_barriers": ({"barriers": BARRIERS}, {"labels": LABELS, "cmap": COLORMAPS}),
    "plot_convexity": ({"surfaces": CONVEXITY}, {"cmap": COLORMAPS, "figsize": PAIRS}),
    "plot_persistence": ({"surface": SURFACE}, {"metric": METRICS, "figsize": PAIRS}),
    "plot_spectrum": (
        {"spectrum": SPECTRUM},
        {"width": [each for each in SIZES if each is not None], "figsize": PAIRS},
    ),
    "plot_layers": ({"curvature": LAYERS}, {"figsize": PAIRS, "metric": METRICS}),
    "half_widths": ({"line": LINE}, {"rise": SIZES, "metric": METRICS}),
    "asymmetry": ({"line": LINE}, {"rise": SIZES}),
    "expected_sigma": ({"line": LINE}, {"rise": SIZES}),
    "worst_sigma": ({"line": LINE}, {"rise": SIZES}),
    "quadratic_half_widths": ({"curvatures": [1.0]}, {"rise": SIZES, "curvatures": ("a", [None])}),
    "confidence_interval": (
        {"values": [1.0, 2]},
        {"confidence": SHARES, "values": ("a", [None, 1], [[1], [1, 2]], [1j, 2], [1])},
    ),
    "loss_rise": ({"measured": SURFACE}, {"radius": (*NUMBERS, 0, -1), "metric": METRICS}),
    "epsilon_sharpness": ({"measured": SURFACE}, {"epsilon": (*NUMBERS, 0, -1)}),
    "number_of_basins": ({"surface": SURFACE}, {"depth": (*NUMBERS, -1), "metric": METRICS}),
    "non_convexity": (
        {"measured": SURFACE},
        {"below": [each for each in NUMBERS if each is not None], "metric": METRICS},
    ),
    "report": (
        {"measured": SURFACE},
        {
            "metric": METRICS,
            "expected": (3, "loss", [1.0], {"accuracy": 1}, {"loss": "a"}),
            "directions": (3, "ab", {"a": 1}, [[np.ones(2)]], [[np.ones(2)], [np.ones(3)]], [1, 2]),
            "curvature": (3, SURFACE),
        },
    ),
    "write_mesh": ({"surface": SURFACE, "path": "a.vtp"}, {"height": (*NUMBERS, -1, np.inf)}),
    "write_html": (
        {"values": SURFACE, "path": "a.html"},
        {"title": (3, ["a"]), "labels": LABELS, "metric": METRICS[4:], "path": (3,)}
        | {"scale": STYLE["scale"], "values": ([], LINE), "findings": (3, [1])},
    ),
    "WeightHistory": ({"folder": "a"}, {"folder": (3, None, "~nosuchuser/a"), "every": (0, [])}),
}
# Values of these have methods that take arguments.
METHODS = {
    SURFACE.slice: {"alpha": (*NUMBERS[:1], *NUMBERS[2:], 2), "beta": ("a", np.nan, np.inf)},
    lambda first: BARRIERS.line(first, 1): {"first": ("a", None, 0.5, 2)},
    lambda second: BARRIERS.line(0, second): {"second": ("a", None, 0.5, 2)},
}


def shut_down(kind, **options):
    with kind(1, **options) as executor:
        return executor


SHUT_DOWN = (
    shut_down(concurrent.futures.ThreadPoolExecutor),
    shut_down(
        concurrent.futures.ProcessPoolExecutor, mp_context=multiprocessing.get_context("spawn")
    ),
)


GRID = {
    "extent": ((-1.7e308, 1.7e308), (-1e39, 1), (1, 1 + 1e-15), (1, -1), "a", ("a", "b")),
    "metric": ([], (), {"loss": 1}, 3, np.ones(2)),
    "checkpoint": (3, "~nosuchuser/a.h5", "no/such/folder.h5"),
    "executor": (3, *SHUT_DOWN),
    "engine": (3, np.ones((2, 2)), ["evaluate"]),
    "verbose": (3, "loud", np.ones((2, 2))),
    "batch_size": (0, -1, 0.5, "a", [1], np.nan),
    "accuracy": [each for each in SHARES if each is not None],
}
OF_MODEL = {"model": (None, "a.keras", 3), "batch_size": GRID["batch_size"]}
ACCURACY = {"tolerance": (*NUMBERS, -1, 1)}
ON_MODELS = {
    "plot_loss": GRID | {"dataset_labels": (3, {"a": 1}), "ax": (3, [], [None])},
    "plot_loss_3D": GRID
    | {"dataset_labels": (3, {"a": 1}), "ax": (3, [], [None], {"levels": []}, {"3d": 3})}
    | {"levels": LEVELS, "cmap": COLORMAPS, "figsize": PAIRS, "path": (3, "~nosuchuser/a")},
    "evaluate_line": GRID | {"number_of_directions": (0, "a", 1.5)},
    "evaluate_surface": GRID | {"x": (None,)},
    "evaluate_convexity": OF_MODEL
    | ACCURACY
    | {"extent": GRID["extent"], "executor": GRID["executor"]},
    "Hessian": OF_MODEL,
    "worst_direction": OF_MODEL | {"radius": SIZES},
    "read_history": {"model": (None, "a.keras", 3)},
    "evaluate_trajectory": {"margin": SIZES},
    "training_curvature": {"rise": SIZES, "measures": (3, [], {})}
    | ACCURACY
    | {"learning_rate": ("a", 1j, 0, -1, np.nan, np.inf, [1.0] * 9)},
    "fit_curve": {"optimizer": (None, 3, "no such optimizer"), "batch_size": (0, "a")},
    "preserved": {"model": (None, "a.keras", 3)},
}
DATA_OF = {
    "plot_loss_3D": {"plot_types": "levels"} | dict(zip("xy", DATA, strict=True)),
    "fit_curve": {"other": None} | dict(zip("xy", DATA, strict=True)),
    "read_history": {"history": []},
    "preserved": {},
}


def unclear(call, accepted, refused):
    """What a call does with arguments that it should refuse, unless it says what is wrong."""
    for name, values in refused.items():
        for value in values:
            try:
                outcome = f"returned {call(**accepted | {name: value})!r}"
            except (TypeError, ValueError) as error:
                outcome = f"raised {type(error).__name__}: {error}"
                if f"`{name}`" in outcome:
                    continue
            yield f"{name}={value!r} {outcome}"


@pytest.mark.filterwarnings("error")
def test_calls_on_values_name_the_argument_that_they_refuse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {name: list(unclear(PUBLIC[name], *arguments)) for name, arguments in ON_VALUES.items()}
    found |= {call: list(unclear(call, {}, refused)) for call, refused in METHODS.items()}
    assert not {name: list(each) for name, each in found.items() if each}
    assert not list(tmp_path.iterdir())


def enter_preserved(model):
    with preserved(model):
        pass


def test_calls_on_models_name_the_argument_that_they_refuse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = quadratic_model()
    other = quadratic_model()

    def measure(*_, **__):
        raise RuntimeError("something was measured")

    for call in ("_measured", "radius"):
        monkeypatch.setattr(Evaluation, call, measure)
    found = {}
    for name, refused in ON_MODELS.items():
        accepted = {"model": model} | DATA_OF.get(name, dict(zip("xy", DATA, strict=True)))
        if "other" in accepted:
            accepted["other"] = other
        if name in ("evaluate_trajectory", "training_curvature"):
            accepted["history"] = [other, other, other]
        call = enter_preserved if name == "preserved" else PUBLIC[name]
        found[name] = list(unclear(call, accepted, refused))
    hessian = ll.Hessian(model, *DATA, verbose=0)
    for call in (hessian.eigenvalues, hessian.by_layer):
        found[call] = list(unclear(call, {}, ACCURACY))
    assert not {name: each for name, each in found.items() if each}
    assert not list(tmp_path.iterdir())


def test_a_display_saves_only_what_it_has(tmp_path):
    for display, suffix in ((ll.LossDisplay(surfaces=[SURFACE]), "png"), (ll.LossDisplay(), "h5")):
        with pytest.raises(ValueError, match="`path` .* but this display has none"):
            display.save(tmp_path / f"a.{suffix}")


def test_numbers_may_be_arrays_and_tensors_of_one_number():
    for rise in (0.1, np.float32(0.1), np.array(0.1), keras.ops.convert_to_tensor(0.1)):
        np.testing.assert_allclose(
            half_widths(LINE, rise=rise),
            half_widths(LINE, rise=0.1),
            rtol=1e-6,
        )
