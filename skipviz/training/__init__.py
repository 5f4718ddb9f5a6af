"""Makes gates: texts, warm start, the cost-aware loop."""
