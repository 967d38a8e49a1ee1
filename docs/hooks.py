"""The site: what lies outside of `docs`, and a page of reference per group of public names.

MkDocs calls the functions, in the order below, and Griffe the class.
"""

import ast
import dataclasses
import re
import tempfile
from pathlib import Path

import griffe
import numpy as np
from mkdocs.structure.files import File
from PIL import Image

ROOT = Path(__file__).parent.parent
PACKAGE = "losslandscape"
# Files elsewhere that pages link to, or show.
OUTSIDE = (
    "readme_files/*.png",
    "readme_files/*.gif",
    "benchmarks/*.md",
    "benchmarks/*.png",
    "examples/*",
)
# Surfaces to turn in the browser, which are made with the site, since each page has megabytes. They
# are those of the picture that the README begins with, with a roof at the loss where it cuts them.
MEASURED = "examples/measured/fashion_mnist-14px-10000-*"
LIVE = {"without shortcuts": "vgg_like56-*", "with shortcuts": "resnet56-*"}
ROOF = 2.5
# An inch of a figure on the screen, in pixels: letters of figures are as large as those around.
INCH = 130


def on_config(config):
    """Adds the pages of the reference to the navigation."""
    pages = [{title: page_of(title)} for title in groups()]
    (part,) = (part for part in config.nav if "Reference" in part)
    part["Reference"] = ["reference/index.md", *pages]
    return config


def on_files(files, config):
    """Adds the README as the first page, the reference, and files outside of `docs`."""
    for page, content in pages().items():
        files.append(File.generated(config, page, content=content))
    for path in (each for pattern in OUTSIDE for each in ROOT.glob(pattern) if each.is_file()):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for name in LIVE:
        files.append(File.generated(config, live_page(name), content=surface_to_turn(name)))
    return files


def on_page_markdown(markdown, page, **_):
    """Makes links from pages in `docs` to files outside of it lead to their place in the site."""
    if page.file.src_uri.count("/"):
        return markdown
    if page.file.src_uri in ("index.md", "gallery.md"):
        links = " or ".join(f"[{name}]({live_page(name)})" for name in LIVE)
        turn = f"Turn the surface of 56 layers in the browser: {links}."
        markdown = re.sub(r"(!\[.*\]\(.*(cover\.png|turning\.gif)\))", rf"\1\n\n{turn}", markdown)
    if page.file.src_uri == "gallery.md":
        markdown = markdown.replace("\n## ", f"\n{thumbnails(markdown)}\n\n## ", 1)
    return markdown.replace("](../README.md", "](index.md").replace("](../", "](")


def on_page_content(html, page, files, **_):
    """Shows pictures in the size of their figures; a click shows the file."""

    def shown(image):
        source = image["source"]
        file = files.get_file_from_path((Path(page.file.src_uri).parent / source).as_posix())
        if file is None:
            # MkDocs does not look for pictures of pages that are made here.
            raise FileNotFoundError(f"{page.file.src_uri} shows {source}, which is not there.")
        with Image.open(file.abs_src_path) as picture:
            width = round(picture.width / picture.info.get("dpi", (150, 150))[0] * INCH)
        picture = f'<img alt="{image["alt"]}" src="{source}" width="{width}">'
        return f'<a class="picture" href="{source}">{picture}</a>'

    return re.sub(r'<img alt="(?P<alt>[^"]+)" src="(?P<source>[^"]+)" ?/?>', shown, html)


def thumbnails(gallery):
    """Links to the sections of the gallery, each with its first picture."""
    sections = re.findall(r"^### (.+)$(?:(?!^#)[\s\S])*?\((gallery/[^)]+)\)", gallery, re.M)
    links = (
        f'<a href="#{title.lower().replace(" ", "-")}"><img alt="" src="{picture}">{title}</a>'
        for title, picture in sections
    )
    return f'<div class="thumbnails">{"".join(links)}</div>'


def live_page(name):
    """Where the page of a surface is: `live/with-shortcuts.html`."""
    return f"live/{name.replace(' ', '-')}.html"


