#include "loading/models.h"

#include <algorithm>
#include <exception>
#include <future>

#include "engine/chain.h"
#include "common/errors.h"
#include "common/machine.h"

namespace kandinsky {

namespace {

constexpr int64_t kKeepLoadedBelow = int64_t{1} << 30;  // bytes of weights up to which models stay loaded unless told otherwise
constexpr size_t kLoading = 2;  // pieces of a graph that load at once: Lite packs weights on one thread

// UserError unless `model` has the inputs that the manifest says, in any order, and the outputs, in its order.
void CheckTensors(const GraphInfo &graph, const Model &model, const std::string &path) {
  const auto sorted = [](std::vector<TensorInfo> tensors) {
    std::sort(tensors.begin(), tensors.end());
    return tensors;
  };
  const auto text = [](const std::vector<TensorInfo> &tensors) {
    std::string all;
    for (const auto &tensor : tensors) {
      all += (all.empty() ? "" : ", ") + tensor.Describe();
    }
    return all;
  };
  const auto inputs = sorted(graph.inputs), found = sorted(model.inputs());
  const bool right = inputs == found;
  if (!right || model.outputs() != graph.outputs) {
    throw UserError(path + ": the graph has the " + (right ? "outputs " + text(model.outputs()) : "inputs " + text(found)) +
                    "; the manifest says " + text(right ? graph.outputs : inputs) + ": " + kExportAgain);
  }
}

}  // namespace

class Models::Held {
 public:
  const GraphInfo *graph = nullptr;
  std::unique_ptr<Model> model;
  int64_t size = 0;
  size_t leases = 0;
  bool keep = false;
  uint64_t used = 0;  // the larger, the later
};

Models::Models(const Bundle &bundle, EngineOptions engine, std::optional<bool> keep_loaded, std::optional<int64_t> memory, Warn warn)
    : bundle_(bundle), engine_(std::move(engine)),
      keep_loaded_(keep_loaded.value_or(memory.has_value() || bundle.WeightBytes() <= kKeepLoadedBelow)),
      may_free_(!keep_loaded.has_value()), memory_(memory), warn_(std::move(warn)) {}

Models::~Models() = default;

Models::Lease::Lease(Models *models, const GraphInfo &graph, bool keep) : models_(models), held_(models->Acquire(graph, keep)) {}

Models::Lease::~Lease() { models_->Release(held_); }

Outputs Models::Lease::Run(const Inputs &inputs) {
  for (const auto &tensor : held_->graph->inputs) {
    const auto given = inputs.find(tensor.name);
    if (given == inputs.end() || given->second.size != 4 * static_cast<size_t>(Elements(tensor.shape))) {
      throw UserError(held_->graph->Title() + ": its input " + tensor.Describe() + " does not fit what graphs before it give: " + kExportAgain);
    }
  }
  return held_->model->Run(inputs);
}

Models::Batches::~Batches() {
  lease_.reset();
  for (const auto *graph : used_) {
    const auto found = models_->held_.find(graph);
    if (found != models_->held_.end() && found->second->leases == 0 && !models_->keeps()) {
      models_->held_.erase(found);
    }
  }
}

Models::Lease &Models::Batches::At(int64_t batch) {
  if (!lease_ || batch != batch_) {
    lease_.reset();
    const GraphInfo &graph = models_->bundle_.manifest().Find(name_, batch, size_);
    lease_ = std::make_unique<Lease>(models_, graph, true);
    batch_ = batch;
    used_.insert(&graph);
  }
  return *lease_;
}

std::unique_ptr<Models::Lease> Models::Take(const std::string &name, int64_t batch, const std::optional<Size> &size) {
  return std::make_unique<Lease>(this, bundle_.manifest().Find(name, batch, size), keeps());
}

MemoryPlan Models::Plan(const std::vector<const GraphInfo *> &graphs, int64_t beside) const {
  const int64_t budget = Budget();
  if (keep_loaded_) {
    MemoryPlan found = PlanMemory(bundle_, graphs, true, budget, beside, Program());
    if (found.Peak() <= budget || !may_free_) {
      return found;
    }
  }
  return PlanMemory(bundle_, graphs, false, budget, beside, Program());
}

MemoryPlan Models::Require(const std::vector<const GraphInfo *> &graphs, int64_t beside) {
  beside_ = 0;  // of the request before
  MemoryPlan found = Plan(graphs, beside);
  found.Require(Budget());
  beside_ = beside;
  frees_ = keep_loaded_ && !found.keep_loaded;
  if (frees_) {
    Unload();
  }
  for (const auto &demand : found.demands) {
    if (demand.reloaded > 0) {
      warn_("memory is short for " + demand.graph->Title() + ": " + demand.Remark() + ", which is slow");
    }
  }
  ahead_.reset();
  if (found.keep_loaded) {
    std::vector<const GraphInfo *> missing;
    for (const auto &demand : found.demands) {
      if (held_.count(demand.graph) == 0) {
        missing.push_back(demand.graph);
      }
    }
    ahead_ = std::make_unique<Ahead>(missing, [this](const GraphInfo &graph) { return Load(graph, Ways(graph)[0]); });
  }
  return found;
}

void Models::Unload() {
  for (auto held = held_.begin(); held != held_.end();) {
    held = held->second->leases == 0 ? held_.erase(held) : std::next(held);
  }
}

int64_t Models::Budget() const { return memory_ ? *memory_ : AvailableMemory() + MemoryInUse(); }

int64_t Models::Program() const { return std::max(kProgram + beside_, PrivateMemory()); }

Models::Held *Models::Acquire(const GraphInfo &graph, bool keep) {
  auto found = held_.find(&graph);
  if (found != held_.end() && found->second->leases == 0 && !found->second->model->usable()) {
    held_.erase(found);
    found = held_.end();
  }
  if (found == held_.end()) {
    auto loading = std::make_unique<Held>();
    loading->graph = &graph;
    size_t way = Ways(graph)[0];
    loading->model = ahead_ ? ahead_->Take(graph) : nullptr;
    if (!loading->model) {
      way = ChooseWay(graph);
      loading->model = Load(graph, way);
    }
    loading->size = FootprintOf(bundle_, graph, way).kept;
    found = held_.emplace(&graph, std::move(loading)).first;
  }
  Held *leased = found->second.get();
  ++leased->leases;
  leased->keep = leased->keep || keep;
  leased->used = ++clock_;
  return leased;
}

void Models::Release(Held *held) {
  if (--held->leases == 0 && (!held->keep || !held->model->usable())) {
    held_.erase(held->graph);
  }
}

size_t Models::ChooseWay(const GraphInfo &graph) {
  const auto ways = Ways(graph);
  std::vector<Held *> idle;
  int64_t taken = 0;
  for (const auto &[other, held] : held_) {
    taken += held->size;
    if (held->leases == 0) {
      idle.push_back(held.get());
    }
  }
  if (ways.size() == 1 && idle.empty()) {  // nothing to choose
    return ways[0];
  }
  int64_t room = Budget() - Program() - taken;
  std::sort(idle.begin(), idle.end(), [](const Held *one, const Held *other) { return one->used < other->used; });
  const int64_t wanted = FootprintOf(bundle_, graph, ways[0]).loading;
  for (const Held *other : idle) {
    if (wanted <= room) {
      break;
    }
    room += other->size;
    held_.erase(other->graph);
  }
  for (const size_t way : ways) {
    if (FootprintOf(bundle_, graph, way).loading <= room) {
      return way;
    }
  }
  return ways.back();
}

std::unique_ptr<Model> Models::Load(const GraphInfo &graph, size_t resident) {
  std::vector<std::unique_ptr<Model>> pieces(graph.ms.size());
  for (size_t first = 0; first < resident; first += kLoading) {
    std::vector<std::future<std::unique_ptr<Model>>> loading;
    for (size_t i = first; i < std::min(resident, first + kLoading); ++i) {
      loading.push_back(std::async(std::launch::async, [this, &graph, i] { return LoadPiece(graph.ms[i]); }));
    }
    for (size_t i = 0; i < loading.size(); ++i) {
      pieces[first + i] = loading[i].get();
    }
  }
  std::unique_ptr<Model> model = std::move(pieces[0]);
  if (graph.ms.size() > 1) {
    pieces[0] = std::move(model);
    model = MakeChain(graph, std::move(pieces), [this, &graph](size_t i) { return LoadPiece(graph.ms[i]); });
  }
  CheckTensors(graph, *model, bundle_.files().Place(graph.ms.back()));
  return model;
}

std::unique_ptr<Model> Models::LoadPiece(const std::string &path) const {
  const ModelSource source = bundle_.Model(path);
  const Layout layout = source.Read();
  const auto names = source.Names(layout);
  const auto check = [&] {
    for (const auto &name : names) {
      source.files->File(name);
    }
  };
  // Hashing takes nearly as long as loading: both go side by side, and what is wrong with files comes first.
  auto checking = std::async(std::launch::async, check);
  std::unique_ptr<Model> model;
  std::exception_ptr fault;
  try {
    model = LoadModel(engine_, layout.Assemble(source.files->Place(path), source.packed));
  } catch (...) {
    fault = std::current_exception();
  }
  checking.get();
  check();  // again, if they were changed meanwhile
  if (fault) {
    std::rethrow_exception(fault);
  }
  return model;
}

}  // namespace kandinsky
