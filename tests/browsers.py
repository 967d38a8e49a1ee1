"""The browser that web pages are tried in, if there is one."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

NAMES = "chromium", "chromium-browser", "google-chrome"
# Where `make chromium` puts one.
FOLDER = Path(sys.prefix, "browsers")
# Root may not use the sandbox, and WebGL does without a graphics card.
ARGUMENTS = "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"


def chromium():
    """The arguments with which Playwright launches Chromium, or `None` if it cannot."""
    if importlib.util.find_spec("playwright") is None:
        return None
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and not FOLDER.is_dir():
        return None
    os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(FOLDER))
    return {"executable_path": found, "args": list(ARGUMENTS)}
