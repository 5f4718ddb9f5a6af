"""Texts that are fetched: those for training, and those that are held out."""
