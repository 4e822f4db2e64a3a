"""Building blocks of all five parts, written with operators that MindSpore Lite executes correctly.

Lite 2.0 has no kernel for, or computes wrongly, several of MindSpore's own layers (LayerNorm returns wrong
numbers, GeLU is the tanh form, GroupNorm and SiLU have no kernel), so those are composed here from smaller
operators. Python numbers inside ``construct`` would become scalar constants, which Lite refuses: constants are
one-element tensors held by the cell.
"""

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Zero

from .pictures import Conv3x3, at_once, between_zeros, joined, part, to_channels_first, to_channels_last, with_columns

FEW = 16  # channels: a product over the shifted copies of so narrow a picture costs less than Lite's convolution
SCORES = 2**27  # bytes of an attention's scores at once; two such maps exist at a time


def parameter(*shape):
    """A float32 weight of `shape`. Graphs are compiled without weights: values come from the bundle's weight file."""
    return Parameter(Tensor(shape=shape, dtype=mstype.float32, init=Zero()))


def constant(value):
    """A one-element float32 tensor: the form of a number that Lite accepts as an operand."""
    return Tensor(np.array([value], np.float32))


class Linear(nn.Cell):
    """``x @ weight.T + bias`` over the last axis of a 2-D or 3-D tensor; weight is (out_features, in_features)."""

    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = parameter(out_features, in_features)
        self.bias = parameter(out_features) if bias else None
        self.matmul = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()

    def construct(self, x):
        rows = x if x.ndim == 2 else ops.reshape(x, (-1, self.in_features))
        y = self.matmul(rows, self.weight)
        if self.bias is not None:
            y = self.bias_add(y, self.bias)
        return y if x.ndim == 2 else ops.reshape(y, x.shape[:-1] + (self.out_features,))


