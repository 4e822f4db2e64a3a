#include "inputs/text_steps.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "inputs/unicode.h"
#include "common/utf8.h"

namespace kandinsky {
namespace {

using Json = nlohmann::json;

// ByteLevel's own expression, which is GPT-2's.
constexpr char kWordsOfGpt2[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr int kDeepest = 2;  // sequences in sequences

[[noreturn]] void Refuse(const std::string &what) { throw std::invalid_argument(what + " is not implemented"); }

bool Flag(const Json &config, const char *name, bool otherwise) {
  const auto found = config.find(name);
  return found == config.end() ? otherwise : found->get<bool>();
}

SplitPattern ReadPattern(const Json &pattern) {
  if (pattern.contains("Regex")) return SplitPattern(pattern["Regex"].get<std::string>());
  return SplitPattern::Literal(pattern.at("String").get<std::string>());
}

// GPT-2's alphabet: a printable character of Latin-1 stands for its byte, those from U+0100 on for the other bytes in order.
struct ByteAlphabet {
  std::array<std::string, 256> characters;
  std::array<int, 0x144> bytes;  // by code point; -1 for none

  ByteAlphabet() {
    bytes.fill(-1);
    int32_t other = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
      const int32_t code = printable ? byte : other++;
      AppendUtf8(code, characters[byte]);
      bytes[code] = byte;
    }
  }
};

const ByteAlphabet &Alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

}  // namespace

Normalizer::Normalizer(const Json &config) {
  if (!config.is_null()) Add(config, 0);
}

void Normalizer::Add(const Json &config, int depth) {
  if (depth > kDeepest) Refuse("a sequence in a sequence in a sequence");
  const auto type = config.at("type").get<std::string>();
  if (type == "Sequence") {
    for (const Json &step : config.at("normalizers")) Add(step, depth + 1);
  } else if (type == "NFC") {
    steps_.push_back({Step::kCompose, {}, {}});
  } else if (type == "Lowercase") {
    steps_.push_back({Step::kLowerCase, {}, {}});
  } else if (type == "Replace") {
    steps_.push_back({Step::kReplace, ReadPattern(config.at("pattern")), config.at("content").get<std::string>()});
  } else {
    Refuse("the normalizer " + type);
  }
}

std::string Normalizer::operator()(std::string_view text) const {
  std::string normalized(text);
  for (const Step &step : steps_) {
    if (step.kind == Step::kCompose) {
      normalized = Composed(normalized);
    } else if (step.kind == Step::kLowerCase) {
      normalized = LowerCase(normalized);
    } else {
      std::string replaced;
      size_t end = 0;
      for (const auto &match : step.pattern->Matches(normalized)) {
        replaced.append(normalized, end, match.first - end).append(step.content);
        end = match.second;
      }
      normalized = replaced.append(normalized, end, std::string::npos);
    }
  }
  return normalized;
}

PreTokenizer::PreTokenizer(const Json &config) {
  if (!config.is_null()) Add(config, 0);
  if (!has_bytes_) Refuse("a tokenizer without the pre-tokenizer ByteLevel");
}

void PreTokenizer::Add(const Json &config, int depth) {
  if (depth > kDeepest) Refuse("a sequence in a sequence in a sequence");
  const auto type = config.at("type").get<std::string>();
  if (type != "Sequence" && has_bytes_) Refuse("the pre-tokenizer " + type + " behind ByteLevel");
  if (type == "Sequence") {
    for (const Json &step : config.at("pretokenizers")) Add(step, depth + 1);
  } else if (type == "Split") {
    const auto behavior = config.at("behavior").get<std::string>();
    if (behavior != "Removed" && behavior != "Isolated") Refuse("the pre-tokenizer Split with the behavior " + behavior);
    const bool inverted = Flag(config, "invert", false), keeps_all = behavior == "Isolated";
    steps_.push_back({ReadPattern(config.at("pattern")), keeps_all || inverted, keeps_all || !inverted});
  } else if (type == "ByteLevel") {
    if (Flag(config, "add_prefix_space", true)) Refuse("the pre-tokenizer ByteLevel with add_prefix_space");
    if (Flag(config, "use_regex", true)) steps_.push_back({SplitPattern(kWordsOfGpt2), true, true});
    has_bytes_ = true;
  } else {
    Refuse("the pre-tokenizer " + type);
  }
}

std::vector<std::string> PreTokenizer::operator()(std::string_view text) const {
  std::vector<std::string_view> pieces{text};
  for (const Step &step : steps_) {
    std::vector<std::string_view> kept;
    for (const std::string_view piece : pieces) {
      size_t end = 0;
      for (const auto &match : step.pattern->Matches(piece)) {
        if (step.keeps_rest && match.first > end) kept.push_back(piece.substr(end, match.first - end));
        if (step.keeps_matches) kept.push_back(piece.substr(match.first, match.second - match.first));
        end = match.second;
      }
      if (step.keeps_rest && end < piece.size()) kept.push_back(piece.substr(end));
    }
    pieces = std::move(kept);
  }
  std::vector<std::string> words;
  for (const std::string_view piece : pieces) {
    if (piece.empty()) continue;
    std::string &word = words.emplace_back();
    for (const char byte : piece) word += Alphabet().characters[static_cast<unsigned char>(byte)];
  }
  return words;
}

AddedTokens::AddedTokens(const Json &added_tokens, const Bpe &model, const Normalizer &normalizer) {
  std::vector<std::pair<Entry, const Json *>> tokens;
  for (const Json &token : added_tokens) {
    const auto content = token.at("content").get<std::string>();
    for (const char *option : {"single_word", "lstrip", "rstrip"}) {
      if (Flag(token, option, false)) Refuse("the added token " + content + " with " + option);
    }
    const bool known =
        std::any_of(tokens.begin(), tokens.end(), [&](const auto &other) { return other.first.content == content; });
    if (content.empty() || known) continue;
    // What the model lacks has an id behind the model's and those of the tokens before it.
    uint32_t id = static_cast<uint32_t>(model.size());
    for (const auto &other : tokens) id = std::max(id, other.first.id + 1);
    tokens.push_back({{content, model.Id(content).value_or(id)}, &token});
  }
  std::stable_partition(tokens.begin(), tokens.end(),
                        [](const auto &token) { return Flag(*token.second, "special", false); });
  for (const auto &[token, config] : tokens) {
    const bool normalized = Flag(*config, "normalized", true);
    const std::string content = normalized ? normalizer(token.content) : token.content;
    decoder_.push_back({content, token.id});
    if (!content.empty()) tokens_[normalized][static_cast<unsigned char>(content[0])].push_back({content, token.id});
  }
}

std::vector<AddedTokens::Piece> AddedTokens::Split(std::string_view text, bool normalized) const {
  std::vector<Piece> pieces;
  size_t end = 0;
  for (size_t start = 0; start < text.size();) {
    const Entry *longest = nullptr;
    for (const Entry &token : tokens_[normalized][static_cast<unsigned char>(text[start])]) {
      const bool longer = longest == nullptr || token.content.size() > longest->content.size();
      if (longer && text.compare(start, token.content.size(), token.content) == 0) longest = &token;
    }
    if (longest == nullptr) {
      ++start;
      continue;
    }
    if (start > end) pieces.push_back({text.substr(end, start - end), {}});
    end = start + longest->content.size();
    pieces.push_back({text.substr(start, end - start), longest->id});
    start = end;
  }
  if (end < text.size()) pieces.push_back({text.substr(end), {}});
  return pieces;
}

const std::string *AddedTokens::Token(uint32_t id) const {
  const auto found = std::find_if(decoder_.rbegin(), decoder_.rend(), [id](const Entry &token) { return token.id == id; });
  return found == decoder_.rend() ? nullptr : &found->content;
}

std::string ToBytes(const std::string &token) {
  std::string bytes;
  for (size_t position = 0; position < token.size();) {
    const int32_t code = NextCodePoint(token, position);
    const int byte = code >= 0 && code < static_cast<int32_t>(Alphabet().bytes.size()) ? Alphabet().bytes[code] : -1;
    if (byte < 0) return token;
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

}  // namespace kandinsky
