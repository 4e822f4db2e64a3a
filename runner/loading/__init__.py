"""Which models are in memory, and which may be."""
