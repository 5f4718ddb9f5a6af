"""What runs a model: evaluation and model cards."""
