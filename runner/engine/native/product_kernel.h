// Matrix products by oneDNN in place of Lite's, of factors in float32 or rounded to bfloat16.
//
// A product of (batch, rows, depth) and (batch, depth, columns) is cut into blocks of rows and columns (product_cut.h), which our
// pool's threads share. Operands are rounded block by block; sums and results are in float32. Weights are rounded and put in
// oneDNN's order once, when the model is loaded.

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
#include "product_cut.h"
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
    return SharePool::instance().Run(task_, nullptr, static_cast<int>(cut_.tasks));
  }

 private:
  // What all blocks of one size share.
  struct Shape {
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
  static constexpr bool kBeside = kRounds;  // oneDNN 3.2 is the faster for a whole matrix as target, but not in float32
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
    cut_ = ProductCut(shares, batch_, rows_, columns_, kBeside);
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

  bool RoundsFirst() const { return kRounds && cut_.column_parts > 1; }  // the left side, as several blocks read its rows

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

  Shape &At(bool last_row, bool last_column) { return shapes_[(last_column ? 2 : 0) + (last_row ? 1 : 0)]; }
  const Shape &At(const ProductCut::Block &block) {
    return At(block.row_part == cut_.row_parts - 1, block.column_part == cut_.column_parts - 1);
  }

  void DescribeChunks(int shares) {
    chunk_step_ = ProductCut::Step(rows_, ProductCut::Parts(shares, batch_, rows_, ProductCut::kFewestRows));
    chunks_ = ProductCut::Count(rows_, chunk_step_);
    for (Chunk *chunk : {&chunk_, &last_chunk_}) {
      const std::int64_t rows = chunk == &chunk_ ? chunk_step_ : rows_ - (chunks_ - 1) * chunk_step_;
      chunk->a = Left(rows);
      chunk->rounded = onednn::Layout(onednn::kTypeOf<Factor>, rows, depth_, depth_, 1);
      chunk->round = onednn::Primitive::Reorder(chunk->a, chunk->rounded);
    }
  }

  void Describe(bool last_row, bool last_column) {
    using onednn::Layout, onednn::Primitive;
    const auto [row_part, column_part, row, column, rows, columns] =
      cut_.At(last_row ? cut_.row_parts - 1 : 0, last_column ? cut_.column_parts - 1 : 0);
    Shape &shape = At(last_row, last_column);
    shape.a = Left(rows);
    shape.b = transpose_b_ ? Layout(onednn::kFloat32, depth_, columns, 1, depth_)
                           : Layout(onednn::kFloat32, depth_, columns, columns_, 1);
    shape.out = Layout(onednn::kFloat32, rows, columns, kBeside ? columns : columns_, 1);
    if (inputs_.size() > 2) {
      shape.bias = Layout(onednn::kFloat32, 1, columns, columns, 1);
    }
    shape.a_rounded = Layout(onednn::kTypeOf<Factor>, rows, depth_, depth_, 1);
    // The weights of a block of columns have one order, whatever rows they meet.
    const Layout order = last_row ? At(false, last_column).b_rounded : Layout::Any(onednn::kTypeOf<Factor>, depth_, columns);
    shape.product = Primitive::Product(kRounds ? shape.a_rounded : shape.a, order, shape.bias, shape.out);
    shape.b_rounded = shape.product.weights();
    shape.round_b = Primitive::Reorder(shape.b, shape.b_rounded);
    if (kRounds) {
      shape.round_a = Primitive::Reorder(shape.a, shape.a_rounded);
    }
  }

  static std::size_t Aligned(std::size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

  // Where the weights of a block of columns lie among all.
  std::size_t PackedOffset(std::int64_t batch, std::int64_t column_part) {
    const std::size_t step = Aligned(At(false, false).b_rounded.size()), last = Aligned(At(false, true).b_rounded.size());
    return static_cast<std::size_t>(batch) * (step * (cut_.column_parts - 1) + last) + step * column_part;
  }

  void PackWeights() {
    const std::int64_t matrices = shared_b_ ? 1 : batch_;
    const std::size_t size = PackedOffset(matrices, 0);
    const void *tensor = inputs_[1].Data().get();
    if (packed_.Take(tensor, size)) {
      return;
    }
    const SharePool::Task pack = [&](void *, int number, float, float) {
      const std::int64_t batch = number / cut_.column_parts, part = number % cut_.column_parts;
      const Shape &shape = At(false, part == cut_.column_parts - 1);
      shape.round_b.Run({{onednn::kSource, &shape.b, B(static_cast<const char *>(tensor), batch, part)},
                         {onednn::kTarget, &shape.b_rounded, packed_.data() + PackedOffset(batch, part)}});
      return 0;
    };
    if (SharePool::instance().Run(pack, nullptr, static_cast<int>(matrices * cut_.column_parts)) != 0) {
      throw std::runtime_error("its weights cannot be packed");
    }
  }

  // The first element of a block of the right side.
  const char *B(const char *tensor, std::int64_t batch, std::int64_t column_part) const {
    const std::int64_t column = column_part * cut_.column_step * (transpose_b_ ? depth_ : 1);
    return tensor + kFloat * ((shared_b_ ? 0 : batch) * depth_ * columns_ + column);
  }

  int Round(int share) const {
    const std::int64_t batch = share / chunks_, part = share % chunks_, row = part * chunk_step_;
    const Chunk &chunk = part == chunks_ - 1 ? last_chunk_ : chunk_;
    chunk.round.Run({{onednn::kSource, &chunk.a, A(batch, row)},
                     {onednn::kTarget, &chunk.rounded, rounded_ + kFactor * (batch * rows_ + row) * depth_}});
    return 0;
  }

  int Compute(int task) {
    const std::int64_t column_part = task % cut_.column_parts, rest = task / cut_.column_parts;
    const std::int64_t groups = ProductCut::Count(cut_.row_parts, cut_.together);
    const std::int64_t batch = rest / groups, first = rest % groups * cut_.together;
    const char *b = Right(batch, column_part);
    for (std::int64_t row_part = first; row_part < std::min(first + cut_.together, cut_.row_parts); ++row_part) {
      Multiply(batch, cut_.At(row_part, column_part), b);
    }
    return 0;
  }

  // A block of the right side as products take it.
  const char *Right(std::int64_t batch, std::int64_t column_part) {
    if (packed_.data() != nullptr) {
      return packed_.data() + PackedOffset(shared_b_ ? 0 : batch, column_part);
    }
    static thread_local onednn::Scratch memory;
    const Shape &shape = At(false, column_part == cut_.column_parts - 1);
    void *rounded = memory.Get(shape.b_rounded.size());
    shape.round_b.Run({{onednn::kSource, &shape.b, B(b_, batch, column_part)}, {onednn::kTarget, &shape.b_rounded, rounded}});
    return static_cast<const char *>(rounded);
  }

  void Multiply(std::int64_t batch, const ProductCut::Block &block, const char *b) {
    static thread_local onednn::Scratch rounded_a, beside;
    const Shape &shape = At(block);
    const void *a = A(batch, block.row);
    if (RoundsFirst()) {
      a = rounded_ + kFactor * (batch * rows_ + block.row) * depth_;
    } else if (kRounds) {
      void *rounded = rounded_a.Get(shape.a_rounded.size());
      shape.round_a.Run({{onednn::kSource, &shape.a, a}, {onednn::kTarget, &shape.a_rounded, rounded}});
      a = rounded;
    }
    char *out = out_ + kFloat * ((batch * rows_ + block.row) * columns_ + block.column);
    char *target = cut_.InPlace(block) ? out : static_cast<char *>(beside.Get(shape.out.size()));
    shape.product.Run({{onednn::kSource, kRounds ? &shape.a_rounded : &shape.a, a}, {onednn::kWeights, &shape.b_rounded, b},
                       {onednn::kBias, &shape.bias, bias_ == nullptr ? nullptr : bias_ + kFloat * block.column},
                       {onednn::kTarget, &shape.out, target}});
    for (std::int64_t row = 0; target != out && row < block.rows; ++row) {
      std::memcpy(out + kFloat * row * columns_, target + kFloat * row * block.columns, static_cast<std::size_t>(kFloat * block.columns));
    }
  }

  bool transpose_a_ = false, transpose_b_ = false;
  bool shared_b_ = false;  // one matrix on the right for all on the left
  std::int64_t batch_ = 1, rows_ = 0, depth_ = 0, columns_ = 0;
  ProductCut cut_;
  std::int64_t chunk_step_ = 0, chunks_ = 1;
  Chunk chunk_, last_chunk_;
  Shape shapes_[4];  // whether they are of the last rows, of the last columns
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
