#include "inputs/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "inputs/bpe.h"
#include "common/errors.h"
#include "common/json.h"
#include "inputs/text_steps.h"
#include "inputs/unicode.h"
#include "common/utf8.h"

namespace kandinsky {
namespace {

constexpr int64_t kLegacyEosTokenId = 2;  // what old text encoder configurations say, whatever the vocabulary

const Json &Part(const Json &file, const char *name) {
  static const Json none;
  const auto found = file.find(name);
  return found == file.end() ? none : *found;
}

uint32_t Id(const Json &id) {
  if (id.is_number_unsigned() && id.get<uint64_t>() <= UINT32_MAX) return id.get<uint32_t>();
  throw std::invalid_argument("the id " + id.dump() + " of its post-processor is no number of 32 bits");
}

// The ids before and behind a text's own.
struct Around {
  std::vector<uint32_t> before, behind;

  explicit Around(const Json &config) {
    const auto type = config.is_null() ? std::string() : config.at("type").get<std::string>();
    if (type == "RobertaProcessing" || type == "BertProcessing") {
      before = {Id(config.at("cls").at(1))};
      behind = {Id(config.at("sep").at(1))};
    } else if (type == "TemplateProcessing") {
      bool passed = false;
      for (const Json &item : config.at("single")) {
        passed = passed || item.contains("Sequence");
        if (!item.contains("SpecialToken")) continue;
        const auto ids = config.at("special_tokens").at(item["SpecialToken"].at("id").get<std::string>()).at("ids");
        for (const Json &id : ids) (passed ? behind : before).push_back(Id(id));
      }
      if (!passed) throw std::invalid_argument("its post-processor leaves out the text");
    } else if (!type.empty()) {
      throw std::invalid_argument("the post-processor " + type + " is not implemented");
    }
  }
};

// Bytes as text, as Rust's from_utf8_lossy: U+FFFD for each longest beginning of a character that is cut.
std::string Lossy(const std::string &bytes) {
  std::string text;
  for (size_t position = 0; position < bytes.size();) {
    const size_t start = position;
    const int32_t code = NextCodePoint(bytes, position);
    if (code >= 0) {
      text.append(bytes, start, position - start);
      continue;
    }
    const auto byte = [&](size_t i) { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0; };
    const unsigned lead = byte(start), second = byte(start + 1);
    const unsigned low = lead == 0xE0   ? 0xA0
                         : lead == 0xF0 ? 0x90
                                        : 0x80,
                   high = lead == 0xED   ? 0x9F
                          : lead == 0xF4 ? 0x8F
                                         : 0xBF;
    const size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                          : lead >= 0xE0 && lead <= 0xEF ? 3
                          : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                         : 1;
    if (length > 1 && second >= low && second <= high) {
      position = start + 2;
      while (position < start + length && (byte(position) & 0xC0) == 0x80) ++position;
    }
    text += "\xEF\xBF\xBD";
  }
  return text;
}

// As str.strip.
std::string Stripped(const std::string &text) {
  size_t start = text.size(), end = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t here = position;
    const int32_t code = NextCodePoint(text, position);
    const bool blank = (code >= 0x1c && code <= 0x1f) || (code >= 0 && IsSpace(code));
    if (blank) continue;
    start = std::min(start, here);
    end = position;
  }
  return start < end ? text.substr(start, end - start) : "";
}

}  // namespace

struct Tokenizer::Parts {
  Bpe model;
  Normalizer normalizer;
  PreTokenizer words;
  AddedTokens added;
  Around around;

  explicit Parts(const Json &file)
      : model(file.at("model")),
        normalizer(Part(file, "normalizer")),
        words(Part(file, "pre_tokenizer")),
        added(Part(file, "added_tokens"), model, normalizer),
        around(Part(file, "post_processor")) {
    const Json &decoder = Part(file, "decoder");
    const auto type = decoder.is_null() ? "null" : decoder.at("type").get<std::string>();
    if (type != "ByteLevel") throw std::invalid_argument("the decoder " + type + " is not implemented");
  }
};

