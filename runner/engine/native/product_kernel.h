// Matrix products by oneDNN in place of Lite's, of factors in float32 or rounded to bfloat16.
//
// A product of (batch, rows, depth) and (batch, depth, columns) is cut into blocks of rows and columns, of which our pool's
// threads compute one at a time. Operands are rounded block by block; sums and results are in float32. Weights are rounded and
// put in oneDNN's order once, when the model is loaded.

#ifndef KANDINSKY_MINDIR_PRODUCT_KERNEL_H
#define KANDINSKY_MINDIR_PRODUCT_KERNEL_H

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "include/api/context.h"
#include "include/api/kernel.h"
#include "include/api/status.h"
#include "include/api/types.h"
#include "kernel_registry.h"
#include "node_attributes.h"
#include "onednn.h"
#include "packed_weights.h"
#include "thread_pool.h"

template <typename Factor>  // float, or std::uint16_t for bfloat16
class ProductKernel : public mindspore::kernel::Kernel {
 public:
  using Tensors = std::vector<mindspore::MSTensor>;

  // nullptr: a product that Lite's own kernel is to compute.
  static std::shared_ptr<Kernel> Make(int shares, const Tensors &inputs, const Tensors &outputs,
                                      const mindspore::schema::Primitive *primitive) {
    try {
      auto kernel = std::make_shared<ProductKernel>(inputs, outputs);
      return kernel->Plan(NodeAttributes(primitive), shares) ? kernel : nullptr;
    } catch (const std::exception &error) {
      std::fprintf(stderr, "[ERROR] a product is left to Lite: %s\n", error.what());
      return nullptr;
    }
  }

  ProductKernel(const Tensors &inputs, const Tensors &outputs) {
    inputs_ = inputs;
    outputs_ = outputs;
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    a_ = static_cast<const char *>(inputs_[0].MutableData());
    b_ = packed_.data() != nullptr ? nullptr : static_cast<const char *>(inputs_[1].MutableData());
    bias_ = inputs_.size() > 2 ? static_cast<const char *>(inputs_[2].MutableData()) : nullptr;
    out_ = static_cast<char *>(outputs_[0].MutableData());
    if (RoundsFirst()) {
      static thread_local onednn::Scratch memory;  // one for all kernels of a model, which run one after another
      rounded_ = static_cast<char *>(memory.Get(static_cast<std::size_t>(kFactor * batch_ * rows_ * depth_)));
      if (const int status = SharePool::instance().Run(round_, nullptr, static_cast<int>(batch_ * chunks_)); status != 0) {
        return status;
      }
    }
    return SharePool::instance().Run(task_, nullptr, static_cast<int>(batch_ * row_parts_ * column_parts_));
  }

 private:
  // What all blocks of one shape share.
  struct Block {
    onednn::Layout a, a_rounded, b, b_rounded, bias, out;
    onednn::Primitive round_a, round_b, product;
  };
  // Rows of the left side that are rounded before the product, where several blocks read them.
  struct Chunk {
    onednn::Layout a, rounded;
    onednn::Primitive round;
  };

  static constexpr std::int64_t kFloat = sizeof(float), kFactor = sizeof(Factor);
  static constexpr bool kRounds = !std::is_same_v<Factor, float>;
  static constexpr std::int64_t kFewestRows = 32, kFewestColumns = 64;  // of a block, below which oneDNN gets slow
  static constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector register

  bool Plan(const NodeAttributes &attributes, int shares) {
    constexpr int kTransposeA = 0, kTransposeB = 1, kActivation = 2;  // fields of MatMulFusion
    transpose_a_ = attributes.Flag(kTransposeA);
    transpose_b_ = attributes.Flag(kTransposeB);
    const bool all_float = std::all_of(inputs_.begin(), inputs_.end(), [](const mindspore::MSTensor &tensor) {
      return tensor.DataType() == mindspore::DataType::kNumberTypeFloat32;
    });
    if (!all_float || attributes.Byte(kActivation) != 0 || inputs_.size() < 2 || !ReadShapes()) {
      return false;
    }
    if (rows_ < columns_) {  // the side that is longer is cut first: what lies along the other one is read by fewer blocks
      column_parts_ = Parts(shares, batch_, columns_, kFewestColumns);
      row_parts_ = Parts(shares, batch_ * column_parts_, rows_, kFewestRows);
    } else {
      row_parts_ = Parts(shares, batch_, rows_, kFewestRows);
      column_parts_ = Parts(shares, batch_ * row_parts_, columns_, kFewestColumns);
    }
    row_step_ = Step(rows_, row_parts_, 16);
    column_step_ = Step(columns_, column_parts_, 16);
    row_parts_ = (rows_ + row_step_ - 1) / row_step_;
    column_parts_ = (columns_ + column_step_ - 1) / column_step_;
    for (const bool last_column : {false, true}) {
      for (const bool last_row : {false, true}) {
        Describe(last_row, last_column);
      }
    }
    if (RoundsFirst()) {
      DescribeChunks(shares);
    }
    if (inputs_[1].Data() != nullptr) {
      PackWeights();
    }
    round_ = [this](void *, int share, float, float) { return Round(share); };
    task_ = [this](void *, int share, float, float) { return Compute(share); };
    return true;
  }

