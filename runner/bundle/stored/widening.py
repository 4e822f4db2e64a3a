"""Stored values as float32: what engine/native/widening.h does where a model is loaded, in NumPy."""

from __future__ import annotations

import numpy as np
from msgspec import UNSET

from ..tensor_index import GROUP, ITEM_BYTES, SCALE_BYTES, TAPS, StoredTensor


def widened(tensor: StoredTensor, data: np.ndarray, first: int = 0, last: int | None = None) -> np.ndarray:
    """Elements `first` to `last` of a tensor in C order, as a flat float32 array. data: the bytes of its file.

    Widening is exact. Sums of a kernel's nine values are made in float64, in their order, and rounded once. Where values and
    factors are float16's and those of Winograd's transform, these sums are exact, too.
    """
    count = int(np.prod(tensor.shape))
    last = count if last is None else last
    if tensor.taps is UNSET:
        return _values(tensor, data, first, last)
    plane = tensor.shape[1] * tensor.shape[2]
    parts = [np.empty(0, np.float32)]
    for row, factors in enumerate(tensor.taps):
        start, stop = max(first, row * plane) - row * plane, min(last, (row + 1) * plane) - row * plane
        if start < stop:
            total = np.zeros(stop - start)
            for tap in range(TAPS):
                if factors[tap]:
                    total += factors[tap] * _values(tensor, data, tap * plane + start, tap * plane + stop).astype(np.float64)
            parts.append(total.astype(np.float32))
    return np.concatenate(parts)


def _values(tensor: StoredTensor, data: np.ndarray, first: int, last: int) -> np.ndarray:
    """Stored values `first` to `last` as float32."""
    size = ITEM_BYTES[tensor.dtype]
    content = data[tensor.offset + first * size : tensor.offset + last * size]
    if tensor.dtype == "float32":
        return content.view("<f4")
    if tensor.dtype == "float16":
        return content.view("<f2").astype(np.float32)
    if tensor.dtype == "bfloat16":
        return (content.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return content.view(np.int8) * _scales(tensor, data, first, last)


def _scales(tensor: StoredTensor, data: np.ndarray, first: int, last: int) -> np.ndarray:
    """The scale of each of these values."""
    assert tensor.scales is not UNSET  # StoredTensor.plausible
    values = tensor.rows[1]
    groups = tensor.scale_shape[1]
    start, stop = first // max(values, 1), -(-last // max(values, 1))  # rows
    place = tensor.scales + SCALE_BYTES * groups * start
    scales = data[place : place + SCALE_BYTES * groups * (stop - start)].view("<f2").astype(np.float32)
    each = np.repeat(scales.reshape(-1, groups), GROUP, axis=1)[:, :values].reshape(-1)
    return each[first - start * values : last - start * values]
