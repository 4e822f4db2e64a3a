// The two formats of picture files, decoded: for images.cc.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "pictures/images.h"

namespace kandinsky {

constexpr int64_t kMostPixels = int64_t{1} << 26;  // 8192 x 8192, 200 MB as RGB

// Why a file cannot be used.
class BadPicture : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

bool IsPng(std::string_view data);
bool IsJpeg(std::string_view data);
// As RGB, not turned. BadPicture for a file that is damaged or too large.
Image DecodePng(std::string_view data);
Image DecodeJpeg(std::string_view data);
// BadPicture for a size that is not to be decoded.
void CheckPixels(int64_t width, int64_t height);

// The EXIF orientation of a file, 1 if it has none: of EXIF data, else of XMP data, as Pillow finds it.
int PngOrientation(std::string_view data);
int JpegOrientation(std::string_view data);

}  // namespace kandinsky
