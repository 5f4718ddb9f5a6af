"""Many texts to a dataset on disk, one machine or many."""
