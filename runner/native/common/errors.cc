#include "common/errors.h"

#include <cmath>
#include <cstdio>

#include "common/utf8.h"

namespace kandinsky {
namespace {

std::string Hex(const char *format, unsigned value) {
  char text[16];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// As str.isprintable: neither control, format, private or unassigned characters nor separators, but for the blank.
bool IsPrintable(int32_t code) {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return code == ' ';
    default:
      return true;
  }
}

// As Python writes it: \n and its like, \xNN, \uNNNN, \UNNNNNNNN.
std::string Escaped(int32_t code) {
  if (code == '\n') return "\\n";
  if (code == '\r') return "\\r";
  if (code == '\t') return "\\t";
  const auto value = static_cast<unsigned>(code);
  return Hex(code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", value);
}

// Where str.splitlines ends a line.
bool EndsLine(int32_t code) {
  return (code >= 0x0a && code <= 0x0d) || (code >= 0x1c && code <= 0x1e) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

bool IsBlank(int32_t code) {
  return code == '\t' || code == 0x1f || (code >= 0 && utf8proc_category(code) == UTF8PROC_CATEGORY_ZS);
}

}  // namespace

std::string Short(double number) {
  if (std::isnan(number)) return "nan";  // of either sign
  char text[32];
  std::snprintf(text, sizeof text, "%g", number);
  return text;
}

std::string OneLine(const std::string &text) {
  std::string line, blanks;  // blanks: seen, and kept only if more of the line follows
  bool between = false;      // a line has ended since the last character
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const int32_t code = NextCodePoint(text, position);
    if (code >= 0 && EndsLine(code)) {
      between = true;
      blanks.clear();
      continue;
    }
    const std::string character = code < 0            ? Hex("\\x%02x", static_cast<unsigned char>(text[start]))
                                  : IsPrintable(code) ? text.substr(start, position - start)
                                                      : Escaped(code);
    if (IsBlank(code)) {
      if (!between && !line.empty()) blanks += character;
      continue;
    }
    line += between && !line.empty() ? " " : blanks;
    line += character;
    between = false;
    blanks.clear();
  }
  return line;
}

std::string Quoted(const std::string &text) {
  const bool single = text.find('\'') == std::string::npos || text.find('"') != std::string::npos;
  const char quote = single ? '\'' : '"';
  std::string quoted(1, quote);
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const int32_t code = NextCodePoint(text, position);
    if (code < 0) {
      quoted += Hex("\\x%02x", static_cast<unsigned char>(text[start]));
    } else if (code == '\\' || code == quote) {
      quoted += {'\\', static_cast<char>(code)};
    } else {
      quoted += IsPrintable(code) ? text.substr(start, position - start) : Escaped(code);
    }
  }
  return quoted + quote;
}

}  // namespace kandinsky
