"""The modules of the library: their files, by the names that they have in it."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = [path.parent for path in ROOT.glob("*/__init__.py")]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in (ROOT, *FOLDERS)
    for path in sorted(folder.glob("*.py"))
    if path.stem not in ("setup", "__init__")
}
