"""What every figure shares: colours and scales, title and provenance, names of tokens and sites."""
