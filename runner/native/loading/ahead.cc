#include "loading/ahead.h"

namespace kandinsky {

namespace {

constexpr size_t kWorkers = 2;  // Lite packs weights on one thread

}  // namespace

Ahead::Ahead(const std::vector<const GraphInfo *> &graphs, Load load)
    : graphs_(graphs), load_(std::move(load)), promises_(graphs.size()) {
  for (size_t i = 0; i < graphs_.size(); ++i) {
    loading_[graphs_[i]] = promises_[i].get_future();
  }
  for (size_t i = 0; i < kWorkers; ++i) {
    workers_.emplace_back([this] { Work(); });
  }
}

Ahead::~Ahead() {
  next_ = graphs_.size();
  for (auto &worker : workers_) {
    worker.join();
  }
}

std::unique_ptr<Model> Ahead::Take(const GraphInfo &graph) {
  const auto found = loading_.find(&graph);
  if (found == loading_.end()) {
    return nullptr;
  }
  std::future<std::unique_ptr<Model>> loading = std::move(found->second);
  loading_.erase(found);
  return loading.get();
}

void Ahead::Work() {
  for (size_t i; (i = next_++) < graphs_.size();) {
    try {
      promises_[i].set_value(load_(*graphs_[i]));
    } catch (...) {
      promises_[i].set_exception(std::current_exception());
    }
  }
}

}  // namespace kandinsky
