"""How high the loss rises between every two of several networks."""

from trained import large_batch, model, other, sgd, train

from losslandscape import evaluate_barriers, plot_barriers

barriers = evaluate_barriers([model, other, large_batch, sgd], *train)
plot_barriers(barriers).get_figure().savefig("barriers.png", dpi=200)
