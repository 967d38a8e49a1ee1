"""Installation: one package, whatever the names of the user's own modules."""

import importlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import jedi
import nbclient
import nbformat
import pytest
import yaml
from modules import FOLDERS, MODULES, ROOT

# As they are in the package.
FILES = {f"{name.replace('.', '/')}.py" for name in MODULES} - {"losslandscape.py"}
FILES |= {f"{folder.name}/__init__.py" for folder in FOLDERS}
FILES |= {"__init__.py", "__main__.py"}

IMPORT = """
import sys
import plotting, evaluation, directions, measuring, values
assert plotting.OWN and evaluation.OWN and directions.OWN and measuring.OWN and values.OWN

import losslandscape
from losslandscape import plot_loss, plot_loss_3D
assert sys.modules["losslandscape.plotting"] is not plotting
print("from", losslandscape.__file__)
"""
CALLS = """
import keras, numpy as np
import matplotlib; matplotlib.use("Agg")
x_train, x_test = np.random.default_rng(0).normal(size=(2, 16, 4))
y_train, y_test = np.arange(16) % 3, np.arange(16) % 3
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
model.compile(loss="sparse_categorical_crossentropy")
both = (x_train, y_train), (x_test, y_test)
plot_loss(model, both, dataset_labels=("training set", "test set"))
display = plot_loss_3D(model, ("levels", "3d"), x_test, y_test, number_of_points=5)
assert display.surface.values["loss"].shape == (5, 5)
"""
COMMAND = """
import runpy

def shows_help(command):
    sys.argv = ["losslandscape", "--help"]
    try:
        command()
    except SystemExit as exit:
        return exit.code == 0

assert shows_help(lambda: runpy.run_module("losslandscape", run_name="__main__"))
"""
NO_BACKEND = """
import warnings
import keras, numpy as np, pytest
from matplotlib.figure import Figure
# A figure that could not be written would only cause a warning.
warnings.filterwarnings("error", "Could not")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
model.compile(loss="mse")
data = np.zeros((4, 4)), np.zeros((4, 3))
model.test_step = lambda *_: pytest.fail("computed")
with pytest.raises(ImportError, match="can make no figure here.*no_such_backend"):
    plot_loss_3D(model, "levels", *data)
del model.test_step
# On the caller's own axes, no backend is needed.
ax = Figure().subplots()
assert plot_loss(model, data, number_of_points=3, verbose=0, ax=ax, path="a.png").axes["line"] is ax
"""
INSTALLED_COMMAND = """
import importlib.metadata
(command,) = importlib.metadata.entry_points(group="console_scripts", name="losslandscape")
assert shows_help(command.load())
"""


@pytest.fixture
def user_folder(tmp_path):
    """A folder whose modules have the same names as ours."""
    folder = tmp_path / "user"
    folder.mkdir()
    for name in {name.split("/")[0].removesuffix(".py") for name in FILES}:
        (folder / f"{name}.py").write_text("OWN = True\n")
    return folder


def run_script(folder, python, script=IMPORT, **variables):
    """Runs a script next to these modules and returns the file that it imported."""
    (folder / "script.py").write_text(script)
    command = [python, folder / "script.py"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | variables
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return Path(run.stdout.split("from ")[1].splitlines()[0])


def fresh_environment(folder):
    """A new environment without losslandscape; everything else comes from this one."""
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A folder appended this way does not bring its editable installs along.
    ours = [path for path in sys.path if path.endswith("site-packages")]
    lines = [f"import sys; sys.path.append({path!r})" for path in ours]
    (packages / "ours.pth").write_text("\n".join(lines))
    return folder / "bin" / "python"


def install(python, *what):
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    command = [sys.executable, "-m", "pip", "--python", python, "install", *options, *what]
    subprocess.run(command, cwd=ROOT, check=True)


# In the same process, since every new one takes seconds to import TensorFlow.
def test_a_checkout_works_next_to_modules_of_the_same_names_and_refuses_a_missing_backend(
    user_folder,
):
    variables = {"PYTHONPATH": f"{user_folder}:{ROOT}", "MPLBACKEND": "module://no_such_backend"}
    file = run_script(user_folder, sys.executable, IMPORT + COMMAND + NO_BACKEND, **variables)
    assert file == ROOT / "losslandscape.py"
    assert (user_folder / "a.png").exists()


def test_an_editable_install_works_next_to_modules_of_the_same_names(user_folder, tmp_path):
    python = fresh_environment(tmp_path / "venv")
    install(python, "--editable", ".")
    # What is found is imported as from a checkout, above.
    script = 'import importlib.util as u; print("from", u.find_spec("losslandscape").origin)'
    assert run_script(user_folder, python, script) == ROOT / "losslandscape.py"


def test_the_distributions_hold_one_package_and_work_installed(user_folder, tmp_path):
    # The wheel is built from the source distribution, which therefore lacks nothing.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (source,) = (list((tmp_path / "dist").glob(kind)) for kind in ("*.whl", "*.tar.gz"))
    names = zipfile.ZipFile(wheel).namelist()
    # Every module at the root and in the folders, what they read, and nothing else.
    package = {f"losslandscape/{name}" for name in FILES | {"drawing/page.html", "py.typed"}}
    assert {name for name in names if ".dist-info/" not in name} == package
    assert {name.split("/")[0] for name in names} == {
        "losslandscape",
        "-".join(wheel.name.split("-")[:2]) + ".dist-info",
    }
    # The page at PyPI renders.
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel, source], check=True)
    python = fresh_environment(tmp_path / "venv")
    install(python, wheel)
    file = run_script(user_folder, python, IMPORT + CALLS + COMMAND + INSTALLED_COMMAND)
    assert file.is_relative_to(tmp_path / "venv")


