"""Weights in narrower types than graphs take them in, and the float32 file that follows from them."""
