"""Sentences that say what a result shows: frames in, text out."""
