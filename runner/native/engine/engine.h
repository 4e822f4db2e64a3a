// MindSpore Lite through the program of runner/engine/native/bridge.cc, one process for each loaded model, all of them forked
// from one that has loaded Lite's libraries.
//
// A process gives all memory back when its model is closed, and its death is an error message here. Arrays travel through
// shared memory, which Lite reads in place. Whoever uses this library links none of Lite's libraries.

#ifndef KANDINSKY_MINDIR_ENGINE_H
#define KANDINSKY_MINDIR_ENGINE_H

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/errors.h"
#include "bundle/layout.h"
#include "bundle/manifest.h"
#include "engine/process.h"

namespace kandinsky {

// Bytes of an array that somebody else holds.
struct View {
  View(const std::vector<float> &values) : data(values.data()), size(4 * values.size()) {}      // NOLINT: it is one
  View(const std::vector<int32_t> &values) : data(values.data()), size(4 * values.size()) {}    // NOLINT

  const void *data;
  size_t size;
};

using Inputs = std::map<std::string, View>;
using Outputs = std::vector<std::vector<float>>;

// One loaded graph, or a piece of one.
class Model {
 public:
  virtual ~Model() = default;
  virtual const std::vector<TensorInfo> &inputs() const = 0;
  virtual const std::vector<TensorInfo> &outputs() const = 0;
  virtual bool usable() const = 0;  // false after a run that did not end well: load another
  // The outputs in order. inputs: by name, and perhaps others. EngineError if Lite fails.
  virtual Outputs Run(const Inputs &inputs) = 0;
};

struct EngineOptions {
  std::shared_ptr<Starters> starters;
  int threads = 1;
  std::string precision = "float32";  // of products and convolutions, or "bfloat16"
  std::string kernels = "lite";       // whose compute: Lite's, or "own", ours
  double deadline = 3600;             // seconds for one answer
  const Stop *stop = nullptr;         // what ends a run early
};

// The bridge's path: `given`, or $KANDINSKY_MINDIR_BRIDGE, or kandinsky-bridge beside this library. UserError if it is not there.
std::string FindBridge(const std::string &given);

// Seconds: what KANDINSKY_MINDIR_DEADLINE says, or an hour. UserError unless it is a number above 0.
double Deadline();

// Loads a `.ms` file. EngineError names it if Lite does not take it.
std::unique_ptr<Model> LoadModel(const EngineOptions &options, const ModelFile &file);

}  // namespace kandinsky

#endif
