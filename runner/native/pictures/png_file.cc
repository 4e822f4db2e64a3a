#include "pictures/png_file.h"

#include <fcntl.h>
#include <png.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>

#include "common/errors.h"
#include "pictures/picture_files.h"
#include "common/utf8.h"
#include "common/whole_file.h"

namespace kandinsky {
namespace {

constexpr size_t kMostText = size_t{1} << 20;  // bytes of one text, and of its chunk
constexpr int kMostChunks = 1 << 20;

uint32_t BigEndian(const char *bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

uint32_t Crc(std::string_view kind, std::string_view body) {
  const auto of = [](uLong sum, std::string_view text) {
    return crc32_z(sum, reinterpret_cast<const Bytef *>(text.data()), text.size());
  };
  return static_cast<uint32_t>(of(of(0, kind), body));
}

std::optional<std::string> Inflated(std::string_view data) {
  std::string text(kMostText + 1, '\0');
  uLongf length = text.size();
  const auto *bytes = reinterpret_cast<const Bytef *>(data.data());
  if (uncompress(reinterpret_cast<Bytef *>(text.data()), &length, bytes, data.size()) != Z_OK) return std::nullopt;
  if (length > kMostText) return std::nullopt;
  text.resize(length);
  return text;
}

std::string FromLatin1(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) AppendUtf8(static_cast<unsigned char>(byte), text);
  return text;
}

bool IsUtf8(const std::string &text) {
  for (size_t position = 0; position < text.size();) {
    if (NextCodePoint(text, position) < 0) return false;
  }
  return true;
}

// What libpng writes with. What happens between setjmp and longjmp holds no C++ object.
struct Writer {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::string data, error;
  std::vector<png_text> texts;
  std::vector<png_bytep> rows;

  ~Writer() { png_destroy_write_struct(&png, &info); }
};

void Fail(png_structp png, png_const_charp message) {
  static_cast<Writer *>(png_get_error_ptr(png))->error = message;
  std::longjmp(png_jmpbuf(png), 1);
}

void Ignore(png_structp, png_const_charp) {}

void Take(png_structp png, png_bytep bytes, png_size_t count) {
  static_cast<Writer *>(png_get_io_ptr(png))->data.append(reinterpret_cast<const char *>(bytes), count);
}

void Flush(png_structp) {}

bool WriteAll(Writer &writer, const Image &image) {
  if (setjmp(png_jmpbuf(writer.png))) return false;
  png_set_write_fn(writer.png, &writer, Take, Flush);
  png_set_user_limits(writer.png, 0x7fffffff, 0x7fffffff);
  png_set_IHDR(writer.png, writer.info, static_cast<png_uint_32>(image.width), static_cast<png_uint_32>(image.height), 8,
               PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!writer.texts.empty())
    png_set_text(writer.png, writer.info, writer.texts.data(), static_cast<int>(writer.texts.size()));
  png_set_rows(writer.png, writer.info, writer.rows.data());
  png_write_png(writer.png, writer.info, PNG_TRANSFORM_IDENTITY, nullptr);
  return true;
}

struct Close {
  void operator()(std::FILE *file) const { std::fclose(file); }
};

}  // namespace

std::string EncodePng(const Image &image, const TextChunks &texts) {
  Writer writer;
  for (const auto &[keyword, text] : texts) {
    png_text chunk = {};
    chunk.compression = PNG_ITXT_COMPRESSION_NONE;
    chunk.key = const_cast<char *>(keyword.c_str());  // libpng copies these
    chunk.text = const_cast<char *>(text.c_str());
    chunk.itxt_length = text.size();
    chunk.lang = chunk.lang_key = const_cast<char *>("");
    writer.texts.push_back(chunk);
  }
  const size_t stride = size_t{3} * static_cast<size_t>(image.width);
  for (int y = 0; y < image.height; ++y) {
    writer.rows.push_back(const_cast<png_bytep>(image.rgb.data() + stride * static_cast<size_t>(y)));
  }
  writer.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer, Fail, Ignore);
  writer.info = writer.png == nullptr ? nullptr : png_create_info_struct(writer.png);
  if (writer.info == nullptr) throw std::bad_alloc();
  if (!WriteAll(writer, image)) throw UserError("a picture cannot be written as PNG: " + writer.error);
  return std::move(writer.data);
}

