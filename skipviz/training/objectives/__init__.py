"""What training makes smaller, one file an objective."""
