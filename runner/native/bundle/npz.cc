#include "bundle/npz.h"

#include <cstring>
#include <stdexcept>

#include <zlib.h>

#include "common/errors.h"
#include "common/files.h"

namespace kandinsky {

namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 30;  // of all arrays of a file

class Damaged : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Little-endian numbers at places of a file.
class Bytes {
 public:
  Bytes(const uint8_t *data, size_t size) : data_(data), size_(size) {}

  const uint8_t *At(size_t place, size_t length) const {
    if (place > size_ || length > size_ - place) {
      throw Damaged("it is cut");
    }
    return data_ + place;
  }
  uint32_t Number(size_t place, size_t bytes) const {
    const uint8_t *at = At(place, bytes);
    uint32_t number = 0;
    for (size_t i = 0; i < bytes; ++i) {
      number |= static_cast<uint32_t>(at[i]) << (8 * i);
    }
    return number;
  }
  size_t size() const { return size_; }

 private:
  const uint8_t *data_;
  size_t size_;
};

struct Entry {
  std::string name;
  uint32_t method, crc, packed, size, header;
};

// The directory of a zip archive without zip64 (PKWARE's APPNOTE, 4.3.12 and 4.3.16).
std::vector<Entry> Directory(const Bytes &file) {
  constexpr size_t kEnd = 22, kRow = 46;
  size_t end = file.size() < kEnd ? 0 : file.size() - kEnd;
  const size_t least = end > 0xFFFF ? end - 0xFFFF : 0;
  while (end > least && file.Number(end, 4) != 0x06054B50) {
    --end;
  }
  if (file.Number(end, 4) != 0x06054B50) {
    throw Damaged("it is no zip archive");
  }
  std::vector<Entry> entries;
  const uint32_t count = file.Number(end + 10, 2);
  size_t place = file.Number(end + 16, 4);
  for (uint32_t i = 0; i < count; ++i) {
    if (file.Number(place, 4) != 0x02014B50) {
      throw Damaged("its directory is damaged");
    }
    const uint32_t length = file.Number(place + 28, 2);
    const auto *name = reinterpret_cast<const char *>(file.At(place + kRow, length));
    entries.push_back({std::string(name, length), file.Number(place + 10, 2), file.Number(place + 16, 4),
                       file.Number(place + 20, 4), file.Number(place + 24, 4), file.Number(place + 42, 4)});
    place += kRow + length + file.Number(place + 30, 2) + file.Number(place + 32, 2);
  }
  return entries;
}

std::vector<uint8_t> Content(const Bytes &file, const Entry &entry) {
  if (file.Number(entry.header, 4) != 0x04034B50) {
    throw Damaged(entry.name + " is not where its directory says");
  }
  const size_t place = size_t{entry.header} + 30 + file.Number(entry.header + 26, 2) + file.Number(entry.header + 28, 2);
  const uint8_t *packed = file.At(place, entry.packed);
  std::vector<uint8_t> content(entry.size);
  if (entry.method == 0 && entry.packed == entry.size) {
    std::copy(packed, packed + entry.size, content.begin());
  } else if (entry.method == 8) {
    z_stream stream{};
    stream.next_in = const_cast<uint8_t *>(packed);
    stream.avail_in = entry.packed;
    stream.next_out = content.data();
    stream.avail_out = entry.size;
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
      throw Damaged("there is no memory to expand it");
    }
    uint8_t spare = 0;  // zlib takes no place of no bytes
    if (content.empty()) {
      stream.next_out = &spare;
    }
    const int status = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    if (status != Z_STREAM_END || stream.total_out != entry.size) {
      throw Damaged(entry.name + " does not expand to what its entry says");
    }
  } else {
    throw Damaged(entry.name + " is compressed in an unknown way");
  }
  if (crc32(crc32(0, nullptr, 0), content.data(), static_cast<uInt>(content.size())) != entry.crc) {
    throw Damaged(entry.name + " has a wrong checksum");
  }
  return content;
}

// The text behind 'KEY': in the header of an array, a literal of Python's, up to what ends it.
std::string Value(const std::string &header, const std::string &key, char end) {
  const size_t found = header.find("'" + key + "':");
  const size_t start = found == std::string::npos ? found : header.find_first_not_of(' ', found + key.size() + 3);
  const size_t stop = start == std::string::npos ? start : header.find(end, start + 1);
  if (stop == std::string::npos) {
    throw Damaged("the header of an array lacks " + key);
  }
  return header.substr(start, stop - start + 1);
}

Dimensions ReadShape(const std::string &text) {
  Dimensions shape;
  for (size_t place = 1; place < text.size();) {
    const size_t digits = text.find_first_of("0123456789", place);
    if (digits == std::string::npos) {
      break;
    }
    const size_t stop = text.find_first_not_of("0123456789", digits);
    if (stop - digits > 10) {
      throw Damaged("an array is too large");
    }
    shape.push_back(std::stoll(text.substr(digits, stop - digits)));
    place = stop;
  }
  return shape;
}