class Conv2d(Conv3x3):
    """2-D convolution of a picture (batch, height, width, channels); weight is (out_channels, kernel, kernel, in_channels).

    `padding` is one number, or (top, bottom, left, right).

    A 1x1 convolution is a matrix product. So is a 3x3 one where pixels are fewer than channels, or channels are few, over
    shifted copies of the picture: Lite keeps one copy of a product's matrix, and 1.8 (at 8x8) to 4.1 (at 16x16) of a
    convolution's filters for Winograd's algorithm, which gains nothing there: 1536 channels at 8x8 take 0.6 of the time
    as a product. Where the result has few channels, it is what is shifted. Lite's kernels, too, take a weight with its
    channels last: its converter takes away the reordering that MindSpore's operator asks for.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.pointwise = (kernel_size, stride, padding) == (1, 1, 0)
        self.same = (kernel_size, stride, padding) == (3, 1, 1)
        self.narrows = self.same and 9 * out_channels < in_channels
        self.weight = parameter(out_channels, kernel_size, kernel_size, in_channels)
        self.bias = parameter(out_channels) if bias else None
        self.conv = ops.Conv2D(out_channels, kernel_size, pad_mode="pad", pad=padding, stride=stride)
        self.conv_between = ops.Conv2D(out_channels, kernel_size, pad_mode="pad", pad=(0, 0, 1, 1), stride=stride)
        self.matmul = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()
        self.zero = constant(0.0)

    def construct(self, x):
        batch, height, width, channels = x.shape
        if self.pointwise:
            y = self.product(ops.reshape(x, (-1, channels)))
            return ops.reshape(y, (batch, height, width, self.out_channels))
        if self.narrows or (self.same and (height * width < channels or channels < FEW)):
            return self.between(between_zeros(x, self.zero))
        return self.convolved(x, self.conv)

    def between(self, x):
        batch, height, width, channels = x.shape
        if self.narrows:
            y = self.summed(x)
        elif (height - 2) * width < channels or channels < FEW:
            y = self.product(self.shifted(x))
        else:
            return self.convolved(x, self.conv_between)
        return ops.reshape(y, (batch, height - 2, width, self.out_channels))

    def convolved(self, x, conv):
        y = conv(to_channels_first(x), to_channels_first(self.weight))
        return to_channels_last(y if self.bias is None else self.bias_add(y, self.bias))

    def product(self, rows):
        """Of all that each pixel sees, a row a pixel, with the kernel."""
        y = self.matmul(rows, ops.reshape(self.weight, (self.out_channels, -1)))
        return y if self.bias is None else self.bias_add(y, self.bias)

    def shifted(self, x):
        """The pixels that each pixel's 3x3 kernel sees, a row a pixel."""
        batch, height, width, channels = x.shape
        x, seen = with_columns(x, self.zero), ()
        for row in range(3):
            for column in range(3):
                seen += (ops.slice(x, (0, row, column, 0), (batch, height - 2, width, channels)),)
        return ops.reshape(ops.concat(seen, 3), (batch * (height - 2) * width, 9 * channels))

    def summed(self, x):
        """A 3x3 convolution to few channels, a row a pixel: all products of each pixel, then the sum of shifted copies."""
        batch, height, width, channels = x.shape
        weight = ops.reshape(ops.transpose(self.weight, (1, 2, 0, 3)), (9 * self.out_channels, channels))
        products = self.matmul(ops.reshape(x, (-1, channels)), weight)
        products = with_columns(ops.reshape(products, (batch, height, width, 9 * self.out_channels)), self.zero)
        size, total = (batch, height - 2, width, self.out_channels), None
        for place in range(9):
            shifted = ops.slice(products, (0, place // 3, place % 3, place * self.out_channels), size)
            total = shifted if total is None else total + shifted
        y = ops.reshape(total, (-1, self.out_channels))
        return y if self.bias is None else self.bias_add(y, self.bias)


class LayerNorm(nn.Cell):
    """Layer norm over the last axis, composed (the LayerNorm primitive gives wrong numbers on Lite 2.0)."""

    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight, self.bias = parameter(width), parameter(width)
        self.eps = constant(eps)
        self.mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x):
        x = x - self.mean(x, -1)
        variance = self.mean(x * x, -1)
        return x / ops.sqrt(variance + self.eps) * self.weight + self.bias


class GroupNorm(nn.Cell):
    """Group norm over (batch, height, width, channels), composed (no GroupNorm kernel on Lite 2.0).

    Moments are taken per channel and joined per group on tiny tensors (Chan, Golub and LeVeque 1983, equation 2.1), so
    that the picture itself sees one multiply-add. The variance is the mean of squared deviations: E[x^2] - E[x]^2
    would lose (mean / deviation)^2 times the rounding error, digits that a channel far from zero does not have.
    """

    def __init__(self, num_groups, num_channels, eps=1e-5):
        super().__init__()
        self.shape = (1, num_groups, num_channels // num_groups)
        self.weight, self.bias = parameter(num_channels), parameter(num_channels)
        self.eps = constant(eps)
        self.mean = ops.ReduceMean(keep_dims=True)

    def affine(self, bands):
        """(scale, shift), each (batch, 1, 1, channels), so that the norm of a picture x in bands is ``x * scale + shift``."""
        batch, _, _, channels = bands[0].shape
        rows = ()
        for band in bands:
            rows += (self.mean(band, 2),)
        mean, rows = self.mean(joined(rows, 1), 1), ()
        for band in bands:
            deviation = band - mean
            rows += (self.mean(deviation * deviation, 2),)
        variance = self.mean(joined(rows, 1), 1)
        grouped = (batch,) + self.shape[1:]
        mean, variance = ops.reshape(mean, grouped), ops.reshape(variance, grouped)
        group_mean = self.mean(mean, -1)
        offset = mean - group_mean
        group_variance = self.mean(variance + offset * offset, -1)
        scale = ops.reshape(self.weight, self.shape) / ops.sqrt(group_variance + self.eps)
        shift = ops.reshape(self.bias, self.shape) - group_mean * scale
        return ops.reshape(scale, (batch, 1, 1, channels)), ops.reshape(shift, (batch, 1, 1, channels))

    def construct(self, x):
        scale, shift = self.affine((x,))
        return x * scale + shift


class SiLU(nn.Cell):
    """x * sigmoid(x)."""

    def construct(self, x):
        return x * ops.sigmoid(x)


class GELU(nn.Cell):
    """Exact GELU, from Erf (Lite's GeLU primitive is the tanh form, 2e-4 off)."""

    def __init__(self):
        super().__init__()
        self.half, self.one, self.rsqrt2 = constant(0.5), constant(1.0), constant(math.sqrt(0.5))

    def construct(self, x):
        return x * self.half * (ops.erf(x * self.rsqrt2) + self.one)


class QuickGELU(nn.Cell):
    """x * sigmoid(1.702 x), the activation of OpenAI's CLIP."""

    def __init__(self):
        super().__init__()
        self.slope = constant(1.702)

    def construct(self, x):
        return x * ops.sigmoid(x * self.slope)


ACTIVATIONS = {"silu": SiLU, "swish": SiLU, "gelu": GELU, "quick_gelu": QuickGELU}


def split_heads(x, heads):
    """(batch, tokens, heads * dim) -> (batch * heads, tokens, dim)."""
    batch, tokens, width = x.shape
    x = ops.transpose(ops.reshape(x, (batch, tokens, heads, width // heads)), (0, 2, 1, 3))
    return ops.reshape(x, (batch * heads, tokens, width // heads))


def merge_heads(x, heads):
    """(batch * heads, tokens, dim) -> (batch, tokens, heads * dim)."""
    rows, tokens, dim = x.shape
    x = ops.transpose(ops.reshape(x, (rows // heads, heads, tokens, dim)), (0, 2, 1, 3))
    return ops.reshape(x, (rows // heads, tokens, heads * dim))


class Attention(nn.Cell):
    """softmax(q k^T / sqrt(dim) + bias) v over (batch * heads, tokens, dim); `bias` is added to the scores.

    Without one, a large picture's heads come some after others, and where one has too many scores, its queries do.
    """

    def __init__(self, dim, heads=1):
        """heads: of those that one operator for all of it needs to know; here they are rows."""
        super().__init__()
        self.scale = constant(1.0 / math.sqrt(dim))
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)

    def construct(self, q, k, v, bias=None):
        q = q * self.scale
        if bias is not None:
            return self.mix(self.softmax(self.scores(q, k) + bias), v)
        heads, tokens = q.shape[:2]
        seen, result = k.shape[1], ()
        some_heads, some_tokens = at_once(heads, 4 * tokens * seen, SCORES), at_once(tokens, 4 * seen, SCORES)
        for head in range(0, heads, some_heads):
            count, rows = min(some_heads, heads - head), ()
            keys, values = part(k, (head, 0), (count, seen)), part(v, (head, 0), (count, seen))
            for token in range(0, tokens, some_tokens):
                queries = part(q, (head, token), (count, min(some_tokens, tokens - token)))
                rows += (self.mix(self.softmax(self.scores(queries, keys)), values),)
            result += (joined(rows, 1),)
        return joined(result, 0)
