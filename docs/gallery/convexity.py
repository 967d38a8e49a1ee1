"""Where the loss curves downwards in any direction: |λmin / λmax| over the plane."""

from trained import model, train

from losslandscape.curvature.hessian import evaluate_convexity
from losslandscape.plotting import plot_convexity

x, y = train
surface = evaluate_convexity(model, x[:100], y[:100], number_of_points=4, tolerance=0.1, seed=0)
plot_convexity(surface).get_figure().savefig("convexity.png", dpi=200)
