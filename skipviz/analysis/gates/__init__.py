"""Whether a gate's score says what a decision was worth."""
