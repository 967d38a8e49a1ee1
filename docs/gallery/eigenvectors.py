"""The plane in which the loss curves most upwards and most downwards."""

from trained import model, train

from losslandscape import hessian_eigenvalues, plot_loss_3D

values, directions = hessian_eigenvalues(model, *train, which="both", seed=0)
display = plot_loss_3D(model, "levels", *train, directions=directions, extent=(-2, 2))
ax = display.axes["levels"]
ax.set(xlabel=f"α, λ = {values[0]:.3g}", ylabel=f"β, λ = {values[1]:.3g}")
ax.get_figure().savefig("eigenvectors.png", dpi=200)
