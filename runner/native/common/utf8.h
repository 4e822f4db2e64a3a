// UTF-8 by code points. utf8proc's functions, for std::string.
#pragma once

#include <utf8proc.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace kandinsky {

// The code point at `position`, which moves behind it. -1 for what is no UTF-8: one byte is passed over.
inline int32_t NextCodePoint(std::string_view text, size_t &position) {
  utf8proc_int32_t code = -1;
  const auto *bytes = reinterpret_cast<const utf8proc_uint8_t *>(text.data()) + position;
  const auto length = utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - position), &code);
  position += length > 0 ? static_cast<size_t>(length) : 1;
  return length > 0 ? code : -1;
}

inline void AppendUtf8(int32_t code, std::string &text) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(code, bytes);
  text.append(reinterpret_cast<const char *>(bytes), static_cast<size_t>(length));
}

}  // namespace kandinsky
