"""MoVQ, the picture autoencoder (diffusers 0.42.1: models/autoencoders/vae.py and vq_model.py), one cell a direction.

Kandinsky decodes without quantizing and encodes to unquantized latents, so the codebook is in neither cell.
"""

from mindspore import nn

from .movq_blocks import DownBlock, MidBlock, UpBlock, activated
from .pictures import joined
from .targets import ACTIVATIONS, Conv2d, Inside, Outside, PlainNorm, SpatialNorm


class Encoder(nn.Cell):
    """Picture -> features, the inner half of MoVQEncoder."""

    def __init__(self, config):
        super().__init__()
        channels, last = config.block_out_channels, len(config.block_out_channels) - 1
        self.conv_in = Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.CellList([
            DownBlock(kind, channels[max(i - 1, 0)], channels[i], config, i == last)
            for i, kind in enumerate(config.down_block_types)
        ])
        self.mid_block = MidBlock(channels[-1], config, PlainNorm)
        self.conv_norm_out = PlainNorm(channels[-1], config)
        self.act = ACTIVATIONS["silu"]()  # whatever act_fn says, as in the reference
        self.conv_out = Conv2d(channels[-1], config.latent_channels, 3, padding=1)

    def construct(self, x):
        x = (self.conv_in(x),)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x, None)
        x = self.conv_out.over(activated(self.act, self.conv_norm_out(x, None)))
        return joined(x, 1)


class Decoder(nn.Cell):
    """Features -> picture, the inner half of MoVQDecoder."""

    def __init__(self, config):
        super().__init__()
        channels, last = config.block_out_channels[::-1], len(config.block_out_channels) - 1
        self.conv_in = Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = MidBlock(channels[0], config, SpatialNorm)
        self.up_blocks = nn.CellList([
            UpBlock(kind, channels[max(i - 1, 0)], channels[i], config, i == last)
            for i, kind in enumerate(config.up_block_types)
        ])
        self.conv_norm_out = SpatialNorm(channels[-1], config)
        self.act = ACTIVATIONS["silu"]()
        self.conv_out = Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def construct(self, x, zq):
        x = self.mid_block((self.conv_in(x),), zq)
        for block in self.up_blocks:
            x = block(x, zq)
        x = self.conv_out.over(activated(self.act, self.conv_norm_out(x, zq)))
        return joined(x, 1)


class MoVQDecoder(nn.Cell):
    """latents (batch, latent_channels, h, w) -> image (batch, out_channels, h * scale_factor, w * scale_factor).

    Images are about -1 to 1, unclipped; as ``VQModel.decode(latents, force_not_quantize=True)``.
    """

    def __init__(self, config):
        super().__init__()
        self.post_quant_conv = Conv2d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config)
        self.inside, self.outside = Inside(), Outside()

    def construct(self, latents):
        latents = self.inside(latents)
        return self.outside(self.decoder(self.post_quant_conv(latents), latents))


class MoVQEncoder(nn.Cell):
    """image (batch, in_channels, height, width), -1 to 1 -> latents, scale_factor times smaller; as ``VQModel.encode``.

    Height and width are multiples of `scale_factor`.
    """

    def __init__(self, config):
        super().__init__()
        self.encoder = Encoder(config)
        self.quant_conv = Conv2d(config.latent_channels, config.latent_channels, 1)
        self.inside, self.outside = Inside(), Outside()

    def construct(self, image):
        return self.outside(self.quant_conv(self.encoder(self.inside(image))))
