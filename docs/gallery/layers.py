"""How much the loss curves in each layer."""

from trained import model, train

from losslandscape import Hessian
from losslandscape.plotting import plot_layers

curvature = Hessian(model, *train, normalize="filter").by_layer(number_of_probes=10, seed=0)
plot_layers(curvature).get_figure().savefig("layers.png", dpi=200)
