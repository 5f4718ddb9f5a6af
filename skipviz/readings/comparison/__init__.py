"""What differs between two runs, in sentences."""
