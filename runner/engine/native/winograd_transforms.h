// What Winograd's convolution does before and after its products, for 16 channels at a time (Lavin and Gray 2015, arXiv
// 1509.09308, equation 7; models/winograd.py). The loops over a tile are unrolled: else it lies in memory, not in registers,
// which takes two to three times as long.

#ifndef KANDINSKY_MINDIR_WINOGRAD_TRANSFORMS_H
#define KANDINSKY_MINDIR_WINOGRAD_TRANSFORMS_H

#include <cstddef>
#include <cstdint>

#include "vectors.h"

#ifdef KANDINSKY_VECTORS

namespace winograd {

// Two results along an axis, of `Taps` products. 4: of neighbors; 3: of a picture doubled to the nearest.
template <int Taps>
KANDINSKY_AVX512 inline void Combine(const __m512 *in, std::size_t step, __m512 *out) {
  const __m512 first = in[0], second = in[step], third = in[2 * step];
  if constexpr (Taps == 4) {
    const __m512 fourth = in[3 * step];
    out[0] = _mm512_sub_ps(first, third);
    out[step] = _mm512_add_ps(second, third);
    out[2 * step] = _mm512_sub_ps(third, second);
    out[3 * step] = _mm512_sub_ps(second, fourth);
  } else {
    out[0] = _mm512_sub_ps(first, second);
    out[step] = second;
    out[2 * step] = _mm512_sub_ps(second, third);
  }
}

template <int Taps>
KANDINSKY_AVX512 inline void Join(const __m512 *in, std::size_t step, __m512 *first, __m512 *second) {
  if constexpr (Taps == 4) {
    *first = _mm512_add_ps(in[0], _mm512_add_ps(in[step], in[2 * step]));
    *second = _mm512_sub_ps(_mm512_sub_ps(in[step], in[2 * step]), in[3 * step]);
  } else {
    *first = _mm512_add_ps(in[0], in[step]);
    *second = _mm512_sub_ps(in[step], in[2 * step]);
  }
}

// The Taps * Taps combinations of a tile's pixels, as products take them.
//
// pixels: of each pixel of the tile, its channels. out: where the first product takes the tile's channels; the others do
// `step` numbers farther each.
template <int Taps, typename Factor>
KANDINSKY_AVX512 inline void Scatter(const float *const *pixels, std::int64_t channels, Factor *out, std::size_t step) {
  constexpr int apart = Taps - 2;  // pixels from one tile to the next
  for (std::int64_t channel = 0; channel < channels; channel += 16) {
    __m512 tile[Taps * Taps];
#pragma GCC unroll 16
    for (int i = 0; i < Taps * Taps; ++i) {
      tile[i] = _mm512_loadu_ps(pixels[i] + channel);
      if (i % Taps >= Taps - apart) {  // behind these lie the pixels that the next tile sees and this one does not
        _mm_prefetch(reinterpret_cast<const char *>(pixels[i] + apart * channels + channel), _MM_HINT_T0);
      }
    }
#pragma GCC unroll 16
    for (int column = 0; column < Taps; ++column) {
      Combine<Taps>(tile + column, Taps, tile + column);
    }
#pragma GCC unroll 16
    for (int row = 0; row < Taps; ++row) {
      Combine<Taps>(tile + row * Taps, 1, tile + row * Taps);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Taps * Taps; ++i) {
      Store(out + i * step + channel, 0xFFFF, tile[i]);
    }
  }
}

// Two by two pixels of the result from a tile's products.
//
// products: the first product's channels of the tile; the others lie `step` numbers farther each. upper, lower: where the two
// upper and the two lower pixels go, each pair `apart` numbers from each other.
template <int Taps>
KANDINSKY_AVX512 inline void Gather(const float *products, std::size_t step, std::int64_t channels, const float *bias,
                                    float *upper, float *lower, std::int64_t apart) {
  for (std::int64_t channel = 0; channel < channels; channel += 16) {
    __m512 tile[Taps * Taps], left[Taps], right[Taps], result[4];
#pragma GCC unroll 16
    for (int i = 0; i < Taps * Taps; ++i) {
      tile[i] = _mm512_loadu_ps(products + i * step + channel);
    }
#pragma GCC unroll 16
    for (int row = 0; row < Taps; ++row) {
      Join<Taps>(tile + row * Taps, 1, left + row, right + row);
    }
    Join<Taps>(left, 1, result, result + 2);
    Join<Taps>(right, 1, result + 1, result + 3);
    const __m512 added = _mm512_loadu_ps(bias + channel);
    _mm512_storeu_ps(upper + channel, _mm512_add_ps(result[0], added));
    _mm512_storeu_ps(upper + apart + channel, _mm512_add_ps(result[1], added));
    _mm512_storeu_ps(lower + channel, _mm512_add_ps(result[2], added));
    _mm512_storeu_ps(lower + apart + channel, _mm512_add_ps(result[3], added));
  }
}

}  // namespace winograd

#endif
#endif
