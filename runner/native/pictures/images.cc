#include "pictures/images.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/errors.h"
#include "pictures/picture_files.h"
#include "common/sha256.h"

namespace kandinsky {
namespace {

constexpr size_t kMostBytes = size_t{1} << 27;  // 128 MiB: the most pixels, barely compressed

std::string ReadFile(const std::string &path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe or a device may never end
  const std::string cannot = path + " cannot be read: ";
  if (file < 0) {
    throw UserError(cannot + (errno == ENOENT ? "it is not there; give a picture's path" : std::strerror(errno)));
  }
  struct stat facts;
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    close(file);
    throw UserError(cannot + "it is not a file; give a picture's path");
  }
  std::string data;
  char block[1 << 16];
  ssize_t count;
  while (data.size() <= kMostBytes && (count = read(file, block, sizeof block)) != 0) {
    if (count > 0) {
      data.append(block, static_cast<size_t>(count));
    } else if (errno != EINTR) {
      const std::string reason = std::strerror(errno);
      close(file);
      throw UserError(cannot + reason);
    }
  }
  close(file);
  if (data.size() > kMostBytes) throw UserError(cannot + "it is larger than " + std::to_string(kMostBytes) + " bytes");
  return data;
}

}  // namespace

Image ReadImage(const std::string &path) { return DecodeImage(ReadFile(path), path); }

Image DecodeImage(std::string_view data, const std::string &name) {
  try {
    if (IsPng(data)) return Upright(DecodePng(data), PngOrientation(data));
    if (IsJpeg(data)) return Upright(DecodeJpeg(data), JpegOrientation(data));
  } catch (const BadPicture &error) {
    throw UserError(name + " cannot be used: " + error.what());
  }
  throw UserError(name + " cannot be used: it is neither a PNG nor a JPEG: convert it");
}

void CheckPixels(int64_t width, int64_t height) {
  if (width > 0 && height > 0 && width <= kMostPixels / height) return;
  throw BadPicture("it has " + std::to_string(width) + "x" + std::to_string(height) + " pixels; the limit is " +
                   std::to_string(kMostPixels) + " in all, and one at least");
}

std::string PixelsSha256(const Image &image) {
  Sha256 sum;
  const std::string size = std::to_string(image.width) + "x" + std::to_string(image.height);
  sum.Update(size.data(), size.size());
  sum.Update(image.rgb.data(), image.rgb.size());
  return sum.HexDigest();
}

// EXIF 2.3, 4.6.4, tag 0x0112: from 5 on rows and columns change places; then one or both are counted from their ends.
Image Upright(const Image &image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool turned = orientation >= 5;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image upright{turned ? image.height : image.width, turned ? image.width : image.height, {}};
  upright.rgb.resize(image.rgb.size());
  uint8_t *to = upright.rgb.data();
  for (int y = 0; y < upright.height; ++y) {
    for (int x = 0; x < upright.width; ++x, to += 3) {
      const int column = turned ? y : x, row = turned ? x : y;
      const size_t from_x = from_right ? image.width - 1 - column : column,
                   from_y = from_below ? image.height - 1 - row : row;
      std::memcpy(to, &image.rgb[3 * (from_y * image.width + from_x)], 3);
    }
  }
  return upright;
}

}  // namespace kandinsky
