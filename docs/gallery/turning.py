"""A surface that turns: a network of 56 layers without shortcuts, cut at a loss of 2.5."""

from pathlib import Path

from losslandscape import LossSurface, animate_surface

measured = Path(__file__).resolve().parents[2] / "examples" / "measured"
surface = LossSurface.load(next(measured.glob("*14px*/vgg_like56-*-seed0/surface-*.h5")))
animate_surface(surface, "turning.gif", metric="data_loss", limits=(0, 2.5), axes=False)
