"""Draws the first figure of Li et al. (2018): one network without shortcuts, and with them.

    python examples/cover.py --dataset fashion_mnist --size 14 --samples 10000 \\
        --epochs 30 --warmup 3 --no-augmentation --measured 500

On a linear height, so that what is wide looks wide, and cut at the loss of guessing. With
`--pages`, also as web pages to rotate, as films and as meshes for ParaView. What
`examples/measured` holds is drawn without training.
"""

from experiment import flags, prepare
from matplotlib import pyplot as plt
from paper import Network, measure

from losslandscape import animate_surface, plot_surface
from losslandscape.drawing.export import write_mesh
from losslandscape.drawing.page import write_html

# From 0 to a little above the loss of guessing among ten classes, where both surfaces are cut.
STYLE = {"metric": "data_loss", "limits": (0, 2.5)}
TITLES = {"VGG-like": "without shortcuts", "ResNet": "with shortcuts"}


def main(arguments=None):
    parser = flags(__doc__)
    parser.add_argument("--depth", type=int, default=56)
    parser.add_argument("--pages", action="store_true", help="write pages, films and meshes, too")
    # Curvature is not drawn here.
    parser.set_defaults(mapped=[], no_curvature=True)
    arguments = parser.parse_args(arguments)
    data = prepare(arguments)
    networks = {
        family: measure(Network(family, arguments.depth), data, arguments) for family in TITLES
    }
    draw(networks, arguments.output / "cover.png")
    if arguments.pages:
        for family, network in networks.items():
            stem = arguments.output / f"cover-{family.lower()}-{arguments.depth}"
            write_html(network.surface, f"{stem}.html")
            write_mesh(network.surface, f"{stem}.vtp", metric=STYLE["metric"], scale="log")
            animate_surface(network.surface, f"{stem}.gif", axes=False, **STYLE)


def draw(networks, path):
    """Both surfaces, cut at one height and seen from one side, with one scale."""
    labels = [
        f"{title}: training accuracy {networks[family].results['train_accuracy']:.2f}"
        for family, title in TITLES.items()
    ]
    surfaces = [network.surface for network in networks.values()]
    axes = plot_surface(surfaces, labels=labels, figsize=(7, 3.2), **STYLE)
    axes[0].figure.savefig(path, dpi=200)
    plt.close(axes[0].figure)


if __name__ == "__main__":
    main()
