"""The layers of the Ascend target: MindSpore's own operators on pictures (batch, channels, height, width) and on heads
(batch, heads, tokens, dim).

An NPU has a kernel for each of them, and no use for what layers.py and winograd.py compose for a CPU. A layer computes in
float32 until `precision` says float16: precision.py decides that once a cell is made. Then its operands are cast, its
weights too, and so is whatever wider layers hand to it.
"""

import math

import mindspore
from mindspore import nn, ops
from mindspore.ops.auto_generate import PromptFlashAttention, group_norm_op

from .. import layers
from ..layers import parameter

FULL = 2**31 - 1  # tokens before and after a query that it sees: all
WIDEST_HEAD, HEAD_UNIT = 512, 16  # PromptFlashAttention takes heads up to so wide, in these steps


class Native(nn.Cell):
    """A layer that computes in `precision`."""

    def __init__(self):
        super().__init__()
        self.precision = mindspore.float32

    def taken(self, x):
        return x if x.dtype == self.precision else ops.cast(x, self.precision)


class Linear(Native, layers.Linear):
    """layers.Linear in `precision`."""

    def __init__(self, in_features, out_features, bias=True):
        layers.Linear.__init__(self, in_features, out_features, bias)
        self.precision = mindspore.float32

    def construct(self, x):
        rows = self.taken(x if x.ndim == 2 else ops.reshape(x, (-1, self.in_features)))
        y = self.matmul(rows, self.taken(self.weight))
        if self.bias is not None:
            y = self.bias_add(y, self.taken(self.bias))
        return y if x.ndim == 2 else ops.reshape(y, x.shape[:-1] + (self.out_features,))


