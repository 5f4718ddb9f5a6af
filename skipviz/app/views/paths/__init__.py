"""Parts of the page Skip paths."""
