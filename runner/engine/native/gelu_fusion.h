// Finds the exact GELU that a graph composes of erf (models/layers.py), and makes one node of it.

#ifndef KANDINSKY_MINDIR_GELU_FUSION_H
#define KANDINSKY_MINDIR_GELU_FUSION_H

#include <cstdint>
#include <vector>

#include "model_graph.h"
#include "schema/model_generated.h"

constexpr const char *kGeluType = "KandinskyGelu";

class GeluFusion {
 public:
  // How many became a node.
  static int Apply(ModelGraph *graph) {
    int count = 0;
    const auto order = graph->order();
    for (const std::uint32_t number : order) {
      GeluFusion match(*graph);
      if (match.Ends(graph->node(number))) {
        graph->Replace(number, kGeluType, {match.x_});
        ++count;
      }
    }
    return count;
  }

 private:
  explicit GeluFusion(const ModelGraph &graph) : graph_(graph) {}

  // Whether a node is (x * 0.5) * (erf(x * sqrt(0.5)) + 1).
  bool Ends(const ModelGraph::Node &last) {
    if (last.type != mindspore::schema::PrimitiveType_MulFusion || last.inputs.size() != 2 || Activated(last)) {
      return false;
    }
    const ModelGraph::Node *half = graph_.Maker(last.inputs[0], mindspore::schema::PrimitiveType_MulFusion);
    const ModelGraph::Node *sum = graph_.Maker(last.inputs[1], mindspore::schema::PrimitiveType_AddFusion);
    if (half == nullptr || sum == nullptr || !With(*half, 0.5F) || !With(*sum, 1.0F)) {
      return false;
    }
    const ModelGraph::Node *erf = graph_.Maker(sum->inputs[0], mindspore::schema::PrimitiveType_Erf);
    const ModelGraph::Node *root =
      erf == nullptr ? nullptr : graph_.Maker(erf->inputs[0], mindspore::schema::PrimitiveType_MulFusion);
    if (root == nullptr || !With(*root, 0.70710678118654752F) || root->inputs[0] != half->inputs[0]) {
      return false;
    }
    x_ = half->inputs[0];
    return true;
  }

  // Whether a node's other input is that number.
  bool With(const ModelGraph::Node &node, float number) const {
    return node.inputs.size() == 2 && !Activated(node) &&
           graph_.Constant<float>(node.inputs[1]) == std::vector<float>{number};
  }

  // Whether the sum or product of a node goes through an activation.
  static bool Activated(const ModelGraph::Node &node) {
    constexpr int kActivation = 0;  // field of AddFusion and MulFusion
    return node.attributes.Value<std::int8_t>(kActivation) != 0;
  }

  const ModelGraph &graph_;
  std::uint32_t x_ = 0;
};

#endif
