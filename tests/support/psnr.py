"""How near two pictures are, the bound for whole pipelines, and a picture to mix with."""

import numpy as np
from PIL import Image

# Float32 in another order of operations gives 100 dB and more against float64 in such pipelines; Lite's convolution
# algorithms (Winograd) lose up to three more digits. 70 dB is a root mean square error of a twelfth of an 8-bit level.
LEAST_PSNR = 70


def psnr(picture, expected):
    """Peak signal-to-noise ratio in dB of pictures in [0, 1]."""
    error = np.mean((np.asarray(picture, np.float64) - np.asarray(expected, np.float64)) ** 2)
    return np.inf if error == 0 else -10 * np.log10(error)


def picture(side=40):
    """A picture with edges, gradients and colors."""
    y, x = np.mgrid[:side, : side + 9]
    pixels = np.stack([x * 5 % 256, y * 6 % 256, 255 * ((x - y) % 11 > 5)], -1)
    return Image.fromarray(pixels.astype(np.uint8))
