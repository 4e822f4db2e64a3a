// The node that WinogradFusion makes of a 3x3 convolution which a graph composes of products.

#ifndef KANDINSKY_MINDIR_WINOGRAD_KERNEL_H
#define KANDINSKY_MINDIR_WINOGRAD_KERNEL_H

#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <vector>

#include "include/api/kernel.h"
#include "include/api/types.h"
#include "kernel_registry.h"
#include "packed_weights.h"
#include "thread_pool.h"
#include "winograd_convolution.h"
#include "winograd_fusion.h"

#ifdef KANDINSKY_VECTORS

template <typename Factor>  // of its products: float, or std::uint16_t for bfloat16
class WinogradKernel : public mindspore::kernel::Kernel {
 public:
  using Tensors = std::vector<mindspore::MSTensor>;

  // nullptr: a node that is none of WinogradFusion's.
  static std::shared_ptr<Kernel> Make(int shares, const Tensors &inputs, const Tensors &outputs) {
    try {
      return std::make_shared<WinogradKernel>(shares, inputs, outputs);
    } catch (const std::exception &error) {
      std::fprintf(stderr, "[ERROR] a convolution cannot be computed: %s\n", error.what());
      return nullptr;
    }
  }

  // inputs: the picture (batch, height, width, channels), of each column of the transform the weights of its products (taps,
  // out channels, channels), the bias, and three numbers: taps, batch * rows of tiles, columns of tiles * 2 * out channels.
  // outputs: the result (batch, height, width, out channels), whatever shape it is said to have.
  WinogradKernel(int shares, const Tensors &inputs, const Tensors &outputs)
    : shape_(ReadShape(inputs, outputs)), convolution_(shape_, shares), packed_(new PackedWeight[shape_.taps]) {
    inputs_ = inputs;
    outputs_ = outputs;
    for (std::int64_t column = 0; column < shape_.taps; ++column) {
      PackWeights(column);
    }
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    return convolution_.Run(static_cast<const float *>(inputs_[0].MutableData()),
                            static_cast<const float *>(inputs_[inputs_.size() - 2].MutableData()),
                            static_cast<float *>(outputs_[0].MutableData()));
  }

 private:
  static WinogradShape ReadShape(const Tensors &inputs, const Tensors &outputs) {
    const auto in = inputs.at(0).Shape();
    const auto taps = static_cast<std::int64_t>(inputs.size()) - 3;
    if (in.size() != 4 || in[0] <= 0 || (taps != 3 && taps != 4)) {
      throw std::runtime_error("its shapes are no convolution's");
    }
    const mindspore::MSTensor &layout = inputs.back();
    const auto *tiles = static_cast<const std::int32_t *>(layout.Data().get());
    const std::int64_t out_channels = inputs[inputs.size() - 2].ElementNum();
    if (layout.DataType() != mindspore::DataType::kNumberTypeInt32 || layout.ElementNum() != 3 || tiles == nullptr ||
        tiles[0] != taps || out_channels <= 0 || tiles[1] % in[0] != 0 || tiles[2] % (2 * out_channels) != 0) {
      throw std::runtime_error("its tiles are no convolution's");
    }
    const WinogradShape shape{taps, in[0], in[1], in[2], in[3], out_channels, tiles[1] / in[0], tiles[2] / (2 * out_channels)};
    const std::int64_t count = shape.batch * shape.rows * shape.columns;
    if (count <= 0 || outputs.at(0).ElementNum() != 4 * count * out_channels) {
      throw std::runtime_error("its result has another size");
    }
    for (std::size_t column = 1; column <= static_cast<std::size_t>(taps); ++column) {
      const auto &weights = inputs[column];
      if (weights.Shape() != std::vector<std::int64_t>{taps, out_channels, shape.channels} || weights.Data() == nullptr) {
        throw std::runtime_error("its weights are no convolution's");
      }
    }
    return shape;
  }

  void PackWeights(std::int64_t column) {
    const auto *tensor = static_cast<const float *>(inputs_[static_cast<std::size_t>(1 + column)].Data().get());
    PackedWeight &packed = packed_[static_cast<std::size_t>(column)];
    const std::size_t size = convolution_.weights_size();
    const bool there = packed.Take(tensor, size * static_cast<std::size_t>(shape_.taps));
    const SharePool::Task pack = [&](void *, int row, float, float) {
      convolution_.Pack(tensor + row * shape_.out_channels * shape_.channels,
                        packed.data() + static_cast<std::size_t>(row) * size);
      return 0;
    };
    if (!there && SharePool::instance().Run(pack, nullptr, static_cast<int>(shape_.taps)) != 0) {
      throw std::runtime_error("its weights cannot be packed");
    }
    for (std::int64_t row = 0; row < shape_.taps; ++row) {
      convolution_.Use(row, column, packed.data() + static_cast<std::size_t>(row) * size);
    }
  }

  WinogradShape shape_;
  WinogradConvolution<Factor> convolution_;
  std::unique_ptr<PackedWeight[]> packed_;
};

#endif
#endif
