"""The same path as a film."""

from trained import history, model, train

from losslandscape import animate_path, evaluate_trajectory

trajectory = evaluate_trajectory(model, history, *train, number_of_points=15)
animate_path(trajectory, "film.gif", scale="log", fps=2)
