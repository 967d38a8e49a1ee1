"""README: it shows what the scripts produced."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "readme_files").glob("*.md")), ids=lambda p: p.name)
def test_tables_are_the_ones_the_scripts_wrote(path):
    assert path.read_text().strip() in README


def test_every_picture_exists_and_is_used():
    shown = set(re.findall(r"readme_files/[\w.-]+", README))
    written = {f"readme_files/{path.name}" for path in (ROOT / "readme_files").iterdir()}
    tables = {name for name in written if name.endswith(".md")}
    assert shown == written - tables


def test_every_script_is_run_by_a_command():
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    helpers = {"experiment.py", "images.py", "networks.py", "quickstart.py"}
    commands = set(re.findall(r"python examples/([\w.]+)", README))
    assert commands == scripts - helpers
