"""Whether decisions hold when text, context or corpus change."""
