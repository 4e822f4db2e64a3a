// The graph in a `.ms` file, to be changed in memory before Lite reads it.
//
// Nodes that our kernels compute in one go are replaced by one node of our own. What is new is written behind the file,
// where references of a flatbuffer may point to; nodes whose results nobody uses any more are left out of the order.

#ifndef KANDINSKY_MINDIR_MODEL_GRAPH_H
#define KANDINSKY_MINDIR_MODEL_GRAPH_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "flat_table.h"
#include "schema/model_generated.h"

class ModelGraph {
 public:
  using Tensors = std::vector<std::uint32_t>;  // numbers of tensors
  static constexpr std::size_t kRoom = std::size_t{1} << 20;  // bytes behind a file that are enough for what is written

  struct Node {
    int type = 0;
    Tensors inputs, outputs;
    FlatTable attributes;  // the operator's own table
  };

  // file: a `.ms` file of `size` bytes, with kRoom bytes of zeros behind it.
  ModelGraph(char *file, std::size_t size)
      : file_(reinterpret_cast<std::uint8_t *>(file)), end_((size + 7) / 8 * 8), limit_(size + kRoom),
        root_(file_, size + kRoom), tables_(root_.Tables(kNodes)), tensors_(root_.Tables(kTensors)) {
    const auto graphs = root_.Tables(kGraphs);
    if (graphs.size() != 1) {
      throw std::runtime_error("the file holds " + std::to_string(graphs.size()) + " graphs");
    }
    graph_ = graphs[0];
    results_ = graph_.Values<std::uint32_t>(kResults);
    order_ = graph_.Values<std::uint32_t>(kOrder);
    for (const FlatTable &table : tables_) {
      const FlatTable primitive = table.Table(kPrimitive);
      nodes_.push_back({primitive.Value<std::uint8_t>(0), table.Values<std::uint32_t>(kInputs),
                        table.Values<std::uint32_t>(kOutputs), primitive.Table(1)});
      for (const std::uint32_t tensor : nodes_.back().outputs) {
        makers_[tensor] = static_cast<std::uint32_t>(nodes_.size() - 1);
      }
    }
  }

  const std::vector<std::uint32_t> &order() const { return order_; }
  const Node &node(std::uint32_t number) const { return nodes_.at(number); }
  std::vector<std::int32_t> Shape(std::uint32_t tensor) const { return tensors_.at(tensor).Values<std::int32_t>(kShape); }

  // The node of a type that makes a tensor; nullptr: it is made otherwise.
  const Node *Maker(std::uint32_t tensor, int type) const {
    const auto found = makers_.find(tensor);
    return found == makers_.end() || nodes_[found->second].type != type ? nullptr : &nodes_[found->second];
  }

  // The numbers in a constant tensor; none where it is no constant, or holds something else than 32-bit numbers.
  template <typename T>
  std::vector<T> Constant(std::uint32_t tensor) const {
    static_assert(sizeof(T) == 4);
    const int wanted = std::is_floating_point_v<T> ? kFloat32 : kInt32;
    const FlatTable &table = tensors_.at(tensor);
    const auto data = table.VectorAt(kData);
    std::vector<T> values;
    if (table.Value<std::int32_t>(kDataType) == wanted && data.size % sizeof(T) == 0) {
      values.resize(data.size / sizeof(T));
      std::memcpy(values.data(), data.data, data.size);
    }
    return values;
  }
  bool IsConstant(std::uint32_t tensor) const { return tensors_.at(tensor).VectorAt(kData).size > 0; }

  // Makes of a node one of our own, with the same outputs.
  void Replace(std::uint32_t number, const std::string &type, const Tensors &inputs) {
    Node &node = nodes_.at(number);
    node = {mindspore::schema::PrimitiveType_Custom, inputs, node.outputs, {}};
    const std::size_t list = Append(inputs.size() * sizeof(std::uint32_t), inputs.data(), inputs.size());
    Refer(tables_[number].Field(kInputs), list);
    Refer(tables_[number].Field(kPrimitive), AppendPrimitive(type));
  }

