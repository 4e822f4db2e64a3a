"""MindSpore itself as an engine, and what of its MindIR the runner reads."""
