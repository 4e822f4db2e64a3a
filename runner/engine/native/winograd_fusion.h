// Finds 3x3 convolutions that a graph composes of products (models/winograd.py), and makes one node of each.
//
// Each of the cells there becomes some 45 nodes. Their new node takes the picture, the products' weights, the bias, and of
// the tiles the shape (products along an axis, pictures' rows of tiles, what a row holds in the result). What follows gives
// the result its shape, which the converter may do more than once. Its kernel (winograd_kernel.h) knows from the shapes what to do
// with the picture's border. What is composed in another way stays as it is.

#ifndef KANDINSKY_MINDIR_WINOGRAD_FUSION_H
#define KANDINSKY_MINDIR_WINOGRAD_FUSION_H

#include <algorithm>
#include <cstdint>
#include <vector>

#include "model_graph.h"
#include "schema/model_generated.h"

constexpr const char *kWinogradType = "KandinskyWinograd";

class WinogradFusion {
 public:
  // How many convolutions became a node.
  static int Apply(ModelGraph *graph) {
    int count = 0;
    const auto order = graph->order();
    for (const std::uint32_t number : order) {
      WinogradFusion match(*graph);
      if (match.Ends(graph->node(number))) {
        graph->Replace(number, kWinogradType, match.inputs_);
        ++count;
      }
    }
    return count;
  }

 private:
  static constexpr std::int64_t kOpen = -1;  // a tensor that is not known yet
  static constexpr std::int32_t kVector = 16;  // channels that the kernel takes at a time

  using Tensor = std::int64_t;
  using Four = std::vector<Tensor>;  // of the four products along an axis; three where the picture is doubled

  explicit WinogradFusion(const ModelGraph &graph) : graph_(graph) {}

  // Whether a node is the last of a convolution's: BiasAdd(Reshape(what the products make)).
  bool Ends(const ModelGraph::Node &last) {
    Tensor sums = kOpen, rows = kOpen, products = kOpen, layout = kOpen;
    if (last.type != mindspore::schema::PrimitiveType_BiasAdd || last.inputs.size() != 2 || !Reshaped(last.inputs[0], &sums)) {
      return false;
    }
    const std::uint32_t bias = last.inputs[1];
    Four vertical;
    if (!Results(sums, &vertical) || !Slices(&vertical, &rows) ||
        !Binary(rows, mindspore::schema::PrimitiveType_Reshape, &products, &layout) ||
        graph_.Constant<std::int32_t>(static_cast<std::uint32_t>(layout)) != graph_.Shape(static_cast<std::uint32_t>(rows))) {
      return false;
    }
    Four horizontal;
    if (!Results(products, &horizontal)) {
      return false;
    }
    Four weights, sources;
    const std::vector<std::int32_t> channels = graph_.Shape(bias);
    for (const Tensor product : horizontal) {
      Tensor source = kOpen, weight = kOpen, shaped = kOpen;
      if (!Binary(product, mindspore::schema::PrimitiveType_MatMulFusion, &shaped, &weight) || !Reshaped(shaped, &source) ||
          !graph_.IsConstant(weight)) {
        return false;
      }
      const auto shape = graph_.Shape(static_cast<std::uint32_t>(weight));
      if (shape.size() != 3 || shape[0] != static_cast<std::int32_t>(horizontal.size()) || std::vector<std::int32_t>{shape[1]} != channels ||
          shape[1] % kVector != 0 || shape[2] % kVector != 0) {
        return false;
      }
      weights.push_back(weight);
      sources.push_back(source);
    }
    Tensor pairs = kOpen, stacked = kOpen, whole = kOpen, picture = kOpen;
    if (!Combinations(sources, &pairs) || !Reshaped(pairs, &stacked)) {
      return false;
    }
    const ModelGraph::Node *stack = graph_.Maker(stacked, mindspore::schema::PrimitiveType_Concat);
    if (stack == nullptr || !Combinations(Four(stack->inputs.begin(), stack->inputs.end()), &whole) ||
        !Reshaped(whole, &picture) || graph_.Shape(picture).size() != 4) {
      return false;
    }
    picture = WithoutBorder(WithoutBorder(picture, 2), 1);
    inputs_ = {static_cast<std::uint32_t>(picture)};
    inputs_.insert(inputs_.end(), weights.begin(), weights.end());
    inputs_.push_back(bias);
    inputs_.push_back(static_cast<std::uint32_t>(layout));
    return true;
  }

  // Whether `tensor` is what the type makes of two others. One that is known already must be the same.
  bool Binary(Tensor tensor, int type, Tensor *left, Tensor *right) const {
    const ModelGraph::Node *node = tensor < 0 ? nullptr : graph_.Maker(static_cast<std::uint32_t>(tensor), type);
    return node != nullptr && node->inputs.size() == 2 && Same(left, node->inputs[0]) && Same(right, node->inputs[1]);
  }

  static bool Same(Tensor *known, Tensor found) {
    *known = *known == kOpen ? found : *known;
    return *known == found;
  }

