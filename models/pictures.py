"""Pictures inside the cells, (batch, height, width, channels): their axes, their borders, and bands of their rows.

A large picture is a tuple of bands, from top to bottom; a small one a tuple of one. One band after another passes
through a norm's factors, an activation and a convolution, so that nothing between those is as large as the picture.
"""

from mindspore import nn, ops

BAND = 2**26  # bytes: a larger band is cut


def at_once(count, size, most):
    """How many of `count` things of `size` bytes to work on at once: all, or even shares of about `most` bytes."""
    shares = (count * size + most - 1) // most
    return max((count + shares - 1) // shares, 1)


def part(x, begin, size):
    """Where `begin` and `size` say so along the first axes, and all of the others."""
    rest = x.shape[len(size) :]
    return x if size + rest == x.shape else ops.slice(x, begin + (0,) * len(rest), size + rest)


def joined(parts, axis):
    return parts[0] if len(parts) == 1 else ops.concat(parts, axis)


def cut(bands, row_bytes, unit):
    """The same picture in bands of whole units of rows, cut to about BAND bytes where a row makes `row_bytes`."""
    result = ()
    for band in bands:
        batch, height = band.shape[:2]
        rows = unit * at_once(height // unit, unit * row_bytes, BAND)
        for start in range(0, height, rows):
            result += (part(band, (0, start), (batch, min(rows, height - start))),)
    return result


def height_of(bands):
    height = 0
    for band in bands:
        height += band.shape[1]
    return height


def between_rows(x, above, below):
    return ops.concat((above, x, below), 1)


def between_zeros(x, zero):
    """A picture with a row of `zero`, a constant, above and below: of finite pixels, to store none."""
    row = part(x, (0, 0), (x.shape[0], 1)) * zero
    return between_rows(x, row, row)


def with_columns(x, zero, right=1):
    """A picture with one column of `zero` at the left, and some at the right."""
    column = part(x, (0, 0, 0), (x.shape[0], x.shape[1], 1)) * zero
    return ops.concat((column, x) + (column,) * right, 2)


class Conv3x3(nn.Cell):
    """A 3x3 convolution, padding 1, that takes a picture whole or in bands.

    A cell's ``between`` makes what it says of a band's rows but the first and the last, which are its neighbors';
    ``zero`` is its constant.
    """

    def over(self, bands):
        """The convolution of a picture in bands, in as many."""
        if len(bands) == 1:
            return (self.construct(bands[0]),)
        edge = (bands[0].shape[0], 1)
        outside = part(bands[0], (0, 0), edge) * self.zero
        above, below, result = (outside,), (), ()
        for band in bands:
            above += (part(band, (0, band.shape[1] - 1), edge),)
            below += (part(band, (0, 0), edge),)
        below += (outside,)
        for index in range(len(bands)):
            result += (self.between(between_rows(bands[index], above[index], below[index + 1])),)
        return result


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
