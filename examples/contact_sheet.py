"""Draws every kind of plot under the settings that break figures, for a look at all of them.

Run with `make contact-sheet`; the sheets go to `build/contact-sheet`. The values are closed
forms, so nothing is trained.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from losslandscape import (
    LossLine,
    LossSurface,
    LossTrajectory,
    plot_levels,
    plot_line,
    plot_path,
    plot_surface,
)
from losslandscape.plotting import plot_convexity, plot_path_fidelity, plot_spectrum
from losslandscape.values.surfaces import Spectrum

FOLDER = Path(__file__).parent.parent / "build" / "contact-sheet"


def axis(number=21, extent=(-1, 1)):
    return np.linspace(*extent, number)


def line(function, number=21, extent=(-1, 1), directions=1):
    alphas = axis(number, extent)
    rows = [function(alphas * (1 + 0.2 * k) + 0.05 * k) for k in range(directions)]
    return LossLine(alphas, {"loss": np.array(rows)}, {"loss": float(function(np.array(0.0)))}, {})


def surface(function, numbers=(21, 21), extents=((-1, 1), (-1, 1)), name="loss", **metadata):
    alphas, betas = (axis(*each) for each in zip(numbers, extents, strict=True))
    values = function(*np.meshgrid(alphas, betas))
    center = float(function(np.array(0.0), np.array(0.0)))
    return LossSurface(alphas, betas, {name: values}, {name: center}, metadata)


def bowl(alpha, beta=0.0):
    return 0.05 + 3 * alpha**2 + 2 * beta**2 + alpha * beta


def rough(alpha, beta=0.0):
    return 2 + np.sin(5 * alpha) * np.cos(4 * beta) + alpha**2 + 0.2 * np.sin(17 * alpha * beta)


def funnel(alpha, beta):
    return 0.02 + 12 * (1 - np.exp(-(3 * alpha**2 + 2 * beta**2)))


def accuracy(alpha, beta=0.0):
    return np.exp(-4 * (alpha**2 + beta**2))


def holed(alpha, beta=0.0):
    return np.where(alpha + beta > 0.9, np.nan, bowl(alpha, beta))


def decades(alpha, beta=0.0):
    return 10.0 ** (-3 + 4.5 * (np.abs(alpha) + np.abs(beta)))


def trajectory(scale=1.0):
    steps = np.linspace(1, 0, 13)
    path = scale * np.stack([steps * 0.9, 0.6 * steps**2 * np.cos(4 * steps)], axis=1)
    base = surface(
        lambda a, b: bowl(a / scale, b / scale),
        extents=((-0.3 * scale, 1.1 * scale), (-0.7 * scale, 0.7 * scale)),
        records=[f"epoch-{k}.npz" for k in range(13)],
    )
    on_plane = {"loss": bowl(*path.T / scale)}
    true = {"loss": on_plane["loss"] * 0.9}
    return LossTrajectory(
        **vars(base),
        path=path,
        explained=np.array([0.87, 0.09]),
        distances=scale * 0.1 * steps * (1 - steps),
        plane_values=on_plane,
        true_values=true,
    )


def spectrum():
    generator = np.random.default_rng(0)
    bulk = generator.normal(0, 0.05, (5, 78))
    values = np.concatenate([bulk, [[3.0, 8.0]] * 5], axis=1)
    return Spectrum(values, np.full((5, 80), 1 / 80), {"parameters": 5000})


def interpolated():
    places = [[0.0, 0.0], [1.0, 0.0], [0.4, 0.8]]
    names = ["small_batch", "large_batch", "sam"]
    extents = ((-0.5, 1.5), (-0.5, 1.5))
    return surface(rough, extents=extents, positions=places, models=names)


LINES = {
    "1 curve": lambda ax: plot_line(line(bowl), ax),
    "2 curves, 5 points": lambda ax: plot_line(
        [line(bowl, 5), line(rough, 5)], ax, labels=("train", "test")
    ),
    "5 curves": lambda ax: plot_line(curves(5), ax, labels=[f"network {k}" for k in range(5)]),
    "12 curves": lambda ax: plot_line(curves(12), ax, labels=[f"network {k}" for k in range(12)]),
    "two bands, log": lambda ax: plot_line(
        [line(bowl, directions=10), line(rough, directions=10)],
        ax,
        labels=("training set", "test set"),
        scale="log",
    ),
    "accuracy, 101": lambda ax: plot_line(
        [line(accuracy, 101), line(lambda a: 0.9 * accuracy(a), 101)], ax, labels=("train", "test")
    ),
    "range 1e-9": lambda ax: plot_line(line(lambda a: 2.3 + 1e-9 * a**2), ax),
    "1e-3 around 2.3, log": lambda ax: plot_line(
        line(lambda a: 2.3 + 1e-3 * a**2), ax, scale="log"
    ),
    "nine decades, log": lambda ax: plot_line(line(decades), ax, scale="log"),
    "negative": lambda ax: plot_line(line(lambda a: bowl(a) - 5), ax),
    "flat": lambda ax: plot_line(line(lambda a: 0 * a + 0.7), ax),
    "holes": lambda ax: plot_line(line(lambda a: holed(2 * a)), ax),
    "all NaN": lambda ax: plot_line(line(lambda a: a * np.nan), ax),
    "without 0": lambda ax: plot_line(line(bowl, extent=(0.5, 2)), ax),
}


def curves(number):
    return [line(lambda a, k=k: bowl(a * (1 + 0.15 * k)) + 0.1 * k) for k in range(number)]


SURFACES = {
    "bowl": (bowl, {}, {}),
    "funnel": (funnel, {}, {}),
    "funnel, log": (funnel, {}, {"scale": "log"}),
    "cut at 4": (funnel, {}, {"top": 4}),
    "rough, 101": (rough, {"numbers": (101, 101)}, {}),
    "5 by 5": (bowl, {"numbers": (5, 5)}, {}),
    "tilted plane": (lambda a, b: 3 + 2 * a + b, {}, {}),
    "not square": (bowl, {"numbers": (41, 11), "extents": ((-1, 3), (-0.5, 0.5))}, {}),
    "strip": (bowl, {"extents": ((-10, 10), (-0.5, 0.5))}, {}),
    "without 0": (bowl, {"extents": ((0.5, 2), (-1, 1))}, {}),
    "range 1e-9": (lambda a, b: 2.3 + 1e-9 * bowl(a, b), {}, {}),
    "1e-3 around 2.3": (lambda a, b: 2.3 + 1e-3 * bowl(a, b), {}, {"scale": "log"}),
    "nine decades": (decades, {}, {"scale": "log"}),
    "negative": (lambda a, b: bowl(a, b) - 5, {}, {}),
    "flat": (lambda a, b: 0 * (a + b) + 0.7, {}, {}),
    "holes": (holed, {}, {}),
    "all NaN": (lambda a, b: (a + b) * np.nan, {}, {}),
    "large values": (lambda a, b: 1e6 * bowl(a, b), {}, {}),
}


def levels(name, ax=None):
    function, grid, style = SURFACES[name]
    style = dict(style)
    if top := style.pop("top", None):
        style["levels"] = np.linspace(0.5, top, 8)
    return plot_levels(surface(function, **grid), ax, **style)


def space(name, ax=None):
    function, grid, style = SURFACES[name]
    style = dict(style)
    if top := style.pop("top", None):
        style["limits"] = (0, top)
    return plot_surface(surface(function, **grid), ax, **style)


OTHERS = {
    "path": lambda ax: plot_path(trajectory(), ax),
    "path, large": lambda ax: plot_path(trajectory(40), ax, scale="log"),
    "fidelity": lambda ax: plot_path_fidelity(trajectory(), ax),
    "models": lambda ax: plot_levels(interpolated(), ax),
    "convexity": lambda ax: plot_convexity(
        surface(lambda a, b: np.clip(a * b, 0, 1), name="convexity"), ax
    ),
    "spectrum": lambda ax: plot_spectrum(spectrum(), ax),
}
STYLES = {
    "plain": nullcontext,
    "dark": lambda: plt.style.context("dark_background"),
    "18pt": lambda: mpl.rc_context({"font.size": 18}),
    "grid": lambda: mpl.rc_context({"axes.grid": True}),
}


def sheet(folder, name, plots, columns=4):
    """One figure with many subplots, as users put plots side by side."""
    rows = -(-len(plots) // columns)
    figure = plt.figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    for index, (title, draw) in enumerate(plots.items()):
        draw(figure.add_subplot(rows, columns, index + 1)).set_title(title, fontsize="small")
    save(figure, folder / f"{name}.png")


def save(figure, path):
    figure.savefig(path, dpi=100)
    plt.close(figure)


def singles(folder, name, figures, columns=4):
    """Figures as a single call makes them, put beside each other as pictures."""
    pictures = []
    for title, ax in figures():
        figure = (ax[0] if isinstance(ax, list) else ax).figure
        path = folder / f"{name}-{title.replace(' ', '-').replace(',', '')}.png"
        save(figure, path)
        pictures.append((title, plt.imread(path)))
    with mpl.rc_context(mpl.rcParamsDefault):
        rows = -(-len(pictures) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 3.4 * rows), squeeze=False)
        for ax in axes.flat:
            ax.axis("off")
        for ax, (title, picture) in zip(axes.flat, pictures, strict=False):
            ax.imshow(picture, interpolation="none")
            ax.set_title(title, fontsize="small")
        figure.tight_layout()
        save(figure, folder / f"{name}.png")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the sheets")
    folder = parser.parse_args(arguments).output
    folder.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")
    sheet(folder, "lines", LINES)
    sheet(folder, "others", OTHERS, columns=3)
    singles(folder, "levels", lambda: ((name, levels(name)) for name in SURFACES))
    singles(folder, "surfaces", lambda: ((name, space(name)) for name in SURFACES))
    for name, style in STYLES.items():
        with style():
            singles(folder, f"style-{name}", styled)
    for count in (2, 3):
        drawn = [surface(f) for f in (funnel, rough, bowl)[:count]]
        labels = ("ResNet-56", "VGG-like 56", "wide")[:count]
        save(plot_surface(drawn, labels=labels)[0].figure, folder / f"side-by-side-{count}.png")
        save(plot_levels(drawn, labels=labels)[0].figure, folder / f"levels-{count}.png")


def styled():
    yield (
        "line",
        plot_line([line(bowl, directions=10), line(holed)], labels=("training set", "test set")),
    )
    yield "levels", plot_levels(surface(holed))
    yield "3d", plot_surface(surface(holed))
    yield "path", plot_path(trajectory())


if __name__ == "__main__":
    main()
