"""The MoVQ's norms on pictures in bands (pictures.py): the encoder normalizes plainly, the decoder by the latents `zq`."""

from mindspore import nn, ops

from ..layers import Conv2d, GroupNorm
from ..pictures import height_of, part

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
