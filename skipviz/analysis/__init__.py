"""Pure functions from traces to Polars frames; nothing here runs a model."""
