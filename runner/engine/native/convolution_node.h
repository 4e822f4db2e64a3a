// A convolution node of Lite's graphs: what of it the kernels read.

#ifndef KANDINSKY_MINDIR_CONVOLUTION_NODE_H
#define KANDINSKY_MINDIR_CONVOLUTION_NODE_H

#include <algorithm>
#include <cstdint>
#include <vector>

#include "include/api/types.h"
#include "node_attributes.h"
#include "onednn.h"

struct ConvolutionNode {
  onednn::Primitive::Axis vertical{}, horizontal{};
  std::int64_t batch = 0, height = 0, width = 0, channels = 0, kernel_height = 0, kernel_width = 0;
  std::int64_t out_height = 0, out_width = 0, out_channels = 0;

  using Tensors = std::vector<mindspore::MSTensor>;

  // Whether the node is a dense convolution over (batch, height, width, channels) with weights (out channels, kernel height,
  // kernel width, channels) that are known, in float32.
  bool Read(const Tensors &inputs, const Tensors &outputs, const NodeAttributes &attributes) {
    enum { kStride = 2, kDilation = 3, kPadMode = 4, kPadding = 5, kGroup = 7, kActivation = 10 };  // of Conv2DFusion
    const auto stride = attributes.Numbers(kStride), padding = attributes.Numbers(kPadding);
    const auto dilation = attributes.Numbers(kDilation);
    const bool all_float = std::all_of(inputs.begin(), inputs.end(), [](const mindspore::MSTensor &tensor) {
      return tensor.DataType() == mindspore::DataType::kNumberTypeFloat32;
    });
    const bool dense = std::all_of(dilation.begin(), dilation.end(), [](std::int64_t step) { return step == 1; });
    if (!all_float || inputs.size() < 2 || inputs[1].Data() == nullptr || attributes.Byte(kPadMode) != 0 ||
        attributes.Number(kGroup) != 1 || attributes.Byte(kActivation) != 0 || !dense || stride.size() != 2 ||
        padding.size() != 4) {
      return false;
    }
    vertical = {stride[0], padding[0], padding[1]};
    horizontal = {stride[1], padding[2], padding[3]};
    return ReadShapes(inputs, outputs);
  }

 private:
  bool ReadShapes(const Tensors &inputs, const Tensors &outputs) {
    const auto in = inputs[0].Shape(), weights = inputs[1].Shape(), out = outputs[0].Shape();
    if (in.size() != 4 || weights.size() != 4 || out.size() != 4) {
      return false;
    }
    batch = in[0], height = in[1], width = in[2], channels = in[3];
    kernel_height = weights[1], kernel_width = weights[2];
    out_height = out[1], out_width = out[2], out_channels = out[3];
    // Whether an axis has the length that it is said to have, and each of its pixels sees one of the picture's.
    const auto fits = [](std::int64_t side, std::int64_t kernel, const onednn::Primitive::Axis &axis, std::int64_t result) {
      return axis.stride > 0 && axis.before >= 0 && axis.after >= 0 && std::max(axis.before, axis.after) < kernel &&
             result > 0 && (side + axis.before + axis.after - kernel) / axis.stride + 1 == result;
    };
    return out[0] == batch && weights[0] == out_channels && weights[3] == channels &&
           fits(height, kernel_height, vertical, out_height) && fits(width, kernel_width, horizontal, out_width) &&
           (inputs.size() < 3 || inputs[2].ElementNum() == out_channels);
  }
};

#endif
