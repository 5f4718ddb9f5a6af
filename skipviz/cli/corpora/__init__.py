"""Commands that ask a corpus."""
