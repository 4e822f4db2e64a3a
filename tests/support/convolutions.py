"""Convolutions that graphs have as one node, and what they make of a picture in float64."""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops


def convolved(picture, weight, bias, stride, padding):
    """In float64."""
    top, bottom, left, right = padding
    padded = np.pad(picture.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[1:3], (1, 2))[:, ::stride, ::stride]
    result = np.tensordot(seen, weight.astype(np.float64), ([3, 4, 5], [3, 1, 2]))
    return result if bias is None else result + bias


class Convolution(nn.Cell):
    """Of a picture, channels last, with weights (out, kernel, kernel, in)."""

    def __init__(self, weight, bias, stride, padding):
        super().__init__()
        self.weight = Parameter(Tensor(weight))
        self.bias = None if bias is None else Parameter(Tensor(bias))
        self.conv = ops.Conv2D(len(weight), weight.shape[1], pad_mode="pad", pad=padding, stride=stride)
        self.add = ops.BiasAdd()

    def construct(self, x):
        y = self.conv(ops.transpose(x, (0, 3, 1, 2)), ops.transpose(self.weight, (0, 3, 1, 2)))
        if self.bias is not None:
            y = self.add(y, self.bias)
        return ops.transpose(y, (0, 2, 3, 1))
