// Convolutions by oneDNN in place of Lite's, in bfloat16.
//
// Of a picture (batch, height, width, channels) our pool's threads compute one band of rows at a time. The rows that a band
// sees are rounded to bfloat16 just before; sums are in float32, and so is what comes out. Weights are rounded and put in
// oneDNN's order once, when the model is loaded.

#ifndef KANDINSKY_MINDIR_CONVOLUTION_KERNEL_H
#define KANDINSKY_MINDIR_CONVOLUTION_KERNEL_H

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "include/api/kernel.h"
#include "include/api/types.h"
#include "convolution_node.h"
#include "kernel_registry.h"
#include "onednn.h"
#include "packed_weights.h"
#include "thread_pool.h"
#include "tiled_convolution_kernel.h"

class ConvolutionKernel : public mindspore::kernel::Kernel {
 public:
  using Tensors = std::vector<mindspore::MSTensor>;

  ConvolutionKernel(int shares, const ConvolutionNode &node, const Tensors &inputs, const Tensors &outputs) : node_(node) {
    inputs_ = inputs;
    outputs_ = outputs;
    Cut(shares);
    PackWeights();
    task_ = [this](void *, int share, float, float) { return Compute(share); };
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    in_ = static_cast<const char *>(inputs_[0].MutableData());
    bias_ = inputs_.size() > 2 ? static_cast<const char *>(inputs_[2].MutableData()) : nullptr;
    out_ = static_cast<char *>(outputs_[0].MutableData());
    return SharePool::instance().Run(task_, nullptr, static_cast<int>(node_.batch * bands_.size()));
  }

 private:
  // What all bands of one shape share.
  struct Shape {
    onednn::Layout source, rounded, target;
    onednn::Primitive round, convolution;
  };
  struct Band {
    std::int64_t first_in, first_out;  // rows
    const Shape *shape;
  };

  static constexpr std::int64_t kFloat = sizeof(float);
  static constexpr std::int64_t kBandBytes = 1 << 20;  // of rounded rows, about: they stay in a core's cache
  static constexpr std::int64_t kFewestRows = 4;       // of a band: neighbors round the rows between them twice

  // Cuts the rows of the result into bands, at least so many that all shares of the pictures have one.
  void Cut(int shares) {
    const std::int64_t fitting = kBandBytes / (node_.width * node_.channels * 2 * node_.vertical.stride);
    const std::int64_t each = (node_.out_height * node_.batch + shares - 1) / shares;
    const std::int64_t rows = std::clamp(std::min(fitting, each), std::min(kFewestRows, node_.out_height), node_.out_height);
    for (std::int64_t first = 0; first < node_.out_height; first += rows) {
      const std::int64_t count = std::min(rows, node_.out_height - first);
      const std::int64_t begin = first * node_.vertical.stride - node_.vertical.before;
      const std::int64_t end = (first + count - 1) * node_.vertical.stride - node_.vertical.before + node_.kernel_height;
      const std::int64_t from = std::max<std::int64_t>(begin, 0), to = std::min(end, node_.height);
      bands_.push_back({from, first, &Describe(count, to - from, from - begin, end - to)});
    }
  }

  const Shape &Describe(std::int64_t rows_out, std::int64_t rows_in, std::int64_t above, std::int64_t below) {
    using onednn::kBfloat16, onednn::kFloat32, onednn::Layout, onednn::Primitive;
    const auto [place, added] = shapes_.try_emplace({rows_out, rows_in, above, below});
    Shape &shape = place->second;
    if (!added) {
      return shape;
    }
    const auto picture = [](onednn::DataType type, std::int64_t rows, std::int64_t columns, std::int64_t channels) {
      return Layout(type, {1, channels, rows, columns}, {rows * columns * channels, 1, columns * channels, channels});
    };
    shape.source = picture(kFloat32, rows_in, node_.width, node_.channels);
    shape.rounded = picture(kBfloat16, rows_in, node_.width, node_.channels);
    shape.target = picture(kFloat32, rows_out, node_.out_width, node_.out_channels);
    if (inputs_.size() > 2) {
      bias_layout_ = Layout(kFloat32, {node_.out_channels}, {1});
    }
    if (weights_.get() == nullptr) {  // they have one order, that of the first band, whatever band they meet
      weights_ = Layout::Any(kBfloat16, {node_.out_channels, node_.channels, node_.kernel_height, node_.kernel_width});
    }
    shape.convolution = Primitive::Convolution(shape.rounded, weights_, bias_layout_, shape.target,
                                               {node_.vertical.stride, above, below}, node_.horizontal);
    weights_ = shape.convolution.weights();
    shape.round = Primitive::Reorder(shape.source, shape.rounded);
    return shape;
  }

