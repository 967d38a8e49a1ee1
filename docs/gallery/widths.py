"""Two networks: the mean along filter-normalized directions, and its half-width."""

from trained import large_batch, model, train

from losslandscape import evaluate_line, plot_line
from losslandscape.values.measures import confidence_interval, half_widths

lines = [
    evaluate_line(network, *train, number_of_directions=10, seed=0)
    for network in (model, large_batch)
]
widths = [confidence_interval(half_widths(line, rise=0.5)) for line in lines]
labels = [f"batch {size}: {width}" for size, width in zip((32, 300), widths, strict=True)]
plot_line(lines, labels=labels).get_figure().savefig("widths.png", dpi=200)
