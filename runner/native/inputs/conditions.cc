#include "inputs/conditions.h"

#include <utility>

#include "inputs/resample.h"

namespace kandinsky {

namespace {

constexpr int kMiddleGray = 128;  // the first of 256 levels that is 0.5 or more of white

// Levels from 0 to 255, channel after channel, each of them as `value` makes it.
template <typename Value>
std::vector<float> Planes(const Image &image, Size size, const Value &value) {
  const Image resized = ResizedByReducing(image, static_cast<int>(size.second), static_cast<int>(size.first), Filter::kBicubic);
  const size_t pixels = resized.rgb.size() / 3;
  std::vector<float> planes(3 * pixels);
  for (size_t channel = 0; channel < 3; ++channel) {
    for (size_t i = 0; i < pixels; ++i) {
      planes[channel * pixels + i] = value(static_cast<float>(resized.rgb[3 * i + channel]));
    }
  }
  return planes;
}

}  // namespace

std::vector<float> StartValues(const Image &image, Size size) {
  return Planes(image, size, [](float level) { return level / 127.5F - 1.0F; });
}

std::vector<float> HintValues(const Image &image, Size size) {
  return Planes(image, size, [](float level) { return level / 255.0F; });
}

Mask MaskOf(const Image &image, Size size) {
  const Image resized = Resized(image, static_cast<int>(size.second), static_cast<int>(size.first), Filter::kLanczos);
  Mask mask(resized.rgb.size() / 3);
  for (size_t i = 0; i < mask.size(); ++i) {  // Pillow, src/libImaging/Convert.c: L24, ITU-R 601-2 in fixed point
    const uint8_t *pixel = &resized.rgb[3 * i];
    mask[i] = (pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16 >= kMiddleGray ? 1 : 0;
  }
  return mask;
}

std::vector<float> KeptLatents(const Mask &mask, Size size, Size latents) {
  constexpr std::pair<int64_t, int64_t> kNeighbors[] = {{0, 0}, {1, 0}, {0, 1}, {1, 1}, {-1, 0}, {0, -1}, {-1, -1}};  // down, right
  const auto [height, width] = latents;
  const auto repaints = [&, of = size](int64_t y, int64_t x) {
    return y >= 0 && y < latents.first && x >= 0 && x < latents.second &&
           mask[static_cast<size_t>(y * of.first / latents.first * of.second + x * of.second / latents.second)] != 0;
  };
  std::vector<float> kept;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      bool stays = true;
      for (const auto &[down, right] : kNeighbors) {
        stays = stays && !repaints(y + down, x + right);
      }
      kept.push_back(stays ? 1.0F : 0.0F);
    }
  }
  return kept;
}

}  // namespace kandinsky
