"""CONTRIBUTING.md: the list of modules is complete, imports go down it, signatures are short."""

import ast
import re
from pathlib import Path

import losslandscape

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text().split("## Where to add things")[0]
LINES = [
    re.split(r" {2,}", line.strip())[0].split(" · ") for line in re.findall(r"^    .+", TEXT, re.M)
]
LINE_OF = {name: number for number, names in enumerate(LINES) for name in names}
# On one line, as noted there.
NOTED = {("export", "plotting"), ("plotting", "measures")}


def imported(path):
    """The modules of this library that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("losslandscape."):
            yield node.module.removeprefix("losslandscape.")


def test_every_module_is_on_the_list():
    assert set(LINE_OF) == {path.stem for path in ROOT.glob("*.py")} - {"setup"}


def test_imports_go_down_the_list():
    upwards = [
        (path.stem, name)
        for path in ROOT.glob("*.py")
        if path.stem != "setup"
        for name in imported(path)
        if LINE_OF[name] <= LINE_OF[path.stem] and (path.stem, name) not in NOTED
    ]
    # `python -m losslandscape` in a checkout runs the command, which is above everything.
    assert upwards == []


def parameters(function):
    """How many parameters a caller gives: `self` comes by itself, and `**options` is one."""
    given = function.args
    named = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in named if name != "self"]) + sum(
        each is not None for each in (given.vararg, given.kwarg)
    )


def test_only_public_calls_take_more_than_seven_parameters():
    long = {
        # The parameters of a class are those of its `__init__`.
        getattr(parent, "name", "") if node.name == "__init__" else node.name
        for path in ROOT.glob("*.py")
        for parent in ast.walk(ast.parse(path.read_text()))
        for node in ast.iter_child_nodes(parent)
        if isinstance(node, ast.FunctionDef) and parameters(node) > 7
    }
    # Keras' own calls have many, too: tab completion shows each.
    assert long <= set(losslandscape.__all__)
    assert "plot_loss_3D" in long


def test_little_of_evaluation_is_imported_elsewhere():
    number_of_names = {
        path.stem: len(node.names)
        for path in ROOT.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "losslandscape.evaluation"
    }
    assert "interpolation" in number_of_names
    assert max(number_of_names.values()) <= 5, number_of_names
