"""What layers specialise in: which tokens run them."""
