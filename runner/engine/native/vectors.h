// Vectors of 16 numbers, on processors whose compilers know them. Functions that use them say so with KANDINSKY_AVX512_BF16.

#ifndef KANDINSKY_MINDIR_VECTORS_H
#define KANDINSKY_MINDIR_VECTORS_H

#if defined(__x86_64__)
#define KANDINSKY_VECTORS 1
#include <immintrin.h>

#define KANDINSKY_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#endif

#endif
