"""Small against large batches, three trainings each: which is flatter, and is that settled?"""

from pathlib import Path

from losslandscape import Comparison, LossLine, plot_comparison

measured = Path(__file__).resolve().parents[2] / "examples" / "measured"


def lines(batch_size):
    name = f"*14px*/resnet20-SGD-{batch_size}-decay0.0005-seed?/lines-filter-*.h5"
    return [LossLine.load(path) for path in sorted(measured.glob(name))]


trainings = {f"batch {size}": lines(size) for size in (128, 2048)}
comparison = Comparison.of(trainings, "data_loss", rise=0.5, shared=True)
print(comparison)
axes = plot_comparison(comparison, scale="log")
axes["curves"].get_figure().savefig("comparison.png", dpi=200)
