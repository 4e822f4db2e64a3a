// What a tokenizer file does to a text before the model sees its words: normalizers, pre-tokenizers and added tokens.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "inputs/bpe.h"
#include "inputs/split_pattern.h"

namespace kandinsky {

// All constructors: std::invalid_argument for a part that is damaged or not implemented.

class Normalizer {
 public:
  explicit Normalizer(const nlohmann::json &config);
  std::string operator()(std::string_view text) const;

 private:
  struct Step {
    enum { kCompose, kLowerCase, kReplace } kind;
    std::optional<SplitPattern> pattern;
    std::string content;
  };

  void Add(const nlohmann::json &config, int depth);

  std::vector<Step> steps_;
};

class PreTokenizer {
 public:
  explicit PreTokenizer(const nlohmann::json &config);
  // The words of a normalized text, as the model knows them: a character for each byte.
  std::vector<std::string> operator()(std::string_view text) const;

 private:
  struct Step {
    std::optional<SplitPattern> pattern;  // none: to bytes
    bool keeps_matches, keeps_rest;
  };

  void Add(const nlohmann::json &config, int depth);

  std::vector<Step> steps_;
  bool has_bytes_ = false;
};

// The tokens that are found in a text as they stand.
class AddedTokens {
 public:
  AddedTokens(const nlohmann::json &added_tokens, const Bpe &model, const Normalizer &normalizer);

  struct Piece {
    std::string_view text;
    std::optional<uint32_t> id;  // of the token that the text is, if it is one
  };
  // A text in pieces, the longest token at each place from the left. normalized: those that look for themselves in the
  // normalized text, or those that do in the text as it was typed.
  std::vector<Piece> Split(std::string_view text, bool normalized) const;
  const std::string *Token(uint32_t id) const;

 private:
  struct Entry {
    std::string content;
    uint32_t id;
  };
  using ByFirstByte = std::array<std::vector<Entry>, 256>;

  std::array<ByFirstByte, 2> tokens_;  // raw, normalized
  std::vector<Entry> decoder_;
};

// The bytes of the characters that stand for them, or the text itself if one of them stands for none.
std::string ToBytes(const std::string &token);

}  // namespace kandinsky
