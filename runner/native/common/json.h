// JSON as this program reads and writes it.

#ifndef KANDINSKY_MINDIR_JSON_H
#define KANDINSKY_MINDIR_JSON_H

#include <nlohmann/json.hpp>
#include <string_view>

namespace kandinsky {

using Json = nlohmann::json;

constexpr int kDeepestJson = 200;

// Whether the arrays and objects of a JSON text lie deeper in one another than in any file of ours: what copies or prints such
// values calls itself for each level.
inline bool IsTooDeep(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') {
        ++i;
      } else {
        quoted = c != '"';
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepestJson) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace kandinsky

#endif
