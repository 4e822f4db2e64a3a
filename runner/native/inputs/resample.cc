// Pillow, src/libImaging/Resample.c: a weighted sum of neighbors along the rows, rounded to 8 bits, and along the columns.
// The filter is stretched where a picture shrinks. Weights are fixed-point numbers. Reduce.c: means of whole blocks of pixels.
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

// end: where the last of the `from` old pixels ends, in old pixels; they may not all be whole.
std::vector<Neighbors> AllNeighbors(Filter filter, int from, float end, int to) {
  const double scale = static_cast<double>(end) / to, stretch = std::max(scale, 1.0);
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

// The pass along the rows, of `depth` bytes a pixel. end: see AllNeighbors.
std::vector<uint8_t> Widened(const std::vector<uint8_t> &pixels, size_t depth, int from, float end, int to, Filter filter) {
  const auto all = AllNeighbors(filter, from, end, to);
  const size_t stride = depth * static_cast<size_t>(from), rows = pixels.size() / stride;
  std::vector<uint8_t> wide(rows * depth * static_cast<size_t>(to));
  uint8_t *out = wide.data();
  for (size_t y = 0; y < rows; ++y) {
    const uint8_t *row = pixels.data() + y * stride;
    for (const Neighbors &neighbors : all) {
      for (size_t channel = 0; channel < depth; ++channel) {
        const uint8_t *from_pixel = row + depth * static_cast<size_t>(neighbors.first) + channel;
        int32_t sum = 1 << (kPrecision - 1);
        for (const int32_t weight : neighbors.weights) {
          sum += *from_pixel * weight;
          from_pixel += depth;
        }
        *out++ = Rounded(sum);
      }
    }
  }
  return wide;
}

// The pass along the columns, of rows of `stride` bytes.
std::vector<uint8_t> Heightened(const std::vector<uint8_t> &pixels, size_t stride, int from, float end, int to, Filter filter) {
  const auto all = AllNeighbors(filter, from, end, to);
  std::vector<uint8_t> high(stride * static_cast<size_t>(to));
  std::vector<int32_t> sums(stride);
  for (size_t y = 0; y < all.size(); ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kPrecision - 1));
    const uint8_t *row = pixels.data() + stride * static_cast<size_t>(all[y].first);
    for (const int32_t weight : all[y].weights) {
      for (size_t x = 0; x < stride; ++x) sums[x] += row[x] * weight;
      row += stride;
    }
    std::transform(sums.begin(), sums.end(), high.begin() + static_cast<ptrdiff_t>(y * stride), Rounded);
  }
  return high;
}

// Both passes. Pillow 13 begins with the columns where the height falls by more than twice what the width does: results are
// rounded in between, so the order shows. end_x, end_y: see AllNeighbors.
std::vector<uint8_t> Resampled(const std::vector<uint8_t> &pixels, int channels, int from_width, int from_height, float end_x,
                               float end_y, int width, int height, Filter filter) {
  const auto depth = static_cast<size_t>(channels);
  std::vector<uint8_t> made = pixels;
  const auto along_rows = [&] {
    if (width != from_width || end_x != static_cast<float>(width)) made = Widened(made, depth, from_width, end_x, width, filter);
  };
  const auto along_columns = [&](int at_width) {
    if (height != from_height || end_y != static_cast<float>(height)) {
      made = Heightened(made, depth * static_cast<size_t>(at_width), from_height, end_y, height, filter);
    }
  };
  if (height < from_height && int64_t{from_height} - height > 2 * (int64_t{from_width} - width)) {
    along_columns(from_width);
    along_rows();
  } else {
    along_rows();
    along_columns(width);
  }
  return made;
}

// The mean of each block of pixels, by a product with 2^24 / count in place of a division; blocks at the ends may be smaller.
Image Reduced(const Image &image, int factor_x, int factor_y) {
  Image reduced{(image.width + factor_x - 1) / factor_x, (image.height + factor_y - 1) / factor_y, {}};
  reduced.rgb.reserve(size_t{3} * static_cast<size_t>(reduced.width) * static_cast<size_t>(reduced.height));
  for (int y = 0; y < reduced.height; ++y) {
    const int bottom = std::min((y + 1) * factor_y, image.height);
    for (int x = 0; x < reduced.width; ++x) {
      const int right = std::min((x + 1) * factor_x, image.width);
      const auto count = static_cast<uint32_t>((bottom - y * factor_y) * (right - x * factor_x));
      const auto multiplier = static_cast<uint32_t>(0x1p32F / static_cast<float>(count << 8));
      uint32_t sums[3] = {count / 2, count / 2, count / 2};
      for (int row = y * factor_y; row < bottom; ++row) {
        const uint8_t *from = &image.rgb[3 * (static_cast<size_t>(row) * static_cast<size_t>(image.width) + static_cast<size_t>(x * factor_x))];
        for (int column = x * factor_x; column < right; ++column) {
          for (uint32_t &sum : sums) sum += *from++;
        }
      }
      for (const uint32_t sum : sums) reduced.rgb.push_back(static_cast<uint8_t>((sum * multiplier) >> 24));
    }
  }
  return reduced;
}

}  // namespace

std::vector<uint8_t> ResizedBytes(const std::vector<uint8_t> &pixels, int channels, int from_width, int from_height,
                                  int width, int height, Filter filter) {
  return Resampled(pixels, channels, from_width, from_height, static_cast<float>(from_width), static_cast<float>(from_height), width,
                   height, filter);
}

Image Resized(const Image &image, int width, int height, Filter filter) {
  return {width, height, ResizedBytes(image.rgb, 3, image.width, image.height, width, height, filter)};
}

// PIL/Image.py, resize
Image ResizedByReducing(const Image &image, int width, int height, Filter filter) {
  const int factor_x = std::max(image.width / width, 1), factor_y = std::max(image.height / height, 1);
  if (factor_x == 1 && factor_y == 1) return Resized(image, width, height, filter);
  const Image reduced = Reduced(image, factor_x, factor_y);
  const auto end_x = static_cast<float>(static_cast<double>(image.width) / factor_x),
             end_y = static_cast<float>(static_cast<double>(image.height) / factor_y);
  return {width, height, Resampled(reduced.rgb, 3, reduced.width, reduced.height, end_x, end_y, width, height, filter)};
}

}  // namespace kandinsky
