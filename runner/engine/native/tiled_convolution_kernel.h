// A 3x3 convolution of the graph's own, computed by Winograd's algorithm in bfloat16: 16 products for four pixels, not 36.

#ifndef KANDINSKY_MINDIR_TILED_CONVOLUTION_KERNEL_H
#define KANDINSKY_MINDIR_TILED_CONVOLUTION_KERNEL_H

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "convolution_node.h"
#include "include/api/kernel.h"
#include "include/api/types.h"
#include "packed_weights.h"
#include "thread_pool.h"
#include "winograd_convolution.h"

#ifdef KANDINSKY_VECTORS

class TiledConvolutionKernel : public mindspore::kernel::Kernel {
 public:
  using Tensors = std::vector<mindspore::MSTensor>;

  // Whether the algorithm takes a convolution, and less time for it.
  static bool Suits(const ConvolutionNode &node, bool biased) {
    const auto plain = [](const onednn::Primitive::Axis &axis) {  // a border of zeros on both sides, or none
      return axis.stride == 1 && axis.before == axis.after && axis.before <= 1;
    };
    return biased && node.kernel_height == 3 && node.kernel_width == 3 && plain(node.vertical) && plain(node.horizontal) &&
           node.out_height % 2 == 0 && node.out_width % 2 == 0 && node.channels % kVector == 0 &&
           node.out_channels % kVector == 0 && std::min(node.channels, node.out_channels) >= kFewestChannels;
  }

  TiledConvolutionKernel(int shares, const ConvolutionNode &node, const Tensors &inputs, const Tensors &outputs)
    : node_(node), convolution_({kTaps, node.batch, node.height, node.width, node.channels, node.out_channels,
                                 node.out_height / 2, node.out_width / 2}, shares) {
    inputs_ = inputs;
    outputs_ = outputs;
    PackWeights();
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    return convolution_.Run(static_cast<const float *>(inputs_[0].MutableData()),
                            static_cast<const float *>(inputs_[2].MutableData()),
                            static_cast<float *>(outputs_[0].MutableData()));
  }

 private:
  static constexpr int kTaps = 4;
  static constexpr std::int64_t kVector = 16;          // channels that are combined at a time
  static constexpr std::int64_t kFewestChannels = 64;  // tiles take less time from here on; with fewer it was not measured
  // What a product along an axis takes of the kernel's three values (models/winograd.py).
  static constexpr float kTakes[kTaps][3] = {{1, 0, 0}, {0.5F, 0.5F, 0.5F}, {0.5F, -0.5F, 0.5F}, {0, 0, 1}};

  void PackWeights() {
    const auto *tensor = static_cast<const float *>(inputs_[1].Data().get());
    const std::size_t size = convolution_.weights_size();
    const bool there = packed_.Take(tensor, size * kTaps * kTaps);
    const SharePool::Task pack = [&](void *, int product, float, float) {
      convolution_.Pack(Combined(tensor, kTakes[product / kTaps], kTakes[product % kTaps]).data(),
                        packed_.data() + static_cast<std::size_t>(product) * size);
      return 0;
    };
    if (!there && SharePool::instance().Run(pack, nullptr, kTaps * kTaps) != 0) {
      throw std::runtime_error("its weights cannot be packed");
    }
    for (int product = 0; product < kTaps * kTaps; ++product) {
      convolution_.Use(product / kTaps, product % kTaps, packed_.data() + static_cast<std::size_t>(product) * size);
    }
  }

  // The weights (out channels, channels) of a product, of a kernel (out channels, 3, 3, channels).
  std::vector<float> Combined(const float *kernel, const float *rows, const float *columns) const {
    std::vector<float> result(static_cast<std::size_t>(node_.out_channels * node_.channels));
    for (std::int64_t out = 0; out < node_.out_channels; ++out) {
      for (std::int64_t channel = 0; channel < node_.channels; ++channel) {
        const float *values = kernel + out * 9 * node_.channels + channel;
        double sum = 0;
        for (int place = 0; place < 9; ++place) {
          sum += static_cast<double>(rows[place / 3] * columns[place % 3]) * values[place * node_.channels];
        }
        result[static_cast<std::size_t>(out * node_.channels + channel)] = static_cast<float>(sum);
      }
    }
    return result;
  }

  ConvolutionNode node_;
  WinogradConvolution<std::uint16_t> convolution_;
  PackedWeight packed_;
};

#endif
#endif
