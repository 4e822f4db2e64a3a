// SHA-256 (FIPS 180-4), for sums of files and of pixels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kandinsky {

class Sha256 {
 public:
  // plain: without the processor's instructions for it.
  explicit Sha256(bool plain = false);
  void Update(const void *data, size_t size);
  // 64 lower-case hexadecimal digits of all that was given. Ends the sum: call it once.
  std::string HexDigest();

 private:
  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  void (*blocks_)(uint32_t *state, const uint8_t *data, size_t blocks);
  uint8_t block_[64];
  size_t filled_ = 0;  // bytes of block_
  uint64_t bytes_ = 0;
};

std::string Sha256Hex(const void *data, size_t size, bool plain = false);

}  // namespace kandinsky
