"""What a whole corpus shows, in sentences."""
