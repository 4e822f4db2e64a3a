"""How much memory a run of a graph takes beside its weights, in bytes, by the kind of network: estimates, a little above."""

from __future__ import annotations

import math

from ..manifest import GraphInfo

# Estimates, from the real configuration with Lite 2.0.0 on x86-64 (tests/benchmarks/peers.py): the UNet's 6.2 GB of
# weights in five processes take 7.4 GB in a step at 512x512 and 8.8 GB at 768x768, the MoVQ decoder 0.9 and 1.6 GB.
# Maps as large as the picture at the highest level, and scores of attention at the second, that are there at once:
# each process keeps what its piece took.
UNET_MAPS, UNET_SCORES, MOVQ_MAPS = 72, 6, 25
SHALLOW_MAPS = 12  # of its six convolutions, with their inputs joined and normed
MOST_SCORES = 2**27  # bytes: of more, some are computed after others (SCORES in models/layers.py)
# A large picture is decoded in bands of rows: few of its maps are whole, and a band takes as much whatever its picture.
WHOLE_MOVQ_MAPS, MOVQ_BAND = 4, 250_000_000
MOVQ_ENCODER_MAPS = 8  # as large as the picture, of the encoder, which does not work in bands
MOVQ_CHANNELS = 128  # at the picture's own size, in the real checkpoint
CONTEXT_TOKENS = 32


def twice_the_tensors(graph: GraphInfo) -> int:
    """Of a network whose values within are no larger than what it takes and gives."""
    return 2 * _tensor_bytes(graph)


def unet(graph: GraphInfo) -> int:
    (batch, _, height, width), channels = graph.input("sample").shape, graph.input("time_proj").shape[-1]
    pixels, heads = height * width, max(channels // 32, 1)  # the second level: twice the channels, heads of 64
    scores = batch * heads * (pixels // 4) * (pixels // 4 + CONTEXT_TOKENS)
    maps = 4 * UNET_MAPS * batch * pixels * channels
    return _tensor_bytes(graph) + maps + UNET_SCORES * min(4 * scores, MOST_SCORES)


def shallow_unet(graph: GraphInfo) -> int:
    (batch, _, height, width), channels = graph.input("sample").shape, graph.input("time_proj").shape[-1]
    return _tensor_bytes(graph) + 4 * SHALLOW_MAPS * batch * height * width * channels


def movq_decoder(graph: GraphInfo) -> int:
    _, _, height, width = graph.outputs[0].shape
    one = 4 * height * width * MOVQ_CHANNELS
    return _tensor_bytes(graph) + min(MOVQ_MAPS * one, WHOLE_MOVQ_MAPS * one + MOVQ_BAND)


def movq_encoder(graph: GraphInfo) -> int:
    _, _, height, width = graph.inputs[0].shape
    return _tensor_bytes(graph) + MOVQ_ENCODER_MAPS * 4 * height * width * MOVQ_CHANNELS


def _tensor_bytes(graph: GraphInfo) -> int:
    return 4 * sum(math.prod(tensor.shape) for tensor in (*graph.inputs, *graph.outputs))
