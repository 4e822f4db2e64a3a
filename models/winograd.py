"""3x3 convolutions with fewer multiplications (Lavin and Gray 2015, arXiv 1509.09308).

Pictures are (batch, height, width, channels).
Lite's own convolutions do this too, yet with a slower matrix product and two to four copies of the weights. Composed of
batched products, a convolution of 768 channels at 32x32 takes 0.6 of the time of Lite's, and 0.9 with 384 at 64x64.
Weights are transformed once, at export (`filters`), in float64; what remains is rounding, about twice that of a plain sum.

Both cells see an axis of the picture as short stretches of two pixels of the result. With B the combinations of the
input's pixels, G those of the kernel's and A those of the products, a result is A[(B x) (G w)] along both axes.
"""

import numpy as np
from mindspore import ops

from .layers import Conv2d, constant, parameter
from .pictures import Conv3x3, between_zeros, part, upsample_nearest, with_columns

FEWEST = 256  # channels: with fewer, the transforms cost more than they save

# Rows: what each product takes of the kernel's three values. F(2, 3), equation 7 of the paper.
PLAIN = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
# After doubling to the nearest, the four pixels under two neighbors of the result are a, b, b, c: the third product
# vanishes, and the second is 2 b times half the kernel's sum.
DOUBLED = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1]])


def taps(combinations, column):
    """What products that share a `column` of the transform take of a kernel's nine values: (rows of `combinations`, 9)."""
    return np.einsum("kr,c->krc", combinations, combinations[column]).reshape(len(combinations), 9)


def filters(combinations, column):
    """A function from a kernel (out, in, 3, 3) to the weights of products that share a `column` of the transform.

    The weights are (rows of `combinations`, out, in), float32.
    """
    exact = products(combinations, column)
    return lambda weight: exact(weight).astype(np.float32)


def products(combinations, column):
    """The same in float64."""
    kernels = taps(combinations, column)

    def combine(weight):
        values = weight.reshape(-1, 9).T.astype(np.float64)
        return (kernels @ values).reshape(-1, *weight.shape[:2])

    return combine


def shape_of_filters(combinations):
    """A function from a kernel's shape to that of what `filters` makes of it; another shape stays as it is."""
    return lambda shape: (len(combinations), *shape[:2]) if tuple(shape[2:]) == (3, 3) else shape


