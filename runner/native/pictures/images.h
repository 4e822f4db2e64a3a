// Pictures that are read: runner/pictures/images.py for PNG and JPEG.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kandinsky {

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // rows from above, three bytes a pixel
};

// A picture as RGB, upright as its EXIF orientation says. Transparency is dropped; gray of 16 bits is scaled. UserError that
// names the file for what is no PNG or JPEG, is damaged or cut, or has more than 2^26 pixels or 2^27 bytes.
Image ReadImage(const std::string &path);
// The same of a file's bytes. name: what an error calls it.
Image DecodeImage(std::string_view data, const std::string &name);

// The sha256 of a picture's size and RGB pixels, as hexadecimal digits: what requests name pictures by.
std::string PixelsSha256(const Image &image);

// Turned or mirrored as an EXIF orientation from 1 to 8 says; any other number leaves it as it is.
Image Upright(const Image &image, int orientation);

}  // namespace kandinsky
