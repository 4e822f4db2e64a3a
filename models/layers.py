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


FEW = 16  # channels: a product over the shifted copies of so narrow a picture costs less than Lite's convolution


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


class Conv2d(nn.Cell):
    """2-D convolution of a picture (batch, height, width, channels); weight is (out_channels, in_channels, kernel, kernel).

    `padding` is one number, or (top, bottom, left, right).

    A 1x1 convolution is a matrix product. So is a 3x3 one where pixels are fewer than channels, or channels are few, over
    shifted copies of the picture: Lite keeps one copy of a product's matrix, and 1.8 (at 8x8) to 4.1 (at 16x16) of a
    convolution's filters for Winograd's algorithm, which gains nothing there: 1536 channels at 8x8 take 0.6 of the time
    as a product. Where the result has few channels, it is what is shifted. Lite's converter folds the reordering of the
    weight.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.pointwise = (kernel_size, stride, padding) == (1, 1, 0)
        self.same = (kernel_size, stride, padding) == (3, 1, 1)
        self.weight = parameter(out_channels, in_channels, kernel_size, kernel_size)
        self.bias = parameter(out_channels) if bias else None
        self.conv = ops.Conv2D(out_channels, kernel_size, pad_mode="pad", pad=padding, stride=stride)
        self.matmul = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()
        self.zero = constant(0.0)

    def shifted(self, x):
        """The pixels that each pixel's 3x3 kernel sees, a row a pixel."""
        batch, height, width, channels = x.shape
        x = bordered(x, self.zero)
        seen = ()
        for row in range(3):
            for column in range(3):
                seen += (ops.slice(x, (0, row, column, 0), (batch, height, width, channels)),)
        return ops.reshape(ops.concat(seen, 3), (batch * height * width, 9 * channels))

    def summed(self, x):
        """A 3x3 convolution to few channels, a row a pixel: all products of each pixel, then the sum of shifted copies."""
        batch, height, width, channels = x.shape
        weight = ops.reshape(ops.transpose(self.weight, (2, 3, 0, 1)), (9 * self.out_channels, channels))
        products = self.matmul(ops.reshape(x, (-1, channels)), weight)
        products = bordered(ops.reshape(products, (batch, height, width, 9 * self.out_channels)), self.zero)
        size, total = (batch, height, width, self.out_channels), None
        for place in range(9):
            shifted = ops.slice(products, (0, place // 3, place % 3, place * self.out_channels), size)
            total = shifted if total is None else total + shifted
        return ops.reshape(total, (-1, self.out_channels))

    def construct(self, x):
        batch, height, width, channels = x.shape
        narrows = self.same and 9 * self.out_channels < channels
        if not (narrows or self.pointwise or self.same and (height * width < channels or channels < FEW)):
            y = self.conv(to_channels_first(x), self.weight)
            return to_channels_last(y if self.bias is None else self.bias_add(y, self.bias))
        if narrows:
            y = self.summed(x)
        else:
            rows = ops.reshape(x, (-1, channels)) if self.pointwise else self.shifted(x)
            y = self.matmul(rows, ops.reshape(ops.transpose(self.weight, (0, 2, 3, 1)), (self.out_channels, -1)))
        y = y if self.bias is None else self.bias_add(y, self.bias)
        return ops.reshape(y, (batch, height, width, self.out_channels))


def bordered(x, zero, bottom=1, right=1):
    """A picture with a border of `zero`, a constant: one pixel wide, or more at the bottom and the right.

    Finite pixels make it, to store no border.
    """
    batch, height, width, channels = x.shape
    column = ops.slice(x, (0, 0, 0, 0), (batch, height, 1, channels)) * zero
    x = ops.concat((column, x) + (column,) * right, 2)
    row = ops.slice(x, (0, 0, 0, 0), (batch, 1, 1 + width + right, channels)) * zero
    return ops.concat((row, x) + (row,) * bottom, 1)


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

    def affine(self, x):
        """(scale, shift), each (batch, 1, 1, channels), so that the norm of x is ``x * scale + shift``."""
        batch, _, _, channels = x.shape
        mean = self.mean(self.mean(x, 2), 1)
        deviation = x - mean
        variance = self.mean(self.mean(deviation * deviation, 2), 1)
        grouped = (batch,) + self.shape[1:]
        mean, variance = ops.reshape(mean, grouped), ops.reshape(variance, grouped)
        group_mean = self.mean(mean, -1)
        offset = mean - group_mean
        group_variance = self.mean(variance + offset * offset, -1)
        scale = ops.reshape(self.weight, self.shape) / ops.sqrt(group_variance + self.eps)
        shift = ops.reshape(self.bias, self.shape) - group_mean * scale
        return ops.reshape(scale, (batch, 1, 1, channels)), ops.reshape(shift, (batch, 1, 1, channels))

    def construct(self, x):
        scale, shift = self.affine(x)
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
    """softmax(q k^T / sqrt(dim) + bias) v over (batch * heads, tokens, dim); `bias` is added to the scores."""

    def __init__(self, dim):
        super().__init__()
        self.scale = constant(1.0 / math.sqrt(dim))
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)

    def construct(self, q, k, v, bias=None):
        scores = self.scores(q * self.scale, k)
        if bias is not None:
            scores = scores + bias
        return self.mix(self.softmax(scores), v)


def to_channels_last(x):
    """(batch, channels, height, width) -> (batch, height, width, channels), as pictures are inside the cells.

    Beside a convolution, Lite's own transpose (it convolves with channels last) and this one cancel.
    """
    return ops.transpose(x, (0, 2, 3, 1))


def to_channels_first(x):
    """(batch, height, width, channels) -> (batch, channels, height, width), as graphs take and give pictures."""
    return ops.transpose(x, (0, 3, 1, 2))


def to_tokens(x):
    """(batch, height, width, channels) -> (batch, height * width, channels)."""
    batch, height, width, channels = x.shape
    return ops.reshape(x, (batch, height * width, channels))


def upsample_nearest(x, factor):
    """Repeat every pixel of (batch, height, width, channels) `factor` times along height and width; exact.

    Concatenates whole pixels, then whole rows: a quarter of what broadcasting costs on Lite.
    """
    batch, height, width, channels = x.shape
    pixels = ops.reshape(x, (batch * height * width, channels))
    rows = ops.reshape(ops.concat((pixels,) * factor, 1), (batch * height, width * factor * channels))
    return ops.reshape(ops.concat((rows,) * factor, 1), (batch, height * factor, width * factor, channels))
