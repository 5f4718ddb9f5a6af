"""Ways of skipping of published methods, recognised by the modules of their reference code."""
