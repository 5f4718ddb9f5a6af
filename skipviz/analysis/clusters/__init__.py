"""Groups of tokens that used the same layers, and whether there are groups at all."""
