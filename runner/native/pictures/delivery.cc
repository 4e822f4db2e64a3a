#include "pictures/delivery.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <set>

#include <sys/statvfs.h>
#include <unistd.h>

#include "common/errors.h"
#include "common/files.h"
#include "common/machine.h"

namespace kandinsky {

namespace {

constexpr const char *kEnding = ".png";
constexpr double kLeastBytesPerPixel = 0.1;  // of a file: see runner/pictures/saving.py
constexpr int64_t kMostPixelsOfGrid = (int64_t{1} << 31) - 1;

bool IsPng(const std::string &path) {
  std::string ending = path.size() < 4 ? "" : path.substr(path.size() - 4);
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return ending == kEnding && NameOf(path).size() > 4;
}

}  // namespace

Delivery::Delivery(std::string output, size_t count, bool grid, Size size)
    : output_(std::move(output)), count_(count), grid_(grid && count > 1), size_(size) {
  if (!IsPng(output_)) {
    throw UserError(output_ + " ends in no picture format that this program writes: use " + kEnding);
  }
  if (grid_) {
    for (size_t n = 1; n * n <= count_; ++n) {  // as square as they come out even
      rows_ = count_ % n == 0 ? n : rows_;
    }
    columns_ = count_ / rows_;
  }
}

void Delivery::Check(const std::vector<std::string> &inputs) const {
  const double pixels = static_cast<double>(size_.first * size_.second) * static_cast<double>(count_);
  const auto left = static_cast<double>(AvailableMemory());
  if (grid_ && (6 * pixels > left || pixels > static_cast<double>(kMostPixelsOfGrid))) {
    throw UserError("a grid of " + std::to_string(rows_) + "x" + std::to_string(columns_) + " pictures takes " + MemoryText(6 * pixels) +
                    " of memory, " + MemoryText(left) + " are left: leave out --grid, or ask for fewer pictures");
  }
  std::set<std::string> places;
  for (size_t i = 0; i < (grid_ ? 1 : count_); ++i) {
    const std::string path = grid_ ? output_ : Numbered(i);
    CheckPlace(path);
    if (!places.insert(RealPath(path)).second) {
      throw UserError(path + " and another picture are the same file: choose another --output");
    }
  }
  for (const auto &input : inputs) {
    if (access(input.c_str(), F_OK) == 0 && places.count(RealPath(input)) != 0) {
      throw UserError(input + " is read to make the picture, and would be overwritten: choose another --output");
    }
  }
  struct statvfs disk{};
  const std::string folder = FolderOf(output_);
  if (statvfs(folder.c_str(), &disk) == 0) {
    const double free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
    if (kLeastBytesPerPixel * pixels > free) {
      throw UserError("the pictures take " + MemoryText(kLeastBytesPerPixel * pixels) + " or more, and " + folder + " has " +
                      MemoryText(free) + " left: make room, or choose another --output");
    }
  }
}

std::optional<std::string> Delivery::Take(size_t number, const Image &image, const TextChunks &text) {
  if (!grid_) {
    WritePng(Numbered(number), image, text);
    return Numbered(number);
  }
  if (made_ == 0) {
    whole_.width = static_cast<int>(columns_) * image.width;
    whole_.height = static_cast<int>(rows_) * image.height;
    whole_.rgb.assign(static_cast<size_t>(whole_.width) * static_cast<size_t>(whole_.height) * 3, 0);
  }
  const size_t row = 3 * static_cast<size_t>(image.width), stride = 3 * static_cast<size_t>(whole_.width);
  const auto height = static_cast<size_t>(image.height);
  for (size_t y = 0; y < height; ++y) {
    std::memcpy(&whole_.rgb[(made_ / columns_ * height + y) * stride + made_ % columns_ * row], &image.rgb[y * row], row);
  }
  if (++made_ < count_) {
    return std::nullopt;
  }
  WritePng(output_, whole_, text);
  return output_;
}

std::optional<std::string> Delivery::KeepUnfinished() {
  if (!grid_ || made_ == 0 || made_ == count_) {
    return std::nullopt;
  }
  const std::string path = Renamed("-unfinished");
  try {
    WritePng(path, whole_, {});
  } catch (const UserError &) {
    return std::nullopt;
  }
  return std::to_string(made_) + " of " + std::to_string(count_) + " pictures were made: they are in " + path;
}

std::string Delivery::Numbered(size_t number) const {
  if (count_ == 1) {
    return output_;
  }
  char digits[32];
  std::snprintf(digits, sizeof(digits), "-%0*zu", static_cast<int>(std::to_string(count_).size()), number + 1);
  return Renamed(digits);
}

std::string Delivery::Renamed(const std::string &suffix) const {
  return output_.substr(0, output_.size() - 4) + suffix + output_.substr(output_.size() - 4);
}

}  // namespace kandinsky
