"""Second derivatives of the loss: the Hessian, gradients, and numbers along training."""
