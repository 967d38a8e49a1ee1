"""The basins of a surface: the level at which each begins, and at which it meets a deeper one."""

from trained import model, other, third, train

from losslandscape import evaluate_plane
from losslandscape.plotting import plot_persistence

plane = evaluate_plane([model, other, third], *train)
plot_persistence(plane).get_figure().savefig("basins.png", dpi=200)
