"""Lenses: numbers of tokens or cells, with what they mean, that text and map are painted with."""
