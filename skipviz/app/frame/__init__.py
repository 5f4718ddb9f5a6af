"""What stands around every page: input, runs, what is shown at the start."""