  bool RoundsFirst() const { return kRounds && column_parts_ > 1; }  // the left side, as several blocks read its rows

  // Of so many rows of the left side, as they come.
  onednn::Layout Left(std::int64_t rows) const {
    return transpose_a_ ? onednn::Layout(onednn::kFloat32, rows, depth_, 1, rows_)
                        : onednn::Layout(onednn::kFloat32, rows, depth_, depth_, 1);
  }

  const char *A(std::int64_t batch, std::int64_t row) const {
    return a_ + kFloat * (batch * rows_ * depth_ + row * (transpose_a_ ? 1 : depth_));
  }

  // Whether the shapes are those of products that can be cut: as many matrices on the right as on the left, or one.
  bool ReadShapes() {
    auto a = inputs_[0].Shape(), b = inputs_[1].Shape(), out = outputs_[0].Shape();
    if (a.size() < 2 || b.size() < 2 || out.size() < 2) {
      return false;
    }
    rows_ = out[out.size() - 2];
    columns_ = out.back();
    depth_ = transpose_a_ ? a[a.size() - 2] : a.back();
    const auto count = [](const std::vector<std::int64_t> &shape) {
      std::int64_t product = 1;
      std::for_each(shape.begin(), shape.end() - 2, [&product](std::int64_t side) { product *= side; });
      return product;
    };
    batch_ = count(out);
    shared_b_ = count(b) == 1;
    if (rows_ <= 0 || columns_ <= 0 || depth_ <= 0 || count(a) != batch_ || (!shared_b_ && count(b) != batch_)) {
      return false;
    }
    if (shared_b_ && !transpose_a_) {  // one matrix of all rows
      rows_ *= batch_;
      batch_ = 1;
    }
    return inputs_.size() < 3 || inputs_[2].ElementNum() == columns_;
  }

  // Into how many parts a side is cut, so that there are enough blocks for all threads.
  static std::int64_t Parts(std::int64_t wanted, std::int64_t there, std::int64_t side, std::int64_t fewest) {
    return std::clamp<std::int64_t>((wanted + there - 1) / there, 1, std::max<std::int64_t>(1, side / fewest));
  }

  static std::int64_t Step(std::int64_t side, std::int64_t parts, std::int64_t multiple) {
    const std::int64_t step = (side + parts - 1) / parts;
    return std::min(side, (step + multiple - 1) / multiple * multiple);
  }

  Block &At(bool last_row, bool last_column) { return blocks_[(last_column ? 2 : 0) + (last_row ? 1 : 0)]; }

  void DescribeChunks(int shares) {
    chunk_step_ = Step(rows_, Parts(shares, batch_, rows_, kFewestRows), 16);
    chunks_ = (rows_ + chunk_step_ - 1) / chunk_step_;
    for (Chunk *chunk : {&chunk_, &last_chunk_}) {
      const std::int64_t rows = chunk == &chunk_ ? chunk_step_ : rows_ - (chunks_ - 1) * chunk_step_;
      chunk->a = Left(rows);
      chunk->rounded = onednn::Layout(onednn::kTypeOf<Factor>, rows, depth_, depth_, 1);
      chunk->round = onednn::Primitive::Reorder(chunk->a, chunk->rounded);
    }
  }

  void Describe(bool last_row, bool last_column) {
    using onednn::Layout, onednn::Primitive;
    const std::int64_t rows = last_row ? rows_ - (row_parts_ - 1) * row_step_ : row_step_;
    const std::int64_t columns = last_column ? columns_ - (column_parts_ - 1) * column_step_ : column_step_;
    Block &block = At(last_row, last_column);
    block.a = Left(rows);
    block.b = transpose_b_ ? Layout(onednn::kFloat32, depth_, columns, 1, depth_)
                           : Layout(onednn::kFloat32, depth_, columns, columns_, 1);
    block.out = Layout(onednn::kFloat32, rows, columns, columns_, 1);
    if (inputs_.size() > 2) {
      block.bias = Layout(onednn::kFloat32, 1, columns, columns, 1);
    }
    block.a_rounded = Layout(onednn::kTypeOf<Factor>, rows, depth_, depth_, 1);
    // The weights of a block of columns have one order, whatever rows they meet.
    const Layout order = last_row ? At(false, last_column).b_rounded : Layout::Any(onednn::kTypeOf<Factor>, depth_, columns);
    block.product = Primitive::Product(kRounds ? block.a_rounded : block.a, order, block.bias, block.out);
    block.b_rounded = block.product.weights();
    block.round_b = Primitive::Reorder(block.b, block.b_rounded);
    if (kRounds) {
      block.round_a = Primitive::Reorder(block.a, block.a_rounded);
    }
  }