  bool Sum(Tensor tensor, Tensor *left, Tensor *right) const {
    return Binary(tensor, mindspore::schema::PrimitiveType_AddFusion, left, right);
  }
  bool Difference(Tensor tensor, Tensor *left, Tensor *right) const {
    return Binary(tensor, mindspore::schema::PrimitiveType_SubFusion, left, right);
  }
  bool Reshaped(Tensor tensor, Tensor *from) const {
    Tensor shape = kOpen;
    return Binary(tensor, mindspore::schema::PrimitiveType_Reshape, from, &shape);
  }

  // Whether `tensor` is two results side by side, of four products a + (b + c), (b - c) - d, or of three a + b, b - c.
  bool Results(Tensor tensor, Four *products) const {
    Tensor first = kOpen, second = kOpen, a = kOpen, b = kOpen, c = kOpen, d = kOpen, sum = kOpen, difference = kOpen;
    if (!Binary(tensor, mindspore::schema::PrimitiveType_Concat, &first, &second)) {
      return false;
    }
    if (Sum(first, &a, &sum) && Difference(second, &difference, &d) && Sum(sum, &b, &c) && Difference(difference, &b, &c)) {
      *products = {a, b, c, d};
      return true;
    }
    a = b = c = kOpen;
    if (Sum(first, &a, &b) && Difference(second, &b, &c)) {
      *products = {a, b, c};
      return true;
    }
    return false;
  }

  // Whether the tensors are the slices of another one from 0, 1, 2 ... on along its first axis.
  bool Slices(Four *tensors, Tensor *of) const {
    for (std::size_t i = 0; i < tensors->size(); ++i) {
      if (!SliceAt((*tensors)[i], {static_cast<std::int32_t>(i)}, of)) {
        return false;
      }
    }
    return true;
  }

  // Whether `tensor` is a slice of `of` that begins at these places, and at 0 along all further axes.
  bool SliceAt(Tensor tensor, std::vector<std::int32_t> begin, Tensor *of) const {
    const ModelGraph::Node *node =
      tensor < 0 ? nullptr : graph_.Maker(static_cast<std::uint32_t>(tensor), mindspore::schema::PrimitiveType_SliceFusion);
    if (node == nullptr || node->inputs.size() != 3 || !Same(of, node->inputs[0])) {
      return false;
    }
    const auto places = graph_.Constant<std::int32_t>(node->inputs[1]);
    begin.resize(places.size(), 0);
    return !places.empty() && places == begin;
  }

  // Whether the tensors are the combinations of neighbors that products take (WinogradConv2d.combined, and that of
  // DoubledConv2d).
  bool Combinations(const Four &made, Tensor *of) const {
    if (made.size() == 4) {
      Tensor a = kOpen, b = kOpen, c = kOpen, d = kOpen;
      return Difference(made[0], &a, &c) && Sum(made[1], &b, &c) && Difference(made[2], &c, &b) &&
             Difference(made[3], &b, &d) && SliceAt(a, {0, 0, 0}, of) && SliceAt(b, {0, 0, 1}, of) &&
             SliceAt(c, {0, 1, 0}, of) && SliceAt(d, {0, 1, 1}, of);
    }
    Tensor steps = kOpen, here = kOpen, next = kOpen;
    return made.size() == 3 && SliceAt(made[0], {0, 0}, &steps) && SliceAt(made[2], {0, 1}, &steps) &&
           Difference(steps, &here, &next) && SliceAt(here, {0, 0}, of) && SliceAt(next, {0, 1}, of) &&
           SliceAt(made[1], {0, 1}, of);
  }

  // The picture within a border of zeros along an axis; the tensor itself if it has none.
  Tensor WithoutBorder(Tensor tensor, std::size_t axis) const {
    const ModelGraph::Node *node = graph_.Maker(static_cast<std::uint32_t>(tensor), mindspore::schema::PrimitiveType_Concat);
    if (node == nullptr || node->inputs.size() < 3 || !IsZero(node->inputs[0]) ||
        !std::all_of(node->inputs.begin() + 2, node->inputs.end(), [this](std::uint32_t each) { return IsZero(each); })) {
      return tensor;
    }
    const auto before = graph_.Shape(node->inputs[0]), whole = graph_.Shape(static_cast<std::uint32_t>(tensor));
    auto within = graph_.Shape(node->inputs[1]);
    if (before.size() != 4 || within.size() != 4 || before[axis] != 1 || within[axis] >= whole[axis]) {
      return tensor;
    }
    within[axis] = whole[axis];
    return within == whole ? Tensor{node->inputs[1]} : tensor;
  }

  // Whether a tensor is another one times zero.
  bool IsZero(Tensor tensor) const {
    Tensor any = kOpen, factor = kOpen;
    return Binary(tensor, mindspore::schema::PrimitiveType_MulFusion, &any, &factor) &&
           graph_.Constant<float>(static_cast<std::uint32_t>(factor)) == std::vector<float>{0.0F};
  }

  const ModelGraph &graph_;
  ModelGraph::Tensors inputs_;
};

#endif
