"""Installs the flat modules of this folder as one package, `losslandscape`.

`losslandscape.py` becomes `losslandscape/__init__.py` and its siblings become
submodules, so that nothing called `plotting` or `evaluation` is installed at the
top level, next to the user's own modules.
"""

import re
import shutil
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SIBLINGS = (
    "alignment",
    "checkpoints",
    "checks",
    "cli",
    "curvature",
    "curves",
    "datasets",
    "derivatives",
    "directions",
    "engines",
    "evaluation",
    "export",
    "files",
    "gradients",
    "graphs",
    "grids",
    "internals",
    "interpolation",
    "interrupts",
    "layout",
    "measures",
    "monitoring",
    "plotting",
    "references",
    "refinement",
    "space",
    "state",
    "surfaces",
    "topology",
    "trajectory",
    "walks",
    "workers",
)

ANALYSIS = ["scipy"]
EXAMPLES = [*ANALYSIS, "scikit-learn"]
JAX = ["jax"]
DASK = ["distributed"]
HTML = ["plotly"]
PARAVIEW = ["pyvista"]
# Some are pinned, because formatting and baseline images differ between their versions.
TEST = [
    *EXAMPLES,
    *JAX,
    *DASK,
    *HTML,
    *PARAVIEW,
    "build",
    "ipykernel",
    "jedi",
    "matplotlib==3.11.*",
    "nbclient",
    "pandas",
    "pytest==9.*",
    "pytest-mpl==0.19.*",
    "pytest-xdist",
    "ruff==0.17.*",
    "setuptools>=77",
]


class BuildFlatPackage(build_py):
    """Puts the flat modules into one package."""

    def find_modules(self):
        """Lists (package, module, file) for everything in the wheel."""
        siblings = [("losslandscape", name, f"{name}.py") for name in SIBLINGS]
        package = ("losslandscape", "__init__", "losslandscape.py")
        # For `python -m losslandscape`.
        return [package, ("losslandscape", "__main__", "cli.py"), *siblings]


class LinkForEditors(BuildFlatPackage):
    """Links the flat modules as a package, for editors, which do not evaluate `__path__`."""

    description = __doc__

    def run(self):
        """Makes one folder of links for pyright (see pyproject.toml) and one for jedi."""
        # Jedi prefers the checkout's `losslandscape.py` to any package except a stub package.
        stubs = Path(sysconfig.get_path("purelib"), "losslandscape-stubs")
        for folder, suffix in ((ROOT / "build/editors/losslandscape", ".py"), (stubs, ".pyi")):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for _, name, file in self.find_modules():
                (folder / name).with_suffix(suffix).symlink_to(ROOT / file)


setup(
    name="losslandscape",
    version=re.search('__version__ = "(.*)"', (ROOT / "surfaces.py").read_text())[1],
    description="The loss landscape around a trained Keras model",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    py_modules=["losslandscape"],
    entry_points={"console_scripts": ["losslandscape = losslandscape.cli:main"]},
    cmdclass={"build_py": BuildFlatPackage, "editors": LinkForEditors},
    install_requires=["tensorflow>=2.18", "keras>=3.8", "numpy", "matplotlib>=3.10"],
    extras_require={
        "analysis": ANALYSIS,
        "dask": DASK,
        "examples": EXAMPLES,
        "html": HTML,
        "jax": JAX,
        "mpi": ["mpi4py"],
        "paraview": PARAVIEW,
        "torch": ["torch"],
        "test": TEST,
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Visualization",
    ],
)