Tokenizer::Tokenizer(std::string name, std::string_view json, const TokenizerOptions &options)
    : name_(std::move(name)), options_(options) {
  if (IsTooDeep(json)) throw UserError(name_ + " is not a tokenizer: it is nested too deeply");
  try {
    parts_ = std::make_unique<const Parts>(Json::parse(json));
  } catch (const Json::exception &error) {
    throw UserError(name_ + " is not a tokenizer: " + error.what());
  } catch (const std::invalid_argument &error) {
    throw UserError(name_ + " is not a tokenizer that this program knows: " + error.what());
  }
  std::vector<uint32_t> special = Ids("");
  if (parts_->model.suffix().empty() || special.size() != 2) {
    throw UserError(name_ + " is not CLIP's tokenizer: that ends words with </w> and puts two tokens around");
  }
  const int64_t last = special[1], pad = options_.pad_token_id;
  if (pad < 0 || pad > INT32_MAX || options_.max_length < 2 || options_.max_length > 1 << 20) {
    throw UserError(name_ + ": max_length " + std::to_string(options_.max_length) + " and pad_token_id " +
                    std::to_string(pad) + " cannot be: check the bundle's manifest");
  }
  special.push_back(static_cast<uint32_t>(pad));
  CheckIds(special);
  if (options_.eos_token_id != last && options_.eos_token_id != kLegacyEosTokenId) {
    throw UserError(name_ + " ends a text with token " + std::to_string(last) + ", but the text encoder's eos_token_id is " +
                    std::to_string(options_.eos_token_id) + ": they do not belong together");
  }
}

Tokenizer::~Tokenizer() = default;

std::vector<uint32_t> Tokenizer::Ids(std::string_view text) const {
  for (size_t position = 0; position < text.size();) {
    if (NextCodePoint(text, position) < 0)
      throw UserError("the prompt must be Unicode text, not " + Quoted(std::string(text)));
  }
  std::vector<uint32_t> ids = parts_->around.before;
  for (const auto &typed : parts_->added.Split(text, false)) {
    if (typed.id) {
      ids.push_back(*typed.id);
      continue;
    }
    const std::string normalized = parts_->normalizer(typed.text);
    for (const auto &piece : parts_->added.Split(normalized, true)) {
      if (piece.id) {
        ids.push_back(*piece.id);
      } else {
        for (const std::string &word : parts_->words(piece.text)) parts_->model.Append(word, ids);
      }
    }
  }
  ids.insert(ids.end(), parts_->around.behind.begin(), parts_->around.behind.end());
  return ids;
}

Tokens Tokenizer::Encode(std::string_view text) const {
  std::vector<uint32_t> ids = Ids(text);
  CheckIds(ids);
  const auto length = static_cast<size_t>(options_.max_length);
  Tokens tokens;
  if (ids.size() > length) {
    tokens.truncated = Decode(ids.data() + length - 1, ids.size() - length);
    ids[length - 1] = ids.back();
    ids.resize(length);
  }
  tokens.mask.assign(length, 0.0f);
  std::fill_n(tokens.mask.begin(), ids.size(), 1.0f);
  tokens.input_ids.assign(ids.begin(), ids.end());
  tokens.input_ids.resize(length, static_cast<int32_t>(options_.pad_token_id));
  // transformers, CLIPTextTransformer.forward: with old configurations the largest id, which CLIP's own end token is; else
  // the first end token.
  const auto first = tokens.input_ids.begin(), last = tokens.input_ids.end();
  auto end = std::max_element(first, last);
  if (options_.eos_token_id != kLegacyEosTokenId) end = std::find(first, last, static_cast<int32_t>(options_.eos_token_id));
  tokens.end_position = static_cast<int32_t>(end - first);
  return tokens;
}

// UserError for an id that the text encoder has no row for: Lite computes something there, and says nothing.
void Tokenizer::CheckIds(const std::vector<uint32_t> &ids) const {
  const uint32_t largest = *std::max_element(ids.begin(), ids.end());
  const int64_t rows = options_.vocab_size.value_or(int64_t{INT32_MAX} + 1);
  if (largest < rows) return;
  const std::string *token = parts_->added.Token(largest);
  if (token == nullptr) token = parts_->model.Token(largest);
  throw UserError(name_ + ": token " + (token == nullptr ? "None" : Quoted(*token)) + " has the id " +
                  std::to_string(largest) + ", but the text encoder knows " + std::to_string(rows) +
                  " tokens: do not use that token, or export a checkpoint that knows it");
}

// Text of the tokens, in lower case and with single spaces, as CLIP's normalizer left it.
std::string Tokenizer::Decode(const uint32_t *ids, size_t count) const {
  std::string bytes;
  for (size_t i = 0; i < count; ++i) {
    const std::string *token = parts_->added.Token(ids[i]);
    if (token == nullptr) token = parts_->model.Token(ids[i]);
    if (token != nullptr) bytes += ToBytes(*token);
  }
  std::string text = Lossy(bytes);
  const std::string &suffix = parts_->model.suffix();
  for (size_t at = 0; (at = text.find(suffix, at)) != std::string::npos; ++at) text.replace(at, suffix.size(), " ");
  return Stripped(text);
}

}  // namespace kandinsky
