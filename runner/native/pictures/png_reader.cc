// PNG to RGB, as Pillow reads it: samples of 16 bits lose their low byte, but for gray alone, which is scaled; transparency
// is dropped.
#include <png.h>

#include <cmath>
#include <csetjmp>
#include <cstring>

#include "pictures/picture_files.h"

namespace kandinsky {
namespace {

constexpr char kSignature[] = "\x89PNG\r\n\x1a\n";

// libpng's structures, and the bytes that it reads. What happens between setjmp and longjmp holds no C++ object.
struct Reader {
  std::string_view data;
  size_t position = 0;
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::string error;
  std::vector<uint8_t> pixels;
  std::vector<png_bytep> rows;
  size_t channels = 0, depth = 0;

  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
};

void Fail(png_structp png, png_const_charp message) {
  auto *reader = static_cast<Reader *>(png_get_error_ptr(png));
  reader->error = message;
  std::longjmp(png_jmpbuf(png), 1);
}

void Ignore(png_structp, png_const_charp) {}

void Give(png_structp png, png_bytep out, png_size_t count) {
  auto *reader = static_cast<Reader *>(png_get_io_ptr(png));
  if (count > reader->data.size() - reader->position) png_error(png, "the file is cut");
  std::memcpy(out, reader->data.data() + reader->position, count);
  reader->position += count;
}

bool ReadHeader(Reader &reader) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  png_set_user_limits(reader.png, 0x7fffffff, 0x7fffffff);
  png_set_chunk_malloc_max(reader.png, 1 << 26);
  png_read_info(reader.png, reader.info);
  return true;
}

// Samples come with 8 bits, or 16 for gray; a palette's as its indices.
bool ReadPixels(Reader &reader) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  const int color = png_get_color_type(reader.png, reader.info);
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_packing(reader.png);
  if (color == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(reader.png);
  if (color != PNG_COLOR_TYPE_GRAY) png_set_strip_16(reader.png);
  if (color & PNG_COLOR_MASK_ALPHA) png_set_strip_alpha(reader.png);
  png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  reader.channels = png_get_channels(reader.png, reader.info);
  reader.depth = png_get_bit_depth(reader.png, reader.info);
  const size_t stride = png_get_rowbytes(reader.png, reader.info), height = png_get_image_height(reader.png, reader.info);
  reader.pixels.resize(stride * height);
  reader.rows.resize(height);
  for (size_t y = 0; y < height; ++y) reader.rows[y] = reader.pixels.data() + y * stride;
  png_read_image(reader.png, reader.rows.data());
  return true;
}

// The colors of the palette; those it lacks are black.
std::vector<uint8_t> Palette(const Reader &reader) {
  png_colorp colors = nullptr;
  int count = 0;
  if (png_get_PLTE(reader.png, reader.info, &colors, &count) == 0) throw BadPicture("it has no palette");
  std::vector<uint8_t> palette(256 * 3);
  for (int i = 0; i < count; ++i) {
    palette[3 * i] = colors[i].red;
    palette[3 * i + 1] = colors[i].green;
    palette[3 * i + 2] = colors[i].blue;
  }
  return palette;
}

}  // namespace

bool IsPng(std::string_view data) { return data.substr(0, 8) == std::string_view(kSignature, 8); }

Image DecodePng(std::string_view data) {
  Reader reader;
  reader.data = data;
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, Fail, Ignore);
  reader.info = reader.png == nullptr ? nullptr : png_create_info_struct(reader.png);
  if (reader.info == nullptr) throw std::bad_alloc();
  png_set_read_fn(reader.png, &reader, Give);
  if (!ReadHeader(reader)) throw BadPicture(reader.error);
  const int64_t width = png_get_image_width(reader.png, reader.info), height = png_get_image_height(reader.png, reader.info);
  CheckPixels(width, height);
  const bool indexed = png_get_color_type(reader.png, reader.info) == PNG_COLOR_TYPE_PALETTE;
  if (!ReadPixels(reader)) throw BadPicture(reader.error);
  Image image{static_cast<int>(width), static_cast<int>(height), std::vector<uint8_t>(width * height * 3)};
  const std::vector<uint8_t> palette = indexed ? Palette(reader) : std::vector<uint8_t>();
  const uint8_t *from = reader.pixels.data();
  uint8_t *to = image.rgb.data();
  for (int64_t i = 0; i < width * height; ++i, to += 3) {
    if (indexed) {
      std::memcpy(to, &palette[3 * *from++], 3);
    } else if (reader.channels == 3) {
      std::memcpy(to, from, 3);
      from += 3;
    } else if (reader.depth == 16) {
      // 257 times a level of 8 bits is that of 16 bits
      std::memset(to, static_cast<int>(std::nearbyint((from[0] * 256 + from[1]) / 257.0)), 3);
      from += 2;
    } else {
      std::memset(to, *from++, 3);
    }
  }
  return image;
}

}  // namespace kandinsky