  static std::size_t Aligned(std::size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

  // Where the weights of a block of columns lie among all.
  std::size_t PackedOffset(std::int64_t batch, std::int64_t column_part) {
    const std::size_t step = Aligned(At(false, false).b_rounded.size()), last = Aligned(At(false, true).b_rounded.size());
    return static_cast<std::size_t>(batch) * (step * (column_parts_ - 1) + last) + step * column_part;
  }

  void PackWeights() {
    const std::int64_t matrices = shared_b_ ? 1 : batch_;
    const std::size_t size = PackedOffset(matrices, 0);
    const void *tensor = inputs_[1].Data().get();
    if (packed_.Take(tensor, size)) {
      return;
    }
    const SharePool::Task pack = [&](void *, int number, float, float) {
      const std::int64_t batch = number / column_parts_, part = number % column_parts_;
      const Block &block = At(false, part == column_parts_ - 1);
      block.round_b.Run({{onednn::kSource, &block.b, B(static_cast<const char *>(tensor), batch, part)},
                         {onednn::kTarget, &block.b_rounded, packed_.data() + PackedOffset(batch, part)}});
      return 0;
    };
    if (SharePool::instance().Run(pack, nullptr, static_cast<int>(matrices * column_parts_)) != 0) {
      throw std::runtime_error("its weights cannot be packed");
    }
  }

  // The first element of a block of the right side.
  const char *B(const char *tensor, std::int64_t batch, std::int64_t column_part) const {
    const std::int64_t column = column_part * column_step_ * (transpose_b_ ? depth_ : 1);
    return tensor + kFloat * ((shared_b_ ? 0 : batch) * depth_ * columns_ + column);
  }

  int Round(int share) const {
    const std::int64_t batch = share / chunks_, part = share % chunks_, row = part * chunk_step_;
    const Chunk &chunk = part == chunks_ - 1 ? last_chunk_ : chunk_;
    chunk.round.Run({{onednn::kSource, &chunk.a, A(batch, row)},
                     {onednn::kTarget, &chunk.rounded, rounded_ + kFactor * (batch * rows_ + row) * depth_}});
    return 0;
  }

  int Compute(int share) {
    static thread_local onednn::Scratch rounded_a, rounded_b;
    const std::int64_t column_part = share % column_parts_, rest = share / column_parts_;
    const std::int64_t row_part = rest % row_parts_, batch = rest / row_parts_;
    const Block &block = At(row_part == row_parts_ - 1, column_part == column_parts_ - 1);
    const std::int64_t row = row_part * row_step_, column = column_part * column_step_;
    const void *a = A(batch, row);
    if (RoundsFirst()) {
      a = rounded_ + kFactor * (batch * rows_ + row) * depth_;
    } else if (kRounds) {
      void *rounded = rounded_a.Get(block.a_rounded.size());
      block.round_a.Run({{onednn::kSource, &block.a, a}, {onednn::kTarget, &block.a_rounded, rounded}});
      a = rounded;
    }
    const char *b = packed_.data() == nullptr ? nullptr : packed_.data() + PackedOffset(shared_b_ ? 0 : batch, column_part);
    if (b == nullptr) {
      void *rounded = rounded_b.Get(block.b_rounded.size());
      block.round_b.Run({{onednn::kSource, &block.b, B(b_, batch, column_part)},
                         {onednn::kTarget, &block.b_rounded, rounded}});
      b = static_cast<const char *>(rounded);
    }
    char *out = out_ + kFloat * (batch * rows_ * columns_ + row * columns_ + column);
    block.product.Run({{onednn::kSource, kRounds ? &block.a_rounded : &block.a, a}, {onednn::kWeights, &block.b_rounded, b},
                       {onednn::kBias, &block.bias, bias_ == nullptr ? nullptr : bias_ + kFloat * column},
                       {onednn::kTarget, &block.out, out}});
    return 0;
  }

  bool transpose_a_ = false, transpose_b_ = false;
  bool shared_b_ = false;  // one matrix on the right for all on the left
  std::int64_t batch_ = 1, rows_ = 0, depth_ = 0, columns_ = 0;
  std::int64_t row_parts_ = 1, column_parts_ = 1, row_step_ = 0, column_step_ = 0;
  std::int64_t chunk_step_ = 0, chunks_ = 1;
  Chunk chunk_, last_chunk_;
  Block blocks_[4];  // whether they are of the last rows, of the last columns
  PackedWeight packed_;  // weights in oneDNN's order
  SharePool::Task round_, task_;
  const char *a_ = nullptr, *b_ = nullptr, *bias_ = nullptr;
  char *out_ = nullptr, *rounded_ = nullptr;
};

// Has oneDNN compute all products.
template <typename Factor>
void RegisterProducts(int shares) {
  onednn::library();  // throws where there is none
  RegisterKernels(mindspore::schema::PrimitiveType_MatMulFusion,
                  [shares](const auto &inputs, const auto &outputs, const auto *primitive, const auto *) {
                    return ProductKernel<Factor>::Make(shares, inputs, outputs, primitive);
                  });
}

#endif