class Conv2d(Native):
    """2-D convolution; `kernel` is (out_channels, in_channels, kernel, kernel), as checkpoints have it.

    `padding` is one number, or (top, bottom, left, right).
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel = parameter(out_channels, in_channels, kernel_size, kernel_size)
        self.bias = parameter(out_channels) if bias else None
        self.conv = ops.Conv2D(out_channels, kernel_size, pad_mode="pad", pad=padding, stride=stride)
        self.bias_add = ops.BiasAdd()

    def construct(self, x):
        y = self.conv(self.taken(x), self.taken(self.kernel))
        return y if self.bias is None else self.bias_add(y, self.taken(self.bias))

    def over(self, pictures):
        """The convolution of a picture that a tuple holds, in another."""
        return (self.construct(pictures[0]),)


def conv3x3(in_channels, out_channels, few_pixels=False):
    """A 3x3 convolution, padding 1, of as many pixels as there are."""
    return Conv2d(in_channels, out_channels, 3, padding=1)


class LayerNorm(Native):
    """Layer norm over the last axis."""

    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight, self.bias = parameter(width), parameter(width)
        self.norm = ops.LayerNorm(-1, -1, eps)

    def construct(self, x):
        return self.norm(self.taken(x), self.taken(self.weight), self.taken(self.bias))[0]


class GroupNorm(Native):
    """Group norm of a picture."""

    def __init__(self, num_groups, num_channels, eps=1e-5):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight, self.bias = parameter(num_channels), parameter(num_channels)

    def construct(self, x):
        weight, bias = self.taken(self.weight), self.taken(self.bias)
        return group_norm_op(self.taken(x), self.num_groups, weight, bias, self.eps)[0]


class TimedGroupNorm(GroupNorm):
    """Group norm, then * (1 + time_scale) + time_shift, which `time` (batch, 2 * channels) holds one behind the other."""

    def __init__(self, num_groups, num_channels, eps):
        super().__init__(num_groups, num_channels, eps)
        self.channels = num_channels

    def construct(self, x, time):
        size = (time.shape[0], self.channels, 1, 1)
        time = self.taken(ops.reshape(time, (time.shape[0], 2 * self.channels, 1, 1)))
        time_scale, time_shift = ops.slice(time, (0, 0, 0, 0), size), ops.slice(time, (0, self.channels, 0, 0), size)
        x = super().construct(x)
        return x + x * time_scale + time_shift


class SiLU(Native):
    """x * sigmoid(x)."""

    def construct(self, x):
        return ops.silu(self.taken(x))


class GELU(Native):
    """Exact GELU, which MindSpore makes of Erf: its operator GeLU is the tanh form, 2e-4 off."""

    def construct(self, x):
        return ops.gelu(self.taken(x), approximate="none")


class QuickGELU(Native):
    """x * sigmoid(1.702 x)."""

    def construct(self, x):
        x = self.taken(x)
        return x * ops.sigmoid(x * ops.cast(1.702, self.precision))


ACTIVATIONS = {"silu": SiLU, "swish": SiLU, "gelu": GELU, "quick_gelu": QuickGELU}


class Attention(Native):
    """softmax(q k^T / sqrt(dim) + bias) v over (batch, heads, tokens, dim), or (batch, tokens, dim) of one head.

    One operator in float16 where nothing is added to the scores, and where it takes heads so wide; else two products around
    a softmax, in float32.
    """

    def __init__(self, dim, heads=1):
        super().__init__()
        self.fits = dim % HEAD_UNIT == 0 and dim <= WIDEST_HEAD
        options = dict(num_heads=heads, scale_value=1.0 / math.sqrt(dim), next_tokens=FULL)
        self.together = PromptFlashAttention(input_layout="BNSD", **options)
        self.one_head = PromptFlashAttention(input_layout="BSH", **options)
        self.scale = 1.0 / math.sqrt(dim)
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)

    def construct(self, q, k, v, bias=None):
        q, k, v = self.taken(q), self.taken(k), self.taken(v)
        if bias is None and self.fits and self.precision == mindspore.float16:
            if q.ndim == 3:
                return self.one_head(q, k, v, None, None, None, None, None, None, None, None, None)
            return self.together(q, k, v, None, None, None, None, None, None, None, None, None)
        scores = self.scores(q * ops.cast(self.scale, self.precision), k)
        if bias is not None:
            scores = scores + bias
        return self.mix(self.taken(self.softmax(scores)), v)


class SplitHeads(nn.Cell):
    """(batch, tokens, heads * dim) -> (batch, heads, tokens, dim)."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def construct(self, x):
        batch, tokens, width = x.shape
        return ops.transpose(ops.reshape(x, (batch, tokens, self.heads, width // self.heads)), (0, 2, 1, 3))


class MergedHeads(nn.Cell):
    """The way back."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def construct(self, x):
        batch, heads, tokens, dim = x.shape
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, tokens, heads * dim))


class StoredHeads(nn.Cell):
    """(batch, heads * tokens * dim), or (batch * heads, tokens * dim), of heads by heads -> (batch, heads, tokens, dim)."""

    def __init__(self, heads, dim):
        super().__init__()
        self.heads, self.dim = heads, dim

    def construct(self, x, batch):
        return ops.reshape(x, (batch, self.heads, -1, self.dim))


class JoinedTokens(nn.Cell):
    """Heads, the tokens of the second behind those of the first."""

    def construct(self, x, y):
        x = x if x.dtype == y.dtype else ops.cast(x, y.dtype)
        return ops.concat((x, y), 2)


class HeadMask(nn.Cell):
    """(batch, 1, queries, tokens) to add to the scores: it broadcasts over heads."""

    def __init__(self, heads):
        super().__init__()

    def construct(self, mask):
        return mask


class Float32Outputs(nn.Cell):
    """A cell whose outputs are float32 whatever its layers make; its parameters keep their names."""

    def __init__(self, cell):
        super().__init__(auto_prefix=False)
        self.cell = cell

    def construct(self, *inputs):
        results = self.cell(*inputs)
        if not isinstance(results, tuple):
            return self.widened(results)
        widened = ()
        for result in results:
            widened += (self.widened(result),)
        return widened

    def widened(self, x):
        return x if x.dtype == mindspore.float32 else ops.cast(x, mindspore.float32)
