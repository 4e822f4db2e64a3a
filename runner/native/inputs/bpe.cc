#include "inputs/bpe.h"

#include <nlohmann/json.hpp>
#include <queue>
#include <stdexcept>

#include "common/utf8.h"

namespace kandinsky {
namespace {

using Json = nlohmann::json;

// The option, or its default where it is missing or null.
template <typename T>
T Option(const Json &model, const char *name, T otherwise) {
  const auto found = model.find(name);
  return found == model.end() || found->is_null() ? otherwise : found->get<T>();
}

constexpr size_t kNone = static_cast<size_t>(-1);

}  // namespace

Bpe::Bpe(const Json &model) {
  const auto type = Option<std::string>(model, "type", "BPE");
  if (type != "BPE") throw std::invalid_argument("the model " + type + " is not implemented, BPE is");
  if (model.contains("dropout") && !model["dropout"].is_null()) throw std::invalid_argument("dropout is not implemented");
  if (Option(model, "byte_fallback", false)) throw std::invalid_argument("byte_fallback is not implemented");
  prefix_ = Option<std::string>(model, "continuing_subword_prefix", "");
  suffix_ = Option<std::string>(model, "end_of_word_suffix", "");
  fuses_unknown_ = Option(model, "fuse_unk", false);
  ignores_merges_ = Option(model, "ignore_merges", false);
  ReadVocabulary(model);
  ReadMerges(model);
  const auto unknown = Option<std::string>(model, "unk_token", "");
  if (model.contains("unk_token") && !model["unk_token"].is_null()) {
    unknown_ = Id(unknown);
    if (!unknown_) throw std::invalid_argument("its unk_token " + unknown + " is not in its vocabulary");
  }
}

void Bpe::ReadVocabulary(const Json &model) {
  const Json &vocabulary = model.at("vocab");
  ids_.reserve(vocabulary.size());
  tokens_.reserve(vocabulary.size());
  for (const auto &entry : vocabulary.items()) {
    if (!entry.value().is_number_unsigned() || entry.value().get<uint64_t>() > UINT32_MAX) {
      throw std::invalid_argument("the id of the token " + entry.key() + " is no number of 32 bits");
    }
    const auto place = ids_.emplace(entry.key(), entry.value().get<uint32_t>()).first;
    tokens_[place->second] = &place->first;
  }
}

void Bpe::ReadMerges(const Json &model) {
  const auto id = [this](const std::string &token) {
    const auto found = ids_.find(token);
    if (found == ids_.end()) throw std::invalid_argument("the token " + token + " of a merge is not in its vocabulary");
    return found->second;
  };
  uint32_t rank = 0;
  for (const Json &merge : model.at("merges")) {
    std::string left, right;
    if (merge.is_string()) {  // as older files have it
      const auto text = merge.get<std::string>();
      if (text.compare(0, 8, "#version") == 0) continue;
      const size_t blank = text.find(' ');
      if (blank == std::string::npos || text.find(' ', blank + 1) != std::string::npos) {
        throw std::invalid_argument("its merge number " + std::to_string(rank + 1) + " is not two tokens");
      }
      left = text.substr(0, blank), right = text.substr(blank + 1);
    } else {
      left = merge.at(0).get<std::string>(), right = merge.at(1).get<std::string>();
      if (merge.size() != 2)
        throw std::invalid_argument("its merge number " + std::to_string(rank + 1) + " is not two tokens");
    }
    if (right.size() < prefix_.size()) throw std::invalid_argument("the token " + right + " of a merge lacks the prefix");
    const uint64_t pair = uint64_t{id(left)} << 32 | id(right);
    merges_[pair] = {rank++, id(left + right.substr(prefix_.size()))};
  }
}

std::optional<uint32_t> Bpe::Id(const std::string &token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional<uint32_t>(found->second);
}

const std::string *Bpe::Token(uint32_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : found->second;
}

const Bpe::Merge *Bpe::Find(uint32_t left, uint32_t right) const {
  const auto found = merges_.find(uint64_t{left} << 32 | right);
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::Append(std::string_view word, std::vector<uint32_t> &ids) const {
  if (ignores_merges_) {
    if (const auto whole = Id(std::string(word))) {
      ids.push_back(*whole);
      return;
    }
  }
  std::vector<uint32_t> symbols;
  bool after_unknown = false;
  for (size_t position = 0; position < word.size();) {
    const size_t start = position;
    NextCodePoint(word, position);
    std::string token = start > 0 ? prefix_ : "";
    token.append(word.substr(start, position - start));
    if (position == word.size()) token += suffix_;
    const auto id = Id(token);
    if (id) {
      symbols.push_back(*id);
    } else if (unknown_ && !(after_unknown && fuses_unknown_)) {
      symbols.push_back(*unknown_);
    }
    after_unknown = !id && unknown_;
  }
  MergeAll(symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

// The pair of the lowest rank, the leftmost of these, becomes one symbol, until no pair has a rank. As in the tokenizers
// library, a pair that was found before one of its symbols grew is merged if what it has become makes the same token.
void Bpe::MergeAll(std::vector<uint32_t> &symbols) const {
  struct Found {
    uint32_t rank;
    size_t place;
    uint32_t id;
    bool operator<(const Found &other) const { return rank != other.rank ? rank > other.rank : place > other.place; }
  };
  std::priority_queue<Found> queue;
  std::vector<size_t> next(symbols.size()), before(symbols.size());
  std::vector<bool> gone(symbols.size());
  const auto offer = [&](size_t place) {
    if (next[place] == kNone) return;
    if (const Merge *merge = Find(symbols[place], symbols[next[place]])) queue.push({merge->rank, place, merge->id});
  };
  for (size_t i = 0; i < symbols.size(); ++i) {
    before[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 < symbols.size() ? i + 1 : kNone;
  }
  for (size_t i = 0; i < symbols.size(); ++i) offer(i);
  while (!queue.empty()) {
    const Found top = queue.top();
    queue.pop();
    if (gone[top.place] || next[top.place] == kNone) continue;
    const size_t right = next[top.place];
    const Merge *merge = Find(symbols[top.place], symbols[right]);
    if (merge == nullptr || merge->id != top.id) continue;
    symbols[top.place] = top.id;
    gone[right] = true;
    next[top.place] = next[right];
    if (next[right] != kNone) before[next[right]] = top.place;
    if (before[top.place] != kNone) offer(before[top.place]);
    offer(top.place);
  }
  size_t kept = 0;
  for (size_t i = 0; i < symbols.size(); ++i) {
    if (!gone[i]) symbols[kept++] = symbols[i];
  }
  symbols.resize(kept);
}

}  // namespace kandinsky
