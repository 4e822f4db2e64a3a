// Where noise comes from: the generators of runner/diffusion/noise.py, equal to the last bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kandinsky {

class Generator {
 public:
  virtual ~Generator() = default;
  // One tensor of `count` standard normal numbers, as noise.draw: `standard_normal(count)` in the generator's own precision,
  // rounded to float32. Ask once for a whole tensor: what torch draws depends on how many are asked for at once.
  virtual void Normal(float *out, size_t count) = 0;
  // A generator that goes on as this one would.
  virtual std::unique_ptr<Generator> Copy() const = 0;
};

// The generator of a `--rng` ("numpy", "numpy-legacy", "torch") and a seed in decimal digits, with "-" before them for a
// negative one. UserError for another name, or a seed that the generator does not take; NumPy's takes any that is not
// negative.
std::unique_ptr<Generator> MakeGenerator(const std::string &rng, const std::string &seed);

// The three, from a seed in the words of 32 bits that it has, lowest first.
std::unique_ptr<Generator> MakeNumpyGenerator(const std::vector<uint32_t> &seed);  // np.random.default_rng(seed)
std::unique_ptr<Generator> MakeLegacyNumpyGenerator(uint32_t seed);                // np.random.RandomState(seed)
std::unique_ptr<Generator> MakeTorchGenerator(uint32_t low_bits_of_seed);  // torch.Generator().manual_seed(seed), on the CPU

}  // namespace kandinsky
