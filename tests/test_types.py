"""Types: they are in the code, and help a user who runs mypy."""

import inspect
import subprocess
import sys

import pytest
from modules import FOLDERS, MODULES, public_names

PUBLIC = [each for name, each in public_names().items() if name[0] != "_"]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda each: each.__name__)
def test_every_parameter_of_a_public_call_has_a_type(public):
    for function in functions_of(public):
        for name, parameter in inspect.signature(function).parameters.items():
            assert parameter.annotation is not parameter.empty or name in ("self", "cls"), name


def functions_of(public):
    """A function itself, or those of a class that a user calls."""
    if not inspect.isclass(public):
        return [inspect.unwrap(public)]
    members = vars(public).items()
    return [each for name, each in members if inspect.isfunction(each) and not hidden(name)]


def hidden(name):
    """Whether a method is called by Python or Keras, not by users."""
    return name.startswith(("_", "on_")) and name != "__init__"


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
    plot_levels,
    plot_loss,
    plot_loss_3D,
    plot_trajectory,
    report,
)
from losslandscape.values.measures import half_widths, loss_rise

x, y = np.zeros((8, 4)), np.zeros(8)
model = keras.Sequential([keras.layers.Dense(1)])

plot_loss(model, ((x, y), (x, y)), dataset_labels=("training set", "test set"), scale="log", seed=0)
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
    "evaluate_surface(model, x, y, exectuor=None)": '"exectuor" for "evaluate_surface"',
    'evaluate_surface(model, x, y, engine="fast")': "Literal['fast']",
    'plot_loss(model, (x, y), number_of_points="41")': '"number_of_points" to "plot_loss"',
    'plot_loss_3D(model, "level", x, y)': "Literal['level']",
    'plot_loss(model, (x, y), scale="Log")': "Literal['Log']",
    "display.surfce": '"LossDisplay[LossSurface]" has no attribute "surfce"',
}
# As for any installed package, what is wrong inside of ours is not the user's concern.
SILENT = "[mypy-losslandscape.*]\nfollow_imports = silent\n"
# Packages that a type checker would follow for seconds, for nothing that is checked here.
NOT_FOLLOWED = "[mypy-{0}.*]\nfollow_imports = skip\n"


@pytest.fixture
def package(tmp_path):
    """The folder of a package as it is installed: mypy does not evaluate `__path__`."""
    folder = tmp_path / "losslandscape"
    for each in FOLDERS:
        (folder / each.name).mkdir(parents=True)
        (folder / each.name / "__init__.py").touch()
    for name, path in MODULES.items():
        link = "__init__" if name == "losslandscape" else name.replace(".", "/")
        (folder / f"{link}.py").symlink_to(path)
    return folder


def test_a_user_finds_slips_with_mypy(package, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT + "\n".join(SLIPS))
    skipped = map(NOT_FOLLOWED.format, ("matplotlib", "pandas", "xarray", "tensorflow", "h5py"))
    options = f"[mypy]\nignore_missing_imports = True\nmypy_path = {package.parent}\n"
    (tmp_path / "mypy.ini").write_text(options + "".join(skipped) + SILENT)
    command = [sys.executable, "-m", "mypy", "--no-incremental", "script.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    *lines, summary = run.stdout.splitlines()
    errors = [line for line in lines if ": error: " in line]
    assert summary.startswith(f"Found {len(SLIPS)} errors in 1 file")
    first = len(SCRIPT.splitlines()) + 1
    for number, (error, message) in enumerate(zip(errors, SLIPS.values(), strict=True), first):
        assert error.startswith(f"script.py:{number}: error: ")
        assert message in error
