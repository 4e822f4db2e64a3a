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
#include "kernel_registry.h"
#include "node_attributes.h"
#include "onednn.h"
#include "packed_weights.h"
#include "thread_pool.h"

class ConvolutionKernel : public mindspore::kernel::Kernel {
 public:
  using Tensors = std::vector<mindspore::MSTensor>;

  // nullptr: a convolution that Lite's own kernel is to compute.
  static std::shared_ptr<Kernel> Make(int shares, const Tensors &inputs, const Tensors &outputs,
                                      const mindspore::schema::Primitive *primitive) {
    try {
      auto kernel = std::make_shared<ConvolutionKernel>(inputs, outputs);
      return kernel->Plan(NodeAttributes(primitive), shares) ? kernel : nullptr;
    } catch (const std::exception &error) {
      std::fprintf(stderr, "[ERROR] a convolution is left to Lite: %s\n", error.what());
      return nullptr;
    }
  }

  ConvolutionKernel(const Tensors &inputs, const Tensors &outputs) {
    inputs_ = inputs;
    outputs_ = outputs;
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    in_ = static_cast<const char *>(inputs_[0].MutableData());
    bias_ = inputs_.size() > 2 ? static_cast<const char *>(inputs_[2].MutableData()) : nullptr;
    out_ = static_cast<char *>(outputs_[0].MutableData());
    return SharePool::instance().Run(task_, nullptr, static_cast<int>(batch_ * bands_.size()));
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
  static constexpr std::int64_t kFewestChannels = 16;  // a vector: oneDNN computes narrower pictures one number at a time
  static constexpr std::int64_t kBandBytes = 1 << 20;  // of rounded rows, about: they stay in a core's cache
  static constexpr std::int64_t kFewestRows = 4;       // of a band: neighbors round the rows between them twice

  bool Plan(const NodeAttributes &attributes, int shares) {
    enum { kStride = 2, kDilation = 3, kPadMode = 4, kPadding = 5, kGroup = 7, kActivation = 10 };  // of Conv2DFusion
    const auto stride = attributes.Numbers(kStride), padding = attributes.Numbers(kPadding);
    const auto dilation = attributes.Numbers(kDilation);
    const bool all_float = std::all_of(inputs_.begin(), inputs_.end(), [](const mindspore::MSTensor &tensor) {
      return tensor.DataType() == mindspore::DataType::kNumberTypeFloat32;
    });
    const bool dense = std::all_of(dilation.begin(), dilation.end(), [](std::int64_t step) { return step == 1; });
    if (!all_float || inputs_.size() < 2 || inputs_[1].Data() == nullptr || attributes.Byte(kPadMode) != 0 ||
        attributes.Number(kGroup) != 1 || attributes.Byte(kActivation) != 0 || !dense || stride.size() != 2 ||
        padding.size() != 4) {
      return false;
    }
    vertical_ = {stride[0], padding[0], padding[1]};
    horizontal_ = {stride[1], padding[2], padding[3]};
    if (!ReadShapes()) {
      return false;
    }
    Cut(shares);
    PackWeights();
    task_ = [this](void *, int share, float, float) { return Compute(share); };
    return true;
  }

  // Whether the shapes are those of a convolution over (batch, height, width, channels) that oneDNN computes fast.
  bool ReadShapes() {
    const auto in = inputs_[0].Shape(), weights = inputs_[1].Shape(), out = outputs_[0].Shape();
    if (in.size() != 4 || weights.size() != 4 || out.size() != 4) {
      return false;
    }
    batch_ = in[0], height_ = in[1], width_ = in[2], channels_ = in[3];
    kernel_height_ = weights[1], kernel_width_ = weights[2];
    out_height_ = out[1], out_width_ = out[2], out_channels_ = out[3];
    // Whether an axis has the length that it is said to have, and each of its pixels sees one of the picture's.
    const auto fits = [](std::int64_t side, std::int64_t kernel, const onednn::Primitive::Axis &axis, std::int64_t result) {
      return axis.stride > 0 && axis.before >= 0 && axis.after >= 0 && std::max(axis.before, axis.after) < kernel &&
             result > 0 && (side + axis.before + axis.after - kernel) / axis.stride + 1 == result;
    };
    return std::min(channels_, out_channels_) >= kFewestChannels && out[0] == batch_ && weights[0] == out_channels_ &&
           weights[3] == channels_ && fits(height_, kernel_height_, vertical_, out_height_) &&
           fits(width_, kernel_width_, horizontal_, out_width_) &&
           (inputs_.size() < 3 || inputs_[2].ElementNum() == out_channels_);
  }

  // Cuts the rows of the result into bands, at least so many that all shares of the pictures have one.
  void Cut(int shares) {
    const std::int64_t fitting = kBandBytes / (width_ * channels_ * 2 * vertical_.stride);
    const std::int64_t each = (out_height_ * batch_ + shares - 1) / shares;
    const std::int64_t rows = std::clamp(std::min(fitting, each), std::min(kFewestRows, out_height_), out_height_);
    for (std::int64_t first = 0; first < out_height_; first += rows) {
      const std::int64_t count = std::min(rows, out_height_ - first);
      const std::int64_t begin = first * vertical_.stride - vertical_.before;
      const std::int64_t end = (first + count - 1) * vertical_.stride - vertical_.before + kernel_height_;
      const std::int64_t from = std::max<std::int64_t>(begin, 0), to = std::min(end, height_);
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
    shape.source = picture(kFloat32, rows_in, width_, channels_);
    shape.rounded = picture(kBfloat16, rows_in, width_, channels_);
    shape.target = picture(kFloat32, rows_out, out_width_, out_channels_);
    if (inputs_.size() > 2) {
      bias_layout_ = Layout(kFloat32, {out_channels_}, {1});
    }
    if (weights_.get() == nullptr) {  // they have one order, that of the first band, whatever band they meet
      weights_ = Layout::Any(kBfloat16, {out_channels_, channels_, kernel_height_, kernel_width_});
    }
    shape.convolution = Primitive::Convolution(shape.rounded, weights_, bias_layout_, shape.target,
                                               {vertical_.stride, above, below}, horizontal_);
    weights_ = shape.convolution.weights();
    shape.round = Primitive::Reorder(shape.source, shape.rounded);
    return shape;
  }

  void PackWeights() {
    const void *tensor = inputs_[1].Data().get();
    if (!packed_.Take(tensor, weights_.size())) {
      const onednn::Layout given(onednn::kFloat32, {out_channels_, channels_, kernel_height_, kernel_width_},
                                 {kernel_height_ * kernel_width_ * channels_, 1, kernel_width_ * channels_, channels_});
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
    const char *in = in_ + kFloat * (picture * height_ + band.first_in) * width_ * channels_;
    char *out = out_ + kFloat * (picture * out_height_ + band.first_out) * out_width_ * out_channels_;
    void *rounded = scratch.Get(shape.rounded.size());
    shape.round.Run({{onednn::kSource, &shape.source, in}, {onednn::kTarget, &shape.rounded, rounded}});
    shape.convolution.Run({{onednn::kSource, &shape.rounded, rounded}, {onednn::kWeights, &weights_, packed_.data()},
                           {onednn::kBias, &bias_layout_, bias_}, {onednn::kTarget, &shape.target, out}});
    return 0;
  }

  onednn::Primitive::Axis vertical_{}, horizontal_{};
  std::int64_t batch_ = 1, height_ = 0, width_ = 0, channels_ = 0, kernel_height_ = 0, kernel_width_ = 0;
  std::int64_t out_height_ = 0, out_width_ = 0, out_channels_ = 0;
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>, Shape> shapes_;
  std::vector<Band> bands_;
  onednn::Layout weights_, bias_layout_;
  PackedWeight packed_;  // weights in oneDNN's order
  SharePool::Task task_;
  const char *in_ = nullptr, *bias_ = nullptr;
  char *out_ = nullptr;
};

// Has oneDNN compute all convolutions of some width.
inline void RegisterConvolutions(int shares) {
  onednn::library();  // throws where there is none
  RegisterKernels(mindspore::schema::PrimitiveType_Conv2DFusion,
                  [shares](const auto &inputs, const auto &outputs, const auto *primitive, const auto *) {
                    return ConvolutionKernel::Make(shares, inputs, outputs, primitive);
                  });
}

#endif
