"""The plane through three networks."""

from trained import model, other, third, train

from losslandscape import evaluate_plane, plot_levels

plane = evaluate_plane([model, other, third], *train)
plot_levels(plane, scale="log").get_figure().savefig("three_models.png", dpi=200)
