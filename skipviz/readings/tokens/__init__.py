"""What classes and figures of tokens stand on, in sentences."""
