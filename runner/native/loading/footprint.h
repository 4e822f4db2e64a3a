// What memory a graph takes, by estimate, and the demands of a request in their order (runner/loading/).

#ifndef KANDINSKY_MINDIR_FOOTPRINT_H
#define KANDINSKY_MINDIR_FOOTPRINT_H

#include <cstdint>
#include <string>
#include <vector>

#include "bundle/bundle.h"

namespace kandinsky {

// Bytes. loading: the most while a graph is loaded and run; kept: once it only waits.
struct Footprint {
  int64_t loading = 0, kept = 0;
};

// How many of a graph's pieces can stay in memory, from the fastest way, all, to the smallest: every other one is loaded when
// its turn comes in a run, each time.
std::vector<size_t> Ways(const GraphInfo &graph);

Footprint FootprintOf(const Bundle &bundle, const GraphInfo &graph, size_t resident);

struct Demand {
  const GraphInfo *graph = nullptr;
  Footprint footprint;
  size_t reloaded = 0;  // how many of its pieces are loaded again in every run, for lack of memory
  int64_t mapped = 0;   // bytes of packed weights that a run reads from files
  int64_t waiting = 0;  // bytes of the same graph for another batch, which stays loaded meanwhile

  std::string Remark() const;  // what is slow about it; "" if nothing is
};

// beside: bytes that a request holds at once beside models; program: of this process itself.
struct MemoryPlan {
  std::vector<Demand> demands;
  bool keep_loaded = false;
  int64_t beside = 0, program = 0;

  int64_t Peak() const;
  void Require(int64_t budget) const;  // UserError, with the figures, if it does not fit
  std::string Text() const;
};

constexpr int64_t kProgram = 20'000'000;  // this process, with its tokenizer: by measurement

// The plan of running `graphs`, one after another, each within `budget` bytes if it can.
MemoryPlan PlanMemory(const Bundle &bundle, const std::vector<const GraphInfo *> &graphs, bool keep_loaded, int64_t budget,
                      int64_t beside, int64_t program);

}  // namespace kandinsky

#endif
