"""Checks that what is recorded of a model is true, and that it skips as it says."""
