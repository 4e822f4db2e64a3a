// The regular expressions of CLIP's tokenizer files: alternatives of literals and of classes of characters.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kandinsky {

class SplitPattern {
 public:
  // What is known: alternatives (|) of characters, \s \S \p{L} \p{N}, classes of these ([...], [^...]), each with + or ?
  // behind it or alone, and (?!\S) at an end. std::invalid_argument for anything else, and for what matches nothing at all.
  explicit SplitPattern(std::string_view regex);
  // A pattern of one text, as it stands.
  static SplitPattern Literal(std::string_view text);

  // (start, end) of each match in UTF-8 `text`, from left to right: the first alternative that matches at a place has it.
  std::vector<std::pair<size_t, size_t>> Matches(std::string_view text) const;

 private:
  enum class Kind { kCharacter, kSpace, kLetter, kNumber };
  struct Member {
    Kind kind;
    int32_t code;   // of a kCharacter
    bool inverted;  // \S
  };
  struct Item {
    std::vector<Member> members;
    bool inverted = false;
    char repeat = '1';  // '1', '?' or '+'
  };
  struct Alternative {
    std::vector<Item> items;
    bool before_space = false;  // (?!\S) behind the last item
  };

  SplitPattern() = default;
  static Alternative ReadAlternative(std::string_view regex, size_t &position);
  static Item ReadClass(std::string_view regex, size_t &position);
  static Member ReadMember(std::string_view regex, size_t &position);
  static bool Has(const Item &item, int32_t code);
  static size_t Match(const Alternative &alternative, size_t item, std::string_view text, size_t position);

  std::vector<Alternative> alternatives_;
};

}  // namespace kandinsky
