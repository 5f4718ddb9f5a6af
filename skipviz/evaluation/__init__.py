"""Policies against each other and against the dense model on held-out text."""
