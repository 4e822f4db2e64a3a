// Models that are loaded ahead of their turn, side by side, where memory holds all of a request's.

#ifndef KANDINSKY_MINDIR_AHEAD_H
#define KANDINSKY_MINDIR_AHEAD_H

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "engine/engine.h"

namespace kandinsky {

class Ahead {
 public:
  using Load = std::function<std::unique_ptr<Model>(const GraphInfo &)>;

  // Loads `graphs` in this order, two at a time, until all are there or this object ends.
  Ahead(const std::vector<const GraphInfo *> &graphs, Load load);
  ~Ahead();
  Ahead(const Ahead &) = delete;
  Ahead &operator=(const Ahead &) = delete;

  // The model of a graph, once it is loaded; nullptr if it is none of them, or was taken. Throws what its loading threw.
  std::unique_ptr<Model> Take(const GraphInfo &graph);

 private:
  void Work();

  std::vector<const GraphInfo *> graphs_;
  Load load_;
  std::vector<std::promise<std::unique_ptr<Model>>> promises_;
  std::map<const GraphInfo *, std::future<std::unique_ptr<Model>>> loading_;
  std::atomic<size_t> next_{0};
  std::vector<std::thread> workers_;
};

}  // namespace kandinsky

#endif
