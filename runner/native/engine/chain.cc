#include "engine/chain.h"

#include <algorithm>
#include <map>
#include <set>

namespace kandinsky {

namespace {

class Chain : public Model {
 public:
  Chain(const GraphInfo &graph, std::vector<std::unique_ptr<Model>> pieces, std::function<std::unique_ptr<Model>(size_t)> load)
      : graph_(graph), pieces_(std::move(pieces)), load_(std::move(load)), taken_(pieces_.size()) {}

  const std::vector<TensorInfo> &inputs() const override { return graph_.inputs; }
  const std::vector<TensorInfo> &outputs() const override { return graph_.outputs; }
  bool usable() const override {
    return std::all_of(pieces_.begin(), pieces_.end(), [](const auto &piece) { return !piece || piece->usable(); });
  }

  Outputs Run(const Inputs &inputs) override {
    std::map<std::string, std::vector<float>> made;
    for (size_t i = 0; i < pieces_.size(); ++i) {
      const std::unique_ptr<Model> loaded = pieces_[i] ? nullptr : load_(i);
      Model &piece = loaded ? *loaded : *pieces_[i];
      Inputs given;
      for (const auto &tensor : piece.inputs()) {
        const auto found = made.find(tensor.name);
        if (found != made.end()) {
          given.emplace(tensor.name, found->second);
        } else if (const auto outer = inputs.find(tensor.name); outer != inputs.end()) {
          given.emplace(tensor.name, outer->second);
        } else {
          throw EngineError(graph_.Title() + ": a piece of it takes " + tensor.Describe() + ", which no piece before it gives: " + kExportAgain);
        }
      }
      Outputs outputs = piece.Run(given);
      for (size_t k = 0; k < outputs.size(); ++k) {
        made[piece.outputs()[k].name] = std::move(outputs[k]);
      }
      for (const auto &tensor : piece.inputs()) {
        taken_[i].insert(tensor.name);
      }
      Forget(&made, i);
    }
    Outputs outputs;
    for (const auto &tensor : graph_.outputs) {
      const auto found = made.find(tensor.name);
      if (found == made.end() || found->second.size() != static_cast<size_t>(Elements(tensor.shape))) {
        throw EngineError(graph_.Title() + ": no piece of it gives " + tensor.Describe() + ": " + kExportAgain);
      }
      outputs.push_back(std::move(found->second));
    }
    return outputs;
  }

 private:
  // Frees what no piece after number `last` takes, once that is known of all.
  void Forget(std::map<std::string, std::vector<float>> *made, size_t last) const {
    if (std::any_of(taken_.begin(), taken_.end(), [](const auto &names) { return names.empty(); })) {
      return;
    }
    std::set<std::string> later;
    for (const auto &tensor : graph_.outputs) {
      later.insert(tensor.name);
    }
    for (size_t i = last + 1; i < taken_.size(); ++i) {
      later.insert(taken_[i].begin(), taken_[i].end());
    }
    for (auto value = made->begin(); value != made->end();) {
      value = later.count(value->first) != 0 ? std::next(value) : made->erase(value);
    }
  }

  const GraphInfo &graph_;
  std::vector<std::unique_ptr<Model>> pieces_;
  std::function<std::unique_ptr<Model>(size_t)> load_;
  std::vector<std::set<std::string>> taken_;  // the inputs of each piece, once it has run
};

}  // namespace

std::unique_ptr<Model> MakeChain(const GraphInfo &graph, std::vector<std::unique_ptr<Model>> pieces,
                                 std::function<std::unique_ptr<Model>(size_t)> load) {
  return std::make_unique<Chain>(graph, std::move(pieces), std::move(load));
}

}  // namespace kandinsky
