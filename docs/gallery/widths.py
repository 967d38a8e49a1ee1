"""Small against large batches: the mean along filter-normalized directions, and its half-width."""

from pathlib import Path

from losslandscape import LossLine, plot_line
from losslandscape.values.measures import confidence_interval, half_widths

measured = Path(__file__).resolve().parents[2] / "examples" / "measured"
lines, labels = [], []
for size in (128, 2048):
    name = f"*14px*/resnet20-SGD-{size}-decay0.0005-seed0/lines-filter-*.h5"
    lines.append(LossLine.load(next(measured.glob(name))))
    width = confidence_interval(half_widths(lines[-1], 0.5, "data_loss"))
    labels.append(f"batch {size}: {width}")
ax = plot_line(lines, labels=labels, metric="data_loss", scale="log")
ax.get_figure().savefig("widths.png", dpi=200)
