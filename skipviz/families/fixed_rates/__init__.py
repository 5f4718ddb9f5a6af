"""Policies of fixed rates: static ones, which drop units for every token, and random ones."""
