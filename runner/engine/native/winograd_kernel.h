// 3x3 convolutions by Winograd's algorithm as one node: what WinogradFusion finds.
//
// The result is cut into tiles of two by two pixels, and those into stretches whose numbers stay in the caches. Of each
// stretch the tiles' pixels are combined, and rounded where factors are in bfloat16, oneDNN computes 16 products (9 where the
// picture is doubled to the nearest first) with sums in float32, and these are joined. Our pool's threads share each of the
// three steps.

#ifndef KANDINSKY_MINDIR_WINOGRAD_KERNEL_H
#define KANDINSKY_MINDIR_WINOGRAD_KERNEL_H

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "include/api/kernel.h"
#include "include/api/types.h"
#include "kernel_registry.h"
#include "onednn.h"
#include "packed_weights.h"
#include "thread_pool.h"
#include "winograd_fusion.h"
#include "winograd_transforms.h"

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
  WinogradKernel(int shares, const Tensors &inputs, const Tensors &outputs) : shares_(shares) {
    inputs_ = inputs;
    outputs_ = outputs;
    ReadShapes();
    Describe();
    packed_ = std::make_unique<PackedWeight[]>(static_cast<std::size_t>(taps_));
    for (std::int64_t column = 0; column < taps_; ++column) {
      PackWeights(column);
    }
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    in_ = static_cast<const float *>(inputs_[0].MutableData());
    bias_ = static_cast<const float *>(Bias().MutableData());
    out_ = static_cast<float *>(outputs_[0].MutableData());
    static thread_local onednn::Scratch memory;  // one for all kernels of a model, which run one after another
    const std::size_t products = static_cast<std::size_t>(taps_ * taps_);
    factors_ = static_cast<Factor *>(memory.Get(products * (factors_step_ * kFactor + sums_step_ * kFloat)));
    sums_ = reinterpret_cast<float *>(factors_ + products * factors_step_);
    for (first_ = 0; first_ < tiles_; first_ += stretch_) {
      count_ = std::min(stretch_, tiles_ - first_);
      const int blocks = static_cast<int>(taps_ * taps_ * parts_);
      for (const auto &[task, number] : {std::pair(&scatter_, shares_), {&multiply_, blocks}, {&gather_, shares_}}) {
        if (const int status = SharePool::instance().Run(*task, nullptr, number); status != 0) {
          return status;
        }
      }
    }
    return 0;
  }

 private:
  static constexpr std::size_t kFloat = sizeof(float), kFactor = sizeof(Factor);
  static constexpr std::int64_t kFewestTiles = 256, kMostTiles = 512;  // in a stretch: the weights are read for each
  static constexpr std::int64_t kFewestColumns = 256;  // of a product that is cut in two
  static constexpr std::size_t kSkew = 64;  // numbers between the products' matrices: else all start in one set of a cache

  mindspore::MSTensor &Bias() { return inputs_[inputs_.size() - 2]; }

  void ReadShapes() {
    const auto in = inputs_.at(0).Shape();
    taps_ = static_cast<std::int64_t>(inputs_.size()) - 3;
    if (in.size() != 4 || in[0] <= 0 || (taps_ != 3 && taps_ != 4)) {
      throw std::runtime_error("its shapes are no convolution's");
    }
    const mindspore::MSTensor &layout = inputs_.back();
    const auto *tiles = static_cast<const std::int32_t *>(layout.Data().get());
    out_channels_ = Bias().ElementNum();
    if (layout.DataType() != mindspore::DataType::kNumberTypeInt32 || layout.ElementNum() != 3 || tiles == nullptr ||
        tiles[0] != taps_ || out_channels_ <= 0 || tiles[1] % in[0] != 0 || tiles[2] % (2 * out_channels_) != 0) {
      throw std::runtime_error("its tiles are no convolution's");
    }
    height_ = in[1], width_ = in[2], channels_ = in[3];
    rows_ = tiles[1] / in[0], columns_ = tiles[2] / (2 * out_channels_);
    tiles_ = in[0] * rows_ * columns_;
    if (tiles_ <= 0 || outputs_.at(0).ElementNum() != 4 * tiles_ * out_channels_) {
      throw std::runtime_error("its result has another size");
    }
    apart_ = taps_ == 4 ? 2 : 1;
    // A picture that has its border is as long as all tiles see; else its border is of zeros.
    above_ = height_ >= apart_ * rows_ + 2 ? 0 : 1;
    before_ = width_ >= apart_ * columns_ + 2 ? 0 : 1;
    for (std::int64_t column = 0; column < taps_; ++column) {
      const auto &weights = inputs_[static_cast<std::size_t>(1 + column)];
      if (weights.Shape() != std::vector<std::int64_t>{taps_, out_channels_, channels_} || weights.Data() == nullptr) {
        throw std::runtime_error("its weights are no convolution's");
      }
    }
  }

  void Describe() {
    using onednn::Layout, onednn::Primitive;
    parts_ = out_channels_ >= 2 * kFewestColumns && out_channels_ % 32 == 0 ? 2 : 1;
    // What tiles become takes about twice the memory of the weights, which come from farther away.
    const std::int64_t bytes = channels_ * static_cast<std::int64_t>(kFactor) + out_channels_ * static_cast<std::int64_t>(kFloat);
    const std::int64_t weights = channels_ * out_channels_ * static_cast<std::int64_t>(kFactor);
    stretch_ = std::min(std::clamp(2 * weights / bytes / 32 * 32, kFewestTiles, kMostTiles), tiles_);
    factors_step_ = static_cast<std::size_t>(stretch_ * channels_) + kSkew;
    sums_step_ = static_cast<std::size_t>(stretch_ * out_channels_) + kSkew;
    const std::int64_t columns = out_channels_ / parts_;
    factors_layout_ = Layout(onednn::kTypeOf<Factor>, stretch_, channels_, channels_, 1);
    sums_layout_ = Layout(onednn::kFloat32, stretch_, columns, columns, 1);
    given_ = Layout(onednn::kFloat32, channels_, columns, 1, channels_);
    product_ = Primitive::Product(factors_layout_, Layout::Any(onednn::kTypeOf<Factor>, channels_, columns), Layout(), sums_layout_);
    weights_ = product_.weights();
    round_weights_ = Primitive::Reorder(given_, weights_);
    weights_size_ = (weights_.size() + 63) / 64 * 64;
    scatter_ = [this](void *, int share, float, float) {
      return taps_ == 4 ? Scatter<4>(share) : Scatter<3>(share);
    };
    multiply_ = [this](void *, int share, float, float) { return Multiply(share); };
    gather_ = [this](void *, int share, float, float) {
      return taps_ == 4 ? Gather<4>(share) : Gather<3>(share);
    };
  }

  void PackWeights(std::int64_t column) {
    const auto *tensor = static_cast<const float *>(inputs_[static_cast<std::size_t>(1 + column)].Data().get());
    PackedWeight &packed = packed_[static_cast<std::size_t>(column)];
    if (packed.Take(tensor, weights_size_ * static_cast<std::size_t>(taps_ * parts_))) {
      return;
    }
    const SharePool::Task pack = [&](void *, int number, float, float) {
      const float *from = tensor + static_cast<std::int64_t>(number) * (out_channels_ / parts_) * channels_;
      round_weights_.Run({{onednn::kSource, &given_, from},
                          {onednn::kTarget, &weights_, packed.data() + static_cast<std::size_t>(number) * weights_size_}});
      return 0;
    };
    if (SharePool::instance().Run(pack, nullptr, static_cast<int>(taps_ * parts_)) != 0) {
      throw std::runtime_error("its weights cannot be packed");
    }
  }

  // The tiles of a share, counted within the stretch.
  std::pair<std::int64_t, std::int64_t> Tiles(int share) const {
    return {count_ * share / shares_, count_ * (share + 1) / shares_};
  }

  // Row, column and picture of a tile.
  struct Place {
    std::int64_t row, column, picture;
  };
  Place At(std::int64_t tile) const {
    return {tile / columns_ % rows_, tile % columns_, tile / (columns_ * rows_)};
  }

  template <int Taps>
  int Scatter(int share) {
    const auto [begin, end] = Tiles(share);
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const Place place = At(first_ + tile);
      const float *pixels[Taps * Taps];
      for (int i = 0; i < Taps * Taps; ++i) {
        const std::int64_t row = place.row * apart_ + i / Taps - above_, column = place.column * apart_ + i % Taps - before_;
        const bool inside = row >= 0 && row < height_ && column >= 0 && column < width_;
        pixels[i] = inside ? in_ + ((place.picture * height_ + row) * width_ + column) * channels_ : nullptr;
      }
      winograd::Scatter<Taps>(pixels, channels_, factors_ + tile * channels_, factors_step_);
    }
    return 0;
  }

  int Multiply(int share) {
    const auto product = static_cast<std::size_t>(share / parts_);
    const std::int64_t part = share % parts_, row = share / parts_ / taps_, column = share / parts_ % taps_;
    const std::int64_t columns = out_channels_ / parts_;
    const char *weights = packed_[static_cast<std::size_t>(column)].data() +
                          static_cast<std::size_t>(row * parts_ + part) * weights_size_;
    product_.Run({{onednn::kSource, &factors_layout_, factors_ + product * factors_step_},
                  {onednn::kWeights, &weights_, weights},
                  {onednn::kTarget, &sums_layout_, sums_ + product * sums_step_ + part * stretch_ * columns}});
    return 0;
  }

  template <int Taps>
  int Gather(int share) {
    const auto [begin, end] = Tiles(share);
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const Place place = At(first_ + tile);
      float *upper = out_ + ((place.picture * 2 * rows_ + 2 * place.row) * 2 * columns_ + 2 * place.column) * out_channels_;
      for (std::int64_t part = 0, columns = out_channels_ / parts_; part < parts_; ++part) {
        winograd::Gather<Taps>(sums_ + (part * stretch_ + tile) * columns, sums_step_, columns, bias_ + part * columns,
                               upper + part * columns, upper + 2 * columns_ * out_channels_ + part * columns, out_channels_);
      }
    }
    return 0;
  }

  int shares_;
  std::int64_t taps_ = 0, apart_ = 0;  // products along an axis; pixels from one tile to the next
  std::int64_t height_ = 0, width_ = 0, channels_ = 0, above_ = 0, before_ = 0;  // of the picture, and its border of zeros
  std::int64_t rows_ = 0, columns_ = 0, out_channels_ = 0;  // of tiles
  std::int64_t tiles_ = 0, stretch_ = 0, parts_ = 1;  // parts: blocks of a product's columns
  std::size_t factors_step_ = 0, sums_step_ = 0, weights_size_ = 0;
  onednn::Layout factors_layout_, sums_layout_, given_, weights_;
  onednn::Primitive product_, round_weights_;
  std::unique_ptr<PackedWeight[]> packed_;
  SharePool::Task scatter_, multiply_, gather_;
  // Of the run at hand, and of its stretch.
  const float *in_ = nullptr, *bias_ = nullptr;
  float *out_ = nullptr, *sums_ = nullptr;
  Factor *factors_ = nullptr;
  std::int64_t first_ = 0, count_ = 0;
};

#endif
#endif
