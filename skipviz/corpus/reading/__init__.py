"""A dataset that is opened: lazy tables, documents as traces."""
