"""What is known of a token besides its decisions: class, word, surface."""