def surface_to_turn(name):
    """The page of a surface, by `write_html`."""
    # Keras takes long to import, and only this needs it.
    from losslandscape import LossSurface  # noqa: PLC0415
    from losslandscape.drawing.page import write_html  # noqa: PLC0415
    from losslandscape.values.measures import report  # noqa: PLC0415

    (path,) = ROOT.glob(f"{MEASURED}/{LIVE[name]}/surface-*.h5")
    surface = LossSurface.load(path)
    values = {"data_loss": np.minimum(surface.values["data_loss"], ROOF)}
    title = f"56 layers {name}, cut at {ROOF}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "surface.html")
        cut = dataclasses.replace(surface, values=values)
        write_html(cut, file, title=title, findings=report(surface, "data_loss"))
        return file.read_text(encoding="utf-8")


def pages():
    """The pages that are made of something else, by their names."""
    readme = (ROOT / "README.md").read_text().replace("](docs/", "](")
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    made = {"index.md": readme, "CONTRIBUTING.md": contributing}
    made |= {page_of(title): reference(title, names) for title, names in groups().items()}
    return made | {"reference/index.md": overview()}


def groups():
    """The public names, as they are imported, by the title of their page.

    Those at the top as `__all__` groups them; then those of each module that are not.
    """
    lines = (ROOT / "losslandscape.py").read_text().split("__all__ = [")[1].split("\n]")[0]
    found, top = {}, set()
    for title, name in re.findall(r'^    (?:# (.+)|"(\w+)",)$', lines, re.M):
        if title:
            names = found.setdefault(title, [])
        else:
            names.append(f"{PACKAGE}.{name}")
            top.add(name)
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]):
        names = [name for name in names_of(path) if name not in top]
        if names:
            module = ".".join([PACKAGE, *path.relative_to(ROOT).with_suffix("").parts])
            found[module] = [f"{module}.{name}" for name in names]
    return found


def names_of(path):
    """What a module of the library lists in its `__all__`; none for other files."""
    if path.stem in (PACKAGE, "setup"):
        return []
    found = re.search(r"^__all__ = (?s:(\[.*?\]))", path.read_text(), re.M)
    return re.findall(r'"(\w+)"', found[1]) if found else []


def page_of(title):
    """The name of the page of a group: `reference/single-numbers.md`."""
    return f"reference/{re.sub(r'[^a-z]+', '-', title.lower())}.md"


def reference(title, names):
    """The page of a group."""
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)])


def overview():
    """The page that lists all groups and names, with what each does."""
    lines = [
        "# Reference",
        "What a user of pictures needs is imported from `losslandscape`, and the rest from the "
        "modules below: `from losslandscape.values.measures import half_widths`.",
    ]
    does = summaries()
    for title, names in groups().items():
        short = {name: name.rpartition(".")[2] for name in names}
        rows = (f"| [`{each}`][{name}] | {does.get(each, '')} |" for name, each in short.items())
        lines += [f"## {title}", "\n".join(["| | |", "|---|---|", *rows])]
    return "\n\n".join(lines)


def summaries():
    """The first line of the docstring of each function and class, without importing them."""
    found = {}
    folders = [ROOT, *sorted(path.parent for path in ROOT.glob("*/__init__.py"))]
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                text = ast.get_docstring(node) or ""
                found.setdefault(node.name, text.partition("\n")[0].replace("|", "\\|"))
    return found


class KerasDocstrings(griffe.Extension):
    """Reads examples, which Keras does not indent, so that Griffe takes them for text."""

    def on_object(self, *, obj, **_):
        """Makes each example a block of code, to be copied without its prompts."""
        if obj.docstring:
            text = re.sub(r"(?m)^Example:$", "**Example**", obj.docstring.value)
            obj.docstring.value = re.sub(r"(?m)(^(?:>>>|\.\.\.).*\n?(?:^\S.*\n?)*)+", _fenced, text)


def _fenced(example):
    lines = [
        line[4:] if line.startswith((">>>", "...")) else f"# {line}"
        for line in example[0].splitlines()
    ]
    return "\n".join(["```python", *lines, "```", ""])
