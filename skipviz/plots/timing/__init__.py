"""What skipping saves in FLOPs and in time, part by part and over a grid of settings."""
