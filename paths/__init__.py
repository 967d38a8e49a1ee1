"""Several sets of weights: in the course of training, between models, and compared."""
