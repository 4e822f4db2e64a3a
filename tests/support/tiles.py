"""3x3 convolutions as Winograd's algorithm sums them, in float64."""

import numpy as np

# What is combined of an axis of a tile's pixels, and of the products: models/winograd.py.
BEFORE = {4: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], 3: [[1, -1, 0], [0, 1, 0], [0, 1, -1]]}
AFTER = {4: [[1, 1, 1, 0], [0, 1, -1, -1]], 3: [[1, 1, 0], [0, 1, -1]]}


def by_tiles(x, weights, taps, round_off, border=(1, 1)):
    """(The convolution in float64 after `round_off` of both factors of each product, the sum of the sizes of its terms).

    border: pixels of zeros around the picture, above and below, on the left and right.
    """
    before, after = np.array(BEFORE[taps], np.float64), np.array(AFTER[taps], np.float64)
    batch, height, width, channels = x.shape
    step = taps - 2
    lines, places = height + 2 * border[0] - 2, width + 2 * border[1] - 2  # that a convolution of the picture has
    rows, columns = -(-lines // step), -(-places // step)
    padded = np.zeros((batch, step * rows + 2, step * columns + 2, channels))
    padded[:, border[0] : border[0] + height, border[1] : border[1] + width] = x
    tiles = np.stack([[padded[:, i : i + step * rows : step, j : j + step * columns : step] for j in range(taps)] for i in range(taps)])
    kernel = np.stack([weights[f"{'plain' if taps == 4 else 'doubled'}_{column}"] for column in range(taps)], 1)
    left, right = round_off(np.einsum("ia,jb,abnrcx->ijnrcx", before, before, tiles)), round_off(kernel)

    def joined(values, after):
        products = np.einsum("ijnrcx,ijyx->ijnrcy", *values)
        pixels = np.einsum("pi,qj,ijnrcy->nrpcqy", after, after, products)
        return pixels.reshape(batch, 2 * rows, 2 * columns, -1)[:, : lines * 2 // step, : places * 2 // step]

    return joined((left, right), after) + weights["bias"], joined((np.abs(left), np.abs(right)), np.abs(after)) + np.abs(weights["bias"])
