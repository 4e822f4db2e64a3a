// The file weights.bin, all float32, where a part's weights are stored in narrower types, or were merged
// (runner/bundle/stored/wide_file.py).

#ifndef KANDINSKY_MINDIR_STORED_H
#define KANDINSKY_MINDIR_STORED_H

#include <cstdint>
#include <map>
#include <string>

#include "../../engine/native/widening.h"
#include "common/files.h"

namespace kandinsky {

// Whether weights.bin is made of what lies in a file: stored_weights.bin, or what a merge has put beside it.
bool IsStored(const std::string &file);

constexpr const char *kWeights = "weights.bin", *kStored = "stored_weights.bin", *kIndex = "weights.index.json";

class StoredPart {
 public:
  // folder: of the part. UserError if its index and what it stores do not fit together.
  explicit StoredPart(const std::string &folder);

  int64_t size() const { return size_; }  // of weights.bin
  // The line of a model's table for whole pages at `offset` of weights.bin, which lie at `position` of the model.
  std::string Row(int64_t position, int64_t offset, int64_t length) const;
  // Whether they are made of others, and do not lie in a file as they are.
  bool Widens(int64_t offset, int64_t length) const;
  // The bytes there.
  std::string Read(int64_t offset, int64_t length) const;

 private:
  struct Place {
    int64_t end = 0, values = 0, scales = 0;
    std::string file, type;
    StoredTensor tensor;
  };
  struct Source {
    const Place *place;
    int64_t first;
  };

  Source Find(int64_t offset, int64_t length) const;  // UserError unless that is whole elements of one tensor
  static bool Lies(const Source &source);  // whether its pages are in a file as they are

  std::string folder_;
  std::map<std::string, MappedFile> data_;  // by the names of the files
  std::map<int64_t, Place> places_;  // by their beginnings
  int64_t size_ = 64;
};

}  // namespace kandinsky

#endif
