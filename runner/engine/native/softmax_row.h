// The weights of attention from one row of scores, and what a row of the result is of the sums by them.

#ifndef KANDINSKY_MINDIR_SOFTMAX_ROW_H
#define KANDINSKY_MINDIR_SOFTMAX_ROW_H

#include <cstddef>
#include <cstdint>

#include "exponential.h"
#include "vectors.h"

#ifdef KANDINSKY_VECTORS

// weights: of `count` scores, e to the score less the largest, as products take them. bias: is added to the scores; nullptr
// where nothing is. Returns one by the sum of the weights as they are rounded, with which they sum to one.
template <typename Factor>
KANDINSKY_AVX512 inline float SoftmaxRow(float *scores, const float *bias, std::size_t count, Factor *weights) {
  const __m512 none = _mm512_set1_ps(-__builtin_inff());
  __m512 largest = none;
  for (std::size_t i = 0; i < count; i += 16) {
    const auto here = static_cast<__mmask16>(count - i >= 16 ? 0xFFFF : (1U << (count - i)) - 1);
    __m512 score = _mm512_mask_loadu_ps(none, here, scores + i);
    if (bias != nullptr) {
      score = _mm512_mask_add_ps(score, here, score, _mm512_maskz_loadu_ps(here, bias + i));
      _mm512_mask_storeu_ps(scores + i, here, score);
    }
    largest = _mm512_max_ps(largest, score);
  }
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
  __m512 sum = _mm512_setzero_ps();
  for (std::size_t i = 0; i < count; i += 16) {
    const auto here = static_cast<__mmask16>(count - i >= 16 ? 0xFFFF : (1U << (count - i)) - 1);
    const __m512 power = ExpOfNegative(_mm512_sub_ps(_mm512_maskz_loadu_ps(here, scores + i), top));
    sum = _mm512_mask_add_ps(sum, here, sum, Store(weights + i, here, power));
  }
  return 1.0F / _mm512_reduce_add_ps(sum);
}

// out: `count` sums of values by those weights, times what SoftmaxRow returned.
KANDINSKY_AVX512 inline void ScaleRow(const float *sums, float factor, std::size_t count, float *out) {
  for (std::size_t i = 0; i < count; i += 16) {
    const auto here = static_cast<__mmask16>(count - i >= 16 ? 0xFFFF : (1U << (count - i)) - 1);
    _mm512_mask_storeu_ps(out + i, here, _mm512_mul_ps(_mm512_maskz_loadu_ps(here, sums + i), _mm512_set1_ps(factor)));
  }
}

#endif
#endif
