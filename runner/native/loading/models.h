// The models of a bundle as pipelines use them: leased, within what memory there is.

#ifndef KANDINSKY_MINDIR_MODELS_H
#define KANDINSKY_MINDIR_MODELS_H

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "loading/ahead.h"
#include "bundle/bundle.h"
#include "engine/engine.h"
#include "loading/footprint.h"

namespace kandinsky {

using Warn = std::function<void(const std::string &line)>;

// One thread at a time uses it.
class Models {
 public:
  // keep_loaded: whether a model stays in memory after its last user is done with it; without a word they stay with small
  // weights or a budget, if they fit. memory: bytes that this process and its models should stay below.
  Models(const Bundle &bundle, EngineOptions engine, std::optional<bool> keep_loaded, std::optional<int64_t> memory, Warn warn);
  ~Models();

  class Held;

  // The right to use a model, which is in memory as long as the lease.
  class Lease {
   public:
    Lease(Models *models, const GraphInfo &graph, bool keep);
    ~Lease();
    Lease(const Lease &) = delete;
    Lease &operator=(const Lease &) = delete;

    Outputs Run(const Inputs &inputs);  // the graph's outputs in order; EngineError

   private:
    Models *models_;
    Held *held_;
  };

  // The graph of a batch, for a block that changes between batches: one is leased at a time, and those of before stay until
  // the block ends, as long as nothing needs their room.
  class Batches {
   public:
    Batches(Models *models, std::string name, Size size) : models_(models), name_(std::move(name)), size_(size) {}
    ~Batches();
    Lease &At(int64_t batch);

   private:
    Models *models_;
    std::string name_;
    Size size_;
    int64_t batch_ = 0;
    std::set<const GraphInfo *> used_;
    std::unique_ptr<Lease> lease_;
  };

  std::unique_ptr<Lease> Take(const std::string &name, int64_t batch = 1, const std::optional<Size> &size = std::nullopt);

  MemoryPlan Plan(const std::vector<const GraphInfo *> &graphs, int64_t beside) const;
  // To be called before a request that runs `graphs`; UserError if it does not fit. Warns of what is slow. Where memory holds
  // all of them, they are loaded from now on, until EndRequest.
  MemoryPlan Require(const std::vector<const GraphInfo *> &graphs, int64_t beside);
  void EndRequest() { ahead_.reset(); }
  void Unload();  // every model that nobody is using

  const Bundle &bundle() const { return bundle_; }
  const EngineOptions &engine() const { return engine_; }
  const Warn &warn() const { return warn_; }
  void SetMemory(std::optional<int64_t> memory) { memory_ = memory; }

 private:
  int64_t Budget() const;
  int64_t Program() const;
  Held *Acquire(const GraphInfo &graph, bool keep);
  void Release(Held *held);
  size_t ChooseWay(const GraphInfo &graph);
  std::unique_ptr<Model> Load(const GraphInfo &graph, size_t resident);
  std::unique_ptr<Model> LoadPiece(const std::string &path) const;
  bool keeps() const { return keep_loaded_ && !frees_; }

  const Bundle &bundle_;
  EngineOptions engine_;
  bool keep_loaded_, may_free_, frees_ = false;
  std::optional<int64_t> memory_;
  int64_t beside_ = 0;
  Warn warn_;
  uint64_t clock_ = 0;
  std::map<const GraphInfo *, std::unique_ptr<Held>> held_;
  std::unique_ptr<Ahead> ahead_;  // last: it ends first
};

}  // namespace kandinsky

#endif
