"""Blocks of the MoVQ, after diffusers 0.42.1: models/attention_processor.py (SpatialNorm, AttnProcessor2_0),
models/resnet.py (ResnetBlockCondNorm2D, ResnetBlock2D) and models/unets/unet_2d_blocks.py (UNetMidBlock2D,
...EncoderBlock2D, ...DecoderBlock2D).

Pictures are tuples of bands (pictures.py) inside. The encoder normalizes plainly, the decoder by the latents `zq`;
`norm` is the class to use. The encoder's `zq` is None.
"""

from mindspore import nn, ops

from .layers import ACTIVATIONS, Attention, Conv2d, GroupNorm, Linear
from .pictures import cut, height_of, joined, part, to_tokens
from .winograd import conv3x3, doubled_conv3x3

EPS = 1e-6  # of every norm in the MoVQ


class PlainNorm(GroupNorm):
    """Group norm, called as SpatialNorm is."""

    def __init__(self, channels, config):
        super().__init__(config.norm_num_groups, channels, EPS)

    def construct(self, x, zq):
        scale, shift = self.affine(x)
        result = ()
        for band in x:
            result += (band * scale + shift,)
        return result


def blockwise_affine(x, scale, shift):
    """``x * scale + shift``, where each pixel of `scale` and `shift` stands for a square block of x's.

    The same as upsampling both to the nearest, but only widths are repeated: heights are an axis that broadcasts, so
    that no map as large as x is made.
    """
    batch, height, width, channels = scale.shape
    factor = x.shape[1] // height
    if factor == 1:
        return x * scale + shift

    def widened(low):
        pixels = ops.reshape(low, (batch * height * width, channels))
        return ops.reshape(ops.concat((pixels,) * factor, 1), (batch * height, 1, width * factor * channels))

    rows = ops.reshape(x, (batch * height, factor, width * factor * channels))
    rows = rows * widened(scale) + widened(shift)
    return ops.reshape(rows, (batch, height * factor, width * factor, channels))


class SpatialNorm(nn.Cell):
    """Group norm times conv_y(zq) plus conv_b(zq): Zheng et al. 2022, MoVQ (arXiv 2209.09002), equation 3.

    The reference upsamples zq and then convolves. The convolutions are 1x1, so they commute with nearest upsampling;
    so do the group norm's factors, which are constant over a channel: all are joined at latent resolution.
    """

    def __init__(self, channels, config):
        super().__init__()
        self.norm_layer = GroupNorm(config.SPATIAL_NORM_GROUPS, channels, EPS)
        self.conv_y = Conv2d(config.latent_channels, channels, 1)
        self.conv_b = Conv2d(config.latent_channels, channels, 1)

    def construct(self, x, zq):
        scale, shift = self.norm_layer.affine(x)
        y = self.conv_y(zq)
        scale, shift = y * scale, y * shift + self.conv_b(zq)
        unit, start, result = height_of(x) // zq.shape[1], 0, ()
        for band in x:
            size = (zq.shape[0], band.shape[1] // unit)
            result += (blockwise_affine(band, part(scale, (0, start), size), part(shift, (0, start), size)),)
            start += size[1]
        return result


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

    def construct(self, x, zq):
        x = (joined(x, 1),)
        normed = self.spatial_norm(x, zq) if self.spatial_norm is not None else self.group_norm(x, zq)
        tokens = to_tokens(normed[0])
        mixed = self.attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return (x[0] + ops.reshape(self.to_out[0](mixed), x[0].shape),)


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


class Upsample(nn.Cell):
    """Nearest doubling, then a convolution; here pictures become large, and are cut between rows of `zq`."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.conv = doubled_conv3x3(channels, channels)

    def construct(self, x, zq):
        batch, _, width, _ = x[0].shape
        doubled = 4 * batch * (2 * 2 * width) * self.channels  # what a row becomes, in bytes
        return self.conv.over(cut(x, doubled, height_of(x) // zq.shape[1]))


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
        self.upsamplers = nn.CellList([] if last else [Upsample(out_channels)])

    def construct(self, x, zq):
        x = self.resnets_and_attentions(x, zq)
        for upsampler in self.upsamplers:
            x = upsampler(x, zq)
        return x
