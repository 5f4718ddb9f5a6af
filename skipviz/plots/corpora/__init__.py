"""What a whole corpus looks like."""
