"""Runs of a model on disturbed texts, contexts and batches."""
