"""From one set of weights to another: training, and the ways between models."""
