// 3x3 convolutions by Winograd's algorithm, whose 16 products (9 where the picture is doubled to the nearest first) oneDNN
// computes.
//
// The result is cut into tiles of two by two pixels, and those into stretches whose numbers stay in the caches. Of each
// stretch the tiles' pixels are combined, and rounded where factors are in bfloat16; products are summed in float32, and
// joined. Our pool's threads share each of the three steps.

#ifndef KANDINSKY_MINDIR_WINOGRAD_CONVOLUTION_H
#define KANDINSKY_MINDIR_WINOGRAD_CONVOLUTION_H

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "onednn.h"
#include "thread_pool.h"
#include "winograd_transforms.h"

#ifdef KANDINSKY_VECTORS

struct WinogradShape {
  std::int64_t taps;  // products along an axis: 4, or 3 where the picture is doubled
  std::int64_t batch, height, width, channels, out_channels;  // of the picture; of the result
  std::int64_t rows, columns;  // of tiles
};

template <typename Factor>  // of its products: float, or std::uint16_t for bfloat16
class WinogradConvolution {
 public:
  WinogradConvolution(const WinogradShape &shape, int shares) : shape_(shape), shares_(shares) {
    tiles_ = shape.batch * shape.rows * shape.columns;
    apart_ = shape.taps == 4 ? 2 : 1;
    // A picture that has its border is as long as all tiles see; else its border is of zeros.
    above_ = shape.height >= apart_ * shape.rows + 2 ? 0 : 1;
    before_ = shape.width >= apart_ * shape.columns + 2 ? 0 : 1;
    Describe();
  }

  std::int64_t products() const { return shape_.taps * shape_.taps; }
  std::size_t weights_size() const { return part_size_ * static_cast<std::size_t>(parts_); }  // bytes of one product's

  // Puts a product's weights (out channels, channels) in oneDNN's order.
  void Pack(const float *weights, char *packed) const {
    for (std::int64_t part = 0; part < parts_; ++part) {
      round_weights_.Run({{onednn::kSource, &given_, weights + part * columns_ * shape_.channels},
                          {onednn::kTarget, &weights_, packed + static_cast<std::size_t>(part) * part_size_}});
    }
  }

  // Takes the packed weights of the product in this row and column of the transform. They are used until the end.
  void Use(std::int64_t row, std::int64_t column, const char *packed) { packed_[row * shape_.taps + column] = packed; }

  // in: (batch, height, width, channels). out: (batch, 2 * rows, 2 * columns, out channels). 0, or what failed.
  int Run(const float *in, const float *bias, float *out) {
    in_ = in, bias_ = bias, out_ = out;
    static thread_local onednn::Scratch memory;  // one for all convolutions of a model, which run one after another
    const auto number = static_cast<std::size_t>(products());
    factors_ = static_cast<Factor *>(memory.Get(number * (factors_step_ * kFactor + sums_step_ * kFloat)));
    sums_ = reinterpret_cast<float *>(factors_ + number * factors_step_);
    for (first_ = 0; first_ < tiles_; first_ += stretch_) {
      count_ = std::min(stretch_, tiles_ - first_);
      for (const auto &[task, tasks] : {std::pair(&scatter_, shares_), {&multiply_, static_cast<int>(products() * parts_)},
                                        {&gather_, shares_}}) {
        if (const int status = SharePool::instance().Run(*task, nullptr, tasks); status != 0) {
          return status;
        }
      }
    }
    return 0;
  }

 private:
  static constexpr std::int64_t kFloat = sizeof(float), kFactor = sizeof(Factor);
  static constexpr std::int64_t kFewestTiles = 256, kMostTiles = 512;  // in a stretch: the weights are read for each
  static constexpr std::int64_t kFewestColumns = 256;  // of a product that is cut in two
  static constexpr std::size_t kSkew = 64;  // numbers between the products' matrices: else all start in one set of a cache

