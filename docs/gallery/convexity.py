"""Where the loss curves downwards in any direction: |λmin / λmax| over the plane."""

from pathlib import Path

from losslandscape import LossSurface
from losslandscape.plotting import plot_convexity

measured = Path(__file__).resolve().parents[2] / "examples" / "measured"
networks = {"with shortcuts": "resnet56", "without shortcuts": "vgg_like56"}
files = [next(measured.glob(f"*14px*/{name}-*/convexity-*.h5")) for name in networks.values()]
axes = plot_convexity([LossSurface.load(file) for file in files], labels=list(networks))
axes[0].get_figure().savefig("convexity.png", dpi=200)
