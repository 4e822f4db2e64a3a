// The exponential function of 16 numbers at a time.

#ifndef KANDINSKY_MINDIR_EXPONENTIAL_H
#define KANDINSKY_MINDIR_EXPONENTIAL_H

#include "vectors.h"

#ifdef KANDINSKY_VECTORS

// e^x to about 2^-22 of it, for x up to 0; 0 below -104. Range reduction and polynomial are those of expf in Cephes.
KANDINSKY_AVX512 inline __m512 ExpOfNegative(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-120.0F), x);  // in this order a NaN stays one
  const __m512 power = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341F)), 0);
  const __m512 rest = _mm512_fnmadd_ps(power, _mm512_set1_ps(-2.12194440e-4F),
                                       _mm512_fnmadd_ps(power, _mm512_set1_ps(0.693359375F), x));
  __m512 sum = _mm512_set1_ps(1.9875691500e-4F);
  for (const float term : {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 5.0000001201e-1F}) {
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(term));
  }
  sum = _mm512_add_ps(_mm512_fmadd_ps(sum, _mm512_mul_ps(rest, rest), rest), _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(sum, power);
}

#endif
#endif