  void Describe() {
    using onednn::Layout, onednn::Primitive;
    parts_ = shape_.out_channels >= 2 * kFewestColumns && shape_.out_channels % 32 == 0 ? 2 : 1;
    columns_ = shape_.out_channels / parts_;
    // What tiles become takes about twice the memory of the weights, which come from farther away.
    const std::int64_t bytes = shape_.channels * kFactor + shape_.out_channels * kFloat;
    const std::int64_t weights = shape_.channels * shape_.out_channels * kFactor;
    const std::int64_t most = std::clamp(2 * weights / bytes, kFewestTiles, kMostTiles);
    const std::int64_t stretches = (tiles_ + most - 1) / most;
    stretch_ = (tiles_ + stretches - 1) / stretches;
    factors_step_ = static_cast<std::size_t>(stretch_ * shape_.channels) + kSkew;
    sums_step_ = static_cast<std::size_t>(stretch_ * shape_.out_channels) + kSkew;
    factors_layout_ = Layout(onednn::kTypeOf<Factor>, stretch_, shape_.channels, shape_.channels, 1);
    sums_layout_ = Layout(onednn::kFloat32, stretch_, columns_, columns_, 1);
    given_ = Layout(onednn::kFloat32, shape_.channels, columns_, 1, shape_.channels);
    product_ = Primitive::Product(factors_layout_, Layout::Any(onednn::kTypeOf<Factor>, shape_.channels, columns_), Layout(),
                                  sums_layout_);
    weights_ = product_.weights();
    round_weights_ = Primitive::Reorder(given_, weights_);
    part_size_ = (weights_.size() + 63) / 64 * 64;
    zeros_.resize(static_cast<std::size_t>(shape_.channels));
    scatter_ = [this](void *, int share, float, float) {
      return shape_.taps == 4 ? Scatter<4>(share) : Scatter<3>(share);
    };
    multiply_ = [this](void *, int share, float, float) { return Multiply(share); };
    gather_ = [this](void *, int share, float, float) {
      return shape_.taps == 4 ? Gather<4>(share) : Gather<3>(share);
    };
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
    return {tile / shape_.columns % shape_.rows, tile % shape_.columns, tile / (shape_.columns * shape_.rows)};
  }

  template <int Taps>
  int Scatter(int share) {
    const auto [begin, end] = Tiles(share);
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const Place place = At(first_ + tile);
      const float *pixels[Taps * Taps];
      for (int i = 0; i < Taps * Taps; ++i) {
        const std::int64_t row = place.row * apart_ + i / Taps - above_, column = place.column * apart_ + i % Taps - before_;
        const bool inside = row >= 0 && row < shape_.height && column >= 0 && column < shape_.width;
        const std::int64_t pixel = (place.picture * shape_.height + row) * shape_.width + column;
        pixels[i] = inside ? in_ + pixel * shape_.channels : zeros_.data();
      }
      winograd::Scatter<Taps>(pixels, shape_.channels, factors_ + tile * shape_.channels, factors_step_);
    }
    return 0;
  }

  int Multiply(int share) {
    const auto product = static_cast<std::size_t>(share / parts_), part = static_cast<std::size_t>(share % parts_);
    float *sums = sums_ + product * sums_step_ + part * static_cast<std::size_t>(stretch_ * columns_);
    product_.Run({{onednn::kSource, &factors_layout_, factors_ + product * factors_step_},
                  {onednn::kWeights, &weights_, packed_[product] + part * part_size_},
                  {onednn::kTarget, &sums_layout_, sums}});
    return 0;
  }

  template <int Taps>
  int Gather(int share) {
    const auto [begin, end] = Tiles(share);
    const std::int64_t pixel = shape_.out_channels, line = 2 * shape_.columns * pixel;
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const Place place = At(first_ + tile);
      float *upper = out_ + (place.picture * 2 * shape_.rows + 2 * place.row) * line + 2 * place.column * pixel;
      for (std::int64_t part = 0; part < parts_; ++part) {
        winograd::Gather<Taps>(sums_ + (part * stretch_ + tile) * columns_, sums_step_, columns_, bias_ + part * columns_,
                               upper + part * columns_, upper + line + part * columns_, pixel);
      }
    }
    return 0;
  }

  WinogradShape shape_;
  int shares_;
  std::int64_t tiles_ = 0, apart_ = 0, above_ = 0, before_ = 0;  // pixels from one tile to the next; the border of zeros
  std::int64_t stretch_ = 0, parts_ = 1, columns_ = 0;  // parts: blocks of a product's columns
  std::size_t factors_step_ = 0, sums_step_ = 0, part_size_ = 0;
  onednn::Layout factors_layout_, sums_layout_, given_, weights_;
  onednn::Primitive product_, round_weights_;
  const char *packed_[16] = {};
  std::vector<float> zeros_;  // the channels of a pixel outside the picture
  SharePool::Task scatter_, multiply_, gather_;
  // Of the run at hand, and of its stretch.
  const float *in_ = nullptr, *bias_ = nullptr;
  float *out_ = nullptr, *sums_ = nullptr;
  Factor *factors_ = nullptr;
  std::int64_t first_ = 0, count_ = 0;
};

#endif
#endif
