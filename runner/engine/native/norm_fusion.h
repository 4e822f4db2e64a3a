// Finds what group norms do to whole pictures (models/layers.py), and makes one node of each pass.
//
// A norm reads its picture (batch, height, width, channels) for the means of squared deviations, and for the result: it is
// multiplied by one number a channel and another is added, mostly followed by x * sigmoid(x). Where the norm depends on the
// latents, the numbers are those of a channel and a block of pixels. The sums over groups are of few numbers, and stay.

#ifndef KANDINSKY_MINDIR_NORM_FUSION_H
#define KANDINSKY_MINDIR_NORM_FUSION_H

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "model_graph.h"
#include "schema/model_generated.h"

constexpr const char *kDeviationsType = "KandinskySquaredDeviations";
constexpr const char *kAffineType = "KandinskyAffine", *kAffineSwishType = "KandinskyAffineSwish";

// A tensor as rows, of which so many, one after the other, are given the same row of numbers. length is 0 where it is none.
struct RepeatedRows {
  // numbers: the sides of the tensor, but for some neighbours that are 1.
  template <typename Sides>
  RepeatedRows(const Sides &tensor, const Sides &numbers) {
    std::size_t begin = 0, end = tensor.size();
    if (numbers.size() != end) {
      return;
    }
    while (begin + 1 < end && numbers[begin] == tensor[begin]) {  // the last side is a row's
      ++begin;
    }
    while (end > begin && numbers[end - 1] == tensor[end - 1]) {
      --end;
    }
    const auto count = [&tensor](std::size_t from, std::size_t to) {
      return std::accumulate(tensor.begin() + from, tensor.begin() + to, std::int64_t{1}, std::multiplies<>());
    };
    if (std::all_of(numbers.begin() + begin, numbers.begin() + end, [](auto side) { return side == 1; })) {
      outer = count(0, begin), repeats = count(begin, end), length = count(end, tensor.size());
    }
  }

  std::int64_t outer = 0, repeats = 0, length = 0;
};

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
      const ModelGraph::Node *shaped = graph_.Maker(last.inputs[0], mindspore::schema::PrimitiveType_Reshape);
      const ModelGraph::Node *sum = graph_.Maker(shaped == nullptr ? last.inputs[0] : shaped->inputs.at(0),
                                                 mindspore::schema::PrimitiveType_AddFusion);
      return sum != nullptr && Affine(*sum) ? kAffineSwishType : nullptr;
    }
    return last.type == mindspore::schema::PrimitiveType_AddFusion && Affine(last) ? kAffineType : nullptr;
  }

  static bool IsSwish(const ModelGraph::Node &activation) {
    constexpr int kType = 0, kSwish = 18;  // field of Activation; ActivationType
    return activation.attributes.Value<std::int8_t>(kType) == kSwish;
  }

  // Whether a node is a picture's rows times numbers, plus others.
  bool Affine(const ModelGraph::Node &sum) {
    const ModelGraph::Node *product = sum.inputs.size() != 2 || Activated(sum)
                                        ? nullptr : graph_.Maker(sum.inputs[0], mindspore::schema::PrimitiveType_MulFusion);
    if (product == nullptr || product->inputs.size() != 2 || Activated(*product)) {
      return false;
    }
    inputs_ = {product->inputs[0], product->inputs[1], sum.inputs[1]};
    const auto picture = graph_.Shape(inputs_[0]), numbers = graph_.Shape(inputs_[1]);
    const RepeatedRows rows(picture, numbers);
    return rows.outer * rows.repeats > 1 && rows.length % kVector == 0 && graph_.Shape(inputs_[2]) == numbers &&
           graph_.Shape(sum.outputs[0]) == picture;
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
