"""CONTRIBUTING.md: the list of modules is complete, imports go down it, signatures are short."""

import ast
import re

from modules import FOLDERS, MODULES, ROOT

import losslandscape

TEXT = (ROOT / "CONTRIBUTING.md").read_text().split("## Where to add things")[0]


def floors():
    """The modules of each line of the list, from top to bottom, with the folder before the name."""
    folder = ""
    for indent, names in re.findall(r"^    ( *)(\S+(?: · \S+)*)", TEXT, re.M):
        if names.endswith("/"):
            folder = names.replace("/", ".")
        else:
            yield [folder * bool(indent) + name for name in names.split(" · ")]


LINE_OF = {name: number for number, names in enumerate(floors()) for name in names}


def imported(path):
    """The modules of this library that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("losslandscape."):
            yield node.module.removeprefix("losslandscape.")


def test_every_module_is_on_the_list():
    assert set(LINE_OF) == set(MODULES)


def test_the_root_holds_the_named_modules_and_every_folder_one_idea():
    named = {"losslandscape", "directions", "evaluation", "comparison", "plotting", "cli", "setup"}
    assert {path.stem for path in ROOT.glob("*.py")} == named
    for folder in FOLDERS:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def test_imports_go_down_the_list():
    upwards = [
        (module, name)
        for module, path in MODULES.items()
        for name in imported(path)
        if LINE_OF[name] <= LINE_OF[module]
    ]
    # `python -m losslandscape` in a checkout runs the command, which is above everything.
    assert upwards == []


def test_every_test_of_a_module_lies_where_the_module_does():
    tests = ROOT / "tests"
    for path in tests.glob("*/test_*.py"):
        folder, name = path.parent.name, path.stem.removeprefix("test_")
        assert f"{folder}.{name}" in MODULES


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
        for path in MODULES.values()
        for parent in ast.walk(ast.parse(path.read_text()))
        for node in ast.iter_child_nodes(parent)
        if isinstance(node, ast.FunctionDef) and parameters(node) > 7
    }
    # Keras' own calls have many, too: tab completion shows each.
    assert long <= set(losslandscape.__all__)
    assert "plot_loss_3D" in long


def test_little_of_evaluation_is_imported_elsewhere():
    number_of_names = {
        module: len(node.names)
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "losslandscape.evaluation"
    }
    assert "paths.interpolation" in number_of_names
    assert max(number_of_names.values()) <= 5, number_of_names
