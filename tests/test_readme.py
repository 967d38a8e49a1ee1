"""README and pages: they show what the scripts produced, and their snippets run as written."""

import re
from concurrent import futures
from pathlib import Path

import keras
import pytest
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent
PAGES = {
    path.stem: path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
}
ALL = "\n".join(PAGES.values())
# A snippet, after the comment that says why it cannot run here, if any.
SNIPPET = re.compile(
    r"(?:<!-- (?P<why>.*) -->\n)?^(?P<indent> *)```python\n(?P<code>.*?)^ *```", re.M | re.S
)
PICTURE = re.compile(r"readme_files/([\w.-]+)")


@pytest.mark.parametrize("path", sorted((ROOT / "readme_files").glob("*.md")), ids=lambda p: p.name)
def test_tables_are_the_ones_the_scripts_wrote(path):
    assert path.read_text().strip() in ALL


def test_every_picture_exists_and_is_used():
    written = {path.name for path in (ROOT / "readme_files").iterdir()}
    tables = {name for name in written if name.endswith(".md")}
    assert set(PICTURE.findall(ALL)) == written - tables


def test_every_script_is_run_by_a_command():
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    helpers = {"experiment.py", "images.py", "networks.py", "quickstart.py", "contact_sheet.py"}
    commands = set(re.findall(r"python examples/([\w.]+)", ALL))
    assert commands == scripts - helpers


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = ROOT if page == "README" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        # The site makes the reference; `make docs` checks the links to it.
        if path.startswith(("https:", "reference/")):
            continue
        assert (folder / path).exists()
        if anchor:
            titles = re.findall(r"^#+ (.*)$", (folder / path).read_text(), re.M)
            assert anchor in {
                re.sub(r"[^\w -]", "", title).replace(" ", "-").lower() for title in titles
            }


def test_the_readme_is_short():
    assert len(PAGES["README"].splitlines()) <= 150


def snippets(page):
    return [
        (match["why"], re.sub(f"^{match['indent']}", "", match["code"], flags=re.M))
        for match in SNIPPET.finditer(PAGES[page])
    ]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """What the first snippet of the README leaves behind, and the file of its model."""
    (_, code), *_ = snippets("README")
    names, file = {}, tmp_path_factory.mktemp("start") / "model.keras"
    keras.utils.set_random_seed(0)
    exec(code, names)  # noqa: S102
    names["model"].save(file)
    return names, file


def threads(number, mp_context):
    """In place of processes, which take longer to start; those are tested with the workers."""
    assert mp_context.get_start_method() == "spawn"
    return futures.ThreadPoolExecutor(number)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("page", PAGES)
def test_snippets_run_from_top_to_bottom(page, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(futures, "ProcessPoolExecutor", threads)
    # Every page continues from the model of the README, whose own snippets begin with it.
    names, file = start
    namespace = names | {"__name__": "__main__", "model": keras.saving.load_model(file)}
    for why, code in snippets(page)[page == "README" :]:
        if why is None:
            exec(compile(code, page, "exec"), namespace)  # noqa: S102
            plt.close("all")


def test_only_what_needs_a_cluster_is_not_run():
    reasons = [why for page in PAGES for why, _ in snippets(page) if why is not None]
    assert reasons == ["needs a cluster"]
