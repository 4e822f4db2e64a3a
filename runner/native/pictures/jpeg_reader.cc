// JPEG to RGB, as Pillow reads it: with libjpeg's slow transform and smooth chroma; CMYK as Adobe has it.
#include <cstdio>  // before jpeglib.h, which uses it

#include <jpeglib.h>

#include <algorithm>
#include <csetjmp>

#include "pictures/picture_files.h"

namespace kandinsky {
namespace {

// libjpeg's structures. What happens between setjmp and longjmp holds no C++ object.
struct Reader {
  jpeg_decompress_struct jpeg = {};
  jpeg_error_mgr errors = {};
  std::jmp_buf place;
  char message[JMSG_LENGTH_MAX] = "";
  bool cut = false;
  std::vector<uint8_t> pixels;

  ~Reader() { jpeg_destroy_decompress(&jpeg); }
};

void Fail(j_common_ptr jpeg) {
  auto *reader = static_cast<Reader *>(jpeg->client_data);
  jpeg->err->format_message(jpeg, reader->message);
  std::longjmp(reader->place, 1);
}

// libjpeg goes on after small damage, as Pillow does.
void Ignore(j_common_ptr) {}
void IgnoreLevel(j_common_ptr, int) {}

void Nothing(j_decompress_ptr) {}

// There is no more data: the file ends before the picture does.
boolean Cut(j_decompress_ptr jpeg) {
  static const JOCTET kEnd[] = {0xFF, JPEG_EOI};
  static_cast<Reader *>(jpeg->client_data)->cut = true;
  jpeg->src->next_input_byte = kEnd;
  jpeg->src->bytes_in_buffer = sizeof kEnd;
  return TRUE;
}

void Skip(j_decompress_ptr jpeg, long count) {
  if (count <= 0) return;
  const auto size = static_cast<size_t>(count);
  if (size > jpeg->src->bytes_in_buffer) {
    Cut(jpeg);
    return;
  }
  jpeg->src->next_input_byte += size;
  jpeg->src->bytes_in_buffer -= size;
}

bool ReadHeader(Reader &reader, jpeg_source_mgr &source) {
  if (setjmp(reader.place)) return false;
  jpeg_create_decompress(&reader.jpeg);
  reader.jpeg.client_data = &reader;
  reader.jpeg.src = &source;
  jpeg_read_header(&reader.jpeg, TRUE);
  return true;
}

bool ReadPixels(Reader &reader) {
  if (setjmp(reader.place)) return false;
  jpeg_start_decompress(&reader.jpeg);
  const size_t stride = size_t{reader.jpeg.output_width} * static_cast<size_t>(reader.jpeg.output_components);
  reader.pixels.resize(stride * reader.jpeg.output_height);
  while (reader.jpeg.output_scanline < reader.jpeg.output_height) {
    JSAMPROW row = reader.pixels.data() + stride * reader.jpeg.output_scanline;
    jpeg_read_scanlines(&reader.jpeg, &row, 1);
    if (reader.cut) return true;
  }
  return true;
}

// a * b / 255, rounded, as Pillow's MULDIV255
int Scaled(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

}  // namespace

bool IsJpeg(std::string_view data) { return data.substr(0, 3) == "\xff\xd8\xff"; }

Image DecodeJpeg(std::string_view data) {
  jpeg_source_mgr source = {};
  source.next_input_byte = reinterpret_cast<const JOCTET *>(data.data());
  source.bytes_in_buffer = data.size();
  source.init_source = Nothing;
  source.fill_input_buffer = Cut;
  source.skip_input_data = Skip;
  source.resync_to_restart = jpeg_resync_to_restart;
  source.term_source = Nothing;
  Reader reader;
  reader.jpeg.err = jpeg_std_error(&reader.errors);
  reader.jpeg.client_data = &reader;
  reader.errors.error_exit = Fail;
  reader.errors.output_message = Ignore;
  reader.errors.emit_message = IgnoreLevel;
  if (!ReadHeader(reader, source)) throw BadPicture(reader.cut ? "the file is cut" : reader.message);
  if (reader.cut) throw BadPicture("the file is cut");
  CheckPixels(reader.jpeg.image_width, reader.jpeg.image_height);
  const int layers = reader.jpeg.num_components;
  if (layers != 1 && layers != 3 && layers != 4)
    throw BadPicture("a JPEG of " + std::to_string(layers) + " layers is not known");
  reader.jpeg.out_color_space = layers == 1 ? JCS_GRAYSCALE : layers == 3 ? JCS_RGB : JCS_CMYK;
  if (!ReadPixels(reader)) throw BadPicture(reader.message);
  if (reader.cut) throw BadPicture("the file is cut");
  const size_t count = size_t{reader.jpeg.output_width} * reader.jpeg.output_height;
  Image image{static_cast<int>(reader.jpeg.output_width), static_cast<int>(reader.jpeg.output_height), {}};
  if (layers == 3) {
    image.rgb = std::move(reader.pixels);
    return image;
  }
  image.rgb.resize(count * 3);
  for (size_t i = 0; i < count; ++i) {
    uint8_t *to = &image.rgb[3 * i];
    if (layers == 1) {
      std::fill_n(to, 3, reader.pixels[i]);
      continue;
    }
    const uint8_t *ink = &reader.pixels[4 * i];  // Adobe's: 255 for none, so that the paper left by black is ink[3] itself
    for (int channel = 0; channel < 3; ++channel) {
      to[channel] = static_cast<uint8_t>(std::clamp(ink[3] - Scaled(255 - ink[channel], ink[3]), 0, 255));
    }
  }
  return image;
}

}  // namespace kandinsky
