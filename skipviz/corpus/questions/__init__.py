"""What all documents of a corpus show together, with intervals over documents."""
