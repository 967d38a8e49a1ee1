"""Options: the same in every call that evaluates, and refused where they are none."""

import inspect
from typing import Unpack

import keras
import numpy as np
import pytest
from modules import public_names

from losslandscape import training_curvature
from losslandscape.curvature.hessian import evaluate_convexity
from losslandscape.measuring.options import DEFAULTS, Measuring, evaluating

# Those that write out the options are tested where they are defined.
CALLS = {name: each for name, each in public_names().items() if hasattr(each, "__signature__")}


def test_each_option_has_one_type_one_default_and_one_description():
    described = inspect.getdoc(Measuring)
    assert list(Measuring.__annotations__) == list(DEFAULTS)
    assert [described.count(f"\n    {name}: ") for name in DEFAULTS] == [1] * len(DEFAULTS)


def test_help_shows_the_options_and_their_defaults():
    @evaluating()
    def evaluate_something(model, *, margin=0.2, **options: Unpack[Measuring]):
        return model, margin, options

    expected = (
        "(model, *, margin=0.2, metric='loss', batch_size=None, engine='auto', "
        "sampling_error=False, executor=None, checkpoint=None, verbose='auto')"
    )
    assert str(inspect.signature(evaluate_something)) == expected
    assert evaluate_something(None, verbose=0) == (None, 0.2, DEFAULTS | {"verbose": 0})


@pytest.mark.parametrize("name", CALLS)
def test_an_unknown_option_is_refused_by_the_name_of_the_call(name):
    message = rf"^{name}\(\) has no `exectuor`. Did you mean `executor`\?"
    # Before anything else is looked at.
    with pytest.raises(TypeError, match=message):
        CALLS[name](None, exectuor=None)


@pytest.mark.parametrize("name", CALLS)
def test_help_describes_every_parameter_once(name):
    described, parameters = inspect.getdoc(CALLS[name]), inspect.signature(CALLS[name]).parameters
    assert [described.count(f"\n    {each}: ") for each in parameters] == [1] * len(parameters)


def test_all_calls_that_measure_points_take_the_options():
    assert {
        "evaluate_film",
        "evaluate_line",
        "evaluate_lines",
        "evaluate_surface",
        "evaluate_surfaces",
        "evaluate_trajectory",
        "evaluate_interpolation",
        "evaluate_plane",
        "evaluate_barriers",
        "evaluate_curve",
        "evaluate_convexity",
        "plot_interpolation",
        "plot_trajectory",
        "training_curvature",
        "compare",
    } == set(CALLS)


def test_curvature_refuses_engines_that_do_not_measure_it():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    before, data = model.get_weights(), np.random.default_rng(0).normal(size=(2, 8, 1))
    message = "`engine` must be 'auto' here: only the engine of its own.* Received 'evaluate'"
    with pytest.raises(ValueError, match=message):
        evaluate_convexity(model, *data, 2, engine="evaluate", verbose=0)
    with pytest.raises(ValueError, match=message):
        training_curvature(model, [model], *data, engine="evaluate", verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
