"""What a text costs: FLOPs by part, and what measured times say of them."""
