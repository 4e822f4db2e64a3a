"""The Ascend target's layers between the others, for pictures (batch, channels, height, width), which are never cut.

The MoVQ's layers take a picture as a tuple of one, where those of the CPU take bands.
"""

import mindspore
from mindspore import nn, ops

from ..pictures import to_channels_first, to_channels_last
from .native import Conv2d, GroupNorm

EPS = 1e-6  # of every norm in the MoVQ


class Inside(nn.Cell):
    """A graph's picture as cells keep it: the same."""

    def construct(self, x):
        return x


class Outside(nn.Cell):
    """The way back."""

    def construct(self, x):
        return x


class GivenMap(nn.Cell):
    """A map (batch, height, width, channels), as one graph hands it to another, as cells keep it."""

    def construct(self, x):
        return to_channels_first(x)


class MadeMap(nn.Cell):
    """The way back."""

    def construct(self, x):
        return to_channels_last(x)


class Tokens(nn.Cell):
    """A picture -> (batch, height * width, channels)."""

    def construct(self, x):
        batch, channels, height, width = x.shape
        return ops.transpose(ops.reshape(x, (batch, channels, height * width)), (0, 2, 1))


class Pixels(nn.Cell):
    """Tokens -> a picture of the shape of `like`."""

    def construct(self, tokens, like):
        return ops.reshape(ops.transpose(tokens, (0, 2, 1)), like.shape)


class PerChannel(nn.Cell):
    """(batch, channels) -> what broadcasts over a picture."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def construct(self, x):
        return ops.reshape(x, (x.shape[0], self.channels, 1, 1))


class JoinedChannels(nn.Cell):
    """Two pictures, their channels behind one another; in the wider type where they have two."""

    def construct(self, x, y):
        if x.dtype != y.dtype:
            x, y = ops.cast(x, mindspore.float32), ops.cast(y, mindspore.float32)
        return ops.concat((x, y), 1)


class Halved(nn.Cell):
    """Means of 2x2 pixels."""

    def __init__(self):
        super().__init__()
        self.pool = ops.AvgPool(2, 2)

    def construct(self, x):
        return self.pool(x)


class Doubled(nn.Cell):
    """Every pixel repeated, along both sides."""

    def construct(self, x):
        _, _, height, width = x.shape
        return ops.ResizeNearestNeighbor((2 * height, 2 * width))(x)


class DoubledConv2d(Conv2d):
    """Nearest doubling, then a 3x3 convolution, padding 1."""

    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.doubled = Doubled()

    def construct(self, x):
        return super().construct(self.doubled(x))


class Enlarged(nn.Cell):
    """A picture of the MoVQ, doubled and convolved."""

    def __init__(self, channels):
        super().__init__()
        self.conv = DoubledConv2d(channels, channels)

    def construct(self, x, zq):
        return self.conv.over(x)


class PlainNorm(GroupNorm):
    """Group norm, called as SpatialNorm is."""

    def __init__(self, channels, config):
        super().__init__(config.norm_num_groups, channels, EPS)

    def construct(self, x, zq):
        return (super().construct(x[0]),)


class SpatialNorm(nn.Cell):
    """Group norm times conv_y(zq) plus conv_b(zq): Zheng et al. 2022, MoVQ (arXiv 2209.09002), equation 3.

    The convolutions are 1x1, so they commute with the reference's upsampling, and are made where pixels are few.
    """

    def __init__(self, channels, config):
        super().__init__()
        self.norm_layer = GroupNorm(config.SPATIAL_NORM_GROUPS, channels, EPS)
        self.conv_y = Conv2d(config.latent_channels, channels, 1)
        self.conv_b = Conv2d(config.latent_channels, channels, 1)

    def construct(self, x, zq):
        scale, shift = self.conv_y(zq), self.conv_b(zq)
        if x[0].shape[2:] != zq.shape[2:]:
            resize = ops.ResizeNearestNeighbor(x[0].shape[2:])
            scale, shift = resize(scale), resize(shift)
        return (self.norm_layer(x[0]) * scale + shift,)
