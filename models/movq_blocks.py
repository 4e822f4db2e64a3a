"""Blocks of the MoVQ, after diffusers 0.42.1: models/attention_processor.py (SpatialNorm, AttnProcessor2_0),
models/resnet.py (ResnetBlockCondNorm2D, ResnetBlock2D) and models/unets/unet_2d_blocks.py (UNetMidBlock2D,
...EncoderBlock2D, ...DecoderBlock2D).

Pictures are tuples of bands (pictures.py) inside. The encoder normalizes plainly, the decoder by the latents `zq`;
`norm` is the class to use. The encoder's `zq` is None.
"""

from mindspore import nn

from .pictures import joined
from .targets import ACTIVATIONS, Attention, Conv2d, Enlarged, Linear, Pixels, PlainNorm, SpatialNorm, Tokens, conv3x3


def activated(act, bands):
    result = ()
    for band in bands:
        result += (act(band),)
    return result


class ResnetBlock(nn.Cell):
    """Norm, activation, convolution, twice, around a shortcut."""

    def __init__(self, in_channels, out_channels, config, norm):
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels, config), norm(out_channels, config)
        self.conv1 = conv3x3(in_channels, out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.conv_shortcut = None if in_channels == out_channels else Conv2d(in_channels, out_channels, 1)
        self.act = ACTIVATIONS[config.act_fn]()

    def construct(self, x, zq):
        h = self.conv1.over(activated(self.act, self.norm1(x, zq)))
        h = self.conv2.over(activated(self.act, self.norm2(h, zq)))
        result = ()
        for index in range(len(x)):
            result += (h[index] + (x[index] if self.conv_shortcut is None else self.conv_shortcut(x[index])),)
        return result


class AttentionBlock(nn.Cell):
    """Self attention over the pixels, one head as wide as the channels."""

    def __init__(self, channels, config, norm):
        super().__init__()
        if norm is SpatialNorm:  # the norm bears another name in each half of the checkpoint
            self.spatial_norm, self.group_norm = norm(channels, config), None
        else:
            self.spatial_norm, self.group_norm = None, norm(channels, config)
        self.to_q, self.to_k, self.to_v = (Linear(channels, channels) for _ in range(3))
        self.to_out = nn.CellList([Linear(channels, channels)])  # a list: the reference's second entry is a dropout
        self.attention = Attention(channels)
        self.tokens, self.pixels = Tokens(), Pixels()

    def construct(self, x, zq):
        x = (joined(x, 1),)
        normed = self.spatial_norm(x, zq) if self.spatial_norm is not None else self.group_norm(x, zq)
        tokens = self.tokens(normed[0])
        mixed = self.attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return (x[0] + self.pixels(self.to_out[0](mixed), x[0]),)


class MidBlock(nn.Cell):
    """Resnet, attention (if configured), resnet."""

    def __init__(self, channels, config, norm):
        super().__init__()
        self.resnets = nn.CellList([ResnetBlock(channels, channels, config, norm) for _ in range(2)])
        attentions = [AttentionBlock(channels, config, norm)] if config.mid_block_add_attention else []
        self.attentions = nn.CellList(attentions)

    def construct(self, x, zq):
        x = self.resnets[0](x, zq)
        for attention in self.attentions:
            x = attention(x, zq)
        return self.resnets[1](x, zq)


class Downsample(nn.Cell):
    """Convolution of stride 2, padded at the bottom and the right only."""

    def __init__(self, channels):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=(0, 1, 0, 1))

    def construct(self, x):
        return (self.conv(joined(x, 1)),)


class Block(nn.Cell):
    """One level: resnets, each followed by an attention in the blocks whose `kind` says so, then a resampler."""

    def __init__(self, kind, in_channels, out_channels, layers, config, norm):
        super().__init__()
        widths = [in_channels] + [out_channels] * (layers - 1)
        self.resnets = nn.CellList([ResnetBlock(width, out_channels, config, norm) for width in widths])
        attended = layers if kind.startswith("Attn") else 0
        self.attentions = nn.CellList([AttentionBlock(out_channels, config, norm) for _ in range(attended)])

    def resnets_and_attentions(self, x, zq):
        for i in range(len(self.resnets)):
            x = self.resnets[i](x, zq)
            if len(self.attentions) > 0:
                x = self.attentions[i](x, zq)
        return x


class DownBlock(Block):
    """A level of the encoder."""

    def __init__(self, kind, in_channels, out_channels, config, last):
        super().__init__(kind, in_channels, out_channels, config.layers_per_block, config, PlainNorm)
        self.downsamplers = nn.CellList([] if last else [Downsample(out_channels)])

    def construct(self, x):
        x = self.resnets_and_attentions(x, None)
        for downsampler in self.downsamplers:
            x = downsampler(x)
        return x


class UpBlock(Block):
    """A level of the decoder."""

    def __init__(self, kind, in_channels, out_channels, config, last):
        super().__init__(kind, in_channels, out_channels, config.layers_per_block + 1, config, SpatialNorm)
        self.upsamplers = nn.CellList([] if last else [Enlarged(out_channels)])

    def construct(self, x, zq):
        x = self.resnets_and_attentions(x, zq)
        for upsampler in self.upsamplers:
            x = upsampler(x, zq)
        return x