// Places of the elements of an array that is stored by columns, in C order.
template <typename T>
std::vector<T> Ordered(std::vector<T> values, const Dimensions &shape, bool by_columns) {
  if (!by_columns || shape.size() < 2) {
    return values;
  }
  std::vector<T> ordered(values.size());
  std::vector<int64_t> index(shape.size(), 0);
  for (auto &value : ordered) {
    int64_t place = 0;
    for (size_t axis = shape.size(); axis-- > 0;) {
      place = place * shape[axis] + index[axis];
    }
    value = std::move(values[static_cast<size_t>(place)]);
    for (size_t axis = shape.size(); axis-- > 0 && ++index[axis] == shape[axis];) {
      index[axis] = 0;
    }
  }
  return ordered;
}

std::string Utf8(const uint8_t *characters, size_t count) {  // of UTF-32, which NumPy pads with zeros
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    uint32_t code;
    std::memcpy(&code, characters + 4 * i, 4);
    if (code == 0) {
      continue;
    }
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else if (code < 0x800) {
      text += {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    } else {
      text += {static_cast<char>(0xE0 | (code >> 12 & 0xF)), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
               static_cast<char>(0x80 | (code & 0x3F))};
    }
  }
  return text;
}

// numpy.lib.format, versions 1.0 and 2.0.
Array ReadArray(const std::vector<uint8_t> &content, const std::string &name) {
  const Bytes file(content.data(), content.size());
  if (std::memcmp(file.At(0, 6), "\x93NUMPY", 6) != 0) {
    throw Damaged(name + " is no array");
  }
  const size_t digits = file.Number(6, 1) == 1 ? 2 : 4, start = 8 + digits, length = file.Number(8, digits);
  const std::string header(reinterpret_cast<const char *>(file.At(start, length)), length);
  const std::string kind = Value(header, "descr", '\''), columns = Value(header, "fortran_order", 'e');
  Array array;
  array.shape = ReadShape(Value(header, "shape", ')'));
  const bool by_columns = columns == "True";
  double count = 1;
  for (const auto side : array.shape) {
    count *= static_cast<double>(side);
  }
  const size_t width = kind == "'<f4'" || kind == "'<i4'" ? 4
                       : kind.compare(0, 3, "'<U") == 0   ? 4 * std::strtoul(kind.c_str() + 3, nullptr, 10) : 0;
  if (width == 0 && kind.compare(0, 3, "'<U") != 0) {
    throw Damaged(name + " holds " + kind);
  }
  const size_t bytes = content.size() - start - length;
  if (count * static_cast<double>(width) != static_cast<double>(bytes)) {
    throw Damaged(name + " has " + std::to_string(bytes) + " bytes, not those of its shape");
  }
  const uint8_t *data = content.data() + start + length;
  const auto elements = static_cast<size_t>(count);
  if (kind == "'<f4'") {
    array.dtype = "float32";
    std::vector<float> values(elements);
    std::memcpy(values.data(), data, bytes);
    array.floats = Ordered(std::move(values), array.shape, by_columns);
  } else if (kind == "'<i4'") {
    array.dtype = "int32";
    std::vector<int32_t> values(elements);
    std::memcpy(values.data(), data, bytes);
    array.integers = Ordered(std::move(values), array.shape, by_columns);
  } else {
    array.dtype = "text";
    for (size_t i = 0; i < (width == 0 ? 0 : elements); ++i) {
      array.texts.push_back(Utf8(data + i * width, width / 4));
    }
  }
  return array;
}

}  // namespace

std::map<std::string, Array> ReadArrays(const std::string &path, const std::vector<std::string> &required) {
  const std::string remedy = std::string("it is damaged; ") + kExportAgain;
  const MappedFile file(path, remedy);
  try {
    const Bytes bytes(file.data(), file.size());
    const std::vector<Entry> entries = Directory(bytes);
    uint64_t total = 0;
    for (const auto &entry : entries) {
      total += entry.size;
    }
    if (total > kMostBytes) {
      throw Damaged("its arrays take more than " + std::to_string(kMostBytes) + " bytes");
    }
    std::map<std::string, Array> arrays;
    for (const auto &entry : entries) {
      std::string name = entry.name;
      if (name.size() > 4 && name.compare(name.size() - 4, 4, ".npy") == 0) {
        name.resize(name.size() - 4);
      }
      arrays[name] = ReadArray(Content(bytes, entry), entry.name);
    }
    for (const auto &name : required) {
      if (arrays.count(name) == 0) {
        throw Damaged("it has no " + name);
      }
    }
    return arrays;
  } catch (const Damaged &error) {
    throw UserError(path + " cannot be read (" + error.what() + "): " + remedy);
  }
}

}  // namespace kandinsky
