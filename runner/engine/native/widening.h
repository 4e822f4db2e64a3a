// Stored weights as float32: float16, bfloat16, int8 with a scale for each 32 values of a row, and sums of nine such values.
//
// What the values mean says runner/bundle/FORMAT.md. Widening is exact. Sums are made in double, in the order of the values,
// and rounded once, as in runner/bundle/stored/widening.py. Nothing here takes memory or depends on Lite.

#ifndef KANDINSKY_MINDIR_WIDENING_H
#define KANDINSKY_MINDIR_WIDENING_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define KANDINSKY_AVX2 1
#endif

constexpr size_t kScaleGroup = 32;  // values of int8 that share a scale
constexpr size_t kTaps = 9;         // values of a 3x3 kernel

// A value of a kernel's sum: where its plane of stored values begins, and its factor.
struct Tap {
  const uint16_t *values;
  double factor;
};

inline float OfBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Of a finite float16. Its exponent counts from another number than a float32's. The smallest values, which have none, are
// multiples of 2^-24: what they add to 2^-14. No float32 on the way is so small that a processor may take it for 0.
inline float FromHalf(uint16_t half) {
  constexpr uint32_t kOtherZero = (127 - 15) << 23, kSmallestNormal = kOtherZero + (1 << 23);
  const uint32_t bits = (half & 0x7FFFU) << 13;
  const float small = OfBits(bits + kSmallestNormal) - OfBits(kSmallestNormal);
  const float size = bits < (1 << 23) ? small : OfBits(bits + kOtherZero);
  return half & 0x8000 ? -size : size;
}

inline float FromBfloat16(uint16_t high) { return OfBits(static_cast<uint32_t>(high) << 16); }

inline void WidenHalvesPlainly(const uint16_t *from, size_t count, float *to) {
  for (size_t i = 0; i < count; ++i) {
    to[i] = FromHalf(from[i]);
  }
}

inline void SumHalvesPlainly(const Tap *taps, size_t how_many, size_t first, size_t count, float *to) {
  for (size_t i = 0; i < count; ++i) {
    double sum = 0;
    for (size_t tap = 0; tap < how_many; ++tap) {
      sum += taps[tap].factor * static_cast<double>(FromHalf(taps[tap].values[first + i]));
    }
    to[i] = static_cast<float>(sum);
  }
}

#ifdef KANDINSKY_AVX2
__attribute__((target("avx2,f16c"))) inline void WidenHalvesQuickly(const uint16_t *from, size_t count, float *to) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i))));
  }
  WidenHalvesPlainly(from + i, count - i, to + i);
}

// A product with a factor of Winograd's transform, a power of two, is exact: FMA would give the same.
__attribute__((target("avx2,f16c"))) inline void SumHalvesQuickly(const Tap *taps, size_t how_many, size_t first, size_t count,
                                                                  float *to) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
    for (size_t tap = 0; tap < how_many; ++tap) {
      const auto *place = reinterpret_cast<const __m128i *>(taps[tap].values + first + i);
      const __m256 values = _mm256_cvtph_ps(_mm_loadu_si128(place));
      const __m256d factor = _mm256_set1_pd(taps[tap].factor);
      low = _mm256_add_pd(low, _mm256_mul_pd(factor, _mm256_cvtps_pd(_mm256_castps256_ps128(values))));
      high = _mm256_add_pd(high, _mm256_mul_pd(factor, _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1))));
    }
    _mm_storeu_ps(to + i, _mm256_cvtpd_ps(low));
    _mm_storeu_ps(to + i + 4, _mm256_cvtpd_ps(high));
  }
  SumHalvesPlainly(taps, how_many, first + i, count - i, to + i);
}

inline bool HasQuick() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  return has;
}
#endif

inline void WidenHalves(const uint16_t *from, size_t count, float *to) {
#ifdef KANDINSKY_AVX2
  if (HasQuick()) {
    WidenHalvesQuickly(from, count, to);
    return;
  }
#endif
  WidenHalvesPlainly(from, count, to);
}

// Sums of the values of several planes at `count` places from `first` on.
inline void SumHalves(const Tap *taps, size_t how_many, size_t first, size_t count, float *to) {
#ifdef KANDINSKY_AVX2
  if (HasQuick()) {
    SumHalvesQuickly(taps, how_many, first, count, to);
    return;
  }
#endif
  SumHalvesPlainly(taps, how_many, first, count, to);
}

