"""The modules of the library: their files, by their names in it, and what is public."""

import importlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = [path.parent for path in ROOT.glob("*/__init__.py")]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in (ROOT, *FOLDERS)
    for path in sorted(folder.glob("*.py"))
    if path.stem not in ("setup", "__init__")
}


def public_names():
    """All that a user may import, by name: what is at the top, and what modules list themselves."""
    names = [f"losslandscape.{name}".removesuffix(".losslandscape") for name in MODULES]
    modules = [importlib.import_module(name) for name in names]
    return {name: getattr(each, name) for each in modules for name in getattr(each, "__all__", [])}
