// Finds the layer norm that a graph composes of small operators (models/layers.py), and makes one node of it.
//
// Its new node takes what is normalised along its last axis, and for each place on that axis a weight, a bias, and what is
// added to the variance.

#ifndef KANDINSKY_MINDIR_LAYER_NORM_FUSION_H
#define KANDINSKY_MINDIR_LAYER_NORM_FUSION_H

#include <cstdint>
#include <vector>

#include "model_graph.h"
#include "schema/model_generated.h"

constexpr const char *kLayerNormType = "KandinskyLayerNorm";

class LayerNormFusion {
 public:
  // How many became a node.
  static int Apply(ModelGraph *graph) {
    int count = 0;
    const auto order = graph->order();
    for (const std::uint32_t number : order) {
      LayerNormFusion match(*graph);
      if (match.Ends(graph->node(number))) {
        graph->Replace(number, kLayerNormType, match.inputs_);
        ++count;
      }
    }
    return count;
  }

 private:
  explicit LayerNormFusion(const ModelGraph &graph) : graph_(graph) {}

  // Whether a node is deviation / sqrt(mean(deviation^2) + epsilon) * weight + bias, where deviation is x - mean(x).
  bool Ends(const ModelGraph::Node &last) {
    using namespace mindspore::schema;
    constexpr int kAxis = 0, kScaleActivation = 1, kActivation = 0;  // fields of ScaleFusion; of DivFusion and others
    if (last.type != PrimitiveType_ScaleFusion || last.inputs.size() != 3 ||
        last.attributes.Value<std::int8_t>(kScaleActivation) != 0) {
      return false;
    }
    const auto plain = [&](std::uint32_t tensor, int type) {
      const ModelGraph::Node *node = graph_.Maker(tensor, type);
      return node == nullptr || node->inputs.size() != 2 || node->attributes.Value<std::int8_t>(kActivation) != 0 ? nullptr : node;
    };
    const ModelGraph::Node *quotient = plain(last.inputs[0], PrimitiveType_DivFusion);
    const ModelGraph::Node *root = quotient == nullptr ? nullptr : graph_.Maker(quotient->inputs[1], PrimitiveType_Sqrt);
    const ModelGraph::Node *sum = root == nullptr ? nullptr : plain(root->inputs[0], PrimitiveType_AddFusion);
    const ModelGraph::Node *variance = sum == nullptr ? nullptr : Mean(sum->inputs[0]);
    const ModelGraph::Node *square = variance == nullptr ? nullptr : plain(variance->inputs[0], PrimitiveType_MulFusion);
    if (square == nullptr || square->inputs[0] != quotient->inputs[0] || square->inputs[1] != quotient->inputs[0]) {
      return false;
    }
    const ModelGraph::Node *deviation = plain(quotient->inputs[0], PrimitiveType_SubFusion);
    const ModelGraph::Node *mean = deviation == nullptr ? nullptr : Mean(deviation->inputs[1]);
    if (mean == nullptr || mean->inputs[0] != deviation->inputs[0]) {
      return false;
    }
    const auto shape = graph_.Shape(deviation->inputs[0]);
    const auto rank = static_cast<std::int64_t>(shape.size()), axis = last.attributes.Value<std::int64_t>(kAxis);
    const std::vector<std::int32_t> numbers{shape.back()};
    inputs_ = {deviation->inputs[0], last.inputs[1], last.inputs[2], sum->inputs[1]};
    return rank > 1 && (axis == -1 || axis == rank - 1) && graph_.Shape(inputs_[1]) == numbers &&
           graph_.Shape(inputs_[2]) == numbers && graph_.Constant<float>(inputs_[3]).size() == 1;
  }

  // The node that makes a tensor, if it is a mean over the last axis.
  const ModelGraph::Node *Mean(std::uint32_t tensor) const {
    constexpr int kKeep = 0, kMode = 1, kToEnd = 2, kCoefficient = 3, kMean = 0;  // fields of ReduceFusion; ReduceMode
    const ModelGraph::Node *mean = graph_.Maker(tensor, mindspore::schema::PrimitiveType_ReduceFusion);
    if (mean == nullptr || mean->inputs.size() != 2 || mean->attributes.Value<std::uint8_t>(kKeep) == 0 ||
        mean->attributes.Value<std::int8_t>(kMode) != kMean || mean->attributes.Value<std::uint8_t>(kToEnd) != 0 ||
        mean->attributes.Value<float>(kCoefficient) != 1.0F) {
      return nullptr;
    }
    const auto axes = graph_.Constant<std::int32_t>(mean->inputs[1]);
    const auto rank = static_cast<std::int32_t>(graph_.Shape(mean->inputs[0]).size());
    return axes.size() == 1 && (axes[0] == -1 || axes[0] == rank - 1) ? mean : nullptr;
  }

  const ModelGraph &graph_;
  ModelGraph::Tensors inputs_;
};

#endif
