"""Types: those of each public name agree with the code, and help a user who runs mypy."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import keras

import losslandscape

ROOT = Path(__file__).parent.parent
STATEMENTS = ast.parse((ROOT / "losslandscape.pyi").read_text()).body
FUNCTIONS = [node for node in STATEMENTS if isinstance(node, ast.FunctionDef)]
CLASSES = {node.name: node for node in STATEMENTS if isinstance(node, ast.ClassDef)}
UNKNOWN = "a default that the types leave out"


def default(node):
    is_left_out = isinstance(node, ast.Constant) and node.value is ...
    return UNKNOWN if is_left_out else ast.literal_eval(node)


def typed_parameters(function):
    """Name, kind and default of each parameter in the types."""
    arguments = function.args
    names = [each.arg for each in arguments.args]
    defaults = [inspect.Parameter.empty] * (len(names) - len(arguments.defaults))
    defaults += map(default, arguments.defaults)
    yield from zip(names, ["positional or keyword"] * len(names), defaults, strict=True)
    for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield each.arg, "keyword-only", default(value) if value else inspect.Parameter.empty
    if arguments.kwarg:
        yield arguments.kwarg.arg, "variadic keyword", inspect.Parameter.empty


def assert_same_parameters(function, actual):
    parameters = list(inspect.signature(actual).parameters.values())
    typed = list(typed_parameters(function))
    expected = [
        (each.name, each.kind.description, UNKNOWN if value is UNKNOWN else each.default)
        for each, (_, _, value) in zip(parameters, typed, strict=True)
    ]
    assert typed == expected


def test_parameters_are_those_of_the_code():
    for function in FUNCTIONS:
        assert_same_parameters(function, getattr(losslandscape, function.name))


def typed_members(name):
    """The members of a class in the types, by name, with those of its base classes."""
    members = {}
    for base in CLASSES[name].bases:
        if isinstance(base, ast.Name) and base.id in CLASSES:
            members |= typed_members(base.id)
    for node in CLASSES[name].body:
        if isinstance(node, ast.FunctionDef):
            members[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            members[node.target.id] = node
    return members


def actual_members(cls):
    """The public members of a class, without what Keras calls and what only files need."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("losslandscape")]
    names = {name for base in ours for name in vars(base)}
    names |= set(getattr(cls, "__dataclass_fields__", ()))
    hidden = {"measured", *dir(keras.callbacks.Callback)}
    return {name for name in names - hidden if not name.startswith("_")}


def test_members_of_classes_are_those_of_the_code():
    for name in set(CLASSES) & set(losslandscape.__all__):
        cls, typed = getattr(losslandscape, name), typed_members(name)
        made = typed.pop("__init__", None)
        if made is not None:
            parameters = [each.arg for each in [*made.args.args[1:], *made.args.kwonlyargs]]
            assert parameters == list(inspect.signature(cls).parameters)
        assert set(typed) == actual_members(cls)
        for member, node in typed.items():
            if isinstance(node, ast.FunctionDef):
                assert_same_member(node, inspect.getattr_static(cls, member))


def assert_same_member(node, actual):
    decorators = {each.id for each in node.decorator_list}
    assert ("property" in decorators) == isinstance(actual, property)
    assert ("classmethod" in decorators) == isinstance(actual, classmethod)
    function = actual.fget if isinstance(actual, property) else actual
    assert_same_parameters(node, getattr(function, "__func__", function))


def test_every_public_name_has_types():
    assigned = {node.target.id for node in STATEMENTS if isinstance(node, ast.AnnAssign)}
    typed = {function.name for function in FUNCTIONS} | set(CLASSES) | assigned
    assert set(losslandscape.__all__) == {name for name in typed if is_public(name)}


def is_public(name):
    return not name.startswith("_") or name == "__version__"


SCRIPT = """
from pathlib import Path

import keras
import numpy as np

from losslandscape import (
    LossSurface,
    WeightHistory,
    animate_path,
    evaluate_line,
    evaluate_surface,
    half_widths,
    loss_rise,
    plot_levels,
    plot_loss,
    plot_loss_3D,
    plot_trajectory,
    report,
)

x, y = np.zeros((8, 4)), np.zeros(8)
model = keras.Sequential([keras.layers.Dense(1)])

plot_loss(model, ((x, y), (x, y)), ("training set", "test set"), scale="log", seed=0)
display = plot_loss_3D(model, ("levels", "3d"), x, y, number_of_points=(5, 7), path=Path("a.png"))
loss: np.ndarray = display.surface.values["loss"]
display.save("landscape.pdf")
plot_levels(LossSurface.load("surface.h5"), cmap="magma", levels=[0.1, 1, 10])

widths: np.ndarray = half_widths(evaluate_line(model, x, y), rise=0.5)
rise: float = loss_rise(evaluate_surface(model, x, y), 0.1)
warnings = [finding.warning for finding in report(display)]

history = WeightHistory("history")
animate_path(plot_trajectory(model, history, x, y).surface, "training.gif")
"""

SLIPS = {
    'plot_loss(model, (x, y), number_of_points="41")': '"number_of_points" to "plot_loss"',
    'plot_loss_3D(model, "level", x, y)': "Literal['level']",
    'plot_loss(model, (x, y), scale="Log")': "Literal['Log']",
    "display.surfce": '"LossDisplay" has no attribute "surfce"',
}
# Packages that a type checker would follow for seconds, for nothing that is checked here.
NOT_FOLLOWED = "[mypy-{0}.*]\nfollow_imports = skip\n"


def test_a_user_finds_slips_with_mypy(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT + "\n".join(SLIPS))
    skipped = map(NOT_FOLLOWED.format, ("matplotlib", "pandas", "xarray"))
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nignore_missing_imports = True\nmypy_path = {ROOT}\n" + "".join(skipped)
    )
    command = [sys.executable, "-m", "mypy", "--no-incremental", "script.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    *errors, summary = run.stdout.splitlines()
    assert summary.startswith(f"Found {len(SLIPS)} errors in 1 file")
    first = len(SCRIPT.splitlines()) + 1
    for number, (error, message) in enumerate(zip(errors, SLIPS.values(), strict=True), first):
        assert error.startswith(f"script.py:{number}: error: ")
        assert message in error
