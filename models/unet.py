"""Kandinsky 2.2's UNet (diffusers 0.42.1, models/unets/unet_2d_condition.py) as two graphs, and a third.

What depends on the image embedding alone (its time addition, and the keys and values of its tokens in every attention)
is UNetContext: computed once a picture. UNet is the rest: one denoising step. Their parameters together are the
checkpoint's. ShallowUNet has UNet's outermost layers alone: a step over what the others made in a step before.
"""

from mindspore import nn, ops

from .config import IMAGE_TOKENS
from .targets import ACTIVATIONS, Conv2d, GroupNorm, Inside, JoinedChannels, LayerNorm, Linear, Outside, SplitHeads
from .unet_blocks import AddedKVAttention, DownBlock, MidBlock, ResnetBlock, TimestepEmbedding, UpBlock


class ImageProjection(nn.Cell):
    """Image embedding (1, encoder_hid_dim) -> context tokens (1, IMAGE_TOKENS, cross_attention_dim)."""

    def __init__(self, config):
        super().__init__()
        self.shape = (1, IMAGE_TOKENS, config.cross_attention_dim)
        self.image_embeds = Linear(config.encoder_hid_dim, IMAGE_TOKENS * config.cross_attention_dim)
        self.norm = LayerNorm(config.cross_attention_dim)

    def construct(self, image_embeds):
        return self.norm(ops.reshape(self.image_embeds(image_embeds), self.shape))


class ImageTimeEmbedding(nn.Cell):
    """Image embedding (1, encoder_hid_dim) -> its addition to the time embedding (1, time_embed_dim)."""

    def __init__(self, config):
        super().__init__()
        self.image_proj = Linear(config.encoder_hid_dim, config.time_embed_dim)
        self.image_norm = LayerNorm(config.time_embed_dim)

    def construct(self, image_embeds):
        return self.image_norm(self.image_proj(image_embeds))


