// Lite's own format, `.ms`, kept as a layout: where its tensors lie in files that graphs share, and all other bytes
// (runner/bundle/ms_layout.py).

#ifndef KANDINSKY_MINDIR_LAYOUT_H
#define KANDINSKY_MINDIR_LAYOUT_H

#include <cstdint>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/json.h"

namespace kandinsky {

// `length` bytes of the `.ms` file from `position` on are those of `source`, beside the layout, from `offset` on. Without a
// source they are a hole, which nobody reads.
struct Stretch {
  int64_t position = 0;
  std::string source;
  int64_t offset = 0, length = 0;

  bool Hole() const { return source.empty(); }
  bool Mapped() const;  // whether it is whole pages, which need not be copied
  // The stretch of [position, source, offset, length]; throws std::runtime_error if it is none.
  static Stretch Of(const Json &row);
};

// A `.ms` file in memory, and the table of what is to be mapped into it (runner/engine/native/mapped_weights.h).
struct ModelFile {
  Descriptor file, table;
  std::string origin;  // what errors call it
};

struct Layout {
  std::vector<Stretch> stretches;
  std::string skeleton;  // the bytes around them, joined

  static Layout Read(const std::string &path);  // UserError if the file is damaged

  std::vector<std::string> Sources() const;  // the files it takes from, which lie beside it
  int64_t size() const;
  int64_t WeightBytes() const;  // what a loaded graph holds of it

  // The `.ms` file. path: the layout's own. packed: what Lite need not make of the tensors at these positions.
  ModelFile Assemble(const std::string &path, const std::vector<Stretch> &packed) const;

 private:
  bool Plausible() const;
};

}  // namespace kandinsky

#endif
