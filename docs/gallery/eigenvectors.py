"""The plane in which the loss curves most upwards and most downwards."""

from trained import model, train

from losslandscape import Hessian, plot_loss_3D

values, directions = Hessian(model, *train).eigenvalues(which="both", seed=0)
print(f"The loss curves by {values[0]:.3g} along α, by {values[1]:.3g} along β.")
plot_loss_3D(
    model, "levels", *train, directions=directions, extent=(-2, 2), path="eigenvectors.png"
)
