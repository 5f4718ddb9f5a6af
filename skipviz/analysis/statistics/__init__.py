"""Intervals and tests that respect dependence between neighbouring tokens."""
