"""Draws the first figure of Li et al. (2018): one network without shortcuts, and with them.

    python examples/cover.py --dataset fashion_mnist --size 14 --samples 10000 \\
        --epochs 30 --warmup 3 --no-augmentation --measured 500

For a cover, as a picture without axes; with `--pages`, also as web pages to rotate and
as meshes for ParaView. What `examples/measured` holds is drawn without training.
"""

from experiment import flags, prepare
from matplotlib import pyplot as plt
from paper import STYLE, Network, measure

from losslandscape import plot_surface
from losslandscape.drawing.export import write_html, write_mesh

# Where both surfaces are cut.
HEIGHT = 10
TITLES = {"VGG-like": "without shortcuts", "ResNet": "with shortcuts"}


def main(arguments=None):
    parser = flags(__doc__)
    parser.add_argument("--depth", type=int, default=56)
    parser.add_argument("--pages", action="store_true", help="write pages and meshes, too")
    # Curvature is not drawn here.
    parser.set_defaults(mapped=[], no_curvature=True)
    arguments = parser.parse_args(arguments)
    data = prepare(arguments)
    surfaces = {
        family: measure(Network(family, arguments.depth), data, arguments).surface
        for family in TITLES
    }
    draw(surfaces, arguments.output / "cover.png")
    if arguments.pages:
        for family, surface in surfaces.items():
            stem = f"cover-{family.lower()}-{arguments.depth}"
            write_html(surface, arguments.output / f"{stem}.html")
            write_mesh(surface, arguments.output / f"{stem}.vtp", **STYLE)


def draw(surfaces, path):
    """Both surfaces, cut at one height and seen from one side, without anything else."""
    lowest = min(surface.center[STYLE["metric"]] for surface in surfaces.values())
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), subplot_kw={"projection": "3d"})
    limits, view = (lowest, HEIGHT), (28, -60)
    plot_surface(list(surfaces.values()), axes, limits=limits, view=view, **STYLE)
    for ax, family, left in zip(axes, surfaces, (0, 0.5), strict=True):
        ax.set_axis_off()
        ax.set_position([left, -0.06, 0.5, 1])
        # The notes and the bar.
        for part in (*ax.texts, *ax.child_axes):
            part.remove()
        ax.set_box_aspect((1, 1, 0.8), zoom=1.35)
        ax.set_title(TITLES[family], y=0.09)
    figure.savefig(path, dpi=200)
    plt.close(figure)


if __name__ == "__main__":
    main()
