"""Graphs for Ascend: the same cells of MindSpore's own operators, in float16 where its range is wide enough."""
