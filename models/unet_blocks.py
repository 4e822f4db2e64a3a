"""Blocks of Kandinsky 2.2's UNet, after diffusers 0.42.1: models/resnet.py (ResnetBlock2D),
models/attention_processor.py (AttnAddedKVProcessor2_0) and models/unets/unet_2d_blocks.py (Simple...Block2D,
Resnet...Block2D).

Pictures are (batch, height, width, channels) inside. `time` is the activated time embedding, (batch, time_embed_dim);
`added_kv` is UNetContext's output for the batch.
"""

from mindspore import nn, ops

from .config import IMAGE_TOKENS
from .layers import ACTIVATIONS, Attention, Conv2d, GroupNorm, Linear, constant, merge_heads, split_heads
from .pictures import to_tokens, upsample_nearest
from .winograd import conv3x3, doubled_conv3x3


class TimestepEmbedding(nn.Cell):
    """Sinusoid of the timestep -> time embedding: linear, activation, linear."""

    def __init__(self, in_features, out_features, activation):
        super().__init__()
        self.linear_1 = Linear(in_features, out_features)
        self.act = ACTIVATIONS[activation]()
        self.linear_2 = Linear(out_features, out_features)

    def construct(self, x):
        return self.linear_2(self.act(self.linear_1(x)))


class ResnetBlock(nn.Cell):
    """Two convolutions around the time embedding; `resample` ("up", "down" or None) changes the size by two.

    lowest: the result is at the UNet's lowest level, where pixels are few.
    """

    def __init__(self, in_channels, out_channels, config, resample=None, lowest=False):
        super().__init__()
        self.resample, self.scale_shift = resample, config.resnet_time_scale_shift == "scale_shift"
        self.channels = out_channels
        self.norm1 = GroupNorm(config.norm_num_groups, in_channels, config.norm_eps)
        self.conv1 = doubled_conv3x3(in_channels, out_channels) if resample == "up" \
            else conv3x3(in_channels, out_channels, lowest)
        self.time_emb_proj = Linear(config.time_embed_dim, out_channels * (2 if self.scale_shift else 1))
        self.norm2 = GroupNorm(config.norm_num_groups, out_channels, config.norm_eps)
        self.conv2 = conv3x3(out_channels, out_channels, lowest)
        self.conv_shortcut = None if in_channels == out_channels else Conv2d(in_channels, out_channels, 1)
        self.act = ACTIVATIONS[config.act_fn]()
        self.one = constant(1.0)
        self.quarter = constant(0.25)

    def halved(self, x):
        """Means of 2x2 pixels."""
        batch, height, width, channels = x.shape
        x = ops.reshape(x, (batch * height // 2, 2, width * channels))
        size = (batch * height // 2, 1, width * channels)
        x = ops.slice(x, (0, 0, 0), size) + ops.slice(x, (0, 1, 0), size)
        x = ops.reshape(x, (batch * height * width // 4, 2, channels))
        size = (batch * height * width // 4, 1, channels)
        x = (ops.slice(x, (0, 0, 0), size) + ops.slice(x, (0, 1, 0), size)) * self.quarter
        return ops.reshape(x, (batch, height // 2, width // 2, channels))

    def construct(self, x, time):
        h = self.act(self.norm1(x))
        h = self.conv1(self.halved(h) if self.resample == "down" else h)
        time = self.time_emb_proj(time)
        batch = time.shape[0]
        if self.scale_shift:  # folded into the norm's own multiply-add
            time = ops.reshape(time, (batch, 1, 1, 2 * self.channels))
            time_scale = ops.slice(time, (0, 0, 0, 0), (batch, 1, 1, self.channels)) + self.one
            time_shift = ops.slice(time, (0, 0, 0, self.channels), (batch, 1, 1, self.channels))
            scale, shift = self.norm2.affine((h,))
            h = h * (scale * time_scale) + (shift * time_scale + time_shift)
        else:
            h = self.norm2(h + ops.reshape(time, (batch, 1, 1, self.channels)))
        h = self.conv2(self.act(h))
        x = self.halved(x) if self.resample == "down" else x
        x = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return h + (upsample_nearest(x, 2) if self.resample == "up" else x)


class AddedKVAttention(nn.Cell):
    """Self attention over the pixels with the image tokens' keys and values put in front.

    `offset` is where this layer's keys start in a row of `added_kv`; its values follow its keys.
    """

    def __init__(self, channels, config, offset):
        super().__init__()
        self.heads, self.dim, self.offset = channels // config.attention_head_dim, config.attention_head_dim, offset
        self.group_norm = GroupNorm(config.norm_num_groups, channels, 1e-5)  # not norm_eps: the reference's default
        self.to_q, self.to_k, self.to_v = (Linear(channels, channels) for _ in range(3))
        self.to_out = nn.CellList([Linear(channels, channels)])  # a list: the reference's second entry is a dropout
        self.attention = Attention(self.dim)

    def added(self, added_kv, index):
        batch, size = added_kv.shape[0], self.heads * IMAGE_TOKENS * self.dim
        part = ops.slice(added_kv, (0, self.offset + index * size), (batch, size))
        return ops.reshape(part, (batch * self.heads, IMAGE_TOKENS, self.dim))

    def construct(self, x, added_kv):
        tokens = to_tokens(self.group_norm(x))
        k = ops.concat((self.added(added_kv, 0), split_heads(self.to_k(tokens), self.heads)), 1)
        v = ops.concat((self.added(added_kv, 1), split_heads(self.to_v(tokens), self.heads)), 1)
        mixed = self.attention(split_heads(self.to_q(tokens), self.heads), k, v)
        return x + ops.reshape(self.to_out[0](merge_heads(mixed, self.heads)), x.shape)


class DownBlock(nn.Cell):
    """Resnets, each followed by an attention where `attentions` has any, then halving; returns every stage's output."""

    def __init__(self, resnets, attentions, downsamplers):
        super().__init__()
        self.resnets, self.attentions = nn.CellList(resnets), nn.CellList(attentions)
        self.downsamplers = nn.CellList(downsamplers)

    def construct(self, x, time, added_kv):
        outputs = ()
        for i in range(len(self.resnets)):
            x = self.resnets[i](x, time)
            if len(self.attentions) > 0:
                x = self.attentions[i](x, added_kv)
            outputs = outputs + (x,)
        for downsampler in self.downsamplers:
            x = downsampler(x, time)
            outputs = outputs + (x,)
        return x, outputs


class MidBlock(nn.Cell):
    """Resnet, attention, resnet."""

    def __init__(self, resnets, attentions):
        super().__init__()
        self.resnets, self.attentions = nn.CellList(resnets), nn.CellList(attentions)

    def construct(self, x, time, added_kv):
        x = self.attentions[0](self.resnets[0](x, time), added_kv)
        return self.resnets[1](x, time)


class UpBlock(nn.Cell):
    """The mirror of DownBlock: each resnet also takes the latest of `skips`, then doubling."""

    def __init__(self, resnets, attentions, upsamplers):
        super().__init__()
        self.resnets, self.attentions = nn.CellList(resnets), nn.CellList(attentions)
        self.upsamplers = nn.CellList(upsamplers)

    def construct(self, x, skips, time, added_kv):
        for i in range(len(self.resnets)):
            x = self.resnets[i](ops.concat((x, skips[-1 - i]), 3), time)
            if len(self.attentions) > 0:
                x = self.attentions[i](x, added_kv)
        for upsampler in self.upsamplers:
            x = upsampler(x, time)
        return x
