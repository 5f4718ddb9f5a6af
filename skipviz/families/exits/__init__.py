"""Early exits."""
