"""What a user hands over: documents, their encodings, and where tokens lie in them."""
