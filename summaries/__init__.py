"""Several results of one model, in one file."""
