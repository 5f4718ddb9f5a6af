"""Per-token gates on attention and MLP, and policies of fixed rates."""
