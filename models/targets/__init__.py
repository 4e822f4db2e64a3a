"""The layers that cells are made of, a row each, with the class of each target: a cell is written once for all targets.

"cpu": composed of what MindSpore Lite's CPU kernels compute right and fast, pictures (batch, height, width, channels).
"ascend": MindSpore's own operators, pictures (batch, channels, height, width). Parameters bear the same names, but that a
convolution's is `kernel` there, as checkpoints have it, where the CPU's is `weight` in another order, or products of it.
"""

from .. import layers, winograd
from . import lite, lite_norms, native, native_pictures
from .choice import ASCEND, CPU, TARGETS, Choice, building_for

Linear = Choice(layers.Linear, native.Linear)
Conv2d = Choice(layers.Conv2d, native.Conv2d)
conv3x3 = Choice(winograd.conv3x3, native.conv3x3)
doubled_conv3x3 = Choice(winograd.doubled_conv3x3, native_pictures.DoubledConv2d)
LayerNorm = Choice(layers.LayerNorm, native.LayerNorm)
GroupNorm = Choice(layers.GroupNorm, native.GroupNorm)
TimedGroupNorm = Choice(lite.TimedGroupNorm, native.TimedGroupNorm)
ACTIVATIONS = {name: Choice(layers.ACTIVATIONS[name], native.ACTIVATIONS[name]) for name in layers.ACTIVATIONS}

Attention = Choice(layers.Attention, native.Attention)
SplitHeads = Choice(lite.SplitHeads, native.SplitHeads)
MergedHeads = Choice(lite.MergedHeads, native.MergedHeads)
StoredHeads = Choice(lite.StoredHeads, native.StoredHeads)
JoinedTokens = Choice(lite.JoinedTokens, native.JoinedTokens)
HeadMask = Choice(lite.HeadMask, native.HeadMask)

Inside = Choice(lite.Inside, native_pictures.Inside)
Outside = Choice(lite.Outside, native_pictures.Outside)
GivenMap = Choice(lite.Map, native_pictures.GivenMap)
MadeMap = Choice(lite.Map, native_pictures.MadeMap)
Tokens = Choice(lite.Tokens, native_pictures.Tokens)
Pixels = Choice(lite.Pixels, native_pictures.Pixels)
PerChannel = Choice(lite.PerChannel, native_pictures.PerChannel)
JoinedChannels = Choice(lite.JoinedChannels, native_pictures.JoinedChannels)
Halved = Choice(lite.Halved, native_pictures.Halved)
Doubled = Choice(lite.Doubled, native_pictures.Doubled)

PlainNorm = Choice(lite_norms.PlainNorm, native_pictures.PlainNorm)
SpatialNorm = Choice(lite_norms.SpatialNorm, native_pictures.SpatialNorm)
Enlarged = Choice(lite.Enlarged, native_pictures.Enlarged)

__all__ = ["ASCEND", "CPU", "TARGETS", "building_for"]
