"""A curve of low loss around the barrier between two networks."""

from trained import model, other, train

from losslandscape import evaluate_plane, fit_curve
from losslandscape.plotting import plot_curve

control = fit_curve(model, other, *train, epochs=5, seed=0)
plane = evaluate_plane([model, other, control], *train)
plot_curve(plane, scale="log").get_figure().savefig("curve.png", dpi=200)
