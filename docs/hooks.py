"""The site: what lies outside of `docs`, and a page of reference per group of public names.

MkDocs calls the functions, in the order below, and Griffe the class.
"""

import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PACKAGE = "losslandscape"
# Files elsewhere that pages link to, or show.
OUTSIDE = ("readme_files/*.png", "readme_files/*.gif", "benchmarks/*.md", "examples/*")


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
    return files


def on_page_markdown(markdown, page, **_):
    """Makes links from pages in `docs` to files outside of it lead to their place in the site."""
    if page.file.src_uri.count("/"):
        return markdown
    return markdown.replace("](../README.md", "](index.md").replace("](../", "](")


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
    """The page that lists all groups and names."""
    lines = [
        "# Reference",
        "What a user of pictures needs is imported from `losslandscape`, and the rest from the "
        "modules below: `from losslandscape.values.measures import half_widths`.",
    ]
    for title, names in groups().items():
        links = (f"[`{name.rpartition('.')[2]}`][{name}]" for name in names)
        lines += [f"## {title}", " · ".join(links)]
    return "\n\n".join(lines)


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
