"""torch's CPU random numbers in NumPy, equal to the last bit.

`TorchGenerator(seed).standard_normal(size)` is `torch.randn(size, generator=torch.Generator().manual_seed(seed))` in
float32, draw after draw, on x86-64 with AVX2 (torch on a processor without it, an Arm one among them, uses the C
library's logarithm and sine instead, and differs from itself on x86-64 in the last bits).

Sources, all in PyTorch 2.13 under aten/src/ATen: core/MT19937RNGEngine.h (the words), core/TransformationHelper.h
(words to uniforms), native/cpu/DistributionTemplates.h `normal_fill` and core/DistributionsHelper.h
`normal_distribution` (which uniforms make which normal), native/cpu/avx_mathfun.h (logarithm, sine and cosine after
Moshier's Cephes and Pommier's sse_mathfun). The compiler fuses some of the multiplications and additions written
there; which ones was found by trying all ways against torch.
"""

import math
import operator

import numpy as np

from ..common.errors import UserError

BLOCK = 16  # normals that torch makes together: 8 cosine branches, then their 8 sine branches
CHUNK = 4096  # blocks transformed at once, so that the temporaries stay in the cache

# Cephes logf.c: log(1 + x) = x - x^2/2 + x^3 * polynomial, for sqrt(1/2) <= 1 + x < sqrt(2).
_LOG = np.array([7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
                 -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1], np.float32)
_SQRT_HALF = np.float32(0.70710678118654752)
_LN2_HIGH, _LN2_LOW = np.array([0.693359375, -2.12194440e-4], np.float32)  # their sum is log(2)
# Cephes sinf.c: polynomials in x^2 for |x| <= pi/4, and pi/4 in three parts of few bits each.
_SIN = np.array([-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1], np.float32)
_COS = np.array([2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2], np.float32)
_QUARTER_PI = np.array([0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8], np.float32)
_FOUR_OVER_PI = np.float32(4 / math.pi)
_TWO_PI = np.float32(2 * math.pi)
_HALF = np.float32(0.5)


class TorchGenerator:
    """`torch.Generator().manual_seed(seed)` for normal numbers; `seed` as torch takes it, from -2**63 to 2**64 - 1."""

    def __init__(self, seed: int):
        try:
            seed = operator.index(seed)
        except TypeError:
            raise UserError(f"seed must be an integer, not {seed!r}") from None
        if not -2**63 <= seed < 2**64:
            raise UserError(f"seed must be from -2**63 to 2**64 - 1, not {seed}")
        self.initial_seed = seed % 2**64
        # NumPy's legacy seeding is the original init_genrand, as torch's; both see only the low 32 bits.
        self._words = np.random.RandomState(seed % 2**32)
        self._spare: float | None = None  # the sine branch that a draw of an odd number below BLOCK left over

    def __repr__(self) -> str:
        return f"TorchGenerator({self.initial_seed})"

    def standard_normal(self, size=()) -> np.ndarray:
        """`torch.randn(size)`: float32 of shape `size` (an int or a sequence of ints)."""
        shape = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
        count = math.prod(shape)
        values = self._filled(count) if count >= BLOCK else self._single(count)
        return values.reshape(shape)

    def _filled(self, count: int) -> np.ndarray:
        """`normal_fill`: blocks of 16; where they do not come out even, the last 16 are drawn anew."""
        uniforms = self._uniforms(count)
        whole = count - count % BLOCK
        values = np.empty(count, np.float32)
        values[:whole] = _box_muller(uniforms[:whole])
        if whole < count:
            values[-BLOCK:] = _box_muller(self._uniforms(BLOCK))
        return values

    def _single(self, count: int) -> np.ndarray:
        """`normal_distribution<double>`: one by one, keeping the second of each pair for the next call."""
        values = np.empty(count, np.float32)
        for i in range(count):
            if self._spare is not None:
                values[i], self._spare = self._spare, None
                continue
            theta = 2.0 * math.pi * self._uniform_double()
            radius = math.sqrt(-2.0 * math.log1p(-self._uniform_double()))
            values[i], self._spare = radius * math.cos(theta), radius * math.sin(theta)
        return values

    def _uint32(self, count: int) -> np.ndarray:
        return self._words.randint(0, 2**32, count, np.uint32)  # the full range: the words as they come

    def _uniforms(self, count: int) -> np.ndarray:
        """Float32 in [0, 1) from the low 24 bits of a word."""
        return (self._uint32(count) & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2.0**-24)

    def _uniform_double(self) -> float:
        """Float64 in [0, 1) from the low 53 bits of two words, the first one on top."""
        high, low = self._uint32(2).tolist()
        return (((high << 32) | low) & (2**53 - 1)) * 2.0**-53


def _box_muller(uniforms: np.ndarray) -> np.ndarray:
    """Blocks of 16 uniforms to blocks of 16 normals: Box and Muller (1958), cosines first."""
    blocks = uniforms.reshape(-1, 2, BLOCK // 2)
    normals = np.empty_like(blocks)
    for start in range(0, len(blocks), CHUNK):
        first, second = blocks[start:start + CHUNK, 0], blocks[start:start + CHUNK, 1]
        radius = np.sqrt(np.float32(-2) * _log(np.float32(1) - first))
        sine, cosine = _sin_cos(_TWO_PI * second)
        normals[start:start + CHUNK, 0] = radius * cosine
        normals[start:start + CHUNK, 1] = radius * sine
    return normals.reshape(-1) + np.float32(0)  # torch ends with `* std + mean`, which turns -0.0 into 0.0


def _fma(a, b, c) -> np.ndarray:
    """Fused multiply-add of float32 by way of float64: the product is exact there.

    The sum is rounded twice, which can differ from one rounding. It does not for any argument that occurs here: all
    2**24 uniforms were run through both functions below against the processor's own instruction.
    """
    return (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)


def _log(x: np.ndarray) -> np.ndarray:
    """avx_mathfun.h `log256_ps`, for normal float32 in (0, 1]."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < _SQRT_HALF
    exponent = (exponent - low).astype(np.float32)
    x = np.where(low, mantissa - np.float32(1) + mantissa, mantissa - np.float32(1))
    square = x * x
    y = _LOG[0]
    for coefficient in _LOG[1:]:
        y = _fma(y, x, coefficient)
    y = _fma(y * x, square, exponent * _LN2_LOW) - square * _HALF
    return (x + y) + exponent * _LN2_HIGH


def _sin_cos(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """avx_mathfun.h `sincos256_ps`, for float32 >= 0."""
    octant = ((x * _FOUR_OVER_PI).astype(np.int32) + 1) & ~1
    y = octant.astype(np.float32)
    for part in _QUARTER_PI:
        x = _fma(y, -part, x)
    square = x * x
    sine = _fma(_fma(_SIN[0], square, _SIN[1]), square, _SIN[2])
    sine = _fma(sine * square, x, x)
    cosine = _fma(_fma(_COS[0], square, _COS[1]), square, _COS[2])
    cosine = _fma(cosine * square, square, -(square * _HALF)) + np.float32(1)
    swapped = octant & 2 != 0
    sine, cosine = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return np.where(octant & 4 != 0, -sine, sine), np.where((octant + 2) & 4 != 0, -cosine, cosine)
