"""Weights, configuration and card of each sample model."""
