"""The site: each picture of the gallery comes from its script, and the reference lacks no name."""

import importlib.util
import json
import re
import runpy
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from modules import public_names

import losslandscape

DOCS = Path(__file__).parent.parent / "docs"
GALLERY = (DOCS / "gallery.md").read_text()
SCRIPTS = sorted(set((DOCS / "gallery").glob("*.py")) - {DOCS / "gallery" / "trained.py"})


@pytest.mark.usefixtures("brief")
def test_scripts_of_the_gallery_draw_the_pictures_shown_above_them(tmp_path, monkeypatch):
    # One test, since all scripts of a process share the networks of `trained.py`.
    monkeypatch.syspath_prepend(DOCS / "gallery")
    for script in SCRIPTS:
        folder = tmp_path / script.stem
        folder.mkdir()
        monkeypatch.chdir(folder)
        runpy.run_path(str(script))
        plt.close("all")
        above = GALLERY.split(f'--8<-- "gallery/{script.name}"')[0].rpartition("### ")[2]
        shown = set(re.findall(r"\(gallery/(.*)\)", above))
        assert shown == {path.name for path in folder.iterdir()}, script.name
        assert all((script.parent / name).exists() for name in shown)


def test_scripts_of_the_gallery_are_short():
    assert all(len(path.read_text().splitlines()) <= 30 for path in SCRIPTS)


def test_the_gallery_shows_everything_that_can_be_drawn():
    code = "\n".join(path.read_text() for path in SCRIPTS)
    drawing = {name for name in public_names() if name.startswith(("plot_", "animate_"))}
    # Parts of what `plot_interpolation`, `plot_trajectory` and `plot_loss_3D` draw, and its film.
    parts = {"plot_metrics", "plot_path_fidelity", "plot_surface", "animate_surface"}
    assert {name for name in drawing - parts if not re.search(rf"\b{name}\b", code)} == set()


def test_the_notebook_is_kept_as_it_ran():
    notebook = json.loads((DOCS.parent / "examples" / "losslandscape.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        pictures = sum("image/png" in output.get("data", {}) for output in cell["outputs"])
        source = "".join(cell["source"])
        drawn = ("plot_loss(", '"levels"', '"3d"')
        assert pictures == sum(source.count(each) for each in drawn)
        assert {output["output_type"] for output in cell["outputs"]} <= {
            "display_data",
            "execute_result",
        }


def test_every_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    assert all(f" {path.name}\n" in navigation for path in DOCS.glob("*.md"))


def hooks():
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_name():
    listed = [name for names in hooks().groups().values() for name in names]
    top = [f"losslandscape.{name}" for name in losslandscape.__all__]
    assert listed[: len(top)] == top
    assert {name.rpartition(".")[2] for name in listed} == set(public_names())
    text = "\n".join(content for _, content in sorted(hooks().pages().items()))
    assert all(f"::: {name}\n" in f"{text}\n" for name in listed)


def test_the_reference_begins_with_a_line_on_each_name():
    rows = dict(re.findall(r"^\| \[`(\w+)`\].*? \| (.*) \|$", hooks().overview(), re.M))
    public = public_names()
    assert set(rows) == set(public)
    for name in set(rows) - {"__version__"}:
        documented = public[name].__doc__
        assert rows[name].replace("\\|", "|") == documented.strip().partition("\n")[0]


def test_the_gallery_begins_with_a_picture_of_each_section():
    links = re.findall(r'href="#([^"]+)"><img alt="" src="([^"]+)"', hooks().thumbnails(GALLERY))
    assert len(links) == GALLERY.count("\n### ")
    assert all((DOCS / picture).exists() for _, picture in links)