void WritePng(const std::string &path, const Image &image, const TextChunks &texts) {
  const std::string data = EncodePng(image, texts);
  WriteWhole(path, data.data(), data.size());
}

std::vector<PngChunk> PngChunks(std::string_view data) {
  std::vector<PngChunk> chunks;
  for (size_t at = 8; data.size() >= at + 12;) {
    const size_t length = BigEndian(data.data() + at);
    if (length > data.size() - at - 12) break;
    const std::string_view kind = data.substr(at + 4, 4), body = data.substr(at + 8, length);
    if (kind == "IEND") break;
    chunks.push_back({std::string(kind), body, Crc(kind, body) == BigEndian(body.data() + length)});
    at += 12 + length;
  }
  return chunks;
}

// PNG specification, 11.3.4.
std::optional<std::pair<std::string, std::string>> DecodePngText(const PngChunk &chunk) {
  const size_t end = chunk.body.find('\0');
  if (!chunk.sound || chunk.body.size() > kMostText) return std::nullopt;
  const std::string keyword = FromLatin1(chunk.body.substr(0, end));
  std::string_view rest = end == std::string_view::npos ? std::string_view() : chunk.body.substr(end + 1);
  if (chunk.kind == "tEXt") return std::make_pair(keyword, FromLatin1(rest));
  const bool compressed = chunk.kind == "zTXt" || rest.substr(0, 1) == "\1";
  if (chunk.kind == "zTXt") {
    if (rest.empty() || rest[0] != 0) return std::nullopt;
    rest.remove_prefix(1);
  } else {
    if (rest.size() < 2 || static_cast<unsigned char>(rest[0]) > 1 || rest[1] != 0) return std::nullopt;
    rest.remove_prefix(2);
    for (int part = 0; part < 2; ++part) {  // the language, the keyword in that language
      const size_t part_end = rest.find('\0');
      if (part_end == std::string_view::npos) return std::nullopt;
      rest.remove_prefix(part_end + 1);
    }
  }
  std::optional<std::string> text = compressed ? Inflated(rest) : std::string(rest);
  if (!text) return std::nullopt;
  if (chunk.kind == "zTXt") return std::make_pair(keyword, FromLatin1(*text));
  if (!IsUtf8(*text)) return std::nullopt;
  return std::make_pair(keyword, *text);
}

std::optional<std::string> ReadPngText(const std::string &path, const std::string &keyword) {
  const auto refuse = [&path](const std::string &reason) { throw UserError(path + " cannot be read: " + reason); };
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe or a device may never end
  struct stat facts;
  if (descriptor < 0) refuse(std::strerror(errno));
  if (fstat(descriptor, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    close(descriptor);
    refuse("it is not a file");
  }
  const std::unique_ptr<std::FILE, Close> file(fdopen(descriptor, "rb"));
  const auto read = [&file](size_t count) {
    std::string bytes(count, '\0');
    bytes.resize(std::fread(bytes.data(), 1, count, file.get()));
    return bytes;
  };
  if (!IsPng(read(8))) return std::nullopt;
  for (int i = 0; i < kMostChunks; ++i) {
    const std::string head = read(8);
    if (head.size() < 8) refuse("the file is cut");
    const size_t length = BigEndian(head.data());
    const std::string kind = head.substr(4);
    if (kind == "IEND") return std::nullopt;
    if (kind != "tEXt" && kind != "zTXt" && kind != "iTXt") {
      if (fseeko(file.get(), static_cast<off_t>(length) + 4, SEEK_CUR) != 0) refuse(std::strerror(errno));
      continue;
    }
    if (length > kMostText) {
      refuse("it has a text of " + std::to_string(length) + " bytes; the limit is " + std::to_string(kMostText));
    }
    const std::string body = read(length + 4);
    if (body.size() < length + 4) refuse("the file is cut");
    const std::string_view content(body.data(), length);
    if (Crc(kind, content) != BigEndian(body.data() + length)) refuse("a text in it is damaged");
    if (content.substr(0, content.find('\0')) != keyword) continue;
    const auto text = DecodePngText({kind, content, true});
    if (!text) refuse("a text in it is damaged, or longer than " + std::to_string(kMostText) + " bytes");
    return text->second;
  }
  refuse("it has too many chunks");
  return std::nullopt;
}

}  // namespace kandinsky