// A tensor as a bundle stores it.
struct StoredTensor {
  enum class Type { kFloat32, kFloat16, kBfloat16, kInt8 };

  Type type = Type::kFloat32;
  const uint8_t *values = nullptr;
  const uint8_t *scales = nullptr;  // of int8: a float16 for each group of each row
  size_t row = 1;                   // values
  size_t plane = 1;                 // elements that share nine factors
  std::vector<double> factors;      // nine for each plane of elements; none: the elements are the values

  static Type TypeOf(const std::string &name) {
    if (name == "float32") return Type::kFloat32;
    if (name == "float16") return Type::kFloat16;
    if (name == "bfloat16") return Type::kBfloat16;
    if (name == "int8") return Type::kInt8;
    throw std::runtime_error("there are no weights of type " + name);
  }

  // Bytes from `values` on that `count` elements from `first` on are made of, at most.
  size_t EndOfValues(size_t first, size_t count) const {
    const size_t last = factors.empty() ? first + count : kTaps * plane;
    return last * (type == Type::kFloat32 ? 4 : type == Type::kInt8 ? 1 : 2);
  }

  size_t EndOfScales(size_t first, size_t count) const {
    const size_t last = factors.empty() ? first + count : kTaps * plane;
    return (last + row - 1) / row * ((row + kScaleGroup - 1) / kScaleGroup) * 2;
  }

  // `count` elements from `first` on.
  void Widen(size_t first, size_t count, float *to) const {
    if (factors.empty()) {
      WidenValues(first, count, to);
      return;
    }
    while (count > 0) {
      const size_t which = first / plane, place = first % plane, some = std::min(count, plane - place);
      if (type == Type::kFloat16) {
        Tap taps[kTaps];
        size_t how_many = 0;
        for (size_t tap = 0; tap < kTaps; ++tap) {
          if (const double factor = factors[which * kTaps + tap]; factor != 0) {
            taps[how_many++] = {reinterpret_cast<const uint16_t *>(values) + tap * plane, factor};
          }
        }
        SumHalves(taps, how_many, place, some, to);
      } else {
        Sum(which, place, some, to);
      }
      first += some, count -= some, to += some;
    }
  }

 private:
  // Sums of other types than float16.
  void Sum(size_t which, size_t place, size_t count, float *to) const {
    constexpr size_t kAtOnce = 512;  // what they take stays in the nearest cache
    float wide[kAtOnce];
    double sums[kAtOnce];
    for (size_t done = 0; done < count; done += kAtOnce) {
      const size_t some = std::min(count - done, kAtOnce);
      std::fill(sums, sums + some, 0.0);
      for (size_t tap = 0; tap < kTaps; ++tap) {
        if (const double factor = factors[which * kTaps + tap]; factor != 0) {
          WidenValues(tap * plane + place + done, some, wide);
          for (size_t i = 0; i < some; ++i) {
            sums[i] += factor * static_cast<double>(wide[i]);
          }
        }
      }
      std::copy(sums, sums + some, to + done);
    }
  }

  void WidenValues(size_t first, size_t count, float *to) const {
    switch (type) {
      case Type::kFloat32:
        std::memmove(to, values + 4 * first, 4 * count);
        break;
      case Type::kFloat16:
        WidenHalves(reinterpret_cast<const uint16_t *>(values) + first, count, to);
        break;
      case Type::kBfloat16:
        std::transform(reinterpret_cast<const uint16_t *>(values) + first, reinterpret_cast<const uint16_t *>(values) + first + count,
                       to, FromBfloat16);
        break;
      case Type::kInt8:
        WidenBytes(first, count, to);
    }
  }

  void WidenBytes(size_t first, size_t count, float *to) const {
    const size_t groups = (row + kScaleGroup - 1) / kScaleGroup;
    const auto *halves = reinterpret_cast<const uint16_t *>(scales);
    while (count > 0) {
      const size_t which = first / row, place = first % row, group = place / kScaleGroup;
      const size_t some = std::min({count, row - place, (group + 1) * kScaleGroup - place});
      const float scale = FromHalf(halves[which * groups + group]);
      for (size_t i = 0; i < some; ++i) {
        to[i] = static_cast<float>(reinterpret_cast<const int8_t *>(values)[first + i]) * scale;
      }
      first += some, count -= some, to += some;
    }
  }
};

#endif
