// Finds attention that a graph composes of two products and a softmax (models/layers.py), and makes one node of it.
//
// Its new node takes the queries (heads, tokens, depth), scaled already, the keys and the values (heads, seen, depth), and
// what is added to the scores, where something is. Where a graph only turns keys, values or the result into that order, the
// node takes or makes them as they are before or after it: (batch, tokens, heads of one of the batch, depth).

#ifndef KANDINSKY_MINDIR_ATTENTION_FUSION_H
#define KANDINSKY_MINDIR_ATTENTION_FUSION_H

#include <cstdint>
#include <set>
#include <vector>

#include "model_graph.h"
#include "schema/model_generated.h"

constexpr const char *kAttentionType = "KandinskyAttention";

class AttentionFusion {
 public:
  // How many attentions became a node.
  static int Apply(ModelGraph *graph) {
    int count = 0;
    const auto order = graph->order();
    std::set<std::uint32_t> taken;  // results of products that are part of a later node's attention
    for (auto number = order.rbegin(); number != order.rend(); ++number) {
      AttentionFusion match(*graph);
      const ModelGraph::Node &node = graph->node(*number);
      const ModelGraph::Node *mix = match.Turned(node);
      if (taken.count(node.outputs.at(0)) == 0 && match.Ends(mix == nullptr ? node : *mix)) {
        taken.insert((mix == nullptr ? node : *mix).outputs[0]);
        graph->Replace(*number, kAttentionType, match.inputs_);
        ++count;
      }
    }
    return count;
  }

 private:
  explicit AttentionFusion(const ModelGraph &graph) : graph_(graph) {}

  // Whether a node is the product of a softmax and values.
  bool Ends(const ModelGraph::Node &mix) {
    if (!IsProduct(&mix, false)) {
      return false;
    }
    const ModelGraph::Node *softmax = graph_.Maker(mix.inputs[0], mindspore::schema::PrimitiveType_Softmax);
    if (softmax == nullptr || !OverLastAxis(*softmax)) {
      return false;
    }
    std::uint32_t sums = softmax->inputs[0];
    ModelGraph::Tensors bias;
    const ModelGraph::Node *scores = graph_.Maker(sums, mindspore::schema::PrimitiveType_MatMulFusion);
    if (const ModelGraph::Node *added = graph_.Maker(sums, mindspore::schema::PrimitiveType_AddFusion);
        added != nullptr && added->inputs.size() == 2) {
      scores = graph_.Maker(added->inputs[0], mindspore::schema::PrimitiveType_MatMulFusion);
      bias = {added->inputs[1]};
      sums = added->inputs[0];
    }
    if (scores == nullptr || !IsProduct(scores, true)) {
      return false;
    }
    inputs_ = {scores->inputs[0], scores->inputs[1], mix.inputs[1]};
    inputs_.insert(inputs_.end(), bias.begin(), bias.end());
    if (!Fits(graph_.Shape(mix.outputs[0]), graph_.Shape(sums))) {
      return false;
    }
    inputs_[1] = Unturned(inputs_[1]);
    inputs_[2] = Unturned(inputs_[2]);
    return true;
  }

  // The node whose result (heads, tokens, depth) another one turns to (batch, tokens, heads, depth). nullptr: it does not.
  const ModelGraph::Node *Turned(const ModelGraph::Node &node) const {
    if (!Turns(node)) {
      return nullptr;
    }
    const ModelGraph::Node *mix = BeforeReshape(node.inputs[0], mindspore::schema::PrimitiveType_MatMulFusion);
    return mix != nullptr && Joined(graph_.Shape(node.inputs[0])) == graph_.Shape(mix->outputs[0]) ? mix : nullptr;
  }

  // What is turned to a tensor (heads, tokens, depth); the tensor itself, if nothing is.
  std::uint32_t Unturned(std::uint32_t tensor) const {
    const ModelGraph::Node *turning = BeforeReshape(tensor, mindspore::schema::PrimitiveType_Transpose);
    const bool found = turning != nullptr && Turns(*turning) && Joined(graph_.Shape(turning->outputs[0])) == graph_.Shape(tensor);
    return found ? turning->inputs[0] : tensor;
  }

  // The node of a type whose result becomes a tensor by a Reshape. nullptr: the tensor is made otherwise.
  const ModelGraph::Node *BeforeReshape(std::uint32_t tensor, int type) const {
    const ModelGraph::Node *shaped = graph_.Maker(tensor, mindspore::schema::PrimitiveType_Reshape);
    return shaped == nullptr ? nullptr : graph_.Maker(shaped->inputs[0], type);
  }

  // Whether a node changes the two axes in the middle of four.
  bool Turns(const ModelGraph::Node &node) const {
    return node.type == mindspore::schema::PrimitiveType_Transpose && node.inputs.size() == 2 &&
           graph_.Constant<std::int32_t>(node.inputs[1]) == std::vector<std::int32_t>{0, 2, 1, 3};
  }

  // A shape (batch, heads, tokens, depth) with the heads of all.
  static std::vector<std::int32_t> Joined(const std::vector<std::int32_t> &shape) {
    return shape.size() == 4 ? std::vector<std::int32_t>{shape[0] * shape[1], shape[2], shape[3]} : std::vector<std::int32_t>{};
  }

  // Whether a node multiplies two values, without more: each matrix by one of its own, the right one transposed or not.
  bool IsProduct(const ModelGraph::Node *node, bool transposed) const {
    constexpr int kTransposeA = 0, kTransposeB = 1, kActivation = 2;  // fields of MatMulFusion
    const FlatTable &attributes = node->attributes;
    return node->type == mindspore::schema::PrimitiveType_MatMulFusion && node->inputs.size() == 2 &&
           !graph_.IsConstant(node->inputs[0]) && !graph_.IsConstant(node->inputs[1]) &&
           attributes.Value<std::uint8_t>(kTransposeA) == 0 && attributes.Value<std::int8_t>(kActivation) == 0 &&
           (attributes.Value<std::uint8_t>(kTransposeB) != 0) == transposed;
  }

  bool OverLastAxis(const ModelGraph::Node &softmax) const {
    constexpr int kAxes = 0;  // field of Softmax
    const auto axes = softmax.attributes.Values<std::int64_t>(kAxes);
    const auto rank = static_cast<std::int64_t>(graph_.Shape(softmax.outputs[0]).size());
    return axes.size() == 1 && (axes[0] == -1 || axes[0] == rank - 1);
  }

  // Whether the shapes are those that the kernel takes.
  bool Fits(const std::vector<std::int32_t> &result, const std::vector<std::int32_t> &scores) const {
    const auto queries = graph_.Shape(inputs_[0]), keys = graph_.Shape(inputs_[1]), values = graph_.Shape(inputs_[2]);
    if (queries.size() != 3 || keys.size() != 3 || values.size() != 3 || result != queries || keys != values ||
        keys[0] != queries[0] || keys[2] != queries[2]) {
      return false;
    }
    if (inputs_.size() < 4) {
      return true;
    }
    auto bias = graph_.Shape(inputs_[3]);
    if (bias.size() == 3 && bias[0] == 1) {  // the same for all heads
      bias[0] = scores[0];
    }
    return bias == scores;
  }

  const ModelGraph &graph_;
  ModelGraph::Tensors inputs_;
};

#endif
