// Pillow, src/libImaging/Resample.c: a weighted sum of neighbors along the rows, rounded to 8 bits, then along the columns.
// The filter is stretched where a picture shrinks. Weights are fixed-point numbers.
#include "inputs/resample.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace kandinsky {
namespace {

constexpr double kPi = 3.141592653589793238462643383279502884;
constexpr int kPrecision = 32 - 8 - 2;  // bits of a weight behind the point

double Sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * kPi) / (x * kPi); }

double Weight(Filter filter, double x) {
  switch (filter) {
    case Filter::kBox:
      return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    case Filter::kBilinear:
      x = std::fabs(x);
      return x < 1.0 ? 1.0 - x : 0.0;
    case Filter::kHamming: {
      x = std::fabs(x);
      if (x == 0.0) return 1.0;
      if (x >= 1.0) return 0.0;
      x = x * kPi;
      return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));
    }
    case Filter::kBicubic: {  // Keys's, with a = -0.5
      constexpr double a = -0.5;
      x = std::fabs(x);
      if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
      if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
      return 0.0;
    }
    default:  // Lanczos
      return -3.0 <= x && x < 3.0 ? Sinc(x) * Sinc(x / 3) : 0.0;
  }
}

double Support(Filter filter) {
  return filter == Filter::kBox ? 0.5 : filter == Filter::kBicubic ? 2.0 : filter == Filter::kLanczos ? 3.0 : 1.0;
}

// The neighbors of one new pixel, and their weights.
struct Neighbors {
  int first;
  std::vector<int32_t> weights;
};

std::vector<Neighbors> AllNeighbors(Filter filter, int from, int to) {
  const double scale = static_cast<double>(from) / to, stretch = std::max(scale, 1.0);
  const double support = Support(filter) * stretch, shrink = 1.0 / stretch;
  std::vector<Neighbors> all(static_cast<size_t>(to));
  for (int x = 0; x < to; ++x) {
    const double center = (x + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int count = std::min(static_cast<int>(center + support + 0.5), from) - first;
    std::vector<double> weights(static_cast<size_t>(std::max(count, 0)));
    double sum = 0.0;
    for (size_t i = 0; i < weights.size(); ++i) {
      weights[i] = Weight(filter, (static_cast<double>(i) + first - center + 0.5) * shrink);
      sum += weights[i];
    }
    Neighbors &neighbors = all[static_cast<size_t>(x)];
    neighbors.first = first;
    for (double weight : weights) {
      if (sum != 0.0) weight /= sum;
      neighbors.weights.push_back(static_cast<int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kPrecision)));
    }
  }
  return all;
}

uint8_t Rounded(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kPrecision, 0, 255)); }

}  // namespace

std::vector<uint8_t> ResizedBytes(const std::vector<uint8_t> &pixels, int channels, int from_width, int from_height,
                                  int width, int height, Filter filter) {
  std::vector<uint8_t> wide = pixels;
  const auto depth = static_cast<size_t>(channels), stride = depth * static_cast<size_t>(width);
  if (width != from_width) {
    const auto all = AllNeighbors(filter, from_width, width);
    wide.resize(stride * static_cast<size_t>(from_height));
    for (size_t y = 0; y < static_cast<size_t>(from_height); ++y) {
      const uint8_t *row = pixels.data() + y * depth * static_cast<size_t>(from_width);
      uint8_t *out = wide.data() + y * stride;
      for (const Neighbors &neighbors : all) {
        for (size_t channel = 0; channel < depth; ++channel) {
          const uint8_t *from = row + depth * static_cast<size_t>(neighbors.first) + channel;
          int32_t sum = 1 << (kPrecision - 1);
          for (const int32_t weight : neighbors.weights) {
            sum += *from * weight;
            from += depth;
          }
          *out++ = Rounded(sum);
        }
      }
    }
  }
  if (height == from_height) return wide;
  std::vector<uint8_t> resized(stride * static_cast<size_t>(height));
  const auto all = AllNeighbors(filter, from_height, height);
  std::vector<int32_t> sums(stride);
  for (size_t y = 0; y < all.size(); ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kPrecision - 1));
    const uint8_t *from = wide.data() + stride * static_cast<size_t>(all[y].first);
    for (const int32_t weight : all[y].weights) {
      for (size_t x = 0; x < stride; ++x) sums[x] += from[x] * weight;
      from += stride;
    }
    std::transform(sums.begin(), sums.end(), resized.begin() + static_cast<ptrdiff_t>(y * stride), Rounded);
  }
  return resized;
}

Image Resized(const Image &image, int width, int height, Filter filter) {
  return {width, height, ResizedBytes(image.rgb, 3, image.width, image.height, width, height, filter)};
}

}  // namespace kandinsky
