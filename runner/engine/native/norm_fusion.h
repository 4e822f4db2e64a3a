// Finds what group norms do to whole pictures (models/layers.py), and makes one node of each pass.
//
// A norm reads its picture (batch, height, width, channels) for the means of squared deviations, and for the result: it is
// multiplied by one number a channel and another is added, mostly followed by x * sigmoid(x). The sums over groups are of few
// numbers, and stay.

#ifndef KANDINSKY_MINDIR_NORM_FUSION_H
#define KANDINSKY_MINDIR_NORM_FUSION_H

#include <cstdint>
#include <vector>

#include "model_graph.h"
#include "schema/model_generated.h"

constexpr const char *kDeviationsType = "KandinskySquaredDeviations";
constexpr const char *kAffineType = "KandinskyAffine", *kAffineSwishType = "KandinskyAffineSwish";

class NormFusion {
 public:
  // How many passes became a node.
  static int Apply(ModelGraph *graph) {
    int count = 0;
    const auto order = graph->order();
    for (auto number = order.rbegin(); number != order.rend(); ++number) {  // an activation comes before what it is of
      NormFusion match(*graph);
      if (const char *type = match.Ends(graph->node(*number)); type != nullptr) {
        graph->Replace(*number, type, match.inputs_);
        ++count;
      }
    }
    return count;
  }

 private:
  static constexpr std::int64_t kVector = 16;  // channels that the kernels take at a time

  explicit NormFusion(const ModelGraph &graph) : graph_(graph) {}

  // The type of our node that does what `last` and those before it do; nullptr where there is none.
  const char *Ends(const ModelGraph::Node &last) {
    if (last.type == mindspore::schema::PrimitiveType_ReduceFusion) {
      return Deviations(last) ? kDeviationsType : nullptr;
    }
    if (last.type == mindspore::schema::PrimitiveType_Activation && IsSwish(last)) {
      const ModelGraph::Node *sum = graph_.Maker(last.inputs[0], mindspore::schema::PrimitiveType_AddFusion);
      return sum != nullptr && Affine(*sum) ? kAffineSwishType : nullptr;
    }
    return last.type == mindspore::schema::PrimitiveType_AddFusion && Affine(last) ? kAffineType : nullptr;
  }

  static bool IsSwish(const ModelGraph::Node &activation) {
    constexpr int kType = 0, kSwish = 18;  // field of Activation; ActivationType
    return activation.attributes.Value<std::int8_t>(kType) == kSwish;
  }

  // Whether a node is a picture times one number a channel, plus another.
  bool Affine(const ModelGraph::Node &sum) {
    const ModelGraph::Node *product = sum.inputs.size() != 2 || Activated(sum)
                                        ? nullptr : graph_.Maker(sum.inputs[0], mindspore::schema::PrimitiveType_MulFusion);
    if (product == nullptr || product->inputs.size() != 2 || Activated(*product)) {
      return false;
    }
    inputs_ = {product->inputs[0], product->inputs[1], sum.inputs[1]};
    return ByChannel(inputs_[0], inputs_[1]) && ByChannel(inputs_[0], inputs_[2]);
  }

  // Whether a node is the mean along each row of a picture's squared differences from one number a channel.
  bool Deviations(const ModelGraph::Node &mean) {
    constexpr int kKeep = 0, kMode = 1, kToEnd = 2, kCoefficient = 3, kMean = 0;  // fields of ReduceFusion; ReduceMode
    const ModelGraph::Node *square = graph_.Maker(mean.inputs[0], mindspore::schema::PrimitiveType_MulFusion);
    if (square == nullptr || square->inputs.size() != 2 || square->inputs[0] != square->inputs[1] || Activated(*square) ||
        mean.inputs.size() != 2 || graph_.Constant<std::int32_t>(mean.inputs[1]) != std::vector<std::int32_t>{2} ||
        mean.attributes.Value<std::uint8_t>(kKeep) == 0 || mean.attributes.Value<std::int8_t>(kMode) != kMean ||
        mean.attributes.Value<std::uint8_t>(kToEnd) != 0 || mean.attributes.Value<float>(kCoefficient) != 1.0F) {
      return false;
    }
    const ModelGraph::Node *difference = graph_.Maker(square->inputs[0], mindspore::schema::PrimitiveType_SubFusion);
    if (difference == nullptr || difference->inputs.size() != 2 || Activated(*difference)) {
      return false;
    }
    inputs_ = difference->inputs;
    return ByChannel(inputs_[0], inputs_[1]);
  }

  // Whether the sum, difference or product of a node goes through an activation.
  static bool Activated(const ModelGraph::Node &node) {
    constexpr int kActivation = 0;  // field of AddFusion, SubFusion and MulFusion
    return node.attributes.Value<std::int8_t>(kActivation) != 0;
  }

  bool ByChannel(std::uint32_t picture, std::uint32_t numbers) const {
    const auto shape = graph_.Shape(picture);
    return shape.size() == 4 && shape[1] * shape[2] > 1 && shape[3] % kVector == 0 &&
           graph_.Shape(numbers) == std::vector<std::int32_t>{shape[0], 1, 1, shape[3]};
  }

  const ModelGraph &graph_;
  ModelGraph::Tensors inputs_;
};

#endif
