"""Measured values: saved, summed up, exported as tables; no model and no figure."""
