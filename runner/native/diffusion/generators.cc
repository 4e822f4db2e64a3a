#include "diffusion/generators.h"

#include <algorithm>

#include "common/errors.h"

namespace kandinsky {
namespace {

constexpr size_t kMostDigits = 4300;  // Python reads no longer number from text

// The words of 32 bits of a number in decimal digits, lowest first; [0] for 0.
std::vector<uint32_t> Words(const std::string &digits) {
  std::vector<uint32_t> words{0};
  for (const char digit : digits) {
    uint64_t carry = static_cast<uint64_t>(digit - '0');
    for (uint32_t &word : words) {
      carry += uint64_t{word} * 10;
      word = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    if (carry > 0) words.push_back(static_cast<uint32_t>(carry));
  }
  return words;
}

// Whether torch takes it: from -2**63 to 2**64 - 1.
bool FitsTorch(bool negative, const std::vector<uint32_t> &words) {
  if (words.size() > 2) return false;
  const uint64_t size = words[0] | (words.size() > 1 ? uint64_t{words[1]} << 32 : 0);
  return !negative || size <= uint64_t{1} << 63;
}

}  // namespace

std::unique_ptr<Generator> MakeGenerator(const std::string &rng, const std::string &seed) {
  if (rng != "numpy" && rng != "numpy-legacy" && rng != "torch") {
    throw UserError("unknown random generator " + Quoted(rng) + ": choose from numpy, numpy-legacy, torch");
  }
  const std::string digits = seed.substr(seed.compare(0, 1, "-") == 0 ? 1 : 0);
  if (digits.empty() || digits.size() > kMostDigits ||
      !std::all_of(digits.begin(), digits.end(), [](char digit) { return digit >= '0' && digit <= '9'; })) {
    throw UserError("seed must be an integer, not " + Quoted(seed.substr(0, 80)));
  }
  const std::vector<uint32_t> words = Words(digits);
  const bool negative = digits.size() < seed.size() && words != std::vector<uint32_t>{0};
  if (rng == "torch") {
    if (!FitsTorch(negative, words)) throw UserError("seed must be from -2**63 to 2**64 - 1, not " + seed);
    return MakeTorchGenerator(negative ? ~words[0] + 1 : words[0]);
  }
  const std::string unsuited = "seed " + seed + " does not suit the generator '" + rng + "': ";
  if (rng == "numpy") {
    if (negative) throw UserError(unsuited + "expected non-negative integer");
    return MakeNumpyGenerator(words);
  }
  if (negative || words.size() > 1) throw UserError(unsuited + "Seed must be between 0 and 2**32 - 1");
  return MakeLegacyNumpyGenerator(words[0]);
}

}  // namespace kandinsky
