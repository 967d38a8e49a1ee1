"""How much the loss curves in each layer."""

from trained import model, train

from losslandscape import layer_curvature, plot_layers

curvature = layer_curvature(model, *train, number_of_probes=10, normalize="filter", seed=0)
plot_layers(curvature).get_figure().savefig("layers.png", dpi=200)
