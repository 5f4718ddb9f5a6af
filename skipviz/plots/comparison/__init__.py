"""Two traces side by side: a figure, and lenses."""
