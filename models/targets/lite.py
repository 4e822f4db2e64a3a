"""The small layers of the CPU target: what lies between the others, for pictures (batch, height, width, channels) and for
heads (batch * heads, tokens, dim), as Lite's kernels take both.
"""

from mindspore import nn, ops

from ..layers import GroupNorm, constant, merge_heads, split_heads
from ..pictures import cut, height_of, to_channels_first, to_channels_last, to_tokens, upsample_nearest
from ..winograd import doubled_conv3x3


class Inside(nn.Cell):
    """A graph's picture (batch, channels, height, width) -> as cells keep it."""

    def construct(self, x):
        return to_channels_last(x)


class Outside(nn.Cell):
    """The way back."""

    def construct(self, x):
        return to_channels_first(x)


class Map(nn.Cell):
    """A map (batch, height, width, channels), as one graph hands it to another: as cells keep it."""

    def construct(self, x):
        return x


class Tokens(nn.Cell):
    """A picture -> (batch, height * width, channels)."""

    def construct(self, x):
        return to_tokens(x)


class Pixels(nn.Cell):
    """Tokens -> a picture of the shape of `like`."""

    def construct(self, tokens, like):
        return ops.reshape(tokens, like.shape)


class PerChannel(nn.Cell):
    """(batch, channels) -> what broadcasts over a picture."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def construct(self, x):
        return ops.reshape(x, (x.shape[0], 1, 1, self.channels))


class JoinedChannels(nn.Cell):
    """Two pictures, their channels behind one another."""

    def construct(self, x, y):
        return ops.concat((x, y), 3)


class Halved(nn.Cell):
    """Means of 2x2 pixels."""

    def __init__(self):
        super().__init__()
        self.quarter = constant(0.25)

    def construct(self, x):
        batch, height, width, channels = x.shape
        x = ops.reshape(x, (batch * height // 2, 2, width * channels))
        size = (batch * height // 2, 1, width * channels)
        x = ops.slice(x, (0, 0, 0), size) + ops.slice(x, (0, 1, 0), size)
        x = ops.reshape(x, (batch * height * width // 4, 2, channels))
        size = (batch * height * width // 4, 1, channels)
        x = (ops.slice(x, (0, 0, 0), size) + ops.slice(x, (0, 1, 0), size)) * self.quarter
        return ops.reshape(x, (batch, height // 2, width // 2, channels))


class Doubled(nn.Cell):
    """Every pixel repeated, along both sides."""

    def construct(self, x):
        return upsample_nearest(x, 2)


class TimedGroupNorm(GroupNorm):
    """Group norm, then * (1 + time_scale) + time_shift, which `time` (batch, 2 * channels) holds one behind the other."""

    def __init__(self, num_groups, num_channels, eps):
        super().__init__(num_groups, num_channels, eps)
        self.channels = num_channels
        self.one = constant(1.0)

    def construct(self, x, time):
        """Folded into the norm's own multiply-add."""
        batch = time.shape[0]
        time = ops.reshape(time, (batch, 1, 1, 2 * self.channels))
        time_scale = ops.slice(time, (0, 0, 0, 0), (batch, 1, 1, self.channels)) + self.one
        time_shift = ops.slice(time, (0, 0, 0, self.channels), (batch, 1, 1, self.channels))
        scale, shift = self.affine((x,))
        return x * (scale * time_scale) + (shift * time_scale + time_shift)


class SplitHeads(nn.Cell):
    """(batch, tokens, heads * dim) -> as Attention takes it."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def construct(self, x):
        return split_heads(x, self.heads)


class MergedHeads(nn.Cell):
    """The way back."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def construct(self, x):
        return merge_heads(x, self.heads)


class StoredHeads(nn.Cell):
    """(batch, heads * tokens * dim), or (batch * heads, tokens * dim), of heads by heads -> as Attention takes it."""

    def __init__(self, heads, dim):
        super().__init__()
        self.heads, self.dim = heads, dim

    def construct(self, x, batch):
        return ops.reshape(x, (batch * self.heads, -1, self.dim))


class JoinedTokens(nn.Cell):
    """Heads, the tokens of the second behind those of the first."""

    def construct(self, x, y):
        return ops.concat((x, y), 1)


class HeadMask(nn.Cell):
    """(batch, 1, queries, tokens) to add to the scores of each of the heads."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def construct(self, mask):
        batch, _, queries, tokens = mask.shape
        mask = ops.broadcast_to(mask, (batch, self.heads, queries, tokens))
        return ops.reshape(mask, (batch * self.heads, queries, tokens))


class Enlarged(nn.Cell):
    """A picture in bands, doubled and convolved; here pictures become large, and are cut between rows of `zq`."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.conv = doubled_conv3x3(channels, channels)

    def construct(self, x, zq):
        batch, _, width, _ = x[0].shape
        doubled = 4 * batch * (2 * 2 * width) * self.channels  # what a row becomes, in bytes
        return self.conv.over(cut(x, doubled, height_of(x) // zq.shape[1]))
