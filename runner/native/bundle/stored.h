// The file weights.bin, all float32, where a part's weights are stored in narrower types (runner/bundle/stored/wide_file.py).

#ifndef KANDINSKY_MINDIR_STORED_H
#define KANDINSKY_MINDIR_STORED_H

#include <cstdint>
#include <map>
#include <string>

#include "../../engine/native/widening.h"
#include "common/files.h"

namespace kandinsky {

constexpr const char *kWeights = "weights.bin", *kStored = "stored_weights.bin", *kIndex = "weights.index.json";

class StoredPart {
 public:
  // folder: of the part. UserError if its index and what it stores do not fit together.
  explicit StoredPart(const std::string &folder);

  int64_t size() const { return size_; }  // of weights.bin
  // What the table of a model says of whole pages at `offset` of weights.bin, from the length on.
  std::string Row(int64_t offset, int64_t length) const;
  // The bytes there.
  std::string Read(int64_t offset, int64_t length) const;

 private:
  struct Place {
    int64_t end = 0, values = 0, scales = 0;
    std::string type;
    StoredTensor tensor;
  };
  struct Source {
    const Place *place;
    int64_t first;
  };

  Source Find(int64_t offset, int64_t length) const;  // UserError unless that is whole elements of one tensor

  std::string path_;
  MappedFile data_;
  std::map<int64_t, Place> places_;  // by their beginnings
  int64_t size_ = 64;
};

}  // namespace kandinsky

#endif
