// Where a picture's upper side is: EXIF (TIFF 6.0, section 2: a byte order, then a directory of tags) and XMP, found in the
// chunks of a PNG and the segments of a JPEG as Pillow's getexif finds them.
#include <algorithm>
#include <optional>

#include "pictures/picture_files.h"
#include "pictures/png_file.h"

namespace kandinsky {
namespace {

constexpr uint32_t kOrientationTag = 0x0112;

// Numbers of a TIFF structure; nothing where it is too short.
struct Tiff {
  std::string_view data;
  bool little = true;

  std::optional<uint32_t> Number(size_t offset, size_t bytes) const {
    if (offset > data.size() || bytes > data.size() - offset) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; ++i) {
      value = value << 8 | static_cast<unsigned char>(data[offset + (little ? bytes - 1 - i : i)]);
    }
    return value;
  }
};

// The orientation of EXIF data, if its first directory has one number for it.
std::optional<int> OfExif(std::string_view data) {
  if (data.substr(0, 6) == std::string_view("Exif\0\0", 6)) data.remove_prefix(6);
  const std::string_view order = data.substr(0, 4);
  if (order != std::string_view("II*\0", 4) && order != std::string_view("MM\0*", 4)) return std::nullopt;
  const Tiff tiff{data, order[0] == 'I'};
  const uint32_t start = tiff.Number(4, 4).value_or(0), count = tiff.Number(start, 2).value_or(0);
  std::optional<int> found;
  for (uint32_t i = 0; i < count; ++i) {
    const size_t entry = size_t{start} + 2 + size_t{12} * i;
    const auto tag = tiff.Number(entry, 2), type = tiff.Number(entry + 2, 2), length = tiff.Number(entry + 4, 4);
    if (!tiff.Number(entry + 8, 4)) break;
    if (tag != kOrientationTag) continue;
    // Signed or not: bytes, shorts, longs. What is no single number (a plain BYTE is none to Pillow) turns nothing.
    const size_t bytes = *type == 6 ? 1 : *type == 3 || *type == 8 ? 2 : *type == 4 || *type == 9 ? 4 : 0;
    found = bytes > 0 && *length == 1 ? static_cast<int>(std::min(*tiff.Number(entry + 8, bytes), 99u)) : 99;
  }
  return found;
}

// The digit behind tiff:Orientation=" or tiff:Orientation>
std::optional<int> OfXmp(std::string_view data) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (size_t at = 0; (at = data.find(kName, at)) != std::string_view::npos; at += kName.size()) {
    std::string_view rest = data.substr(at + kName.size());
    if (rest.substr(0, 2) == "=\"")
      rest.remove_prefix(2);
    else if (rest.substr(0, 1) == ">")
      rest.remove_prefix(1);
    else
      continue;
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return std::nullopt;
}

// "\nexif\n    LENGTH\nDIGITS\nDIGITS...", as ImageMagick writes it: the bytes of its fourth line and those behind it.
std::string OfRawProfile(const std::string &text) {
  size_t at = 0;
  for (int line = 0; line < 3; ++line) {
    at = text.find('\n', at);
    if (at == std::string::npos) return "";
    ++at;
  }
  std::string bytes;
  int high = -1;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) continue;
    if (high >= 0) bytes += static_cast<char>(high << 4 | digit);
    high = high >= 0 ? -1 : digit;
  }
  return bytes;
}

int Orientation(const std::string &exif, std::string_view xmp) { return OfExif(exif).value_or(OfXmp(xmp).value_or(1)); }

}  // namespace

int PngOrientation(std::string_view data) {
  std::string exif, raw_profile, xmp;
  for (const PngChunk &chunk : PngChunks(data)) {
    if (chunk.kind == "eXIf") {
      exif = "Exif" + std::string(2, '\0') + std::string(chunk.body);
    } else if (chunk.kind == "tEXt" || chunk.kind == "zTXt" || chunk.kind == "iTXt") {
      const auto text = DecodePngText(chunk);
      if (text && text->first == "XML:com.adobe.xmp") xmp = text->second;
      if (text && text->first == "Raw profile type exif") raw_profile = OfRawProfile(text->second);
    }
  }
  return Orientation(exif.empty() ? raw_profile : exif, xmp);
}

int JpegOrientation(std::string_view data) {
  constexpr std::string_view kXmp("http://ns.adobe.com/xap/1.0/\0", 29), kExif("Exif\0\0", 6);
  std::string exif, xmp;
  for (size_t at = 2; at + 4 <= data.size();) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(data[i]); };
    if (byte(at) != 0xFF || byte(at + 1) == 0xFF || byte(at + 1) == 0) {  // padding and junk between segments
      ++at;
      continue;
    }
    const unsigned marker = byte(at + 1);
    if (marker == 0xDA || marker == 0xD9) break;  // the scan, the end
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
      at += 2;
      continue;
    }
    const size_t length = size_t{byte(at + 2)} << 8 | byte(at + 3);
    if (length < 2 || length > data.size() - at - 2) break;
    const std::string_view body = data.substr(at + 4, length - 2);
    if (marker == 0xE1 && body.substr(0, 6) == kExif) exif.append(exif.empty() ? body : body.substr(6));
    if (marker == 0xE1 && body.substr(0, kXmp.size()) == kXmp) xmp = body.substr(kXmp.size());
    at += 2 + length;
  }
  return Orientation(exif, xmp);
}

}  // namespace kandinsky