  // Leaves out the nodes whose results nobody uses.
  void Sweep() {
    std::vector<bool> used(tensors_.size(), false);
    for (const std::uint32_t tensor : results_) {
      used.at(tensor) = true;
    }
    std::vector<std::uint32_t> kept;
    for (auto number = order_.rbegin(); number != order_.rend(); ++number) {
      const Node &node = nodes_.at(*number);
      if (std::any_of(node.outputs.begin(), node.outputs.end(), [&used](std::uint32_t tensor) { return used.at(tensor); })) {
        kept.push_back(*number);
        for (const std::uint32_t tensor : node.inputs) {
          used.at(tensor) = true;
        }
      }
    }
    order_.assign(kept.rbegin(), kept.rend());
    auto *list = const_cast<std::uint8_t *>(graph_.VectorAt(kOrder).data) - sizeof(std::uint32_t);
    Write(list, static_cast<std::uint32_t>(order_.size()));
    std::memcpy(list + sizeof(std::uint32_t), order_.data(), order_.size() * sizeof(std::uint32_t));
  }

 private:
  // Fields of Lite 2.0's schema (mindspore/lite/schema/model.fbs).
  enum { kNodes = 6, kTensors = 7, kGraphs = 8 };                // of MetaGraph
  enum { kResults = 2, kOrder = 3 };                             // of SubGraph
  enum { kPrimitive = 2, kInputs = 3, kOutputs = 4 };            // of CNode
  enum { kDataType = 1, kShape = 2, kData = 6 };                 // of Tensor
  enum { kInt32 = 34, kFloat32 = 43 };                           // of mindspore::TypeId

  static void Write(std::uint8_t *place, std::uint32_t value) { std::memcpy(place, &value, sizeof(value)); }

  // Appends a count and `size` bytes; where it lies.
  std::size_t Append(std::size_t size, const void *data, std::size_t count) {
    const std::size_t place = end_;
    end_ += (sizeof(std::uint32_t) + size + 1 + 7) / 8 * 8;  // a string ends with a zero
    if (end_ > limit_) {
      throw std::runtime_error("there is no room behind the file for the nodes of our own");
    }
    Write(file_ + place, static_cast<std::uint32_t>(count));
    std::memcpy(file_ + place + sizeof(std::uint32_t), data, size);
    return place;
  }

  // A node's attributes: a union of the operator's number and its table, which has but the name of our kernel.
  std::size_t AppendPrimitive(const std::string &type) {
    // Of both kinds of table: how long this list is, how long a table, and where in it each field lies.
    const std::uint16_t of_custom[] = {6, 8, 4, 0}, of_primitive[] = {8, 12, 8, 4};
    std::uint8_t block[sizeof(of_custom) + sizeof(of_primitive) + 12 + 8] = {};
    const std::size_t lists = Append(sizeof(block), block, 0) + sizeof(std::uint32_t);
    const std::size_t primitive = lists + sizeof(of_custom) + sizeof(of_primitive), custom = primitive + 12;
    const std::size_t name = Append(type.size(), type.data(), type.size());
    std::memcpy(file_ + lists, of_custom, sizeof(of_custom));
    std::memcpy(file_ + lists + sizeof(of_custom), of_primitive, sizeof(of_primitive));
    Write(file_ + primitive, static_cast<std::uint32_t>(primitive - lists - sizeof(of_custom)));
    Write(file_ + primitive + 4, static_cast<std::uint32_t>(custom - primitive - 4));
    file_[primitive + 8] = mindspore::schema::PrimitiveType_Custom;
    Write(file_ + custom, static_cast<std::uint32_t>(custom - lists));
    Write(file_ + custom + 4, static_cast<std::uint32_t>(name - custom - 4));
    return primitive;
  }

  void Refer(const std::uint8_t *field, std::size_t target) {
    if (field == nullptr) {
      throw std::runtime_error("a node lacks what every node has");
    }
    auto *place = const_cast<std::uint8_t *>(field);
    Write(place, static_cast<std::uint32_t>(file_ + target - place));
  }

  std::uint8_t *file_;
  std::size_t end_, limit_;
  FlatTable root_, graph_;
  std::vector<FlatTable> tables_, tensors_;
  std::vector<Node> nodes_;
  std::vector<std::uint32_t> order_, results_;
  std::map<std::uint32_t, std::uint32_t> makers_;  // of each tensor, the node
};

#endif