class AddedKV(nn.Cell):
    """One attention's keys and values of the context tokens, each flattened from (heads, tokens, dim)."""

    def __init__(self, channels, config):
        super().__init__()
        self.split = SplitHeads(channels // config.attention_head_dim)
        self.add_k_proj = Linear(config.cross_attention_dim, channels)
        self.add_v_proj = Linear(config.cross_attention_dim, channels)

    def construct(self, tokens):
        k, v = self.split(self.add_k_proj(tokens)), self.split(self.add_v_proj(tokens))
        return ops.reshape(k, (1, -1)), ops.reshape(v, (1, -1))


class ContextBlock(nn.Cell):
    """What one block's attentions add for the context tokens; bears the checkpoint's names, and may be empty."""

    def __init__(self, channels, config):
        super().__init__()
        self.attentions = nn.CellList([AddedKV(width, config) for width in channels])

    def construct(self, tokens):
        rows = ()
        for attention in self.attentions:
            rows = rows + attention(tokens)
        return rows


class UNetContext(nn.Cell):
    """image_embeds (1, encoder_hid_dim) -> time_addition (1, time_embed_dim), added_kv (1, config.added_kv_size).

    `added_kv` holds, for each attention in order of execution, keys then values, each (heads, tokens, dim) flattened.
    """

    def __init__(self, config):
        super().__init__()
        down, mid, up = config.attention_channels
        self.encoder_hid_proj = ImageProjection(config)
        self.add_embedding = ImageTimeEmbedding(config)
        self.down_blocks = nn.CellList([ContextBlock(block, config) for block in down])
        self.mid_block = ContextBlock(mid, config)
        self.up_blocks = nn.CellList([ContextBlock(block, config) for block in up])

    def construct(self, image_embeds):
        tokens = self.encoder_hid_proj(image_embeds)
        rows = ()
        for block in self.down_blocks:
            rows = rows + block(tokens)
        rows = rows + self.mid_block(tokens)
        for block in self.up_blocks:
            rows = rows + block(tokens)
        return self.add_embedding(image_embeds), ops.concat(rows, 1)


class UNet(nn.Cell):
    """One denoising step; the batch and the size come from the inputs.

    sample (batch, in_channels, height, width), time_proj (1, block_out_channels[0]) the timestep's sinusoid,
    time_addition (batch, time_embed_dim), added_kv (batch, config.added_kv_size)
    -> model_output (batch, out_channels, height, width).
    Height and width are multiples of 2 ** (levels - 1).
    keeps: give also deep_features (batch, config.deep_channels, height, width), which ShallowUNet goes on from.
    """

    def __init__(self, config, keeps=False):
        super().__init__()
        self.keeps = keeps
        channels, groups = config.block_out_channels, config.norm_num_groups
        offset = 0

        def attentions(block):
            nonlocal offset
            cells = []
            for width in block:
                cells.append(AddedKVAttention(width, config, offset))
                offset += 2 * IMAGE_TOKENS * width
            return cells

        def resnets(lowest, *widths):
            return [ResnetBlock(width_in, width_out, config, lowest=lowest) for width_in, width_out in widths]

        def resampler(width, direction, wanted, lowest=False):
            return [ResnetBlock(width, width, config, resample=direction, lowest=lowest)] if wanted else []

        layers, last = config.layers_per_block, len(channels) - 1
        down, mid, up = config.attention_channels
        self.conv_in = Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(channels[0], config.time_embed_dim, config.act_fn)

        blocks, width = [], channels[0]
        skips = [width]  # channels of what the up blocks will take, latest last
        for i, out in enumerate(channels):
            pairs = [(width, out)] + [(out, out)] * (layers - 1)
            blocks.append(DownBlock(resnets(i == last, *pairs), attentions(down[i]),
                                    resampler(out, "down", i < last, i == last - 1)))
            skips += [out] * (layers + (i < last))
            width = out
        self.down_blocks = nn.CellList(blocks)
        self.mid_block = MidBlock(resnets(True, (width, width), (width, width)), attentions(mid))

        blocks = []
        for i, out in enumerate(reversed(channels)):
            pairs = []
            for _ in range(layers + 1):
                pairs.append((width + skips.pop(), out))
                width = out
            blocks.append(UpBlock(resnets(i == 0, *pairs), attentions(up[i]), resampler(out, "up", i < last)))
        self.up_blocks = nn.CellList(blocks)

        self.conv_norm_out = GroupNorm(groups, channels[0], config.norm_eps)
        self.act = ACTIVATIONS[config.act_fn]()
        self.conv_out = Conv2d(channels[0], config.out_channels, 3, padding=1)
        self.inside, self.outside = Inside(), Outside()

    def construct(self, sample, time_proj, time_addition, added_kv):
        return self.denoised(self.conv_in(self.inside(sample)), time_proj, time_addition, added_kv)

    def denoised(self, x, time_proj, time_addition, added_kv):
        """The model output, from what conv_in made."""
        # Every resnet starts by activating the time embedding: done once here.
        time = self.act(self.time_embedding(time_proj) + time_addition)
        skips = (x,)
        for block in self.down_blocks:
            x, outputs = block(x, time, added_kv)
            skips = skips + outputs
        x = self.mid_block(x, time, added_kv)
        for i in range(len(self.up_blocks) - 1):
            x = self.up_blocks[i](x, skips, time, added_kv)
            skips = skips[:-len(self.up_blocks[i].resnets)]
        deep = self.up_blocks[-1].deep(x, skips, time, added_kv)
        x = self.up_blocks[-1].shallow(deep, skips, time, added_kv)
        output = self.outside(self.conv_out(self.act(self.conv_norm_out(x))))
        return (output, self.outside(deep)) if self.keeps else output


class TopBlock(nn.Cell):
    """The last two resnets of the outermost up block, under the checkpoint's names."""

    def __init__(self, resnets, before):
        super().__init__()
        self.resnets = nn.CellList([nn.Cell() for _ in range(before)] + resnets)
        self.joined = JoinedChannels()

    def construct(self, deep, skips, time):
        x = self.resnets[-2](self.joined(deep, skips[1]), time)
        return self.resnets[-1](self.joined(x, skips[0]), time)


class ShallowUNet(nn.Cell):
    """One denoising step over deep_features of a step before, which `UNet` gives if it keeps them. Where nothing has changed, it
    computes what the whole step does.

    Ma, Fang & Wang, "DeepCache: Accelerating Diffusion Models for Free" (2024): what the inner layers make changes little from
    step to step. Two skips are computed anew, that of conv_in and that of the first resnet, and the two resnets that take
    them: a tenth of the real checkpoint's operations at 512x512.

    sample (batch, in_channels, height, width), deep_features (batch, config.deep_channels, height, width), time_proj
    (1, block_out_channels[0]), time_addition (batch, time_embed_dim) -> model_output (batch, out_channels, height, width).
    """

    def __init__(self, config):
        super().__init__()
        levels, channels, layers = len(config.block_out_channels), config.block_out_channels[0], config.layers_per_block
        lowest = levels == 1
        self.conv_in = Conv2d(config.in_channels, channels, 3, padding=1)
        self.time_embedding = TimestepEmbedding(channels, config.time_embed_dim, config.act_fn)
        self.down_blocks = nn.CellList([DownBlock([ResnetBlock(channels, channels, config, lowest=lowest)], [], [])])
        widths = config.deep_channels + channels, 2 * channels
        top = TopBlock([ResnetBlock(width, channels, config, lowest=lowest) for width in widths], layers - 1)
        self.up_blocks = nn.CellList([nn.Cell() for _ in range(levels - 1)] + [top])
        self.conv_norm_out = GroupNorm(config.norm_num_groups, channels, config.norm_eps)
        self.act = ACTIVATIONS[config.act_fn]()
        self.conv_out = Conv2d(channels, config.out_channels, 3, padding=1)
        self.inside, self.outside = Inside(), Outside()

    def construct(self, sample, deep_features, time_proj, time_addition):
        return self.denoised(self.conv_in(self.inside(sample)), deep_features, time_proj, time_addition)

    def denoised(self, x, deep_features, time_proj, time_addition):
        """The model output, from what conv_in made."""
        time = self.act(self.time_embedding(time_proj) + time_addition)
        skip = self.down_blocks[0].resnets[0](x, time)
        x = self.up_blocks[-1](self.inside(deep_features), (x, skip), time)
        return self.outside(self.conv_out(self.act(self.conv_norm_out(x))))
