"""Several sets of weights: along training, between models, and compared."""
