#include "pipelines/verify.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>

#include "common/errors.h"
#include "bundle/npz.h"

namespace kandinsky {

namespace {

constexpr double kRoundingFactor = 32, kUnit = 0x1p-24;  // see runner/bundle/sealed_examples.py
// ALLOWED of runner/upkeep/replay.py: what is allowed in a precision, by what float32's rounding explains in that graph.
double Allowed(const std::string &precision, double bound) {
  const double products = std::sqrt(289.0) * std::sqrt(2.0 / 3.0) * 0x1p-9;
  return precision == "bfloat16" ? std::max(bound, products) : precision == "float16" ? bound * 0x1p13 : bound;
}
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Some values of a tensor, the root mean square of all, the relative error of float32.
struct Sample {
  std::vector<float> values;
  double rms = 0, rounding = 0;

  double Bound() const { return kRoundingFactor * std::max(rounding, kUnit); }
  double Difference(const std::vector<float> &actual) const {
    double squares = 0;
    const double ratio = (std::sqrt(5.0) - 1) / 2;
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t place = actual.size() <= values.size()
                             ? i : static_cast<size_t>(std::fmod(static_cast<double>(i) * ratio, 1.0) * static_cast<double>(actual.size()));
      const double distance = static_cast<double>(actual[place]) - static_cast<double>(values[i]);
      squares += distance * distance;
    }
    return std::sqrt(squares / static_cast<double>(values.size()));
  }
};

struct Example {
  std::map<std::string, Array> inputs;
  std::vector<Sample> outputs;
};

// Of the file that has its values, or, with `inputs`, of that which has its inputs after a merge.
std::string ExampleName(const GraphInfo &graph, bool inputs = false) {
  const std::string ending = ".mindir";
  const bool ends = graph.mindir.size() > ending.size() && graph.mindir.compare(graph.mindir.size() - ending.size(), ending.size(), ending) == 0;
  return (ends ? graph.mindir.substr(0, graph.mindir.size() - ending.size()) : graph.mindir) + (inputs ? ".inputs.npz" : ".golden.npz");
}

Example ReadExample(const Bundle &bundle, const GraphInfo &graph) {
  const std::string name = ExampleName(graph);
  if (bundle.manifest().files.count(name) == 0) {
    throw UserError(bundle.path() + " has no sealed example of " + graph.Title() + ": " + kExportAgain);
  }
  const std::string path = bundle.files().File(name);
  auto file = ReadArrays(path, {"layers", "sizes", "values", "rms", "rounding"});
  const bool merged = bundle.manifest().files.count(ExampleName(graph, true)) != 0;
  auto given = merged ? ReadArrays(bundle.files().File(ExampleName(graph, true)), {}) : file;
  const std::string damaged = path + " is no example of " + graph.Title() + ": " + kExportAgain;
  Example example;
  for (const auto &tensor : graph.inputs) {
    const auto found = given.find("input." + tensor.name);
    if (found == given.end() || found->second.shape != tensor.shape || found->second.dtype != tensor.dtype) {
      throw UserError(damaged);
    }
    example.inputs[tensor.name] = std::move(found->second);
  }
  const std::vector<int32_t> &sizes = file["sizes"].integers;
  const std::vector<float> &values = file["values"].floats, &rms = file["rms"].floats, &rounding = file["rounding"].floats;
  if (sizes.size() < graph.outputs.size() || rms.size() != sizes.size() || rounding.size() != sizes.size()) {
    throw UserError(damaged);
  }
  size_t start = 0;
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const auto count = static_cast<size_t>(std::max(sizes[i], 0));
    if (count == 0 || count > values.size() - start || count > static_cast<size_t>(Elements(graph.outputs[i].shape))) {
      throw UserError(damaged);
    }
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(start);
    example.outputs.push_back({{first, first + static_cast<std::ptrdiff_t>(count)}, rms[i], rounding[i]});
    start += count;
  }
  return example;
}

}  // namespace

std::string Verdict::Text() const {
  if (!failure.empty()) {
    return graph->Title() + " does not run: " + failure;
  }
  char numbers[96];
  std::snprintf(numbers, sizeof(numbers), "relative error %.1e, rounding explains %.1e", error, bound);
  return graph->Title() + " is " + (right() ? "right" : "wrong") + ": " + numbers;
}

void Replay(Models *models, const std::string &part, std::optional<double> tolerance, const std::function<void(const Verdict &)> &tell) {
  const Bundle &bundle = models->bundle();
  std::string parts;
  bool found = false;
  for (const auto &graph : bundle.manifest().graphs) {
    found = found || part.empty() || graph.part == part;
    if ((", " + parts + ",").find(", " + graph.part + ",") == std::string::npos) {
      parts += (parts.empty() ? "" : ", ") + graph.part;
    }
  }
  if (!found) {
    throw UserError(bundle.path() + " has no part '" + part + "': it has " + parts);
  }
  bundle.VerifyFiles();
  for (const auto &graph : bundle.manifest().graphs) {
    if (!part.empty() && graph.part != part) {
      continue;
    }
    const Example example = ReadExample(bundle, graph);
    const auto started = std::chrono::steady_clock::now();
    Verdict verdict{&graph, 0, 1, kInfinity, 0, ""};
    Outputs outputs;
    try {
      const auto run = models->Take(graph.name, graph.batch, graph.size);
      Inputs inputs;
      for (const auto &[name, array] : example.inputs) {
        inputs.emplace(name, array.dtype == "int32" ? View(array.integers) : View(array.floats));
      }
      outputs = run->Run(inputs);
    } catch (const UserError &error) {
      verdict.failure = error.what();
    }
    verdict.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    double worst = -1;
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Sample &sample = example.outputs[i];
      const bool finite = std::all_of(outputs[i].begin(), outputs[i].end(), [](float value) { return std::isfinite(value); });
      const double difference = sample.Difference(outputs[i]);
      const double error = finite ? difference / (sample.rms != 0 ? sample.rms : 1) : kInfinity;
      const double bound = tolerance.value_or(Allowed(models->engine().precision, sample.Bound()));
      if (error / bound > worst) {
        const auto [low, high] = std::minmax_element(sample.values.begin(), sample.values.end());
        const double peak = static_cast<double>(*high) - static_cast<double>(*low);
        worst = error / bound;
        verdict.error = error;
        verdict.bound = bound;
        verdict.psnr = peak != 0 && difference != 0 ? 20 * std::log10(peak / difference) : kInfinity;
      }
    }
    tell(verdict);
  }
}

}  // namespace kandinsky
