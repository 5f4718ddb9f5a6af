"""Runs a model, listens to it, and returns a trace."""
