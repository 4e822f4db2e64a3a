"""What a UNet is shown beside latents where that does not depend on the step: a masked picture and its mask, or a depth hint.

Both checkpoints join these to the latents, as further channels of conv_in (diffusers 0.42.1, pipelines/kandinsky2_2/
pipeline_kandinsky2_2_inpainting.py; models/unets/unet_2d_condition.py, get_aug_embed). A convolution is linear: that of all
channels is that of the latents, and the bias, plus that of the others. The second is a map, which is computed once a picture.
"""

import dataclasses

from mindspore import nn, ops

from .targets import ACTIVATIONS, Conv2d, GivenMap, Inside, MadeMap
from .unet import ShallowUNet, UNet

# Channels and stride of the hint block's convolutions: models/embeddings.py, ImageHintTimeEmbedding. The last leads to latents.
HINT_LAYERS = ((16, 1), (16, 1), (32, 2), (32, 1), (96, 2), (96, 1), (256, 2))


def context_convolution(config):
    """The part of conv_in that does not see the latents."""
    return Conv2d(config.in_channels - config.latent_channels, config.block_out_channels[0], 3, padding=1, bias=False)


class InpaintMap(nn.Cell):
    """masked_latents (1, latent_channels, h, w), mask (1, 1, h, w) -> added_map (1, h, w, block_out_channels[0]).

    mask: 1 for latents that are kept, 0 for those to repaint, of which masked_latents has zeros.
    """

    def __init__(self, config):
        super().__init__()
        self.conv_in_context = context_convolution(config)
        self.inside, self.made_map = Inside(), MadeMap()

    def construct(self, masked_latents, mask):
        return self.made_map(self.conv_in_context(self.inside(ops.concat((masked_latents, mask), 1))))


class HintBlock(nn.Cell):
    """A hint, three channels -> height / 8, width / 8, latent_channels."""

    def __init__(self, config):
        super().__init__()
        layers, channels = [], 3
        for out, stride in (*HINT_LAYERS, (config.latent_channels, 1)):
            layers += [Conv2d(channels, out, 3, stride=stride, padding=1), ACTIVATIONS["silu"]()]
            channels = out
        self.input_hint_block = nn.CellList(layers[:-1])

    def construct(self, x):
        for layer in self.input_hint_block:
            x = layer(x)
        return x


class HintMap(nn.Cell):
    """hint (1, 3, height, width), 0 to 1 -> added_map (1, height / 8, width / 8, block_out_channels[0])."""

    def __init__(self, config):
        super().__init__()
        self.add_embedding = HintBlock(config)
        self.conv_in_context = context_convolution(config)
        self.inside, self.made_map = Inside(), MadeMap()

    def construct(self, hint):
        return self.made_map(self.conv_in_context(self.add_embedding(self.inside(hint))))


class ConditionedUNet(UNet):
    """As UNet, of latents alone: added_map (1, h, w, block_out_channels[0]) is what its conv_in makes of all else."""

    def __init__(self, config, keeps=False):
        super().__init__(dataclasses.replace(config, in_channels=config.latent_channels), keeps)
        self.given_map = GivenMap()

    def construct(self, sample, time_proj, time_addition, added_kv, added_map):
        return self.denoised(self.conv_in(self.inside(sample)) + self.given_map(added_map), time_proj, time_addition, added_kv)


class ShallowConditionedUNet(ShallowUNet):
    """As ShallowUNet, of ConditionedUNet: with the added_map that it takes."""

    def __init__(self, config):
        super().__init__(dataclasses.replace(config, in_channels=config.latent_channels))
        self.given_map = GivenMap()

    def construct(self, sample, deep_features, time_proj, time_addition, added_map):
        x = self.conv_in(self.inside(sample)) + self.given_map(added_map)
        return self.denoised(x, deep_features, time_proj, time_addition)
