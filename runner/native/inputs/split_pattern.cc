#include "inputs/split_pattern.h"

#include <algorithm>
#include <stdexcept>

#include "inputs/unicode.h"
#include "common/utf8.h"

namespace kandinsky {
namespace {

constexpr size_t kNone = std::string_view::npos;
constexpr std::string_view kNotBeforeText = "(?!\\S)";
constexpr int kMostRepeats = 2;      // in an alternative: the ways to match many would be too many
constexpr size_t kMostItems = 1000;  // of an alternative
constexpr std::string_view kSyntax = "()[]{}|?+*.^$";  // characters that mean themselves only behind a backslash

[[noreturn]] void Refuse(std::string_view regex, size_t position) {
  throw std::invalid_argument("the regular expression " + std::string(regex) + " is not implemented from its character " +
                              std::to_string(position + 1) + " on");
}

bool Skip(std::string_view text, size_t &position, std::string_view what) {
  if (text.compare(position, what.size(), what) != 0) return false;
  position += what.size();
  return true;
}

}  // namespace

SplitPattern::SplitPattern(std::string_view regex) {
  for (size_t position = 0;;) {
    alternatives_.push_back(ReadAlternative(regex, position));
    if (position == regex.size()) return;
    ++position;  // the bar
  }
}

SplitPattern SplitPattern::Literal(std::string_view text) {
  Alternative alternative;
  for (size_t position = 0; position < text.size();) {
    alternative.items.push_back({{{Kind::kCharacter, NextCodePoint(text, position), false}}});
  }
  if (alternative.items.empty() || alternative.items.size() > kMostItems) {
    throw std::invalid_argument("a pattern of " + std::to_string(text.size()) + " bytes is not implemented");
  }
  SplitPattern pattern;
  pattern.alternatives_.push_back(std::move(alternative));
  return pattern;
}

SplitPattern::Alternative SplitPattern::ReadAlternative(std::string_view regex, size_t &position) {
  Alternative alternative;
  bool can_be_empty = true;
  int repeats = 0;
  while (position < regex.size() && regex[position] != '|') {
    if (Skip(regex, position, kNotBeforeText)) {
      if (position < regex.size() && regex[position] != '|') Refuse(regex, position);
      alternative.before_space = true;
      break;
    }
    Item item;
    if (regex[position] == '[') {
      item = ReadClass(regex, position);
    } else if (kSyntax.find(regex[position]) != kNone) {
      Refuse(regex, position);
    } else {
      item.members.push_back(ReadMember(regex, position));
    }
    if (Skip(regex, position, "+"))
      item.repeat = '+';
    else if (Skip(regex, position, "?"))
      item.repeat = '?';
    if (position < regex.size() && std::string_view("?+*{").find(regex[position]) != kNone) Refuse(regex, position);
    repeats += item.repeat != '1';
    if (repeats > kMostRepeats || alternative.items.size() == kMostItems) Refuse(regex, position - 1);
    can_be_empty = can_be_empty && item.repeat == '?';
    alternative.items.push_back(std::move(item));
  }
  if (can_be_empty) throw std::invalid_argument("the regular expression " + std::string(regex) + " matches an empty text");
  return alternative;
}

SplitPattern::Item SplitPattern::ReadClass(std::string_view regex, size_t &position) {
  Item item;
  ++position;
  item.inverted = Skip(regex, position, "^");
  while (position < regex.size() && regex[position] != ']') {
    // Ranges, classes within classes and && are not implemented.
    if (regex[position] == '-' || regex[position] == '[' || regex[position] == '&') Refuse(regex, position);
    item.members.push_back(ReadMember(regex, position));
  }
  if (!Skip(regex, position, "]") || item.members.empty()) Refuse(regex, position);
  return item;
}

SplitPattern::Member SplitPattern::ReadMember(std::string_view regex, size_t &position) {
  const size_t start = position;
  if (Skip(regex, position, "\\s")) return {Kind::kSpace, 0, false};
  if (Skip(regex, position, "\\S")) return {Kind::kSpace, 0, true};
  if (Skip(regex, position, "\\p{L}")) return {Kind::kLetter, 0, false};
  if (Skip(regex, position, "\\p{N}")) return {Kind::kNumber, 0, false};
  const bool escaped = Skip(regex, position, "\\");
  if (position == regex.size()) Refuse(regex, start);
  const int32_t code = NextCodePoint(regex, position);
  const bool word = (code >= '0' && code <= '9') || (code >= 'A' && code <= 'Z') || (code >= 'a' && code <= 'z');
  if (code < 0 || (escaped && (word || code > 127))) Refuse(regex, start);
  return {Kind::kCharacter, code, false};
}

std::vector<std::pair<size_t, size_t>> SplitPattern::Matches(std::string_view text) const {
  std::vector<std::pair<size_t, size_t>> matches;
  for (size_t position = 0; position < text.size();) {
    size_t end = kNone;
    for (const Alternative &alternative : alternatives_) {
      end = Match(alternative, 0, text, position);
      if (end != kNone) break;
    }
    if (end == kNone) {
      NextCodePoint(text, position);
    } else {
      matches.emplace_back(position, end);
      position = end;
    }
  }
  return matches;
}

bool SplitPattern::Has(const Item &item, int32_t code) {
  const bool found = std::any_of(item.members.begin(), item.members.end(), [code](const Member &member) {
    switch (member.kind) {
      case Kind::kSpace:
        return IsSpace(code) != member.inverted;
      case Kind::kLetter:
        return IsLetter(code);
      case Kind::kNumber:
        return IsNumber(code);
      default:
        return code == member.code;
    }
  });
  return found != item.inverted;
}

// The end of the longest way to match the items from `item` on, giving back from repeats where the rest needs it; or kNone.
size_t SplitPattern::Match(const Alternative &alternative, size_t item, std::string_view text, size_t position) {
  if (item == alternative.items.size()) {
    size_t next = position;
    const bool before_text = alternative.before_space && position < text.size() && !IsSpace(NextCodePoint(text, next));
    return before_text ? kNone : position;
  }
  const Item &wanted = alternative.items[item];
  const size_t least = wanted.repeat == '?' ? 0 : 1, most = wanted.repeat == '+' ? kNone : 1;
  size_t count = 0, end = position;
  while (count < most && end < text.size()) {
    size_t next = end;
    if (!Has(wanted, NextCodePoint(text, next))) break;
    end = next;
    ++count;
  }
  for (;; --count) {
    if (count < least) return kNone;
    const size_t found = Match(alternative, item + 1, text, end);
    if (found != kNone || count == 0) return found;
    do --end;
    while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);  // the middle of a character
  }
}

}  // namespace kandinsky