class WinogradConv2d(Conv3x3):
    """3x3 convolution, padding 1: 16 products for four pixels of the result, not 36."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.out_channels = out_channels
        self.plain_0, self.plain_1, self.plain_2, self.plain_3 = (
            parameter(4, out_channels, in_channels) for _ in range(4)
        )
        self.bias = parameter(out_channels)
        self.product = ops.BatchMatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()
        self.zero = constant(0.0)

    def construct(self, x):
        return self.between(between_zeros(x, self.zero))

    def between(self, x):
        batch, height, width, channels = x.shape
        height -= 2
        rows, columns = (height + 1) // 2, (width + 1) // 2  # of tiles; an odd side is computed one pixel longer
        x = with_columns(x, self.zero, 1 + 2 * columns - width)
        if 2 * rows != height:
            x = ops.concat((x, part(x, (0, 0), (batch, 1))), 1)
        pairs = ops.reshape(x, (batch, rows + 1, 2, (2 * columns + 2) * channels))
        x = ops.concat(self.combined(pairs), 0)
        pairs = ops.reshape(x, (4 * batch * rows, columns + 1, 2, channels))
        shape = (4, batch * rows * columns, channels)
        a, b, c, d = self.combined(pairs)
        a = self.product(ops.reshape(a, shape), self.plain_0)
        b = self.product(ops.reshape(b, shape), self.plain_1)
        c = self.product(ops.reshape(c, shape), self.plain_2)
        d = self.product(ops.reshape(d, shape), self.plain_3)
        x = ops.concat((a + (b + c), (b - c) - d), 2)
        x = ops.reshape(x, (4, batch * rows, 2 * columns * self.out_channels))
        size = (1, batch * rows, 2 * columns * self.out_channels)
        a, b = ops.slice(x, (0, 0, 0), size), ops.slice(x, (1, 0, 0), size)
        c, d = ops.slice(x, (2, 0, 0), size), ops.slice(x, (3, 0, 0), size)
        x = ops.concat((a + (b + c), (b - c) - d), 2)
        x = self.bias_add(ops.reshape(x, (-1, self.out_channels)), self.bias)
        x = ops.reshape(x, (batch, 2 * rows, 2 * columns, self.out_channels))
        if (2 * rows, 2 * columns) != (height, width):
            x = ops.slice(x, (0, 0, 0, 0), (batch, height, width, self.out_channels))
        return x

    def combined(self, pairs):
        """The four combinations along an axis cut into `pairs`: (n, tiles + 1, 2, rest) -> four (n, tiles, 1, rest)."""
        n, axis, _, rest = pairs.shape
        size = (n, axis - 1, 1, rest)
        a, b = ops.slice(pairs, (0, 0, 0, 0), size), ops.slice(pairs, (0, 0, 1, 0), size)
        c, d = ops.slice(pairs, (0, 1, 0, 0), size), ops.slice(pairs, (0, 1, 1, 0), size)
        return a - c, b + c, c - b, b - d


class DoubledConv2d(Conv3x3):
    """Nearest doubling, then a 3x3 convolution, padding 1: 9 products for four pixels of the result, not 36."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.out_channels = out_channels
        self.doubled_0, self.doubled_1, self.doubled_2 = (parameter(3, out_channels, in_channels) for _ in range(3))
        self.bias = parameter(out_channels)
        self.product = ops.BatchMatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()
        self.zero = constant(0.0)

    def construct(self, x):
        return self.between(between_zeros(x, self.zero))

    def between(self, x):
        batch, height, width, channels = x.shape
        height, x = height - 2, with_columns(x, self.zero)
        x = ops.concat(self.combined(ops.reshape(x, (batch, height + 2, (width + 2) * channels))), 0)
        shape = (3, batch * height * width, channels)
        a, b, c = self.combined(ops.reshape(x, (3 * batch * height, width + 2, channels)))
        a = self.product(ops.reshape(a, shape), self.doubled_0)
        b = self.product(ops.reshape(b, shape), self.doubled_1)
        c = self.product(ops.reshape(c, shape), self.doubled_2)
        x = ops.concat((a + b, b - c), 2)
        x = ops.reshape(x, (3, batch * height, 2 * width * self.out_channels))
        size = (1, batch * height, 2 * width * self.out_channels)
        a, b, c = ops.slice(x, (0, 0, 0), size), ops.slice(x, (1, 0, 0), size), ops.slice(x, (2, 0, 0), size)
        x = ops.concat((a + b, b - c), 2)
        x = self.bias_add(ops.reshape(x, (-1, self.out_channels)), self.bias)
        return ops.reshape(x, (batch, 2 * height, 2 * width, self.out_channels))

    def combined(self, x):
        """The three combinations along the middle axis, which has a border: each (n, axis - 2, rest)."""
        n, axis, rest = x.shape
        size = (n, axis - 1, rest)
        steps = ops.slice(x, (0, 0, 0), size) - ops.slice(x, (0, 1, 0), size)
        size = (n, axis - 2, rest)
        return ops.slice(steps, (0, 0, 0), size), ops.slice(x, (0, 1, 0), size), ops.slice(steps, (0, 1, 0), size)


class RepeatedConv2d(Conv2d):
    """Nearest doubling, then a 3x3 convolution, padding 1, as they stand."""

    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, 3, padding=1)

    def construct(self, x):
        return super().construct(upsample_nearest(x, 2))

    def over(self, bands):
        if len(bands) == 1:
            return (self.construct(bands[0]),)
        doubled = ()
        for band in bands:
            doubled += (upsample_nearest(band, 2),)
        return super().over(doubled)


def conv3x3(in_channels, out_channels, few_pixels=False):
    """The fastest cell for a 3x3 convolution, padding 1; its weights are one copy also for `few_pixels`."""
    if few_pixels or min(in_channels, out_channels) < FEWEST:
        return Conv2d(in_channels, out_channels, 3, padding=1)
    return WinogradConv2d(in_channels, out_channels)


def doubled_conv3x3(in_channels, out_channels):
    """The fastest cell for nearest doubling followed by a 3x3 convolution, padding 1."""
    return (RepeatedConv2d if min(in_channels, out_channels) < FEWEST else DoubledConv2d)(in_channels, out_channels)
