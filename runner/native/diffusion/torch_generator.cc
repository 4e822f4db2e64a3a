// torch's CPU randn as runner/diffusion/torch_generator.py computes it, operation by operation: equal to the last bit to
// torch on x86-64 with AVX2, on any processor. The sources in PyTorch are named there.
#include <cmath>
#include <random>

#include "diffusion/generators.h"

namespace kandinsky {
namespace {

constexpr size_t kBlock = 16;  // normals that torch makes together: 8 cosine branches, then their 8 sine branches
constexpr double kPi = 3.141592653589793238462643383279502884;

// Fused multiply-add of float32: the product is exact in float64. The second rounding changes none of the arguments here.
float Fused(float a, float b, float c) { return static_cast<float>(static_cast<double>(a) * b + c); }

// avx_mathfun.h `log256_ps`, for normal numbers in (0, 1].
float Log(float x) {
  constexpr float kPolynomial[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                                   -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                                   2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  int whole;
  float mantissa = std::frexp(x, &whole);
  if (mantissa < 0.70710678118654752f) {
    mantissa = mantissa - 1.0f + mantissa;
    --whole;
  } else {
    mantissa -= 1.0f;
  }
  const auto exponent = static_cast<float>(whole);
  const float square = mantissa * mantissa;
  float y = kPolynomial[0];
  for (int i = 1; i < 9; ++i) y = Fused(y, mantissa, kPolynomial[i]);
  y = Fused(y * mantissa, square, exponent * kLn2Low) - square * 0.5f;
  return (mantissa + y) + exponent * kLn2High;
}

// avx_mathfun.h `sincos256_ps`, for numbers from 0.
void SineAndCosine(float x, float *sine, float *cosine) {
  constexpr float kSine[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
  constexpr float kCosine[] = {2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f};
  constexpr float kQuarterPi[] = {0.78515625f, 2.4187564849853515625e-4f, 3.77489497744594108e-8f};
  const int octant = (static_cast<int>(x * static_cast<float>(4 / kPi)) + 1) & ~1;
  for (const float part : kQuarterPi) x = Fused(static_cast<float>(octant), -part, x);
  const float square = x * x;
  float s = Fused(Fused(kSine[0], square, kSine[1]), square, kSine[2]);
  s = Fused(s * square, x, x);
  float c = Fused(Fused(kCosine[0], square, kCosine[1]), square, kCosine[2]);
  c = Fused(c * square, square, -(square * 0.5f)) + 1.0f;
  if (octant & 2) std::swap(s, c);
  *sine = octant & 4 ? -s : s;
  *cosine = (octant + 2) & 4 ? -c : c;
}

class TorchGenerator : public Generator {
 public:
  explicit TorchGenerator(uint32_t seed) : words_(seed) {}

  void Normal(float *out, size_t count) override { count < kBlock ? OneByOne(out, count) : InBlocks(out, count); }

  std::unique_ptr<Generator> Copy() const override { return std::make_unique<TorchGenerator>(*this); }

 private:
  // `normal_fill`: blocks of 16; where they do not come out even, the last 16 are drawn anew.
  void InBlocks(float *out, size_t count) {
    for (size_t i = 0; i < count; ++i) out[i] = Uniform();
    for (size_t start = 0; start + kBlock <= count; start += kBlock) BoxMuller(out + start);
    if (count % kBlock == 0) return;
    float *last = out + count - kBlock;
    for (size_t i = 0; i < kBlock; ++i) last[i] = Uniform();
    BoxMuller(last);
  }

  // Box and Muller (1958), in place, cosines first. The 0 that is added makes 0.0 of -0.0, as torch's `* std + mean` does.
  static void BoxMuller(float *block) {
    constexpr auto kTwoPi = static_cast<float>(2 * kPi);
    for (size_t i = 0; i < kBlock / 2; ++i) {
      const float radius = std::sqrt(-2.0f * Log(1.0f - block[i]));
      float sine, cosine;
      SineAndCosine(kTwoPi * block[i + kBlock / 2], &sine, &cosine);
      block[i] = radius * cosine + 0.0f;
      block[i + kBlock / 2] = radius * sine + 0.0f;
    }
  }

  // `normal_distribution<double>`: the second of each pair is kept for the next call.
  void OneByOne(float *out, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (has_spare_) {
        has_spare_ = false;
        out[i] = static_cast<float>(spare_);
        continue;
      }
      const double theta = 2.0 * kPi * UniformDouble();
      const double radius = std::sqrt(-2.0 * std::log1p(-UniformDouble()));
      out[i] = static_cast<float>(radius * std::cos(theta));
      spare_ = radius * std::sin(theta);
      has_spare_ = true;
    }
  }

  float Uniform() { return static_cast<float>(words_() & 0xFFFFFF) * 0x1p-24f; }

  double UniformDouble() {
    const uint64_t high = words_(), low = words_();
    return static_cast<double>((high << 32 | low) & ((uint64_t{1} << 53) - 1)) * 0x1p-53;
  }

  std::mt19937 words_;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace

std::unique_ptr<Generator> MakeTorchGenerator(uint32_t low_bits_of_seed) {
  return std::make_unique<TorchGenerator>(low_bits_of_seed);
}

}  // namespace kandinsky
