// Which characters are letters, numbers and blanks, and their lower case, are tables of what the tokenizers library has
// (Unicode 16 and 17), since the tables of a utf8proc may be older (2.8: Unicode 15) or newer. NFC is utf8proc's: it never
// changes for characters that are assigned. Those that compose since Unicode 16 do not with the tokenizers library.
#include "inputs/unicode.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <new>
#include <stdexcept>

#include "inputs/unicode_tables.h"
#include "common/utf8.h"

namespace kandinsky {
namespace {

// Todhri, Tulu-Tigalari, Gurung Khema, Kirat Rai: unassigned in the Unicode of the tokenizers library's NFC.
constexpr CodeRange kNeverComposed[] = {{0x105c0, 0x105ff}, {0x11380, 0x113ff}, {0x16100, 0x1613f}, {0x16d40, 0x16d7f}};

// The range that may have the code: the last one that begins at or before it. null if there is none.
template <typename Range, size_t count>
const Range *Find(const Range (&ranges)[count], int32_t code) {
  const auto next = std::upper_bound(std::begin(ranges), std::end(ranges), code,
                                     [](int32_t value, const Range &range) { return value < range.first; });
  return next == std::begin(ranges) ? nullptr : next - 1;
}

template <size_t count>
bool Has(const CodeRange (&ranges)[count], int32_t code) {
  const CodeRange *range = Find(ranges, code);
  return range != nullptr && code <= range->last;
}

int32_t Lower(int32_t code) {
  const CaseRange *range = Find(kUpperCases, code);
  if (range == nullptr) return code;
  // Ranges of stride 2 may begin one in another: look at the few before, too.
  for (ptrdiff_t i = range - kUpperCases; i >= 0 && code - kUpperCases[i].first < 0x200; --i) {
    const CaseRange &row = kUpperCases[i];
    if (code <= row.last && (code - row.first) % row.stride == 0) return code + row.distance;
  }
  return code;
}

void AppendComposed(std::string_view text, std::string &composed) {
  utf8proc_uint8_t *made = nullptr;
  const auto *bytes = reinterpret_cast<const utf8proc_uint8_t *>(text.data());
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const auto length = utf8proc_map(bytes, static_cast<utf8proc_ssize_t>(text.size()), &made, options);
  if (length == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  if (length < 0) throw std::runtime_error(utf8proc_errmsg(length));
  composed.append(reinterpret_cast<const char *>(made), static_cast<size_t>(length));
  std::free(made);
}

}  // namespace

bool IsLetter(int32_t code) { return Has(kLetters, code); }

bool IsNumber(int32_t code) { return Has(kNumbers, code); }

bool IsSpace(int32_t code) { return Has(kSpaces, code); }

std::string Composed(std::string_view text) {
  std::string composed;
  size_t start = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t here = position;
    const int32_t code = NextCodePoint(text, position);
    if (code < kNeverComposed[0].first || !Has(kNeverComposed, code)) continue;
    AppendComposed(text.substr(start, here - start), composed);
    composed.append(text.substr(here, position - here));
    start = position;
  }
  AppendComposed(text.substr(start), composed);
  return composed;
}

std::string LowerCase(std::string_view text) {
  std::string lower;
  for (size_t position = 0; position < text.size();) {
    const int32_t code = NextCodePoint(text, position);
    if (code == 0x130) {  // the one that becomes two: i, and a dot above
      lower += "i\u0307";
    } else {
      AppendUtf8(Lower(code), lower);
    }
  }
  return lower;
}

}  // namespace kandinsky
