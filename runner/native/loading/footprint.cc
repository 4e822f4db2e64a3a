#include "loading/footprint.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "common/errors.h"
#include "common/machine.h"

namespace kandinsky {

namespace {

// Estimates, as runner/loading/footprint.py and runner/bundle/stages/estimates.py have them and say where they are from.
constexpr int64_t kRuntime = 90'000'000;
constexpr double kPacked = 1.03;
constexpr int64_t kUnetMaps = 72, kUnetScores = 6, kMovqMaps = 25, kMostScores = int64_t{1} << 27, kContextTokens = 32;
constexpr int64_t kWholeMovqMaps = 4, kMovqBand = 250'000'000, kMovqEncoderMaps = 8, kMovqChannels = 128;

int64_t TensorBytes(const GraphInfo &graph) {
  int64_t elements = 0;
  for (const auto *side : {&graph.inputs, &graph.outputs}) {
    for (const auto &tensor : *side) {
      elements += Elements(tensor.shape);
    }
  }
  return 4 * elements;
}

bool Ends(const std::string &text, const std::string &end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

const Dimensions &FourAxes(const TensorInfo &tensor, const GraphInfo &graph) {
  if (tensor.shape.size() != 4) {
    throw UserError(graph.Title() + ": its tensor " + tensor.Describe() + " has not four axes: " + kExportAgain);
  }
  return tensor.shape;
}

// What a run of `graph` takes beside its weights.
int64_t Activations(const GraphInfo &graph) {
  if (Ends(graph.name, "unet")) {
    const Dimensions &sample = FourAxes(graph.Input("sample"), graph);
    const int64_t channels = graph.Input("time_proj").shape.back(), pixels = sample[2] * sample[3];
    const int64_t heads = std::max<int64_t>(channels / 32, 1);  // the second level: twice the channels, heads of 64
    const int64_t scores = sample[0] * heads * (pixels / 4) * (pixels / 4 + kContextTokens);
    return TensorBytes(graph) + 4 * kUnetMaps * sample[0] * pixels * channels + kUnetScores * std::min(4 * scores, kMostScores);
  }
  if (graph.name == "movq_decoder" || graph.name == "movq_encoder") {
    const bool decoder = graph.name == "movq_decoder";
    const Dimensions &image = FourAxes(decoder ? graph.outputs.at(0) : graph.inputs.at(0), graph);
    const int64_t one = 4 * image[2] * image[3] * kMovqChannels;
    return TensorBytes(graph) + (decoder ? std::min(kMovqMaps * one, kWholeMovqMaps * one + kMovqBand) : kMovqEncoderMaps * one);
  }
  return 2 * TensorBytes(graph);
}

std::string Row(const std::string &name, int64_t size, const std::string &note = "") {
  char line[128];
  std::snprintf(line, sizeof(line), "  %-32s %10s", name.c_str(), MemoryText(static_cast<double>(size)).c_str());
  return line + (note.empty() ? "" : "  " + note);
}

}  // namespace

std::vector<size_t> Ways(const GraphInfo &graph) {
  if (graph.ms.empty()) {
    throw UserError("this bundle has " + graph.Title() + " as MindIR alone, which this program does not load: export it again, "
                    "or use kandinsky-mindir");
  }
  std::vector<size_t> ways;
  for (size_t resident = graph.ms.size() + 1; resident-- > (graph.ms.size() > 1 ? 0U : 1U);) {
    ways.push_back(resident);
  }
  return ways;
}

Footprint FootprintOf(const Bundle &bundle, const GraphInfo &graph, size_t resident) {
  const int64_t running = Activations(graph), half = running / 2;
  std::vector<int64_t> loaded;
  for (const auto &path : graph.ms) {
    const ModelSource source = bundle.Model(path);
    const Layout layout = source.Read();
    loaded.push_back(static_cast<int64_t>(kPacked * static_cast<double>(layout.WeightBytes() + source.WideAtOnce(layout))) + kRuntime);
  }
  int64_t kept = 0;
  for (size_t i = 0; i < resident; ++i) {
    kept += loaded[i];
  }
  // One of several pieces takes less than half of what all do, and those that stay keep about half from the step before.
  const int64_t waiting = kept + (resident > 0 ? half : 0);
  int64_t most = kept + running;
  for (size_t i = resident; i < loaded.size(); ++i) {
    most = std::max(most, waiting + loaded[i] + half);
  }
  return {most, kept + running};  // Lite keeps what a run took
}

std::string Demand::Remark() const {
  return reloaded == 0 ? "" : std::to_string(reloaded) + " of its " + std::to_string(graph->ms.size()) +
                                " pieces are loaded again in every step";
}

int64_t MemoryPlan::Peak() const {
  int64_t kept = 0, most = 0;
  for (const auto &demand : demands) {
    most = std::max(most, demand.footprint.loading + (keep_loaded ? kept : demand.waiting));
    kept += demand.footprint.kept;
  }
  return program + beside + most;
}

void MemoryPlan::Require(int64_t budget) const {
  if (Peak() <= budget || demands.empty()) {
    return;
  }
  MemoryPlan staged = *this;
  staged.keep_loaded = false;
  for (auto &demand : staged.demands) {
    demand.waiting = 0;
  }
  const auto worst = std::max_element(demands.begin(), demands.end(), [](const Demand &one, const Demand &other) {
    return one.footprint.loading < other.footprint.loading;
  });
  const auto text = [](int64_t bytes) { return MemoryText(static_cast<double>(bytes)); };
  std::string advice = "choose a smaller size, or make room for it (free memory, raise --memory)";
  if (beside > Peak() - budget) {
    advice = "ask for fewer pictures at once, " + advice;
  }
  if (keep_loaded && staged.Peak() <= budget) {
    advice = "one at a time, without --keep-loaded, they need " + text(staged.Peak());
  }
  throw UserError((keep_loaded ? "keeping all models loaded" : worst->graph->Title()) + " needs about " + text(Peak()) +
                  " of memory" + (beside > 0 ? " (" + text(beside) + " for what the request makes included)" : "") + " and " +
                  text(budget) + " is there: " + advice);
}

std::string MemoryPlan::Text() const {
  std::string text;
  for (const auto &demand : demands) {
    std::string note = demand.mapped > 0 ? "and " + MemoryText(static_cast<double>(demand.mapped)) + " of the system's cache of files" : "";
    for (const std::string &more : {demand.waiting > 0 ? "beside " + MemoryText(static_cast<double>(demand.waiting)) + " of another batch" : "",
                                    demand.Remark()}) {
      note += (note.empty() || more.empty() ? "" : ", ") + more;
    }
    text += Row(demand.graph->Title(), demand.footprint.loading, note) + "\n";
  }
  text += Row("this program", program) + "\n";
  if (beside > 0) {
    text += Row("latents, embeddings, pictures", beside) + "\n";
  }
  return text + Row(std::string("peak, ") + (keep_loaded ? "all kept loaded" : "one at a time"), Peak());
}

MemoryPlan PlanMemory(const Bundle &bundle, const std::vector<const GraphInfo *> &graphs, bool keep_loaded, int64_t budget,
                      int64_t beside, int64_t program) {
  const int64_t taken = program + beside;
  MemoryPlan plan{{}, keep_loaded, beside, program};
  for (const GraphInfo *graph : graphs) {
    if (std::any_of(plan.demands.begin(), plan.demands.end(), [graph](const Demand &demand) { return demand.graph == graph; })) {
      continue;
    }
    const auto ways = Ways(*graph);
    size_t chosen = 0;
    while (!keep_loaded && chosen + 1 < ways.size() && FootprintOf(bundle, *graph, ways[chosen]).loading > budget - taken) {
      ++chosen;
    }
    Demand demand{graph, FootprintOf(bundle, *graph, ways[chosen]), chosen, 0, 0};
    for (const auto &path : graph->ms) {
      for (const auto &weight : bundle.Model(path).packed) {
        demand.mapped += weight.length;
      }
    }
    if (!plan.demands.empty() && plan.demands.back().graph->name == graph->name && plan.demands.back().graph->size == graph->size &&
        chosen == 0 && taken + plan.demands.back().footprint.kept + demand.footprint.loading <= budget) {
      demand.waiting = plan.demands.back().footprint.kept;
    }
    plan.demands.push_back(demand);
  }
  return plan;
}

}  // namespace kandinsky
