// PNG files that are written, and their text: runner/pictures/saving.py and png_text.py.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pictures/images.h"

namespace kandinsky {

using TextChunks = std::vector<std::pair<std::string, std::string>>;  // keyword and UTF-8, in the order of the file

// The bytes of a PNG file with its texts before the pixels, as iTXt.
std::string EncodePng(const Image &image, const TextChunks &texts);
// Writes it, whole or not at all. UserError if it cannot be written.
void WritePng(const std::string &path, const Image &image, const TextChunks &texts);

// The text of a keyword in a file, in any of PNG's three kinds of text; none if the file is no PNG or has no such text.
// UserError if the file cannot be read, is damaged, or has a text of more than 2^20 bytes.
std::optional<std::string> ReadPngText(const std::string &path, const std::string &keyword);

struct PngChunk {
  std::string kind;
  std::string_view body;
  bool sound;  // whether its sum is right
};
// The chunks of a file's bytes, up to IEND or to where it is cut.
std::vector<PngChunk> PngChunks(std::string_view data);
// Keyword and text of a tEXt, zTXt or iTXt chunk; nothing for one that is damaged or has more than 2^20 bytes.
std::optional<std::pair<std::string, std::string>> DecodePngText(const PngChunk &chunk);

}  // namespace kandinsky