def test_the_citation_names_the_authors_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Li", "Xu", "Taylor", "Studer", "Goldstein"]
    assert paper["url"] in (ROOT / "README.md").read_text()


@pytest.fixture
def linked_checkout(tmp_path):
    """A copy of the checkout and its environment after `make develop`."""
    for path in [*ROOT.glob("[!.]*.py*"), ROOT / "README.md", ROOT / "LICENSE"]:
        shutil.copy(path, tmp_path)
    for folder in FOLDERS:
        shutil.copytree(folder, tmp_path / folder.name)
    python = fresh_environment(tmp_path / ".venv")
    subprocess.run([python, "setup.py", "--quiet", "editors"], cwd=tmp_path, check=True)
    return tmp_path


def test_editors_find_definitions_and_complete(linked_checkout):
    code = "from losslandscape.evaluation import evaluate_line\nevaluate_line(1).cen"
    project = jedi.Project(linked_checkout, environment_path=linked_checkout / ".venv")
    script = jedi.Script(code, path=linked_checkout / "script.py", project=project)
    (definition,) = script.goto(1, code.index("evaluate_line") + 1, follow_imports=True)
    assert definition.module_path.resolve() == linked_checkout / "evaluation.py"
    source = (ROOT / "evaluation.py").read_text().splitlines()
    assert source[definition.line - 1].startswith("def evaluate_line(")
    names = [completion.name for completion in script.complete(1, code.index("_line"))]
    assert {"evaluate_line", "evaluate_lines", "evaluate_surface"} <= set(names)
    assert [completion.name for completion in script.complete()] == ["center"]


def test_editor_links_exist_for_each_module_and_are_never_imported(linked_checkout):
    package = linked_checkout / "build" / "editors" / "losslandscape"
    assert {link.relative_to(package).as_posix() for link in package.rglob("*.py")} == FILES
    python = linked_checkout / ".venv" / "bin" / "python"
    command = [python, "-c", "import importlib.util as u; print(u.find_spec('losslandscape'))"]
    for folder, found in ((linked_checkout, "losslandscape.py"), (linked_checkout / "build", None)):
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert str(found and linked_checkout / found) in run.stdout


def test_the_notebook_runs_and_shows_each_figure_once(monkeypatch):
    # The notebook chooses the backend that shows figures in it.
    monkeypatch.delenv("MPLBACKEND")
    notebook = nbformat.read(ROOT / "examples" / "losslandscape.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("landscape.explore()"))
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": ROOT}}).execute()
    pictures = {
        cell.source: sum("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    # A bar is one output that changes; what is printed would be kept line by line.
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output.text for output in outputs if output.get("name") == "stdout"] == []
    for source, number in pictures.items():
        assert number == source.count("plot_loss(") + source.count('"levels"') + source.count(
            '"3d"'
        )
    assert sum(pictures.values()) == 8
    (page,) = notebook.cells[-1].outputs
    assert ' srcdoc="&lt;!DOCTYPE html&gt;' in page.data["text/html"]


def test_the_quickstart_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "examples")
    importlib.import_module("quickstart").main(["--output", str(tmp_path)])
    accuracy = float(capsys.readouterr().out.split("Test accuracy: ")[1].split()[0])
    assert accuracy > 0.9
    figures = {path.name for path in tmp_path.iterdir()}
    committed = {path.name for path in (ROOT / "readme_files").iterdir()}
    assert figures <= committed
