// Prompts to CLIP's token ids, from a `tokenizer.json` as it is: runner/inputs/tokens.py without the tokenizers library.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kandinsky {

// A prompt of max_length tokens.
struct Tokens {
  std::vector<int32_t> input_ids;
  std::vector<float> mask;               // 1 for the tokens of the text, first and last one included, 0 for padding
  int32_t end_position = 0;              // where CLIP's text encoder pools
  std::optional<std::string> truncated;  // the text that did not fit, if not all of it did
};

// The fields of the manifest's `tokenizer`.
struct TokenizerOptions {
  int64_t max_length = 77;
  int64_t pad_token_id = 0;
  int64_t eos_token_id = 0;           // the text encoder's, which decides where it pools
  std::optional<int64_t> vocab_size;  // rows of the text encoder's embedding of tokens
};

// Does not change once made: threads may share one.
class Tokenizer {
 public:
  // json: the bytes of the file; name: what errors call it. UserError for what is no tokenizer of CLIP's, or has a part that
  // is not implemented here; the message names it.
  Tokenizer(std::string name, std::string_view json, const TokenizerOptions &options);
  ~Tokenizer();

  // The tokens of a text, cut or padded to max_length. UserError if it is not UTF-8, or has a token without a row.
  Tokens Encode(std::string_view text) const;

  // All ids of a text, the two around it included, neither cut nor padded.
  std::vector<uint32_t> Ids(std::string_view text) const;

 private:
  struct Parts;

  void CheckIds(const std::vector<uint32_t> &ids) const;
  std::string Decode(const uint32_t *ids, size_t count) const;

  std::string name_;
  TokenizerOptions options_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace kandinsky
