// Pillow's resampling of pictures, to the bit: its resize with a filter.
#pragma once

#include <cstdint>
#include <vector>

#include "pictures/images.h"

namespace kandinsky {

enum class Filter { kLanczos = 1, kBilinear = 2, kBicubic = 3, kBox = 4, kHamming = 5 };  // Pillow's numbers

// image.resize((width, height), filter)
Image Resized(const Image &image, int width, int height, Filter filter);

// image.resize((width, height), filter, reducing_gap=1): a picture that shrinks by a whole factor or more is first reduced by it.
Image ResizedByReducing(const Image &image, int width, int height, Filter filter);

// The same of rows of `channels` bytes a pixel.
std::vector<uint8_t> ResizedBytes(const std::vector<uint8_t> &pixels, int channels, int from_width, int from_height,
                                  int width, int height, Filter filter);

}  // namespace kandinsky
