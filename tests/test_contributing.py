"""The list of modules in CONTRIBUTING.md: complete, and imports go down it."""

import ast
import re
from pathlib import Path

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
