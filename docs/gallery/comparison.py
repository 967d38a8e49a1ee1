"""Two ways to train, three times each: which is flatter, and is that settled?"""

from trained import fit, large_batch, model, other, third, train

from losslandscape import compare, plot_comparison

large = [fit(f"large-{seed}", seed=seed, batch_size=300, epochs=50) for seed in (1, 2)]
trainings = {"batch 32": [model, other, third], "batch 300": [large_batch, *large]}
comparison = compare(trainings, *train, metric="accuracy", rise=0.5, seed=0)
print(comparison)
axes = plot_comparison(comparison)
axes["curves"].get_figure().savefig("comparison.png", dpi=200)