  void PackWeights() {
    const void *tensor = inputs_[1].Data().get();
    if (!packed_.Take(tensor, weights_.size())) {
      const std::int64_t row = node_.kernel_width * node_.channels;
      const onednn::Layout given(onednn::kFloat32,
                                 {node_.out_channels, node_.channels, node_.kernel_height, node_.kernel_width},
                                 {node_.kernel_height * row, 1, row, node_.channels});
      const auto round = onednn::Primitive::Reorder(given, weights_);
      round.Run({{onednn::kSource, &given, tensor}, {onednn::kTarget, &weights_, packed_.data()}});
    }
  }

  int Compute(int share) {
    static thread_local onednn::Scratch scratch;
    const auto number = static_cast<std::size_t>(share);
    const std::int64_t picture = static_cast<std::int64_t>(number / bands_.size());
    const Band &band = bands_[number % bands_.size()];
    const Shape &shape = *band.shape;
    const char *in = in_ + kFloat * (picture * node_.height + band.first_in) * node_.width * node_.channels;
    char *out = out_ + kFloat * (picture * node_.out_height + band.first_out) * node_.out_width * node_.out_channels;
    void *rounded = scratch.Get(shape.rounded.size());
    shape.round.Run({{onednn::kSource, &shape.source, in}, {onednn::kTarget, &shape.rounded, rounded}});
    shape.convolution.Run({{onednn::kSource, &shape.rounded, rounded}, {onednn::kWeights, &weights_, packed_.data()},
                           {onednn::kBias, &bias_layout_, bias_}, {onednn::kTarget, &shape.target, out}});
    return 0;
  }

  ConvolutionNode node_;
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>, Shape> shapes_;
  std::vector<Band> bands_;
  onednn::Layout weights_, bias_layout_;
  PackedWeight packed_;  // weights in oneDNN's order
  SharePool::Task task_;
  const char *in_ = nullptr, *bias_ = nullptr;
  char *out_ = nullptr;
};

// Has oneDNN compute all convolutions of some width, by tiles where that takes less time.
inline void RegisterConvolutions(int shares) {
  onednn::library();  // throws where there is none
  RegisterKernels(mindspore::schema::PrimitiveType_Conv2DFusion, [shares](const auto &inputs, const auto &outputs,
                                                                          const auto *primitive, const auto *) {
    constexpr std::int64_t kFewestChannels = 16;  // a vector: oneDNN computes narrower pictures one number at a time
    std::shared_ptr<mindspore::kernel::Kernel> kernel;  // none: Lite's own is to compute it
    try {
      ConvolutionNode node;
      if (!node.Read(inputs, outputs, NodeAttributes(primitive)) ||
          std::min(node.channels, node.out_channels) < kFewestChannels) {
        return kernel;
      }
#ifdef KANDINSKY_VECTORS
      if (TiledConvolutionKernel::Suits(node, inputs.size() > 2)) {
        kernel = std::make_shared<TiledConvolutionKernel>(shares, node, inputs, outputs);
        return kernel;
      }
#endif
      kernel = std::make_shared<ConvolutionKernel>(shares, node, inputs, outputs);
    } catch (const std::exception &error) {
      std::fprintf(stderr, "[ERROR] a convolution is left to Lite: %s\n", error.what());
    }
    return kernel;
  });
}

#endif
