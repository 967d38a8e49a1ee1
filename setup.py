"""Installs the flat modules of this folder as one package, `losslandscape`.

`losslandscape.py` becomes `losslandscape/__init__.py`, and the modules and folders next to it
become submodules, so that nothing called `plotting` or `evaluation` is installed at the top level,
next to the user's own modules.
"""

import re
import shutil
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PACKAGE = "losslandscape"
# What modules read besides Python.
READ = ("drawing/page.html",)

ANALYSIS = ["scipy>=1.13"]
EXAMPLES = [*ANALYSIS, "scikit-learn>=1.5"]
JAX = ["jax>=0.5"]
DASK = ["distributed>=2024.8"]
HTML = ["plotly>=7"]
PANDAS = ["pandas>=2.2"]
PARAVIEW = ["pyvista>=0.46"]
XARRAY = ["xarray>=2024.7"]
DOCS = ["mkdocs-material==9.*", "mkdocstrings-python==2.*"]
# Some are pinned, because formatting and baseline images differ between their versions.
TEST = [
    *DOCS,
    *EXAMPLES,
    *JAX,
    *DASK,
    *HTML,
    *PANDAS,
    *PARAVIEW,
    *XARRAY,
    "build",
    "ipykernel",
    "jedi",
    "matplotlib==3.11.*",
    "mypy==2.*",
    "nbclient",
    "playwright",
    "pytest==9.*",
    "pytest-mpl==0.19.*",
    "pytest-xdist",
    "pyyaml",
    "ruff==0.17.*",
    "setuptools>=77",
    "twine",
    "uv",
]


class BuildFlatPackage(build_py):
    """Puts the flat modules into one package."""

    def find_modules(self):
        """Lists (package, module, file) for everything in the wheel."""
        # `__main__` is for `python -m losslandscape`.
        flat = [(PACKAGE, "__init__", f"{PACKAGE}.py"), (PACKAGE, "__main__", "cli.py")]
        names = {path.stem for path in ROOT.glob("*.py")} - {PACKAGE, "setup"}
        flat += [(PACKAGE, name, f"{name}.py") for name in sorted(names)]
        # Each folder with an `__init__.py` is one of the library's.
        paths = [path for each in ROOT.glob("*/__init__.py") for path in each.parent.glob("*.py")]
        return flat + [
            (f"{PACKAGE}.{path.parent.name}", path.stem, f"{path.parent.name}/{path.name}")
            for path in sorted(paths)
        ]

    def run(self):
        """Adds what modules read, and the file that tells type checkers to use their types."""
        super().run()
        if not self.editable_mode:
            package = Path(self.build_lib, PACKAGE)
            for file in READ:
                shutil.copy(ROOT / file, package / file)
            (package / "py.typed").touch()


class LinkForEditors(BuildFlatPackage):
    """Links the flat modules as a package, for editors, which do not evaluate `__path__`."""

    description = __doc__

    def run(self):
        """Makes one folder of links for pyright (see pyproject.toml) and one for jedi."""
        # Jedi prefers the checkout's `losslandscape.py` to any package except a stub package.
        stubs = Path(sysconfig.get_path("purelib"), "losslandscape-stubs")
        for folder, suffix in ((ROOT / "build/editors/losslandscape", ".py"), (stubs, ".pyi")):
            shutil.rmtree(folder, ignore_errors=True)
            for package, name, file in self.find_modules():
                link = folder.joinpath(*package.split(".")[1:], f"{name}{suffix}")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(ROOT / file)


setup(
    name="losslandscape",
    version=re.search('__version__ = "(.*)"', (ROOT / "values" / "surfaces.py").read_text())[1],
    description="The loss landscape around a trained Keras model",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    author="losslandscape contributors",
    keywords="loss landscape, deep learning, Keras, visualization, generalization, flatness",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    py_modules=["losslandscape"],
    entry_points={"console_scripts": ["losslandscape = losslandscape.cli:main"]},
    cmdclass={"build_py": BuildFlatPackage, "editors": LinkForEditors},
    install_requires=["tensorflow>=2.18", "keras>=3.14", "numpy>=1.26", "matplotlib>=3.10"],
    extras_require={
        "analysis": ANALYSIS,
        "dask": DASK,
        "examples": EXAMPLES,
        "html": HTML,
        "jax": JAX,
        "mpi": ["mpi4py"],
        "pandas": PANDAS,
        "paraview": PARAVIEW,
        "torch": ["torch"],
        "xarray": XARRAY,
        "docs": DOCS,
        "test": TEST,
    },
    project_urls={"Paper": "https://arxiv.org/abs/1712.09913"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Matplotlib",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Visualization",
        "Typing :: Typed",
    ],
)
