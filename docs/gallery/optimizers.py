"""Two optimizers from the same start, on one plane."""

from trained import history, model, sgd_history, train

from losslandscape import evaluate_trajectory, plot_path

runs = {"Adam": history, "SGD": sgd_history}
trajectory = evaluate_trajectory(model, runs, *train)
plot_path(trajectory, scale="log").get_figure().savefig("optimizers.png", dpi=200)
