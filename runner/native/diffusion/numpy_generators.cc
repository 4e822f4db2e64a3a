// NumPy's two generators of normal numbers: numpy/random in its parts _bit_generator (SeedSequence), src/pcg64,
// src/distributions (random_standard_normal) and src/legacy (legacy_gauss). Both compute in float64.
#include <cmath>
#include <random>

#include "diffusion/generators.h"
#include "diffusion/ziggurat_tables.h"

namespace kandinsky {
namespace {

constexpr double kTo53Bits = 1.0 / 9007199254740992.0;  // 2 ** -53

// NumPy's SeedSequence, after Melissa O'Neill, "Developing a seed_seq Alternative" (2015): a pool of four words that every
// word of the seed is mixed into.
class SeedSequence {
 public:
  explicit SeedSequence(const std::vector<uint32_t> &entropy) {
    uint32_t factor = 0x43b0d7e5;
    const auto hashed = [&factor](uint32_t value) {
      value ^= factor;
      factor *= 0x931e8875;
      value *= factor;
      return value ^ value >> 16;
    };
    for (size_t i = 0; i < 4; ++i) pool_[i] = hashed(i < entropy.size() ? entropy[i] : 0);
    for (size_t from = 0; from < 4; ++from) {
      for (size_t to = 0; to < 4; ++to) {
        if (from != to) pool_[to] = Mixed(pool_[to], hashed(pool_[from]));
      }
    }
    for (size_t from = 4; from < entropy.size(); ++from) {
      for (uint32_t &word : pool_) word = Mixed(word, hashed(entropy[from]));
    }
  }

  // generate_state(4, np.uint64)
  void FourWords(uint64_t *words) const {
    uint32_t factor = 0x8b51f9dd, halves[8];
    for (size_t i = 0; i < 8; ++i) {
      uint32_t value = pool_[i % 4] ^ factor;
      factor *= 0x58f38ded;
      value *= factor;
      halves[i] = value ^ value >> 16;
    }
    for (size_t i = 0; i < 4; ++i) words[i] = halves[2 * i] | uint64_t{halves[2 * i + 1]} << 32;
  }

 private:
  static uint32_t Mixed(uint32_t x, uint32_t y) {
    const uint32_t value = 0xca01f9ddu * x - 0x4973f715u * y;
    return value ^ value >> 16;
  }

  uint32_t pool_[4];
};

// PCG64, XSL-RR: O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number
// Generation" (2014), in the form with 128 bits of state.
class NumpyGenerator : public Generator {
 public:
  explicit NumpyGenerator(const std::vector<uint32_t> &seed) {
    uint64_t words[4];
    SeedSequence(seed).FourWords(words);
    increment_ = (Wide{words[2]} << 64 | words[3]) << 1 | 1;
    Advance();
    state_ += Wide{words[0]} << 64 | words[1];
    Advance();
  }

  void Normal(float *out, size_t count) override {
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<float>(Normal());
  }

  std::unique_ptr<Generator> Copy() const override { return std::make_unique<NumpyGenerator>(*this); }

 private:
  using Wide = unsigned __int128;

  void Advance() { state_ = state_ * (Wide{0x2360ED051FC65DA4} << 64 | 0x4385DF649FCCF645) + increment_; }

  uint64_t Word() {
    Advance();
    const auto folded = static_cast<uint64_t>(state_ >> 64 ^ state_);
    const auto by = static_cast<int>(state_ >> 122);
    return by == 0 ? folded : folded >> by | folded << (64 - by);
  }

  double Uniform() { return static_cast<double>(Word() >> 11) * kTo53Bits; }

  double Normal() {
    for (;;) {
      const uint64_t word = Word();
      const size_t layer = word & 0xff;
      const uint64_t magnitude = word >> 9 & 0x000fffffffffffff;
      double x = static_cast<double>(magnitude) * kWidth[layer];
      if (word >> 8 & 1) x = -x;
      if (magnitude < kInside[layer]) return x;
      if (layer == 0) return Tail(magnitude >> 8 & 1);
      const double chance = Uniform();
      if ((kHeight[layer - 1] - kHeight[layer]) * chance + kHeight[layer] < std::exp(-0.5 * x * x)) return x;
    }
  }

  // Marsaglia's method for what lies beyond the lowest layer.
  double Tail(bool negative) {
    for (;;) {
      const double beyond = -kTailScale * std::log1p(-Uniform());
      const double limit = -std::log1p(-Uniform());
      if (limit + limit > beyond * beyond) return negative ? -(kTailStart + beyond) : kTailStart + beyond;
    }
  }

  Wide state_ = 0, increment_;
};

// RandomState: the Mersenne Twister and the polar method, which makes two numbers at a time.
class LegacyNumpyGenerator : public Generator {
 public:
  explicit LegacyNumpyGenerator(uint32_t seed) : words_(seed) {}

  void Normal(float *out, size_t count) override {
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<float>(Normal());
  }

  std::unique_ptr<Generator> Copy() const override { return std::make_unique<LegacyNumpyGenerator>(*this); }

 private:
  double Uniform() {
    const auto high = static_cast<uint32_t>(words_()) >> 5, low = static_cast<uint32_t>(words_()) >> 6;
    return (high * 67108864.0 + low) / 9007199254740992.0;
  }

  double Normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    double x, y, square;
    do {
      x = 2.0 * Uniform() - 1.0;
      y = 2.0 * Uniform() - 1.0;
      square = x * x + y * y;
    } while (square >= 1.0 || square == 0.0);
    const double factor = std::sqrt(-2.0 * std::log(square) / square);
    spare_ = factor * x;
    has_spare_ = true;
    return factor * y;
  }

  std::mt19937 words_;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace

std::unique_ptr<Generator> MakeNumpyGenerator(const std::vector<uint32_t> &seed) {
  return std::make_unique<NumpyGenerator>(seed);
}

std::unique_ptr<Generator> MakeLegacyNumpyGenerator(uint32_t seed) { return std::make_unique<LegacyNumpyGenerator>(seed); }

}  // namespace kandinsky
