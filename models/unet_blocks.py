"""Blocks of Kandinsky 2.2's UNet, after diffusers 0.42.1: models/resnet.py (ResnetBlock2D),
models/attention_processor.py (AttnAddedKVProcessor2_0) and models/unets/unet_2d_blocks.py (Simple...Block2D,
Resnet...Block2D).

Pictures are as the layers of the target take them (targets/). `time` is the activated time embedding, (batch, time_embed_dim);
`added_kv` is UNetContext's output for the batch.
"""

from mindspore import nn, ops

from .config import IMAGE_TOKENS
from .targets import (
    ACTIVATIONS,
    Attention,
    Conv2d,
    Doubled,
    GroupNorm,
    Halved,
    JoinedChannels,
    JoinedTokens,
    Linear,
    MergedHeads,
    PerChannel,
    Pixels,
    SplitHeads,
    StoredHeads,
    TimedGroupNorm,
    Tokens,
    conv3x3,
    doubled_conv3x3,
)


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
        self.scale_shift = config.resnet_time_scale_shift == "scale_shift"
        self.norm1 = GroupNorm(config.norm_num_groups, in_channels, config.norm_eps)
        self.conv1 = doubled_conv3x3(in_channels, out_channels) if resample == "up" \
            else conv3x3(in_channels, out_channels, lowest)
        self.time_emb_proj = Linear(config.time_embed_dim, out_channels * (2 if self.scale_shift else 1))
        self.norm2 = (TimedGroupNorm if self.scale_shift else GroupNorm)(config.norm_num_groups, out_channels, config.norm_eps)
        self.per_channel = PerChannel(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels, lowest)
        self.conv_shortcut = None if in_channels == out_channels else Conv2d(in_channels, out_channels, 1)
        self.act = ACTIVATIONS[config.act_fn]()
        self.halved = Halved() if resample == "down" else None
        self.doubled = Doubled() if resample == "up" else None

    def construct(self, x, time):
        h = self.act(self.norm1(x))
        h = self.conv1(h if self.halved is None else self.halved(h))
        time = self.time_emb_proj(time)
        h = self.norm2(h, time) if self.scale_shift else self.norm2(h + self.per_channel(time))
        h = self.conv2(self.act(h))
        x = x if self.halved is None else self.halved(x)
        x = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return h + (x if self.doubled is None else self.doubled(x))


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
        self.attention = Attention(self.dim, self.heads)
        self.tokens, self.pixels = Tokens(), Pixels()
        self.split, self.merged, self.stored = SplitHeads(self.heads), MergedHeads(self.heads), StoredHeads(self.heads, self.dim)
        self.joined = JoinedTokens()

    def added(self, added_kv, index):
        batch, size = added_kv.shape[0], self.heads * IMAGE_TOKENS * self.dim
        return self.stored(ops.slice(added_kv, (0, self.offset + index * size), (batch, size)), batch)

    def construct(self, x, added_kv):
        tokens = self.tokens(self.group_norm(x))
        k = self.joined(self.added(added_kv, 0), self.split(self.to_k(tokens)))
        v = self.joined(self.added(added_kv, 1), self.split(self.to_v(tokens)))
        mixed = self.attention(self.split(self.to_q(tokens)), k, v)
        return x + self.pixels(self.to_out[0](self.merged(mixed)), x)


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
    """The mirror of DownBlock: each resnet also takes the latest of `skips`, then doubling. `deep` is all but the last two
    resnets, of a block without doubling, and `shallow` these."""

    def __init__(self, resnets, attentions, upsamplers):
        super().__init__()
        self.resnets, self.attentions = nn.CellList(resnets), nn.CellList(attentions)
        self.upsamplers = nn.CellList(upsamplers)
        self.joined = JoinedChannels()

    def construct(self, x, skips, time, added_kv):
        x = self.shallow(self.deep(x, skips, time, added_kv), skips, time, added_kv)
        for upsampler in self.upsamplers:
            x = upsampler(x, time)
        return x

    def deep(self, x, skips, time, added_kv):
        for i in range(len(self.resnets) - 2):
            x = self.layer(i, x, skips, time, added_kv)
        return x

    def shallow(self, x, skips, time, added_kv):
        for i in range(len(self.resnets) - 2, len(self.resnets)):
            x = self.layer(i, x, skips, time, added_kv)
        return x

    def layer(self, i, x, skips, time, added_kv):
        x = self.resnets[i](self.joined(x, skips[-1 - i]), time)
        return self.attentions[i](x, added_kv) if len(self.attentions) > 0 else x
