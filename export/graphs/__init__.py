"""Graphs: compiled to MindIR, cut into pieces, lowered for Lite, read back and evaluated in NumPy."""
