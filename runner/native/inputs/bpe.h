// Byte pair encoding of one word: the model of a tokenizer file.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace kandinsky {

class Bpe {
 public:
  // `model` of a tokenizer file. std::invalid_argument for one that is damaged, or has an option that is not implemented.
  explicit Bpe(const nlohmann::json &model);

  // The ids of a word's tokens, behind `ids`: its characters, the last one with the suffix, then merged by rank.
  void Append(std::string_view word, std::vector<uint32_t> &ids) const;

  std::optional<uint32_t> Id(const std::string &token) const;
  const std::string *Token(uint32_t id) const;  // null if no token has the id
  size_t size() const { return ids_.size(); }
  const std::string &suffix() const { return suffix_; }

 private:
  struct Merge {
    uint32_t rank, id;
  };

  void ReadVocabulary(const nlohmann::json &model);
  void ReadMerges(const nlohmann::json &model);
  const Merge *Find(uint32_t left, uint32_t right) const;
  void MergeAll(std::vector<uint32_t> &symbols) const;

  std::unordered_map<std::string, uint32_t> ids_;
  std::unordered_map<uint32_t, const std::string *> tokens_;
  std::unordered_map<uint64_t, Merge> merges_;  // by left << 32 | right
  std::string prefix_, suffix_;
  std::optional<uint32_t> unknown_;
  bool ignores_merges_ = false, fuses_unknown_ = false;
};

}  // namespace kandinsky
