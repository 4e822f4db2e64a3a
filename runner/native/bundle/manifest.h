// What a bundle says of itself: manifest.json, read strictly (runner/bundle/FORMAT.md).

#ifndef KANDINSKY_MINDIR_MANIFEST_H
#define KANDINSKY_MINDIR_MANIFEST_H

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/json.h"

namespace kandinsky {

constexpr const char *kManifestName = "manifest.json";
constexpr size_t kLargestManifest = size_t{1} << 26;  // bytes
constexpr const char *kExportAgain = "export the bundle again";

using Size = std::pair<int64_t, int64_t>;  // (height, width) in pixels
using Dimensions = std::vector<int64_t>;

std::string SizeText(const Size &size);  // "64x64"
int64_t Elements(const Dimensions &shape);

// Name, static shape and type ("float32" or "int32") of a graph's input or output.
struct TensorInfo {
  std::string name;
  Dimensions shape;
  std::string dtype;

  std::string Describe() const;
  bool operator==(const TensorInfo &other) const;
  bool operator<(const TensorInfo &other) const { return Describe() < other.Describe(); }
};

// One compiled graph. ms: layouts of it in Lite's own format: one, or those of its pieces in order of execution.
struct GraphInfo {
  std::string name, part;
  int64_t batch = 1;
  std::optional<Size> size;
  std::string mindir;
  std::vector<std::string> ms;
  std::vector<TensorInfo> inputs, outputs;

  std::string Title() const;
  const TensorInfo &Input(const std::string &name) const;  // UserError if there is none
};

struct FileInfo {
  uint64_t size = 0;
  std::string sha256;
};

struct Manifest {
  std::vector<Size> sizes;
  std::vector<GraphInfo> graphs;
  std::map<std::string, FileInfo> files;
  Json settings, schedulers, tokenizer, image_processor, defaults;

  // The manifest in `text`; UserError if it is not one that this version reads. where: what errors call the file.
  static Manifest Parse(const std::string &text, const std::string &where);

  bool Has(const std::string &name) const;
  // The graph of that name for a batch and a size; UserError if the bundle lacks it.
  const GraphInfo &Find(const std::string &name, int64_t batch = 1, const std::optional<Size> &size = std::nullopt) const;
};

// Whether `text`, the sha256 of which is `seal` with zeros in place of the seal, is as it was written.
bool IsSealed(const std::string &text, const std::string &seal);

// `path` if it is relative and stays inside the bundle; else UserError.
std::string Inside(const std::string &path, const std::string &where, const std::string &advice);

// {path: {"size", "sha256"}} of a manifest.
class Field;
std::map<std::string, FileInfo> ReadFiles(const Field &files, const std::string &advice);

}  // namespace kandinsky

#endif
