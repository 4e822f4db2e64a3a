// Vectors of 16 numbers, on processors whose compilers know them. Functions that use them say so with KANDINSKY_AVX512.

#ifndef KANDINSKY_MINDIR_VECTORS_H
#define KANDINSKY_MINDIR_VECTORS_H

#if defined(__x86_64__)
#define KANDINSKY_VECTORS 1
#include <cstdint>

#include <immintrin.h>

// Of these, bfloat16's instructions are used by Store(std::uint16_t *) alone: a compiler makes none of its own accord.
#define KANDINSKY_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

// Writes those numbers that `here` names as a kernel's products take them, and returns what they have become.
KANDINSKY_AVX512 inline __m512 Store(float *out, __mmask16 here, __m512 numbers) {
  _mm512_mask_storeu_ps(out, here, numbers);
  return numbers;
}
KANDINSKY_AVX512 inline __m512 Store(std::uint16_t *out, __mmask16 here, __m512 numbers) {  // bfloat16
  const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(numbers));
  _mm256_mask_storeu_epi16(out, here, rounded);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
}
#endif

#endif
