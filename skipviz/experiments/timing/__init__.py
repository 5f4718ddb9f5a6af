"""What does it cost here? Runs a model dense, masked and gathered in turn, and times it."""
