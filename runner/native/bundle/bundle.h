// A bundle on disk: its manifest, its constants, its graphs, and files that are checked before they are used.

#ifndef KANDINSKY_MINDIR_BUNDLE_H
#define KANDINSKY_MINDIR_BUNDLE_H

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bundle/checked_files.h"
#include "bundle/layout.h"
#include "bundle/manifest.h"
#include "bundle/npz.h"

namespace kandinsky {

// What packed weights must be made for to be used here.
struct MadeFor {
  std::string bundle, processor, precision, kernels;
  int threads = 0;
};

// The `.ms` model of a graph, or of a piece of one: the layout `name` in `files`, with its sources beside it, and weights as
// Lite packs them.
struct ModelSource {
  std::shared_ptr<const CheckedFiles> files;
  std::string name;
  std::vector<Stretch> packed;

  Layout Read() const { return Layout::Read(files->File(name)); }
  std::vector<std::string> Names(const Layout &layout) const;  // of all files that it is made of
  // Bytes of the largest weight that is made when it is read, as a narrower one is stored.
  int64_t WideAtOnce(const Layout &layout) const;
};

class Bundle {
 public:
  // path: the folder that `kandinsky-mindir export` wrote. UserError if it is no whole bundle.
  Bundle(const std::string &path, Check check, const Stop *stop);

  const std::string &path() const { return path_; }
  const Manifest &manifest() const { return manifest_; }
  const std::string &sha256() const { return sha256_; }  // of manifest.json
  const CheckedFiles &files() const { return *files_; }

  // A constant by name: "clip_mean", "zero_image_embeds" ...
  const std::vector<float> &Constant(const std::string &name) const;
  int64_t EmbeddingSize() const { return static_cast<int64_t>(Constant("clip_mean").size()); }

  // Has models loaded from what `kandinsky-mindir pack` made, if it is there for an engine with so many threads, that precision
  // and kernels; returns why what is there is of no use, and what to do; "" if it is used, or is not there.
  std::string UsePacked(int threads, const std::string &precision, const std::string &kernels);
  bool HasPacked() const { return packed_files_ != nullptr; }

  ModelSource Model(const std::string &layout) const;
  void VerifyFiles() const;
  int64_t WeightBytes() const;

 private:
  std::string path_, sha256_;
  Check check_;
  const Stop *stop_;
  Manifest manifest_;
  std::shared_ptr<const CheckedFiles> files_, packed_files_;
  std::map<std::string, ModelSource> packed_;
  mutable std::once_flag constants_read_;
  mutable std::map<std::string, Array> constants_;
};

}  // namespace kandinsky

#endif
