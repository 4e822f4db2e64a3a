// Attention as one node: what AttentionFusion finds.
//
// Our pool's threads take blocks of queries, each of one head. Scores of a block stay in a core's cache; they are computed,
// made weights and multiplied with the values before the next block's. Products are oneDNN's, of factors in float32 or rounded
// to bfloat16, with sums in float32.

#ifndef KANDINSKY_MINDIR_ATTENTION_KERNEL_H
#define KANDINSKY_MINDIR_ATTENTION_KERNEL_H

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "attention_fusion.h"
#include "include/api/kernel.h"
#include "include/api/types.h"
#include "kernel_registry.h"
#include "onednn.h"
#include "softmax_row.h"
#include "thread_pool.h"

#ifdef KANDINSKY_VECTORS

template <typename Factor>  // of its products: float, or std::uint16_t for bfloat16
class AttentionKernel : public mindspore::kernel::Kernel {
 public:
  using Tensors = std::vector<mindspore::MSTensor>;

  // nullptr: a node that is none of AttentionFusion's.
  static std::shared_ptr<Kernel> Make(const Tensors &inputs, const Tensors &outputs) {
    try {
      return std::make_shared<AttentionKernel>(inputs, outputs);
    } catch (const std::exception &error) {
      std::fprintf(stderr, "[ERROR] attention cannot be computed: %s\n", error.what());
      return nullptr;
    }
  }

  // inputs: queries (heads, tokens, depth), keys and values (heads, seen, depth), and what is added to scores (heads or 1,
  // tokens, seen), where something is. outputs: (heads, tokens, depth). Keys, values and the result may be (batch, their
  // tokens, heads of one of the batch, depth).
  AttentionKernel(const Tensors &inputs, const Tensors &outputs) {
    inputs_ = inputs;
    outputs_ = outputs;
    const auto queries = inputs.at(0).Shape();
    key_rows_ = Rows(inputs.at(1).Shape()), value_rows_ = Rows(inputs.at(2).Shape()), out_rows_ = Rows(outputs.at(0).Shape());
    if (queries.size() != 3 || !key_rows_.Of(queries[0], key_rows_.tokens, queries[2]) ||
        !value_rows_.Of(queries[0], key_rows_.tokens, queries[2]) || !out_rows_.Of(queries[0], queries[1], queries[2])) {
      throw std::runtime_error("its shapes are no attention's");
    }
    heads_ = queries[0], tokens_ = queries[1], depth_ = queries[2], seen_ = key_rows_.tokens;
    biased_ = inputs.size() > 3;
    bias_step_ = biased_ && inputs[3].ElementNum() != tokens_ * seen_ ? tokens_ * seen_ : 0;
    if (biased_ && inputs[3].ElementNum() != tokens_ * seen_ && inputs[3].ElementNum() != heads_ * tokens_ * seen_) {
      throw std::runtime_error("what it adds to the scores has another shape than they");
    }
    Describe();
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    queries_ = static_cast<const float *>(inputs_[0].MutableData());
    keys_ = static_cast<const float *>(inputs_[1].MutableData());
    values_ = static_cast<const float *>(inputs_[2].MutableData());
    bias_ = biased_ ? static_cast<const float *>(inputs_[3].MutableData()) : nullptr;
    out_ = static_cast<float *>(outputs_[0].MutableData());
    static thread_local onednn::Scratch memory;  // one for all kernels of a model, which run one after another
    packed_ = static_cast<char *>(memory.Get(static_cast<std::size_t>(heads_) * (keys_size_ + values_size_)));
    if (const int status = SharePool::instance().Run(pack_, nullptr, static_cast<int>(2 * heads_)); status != 0) {
      return status;
    }
    return SharePool::instance().Run(compute_, nullptr, static_cast<int>(heads_ * parts_));
  }

 private:
  // Where the rows of a tensor lie: (heads, tokens, depth), or (batch, tokens, heads of one, depth).
  struct Rows {
    std::int64_t batch = 0, tokens = 0, heads = 0, depth = 0;
    std::int64_t step = 0;  // numbers from one row of a head to the next

    Rows() = default;
    explicit Rows(const std::vector<std::int64_t> &shape) {
      if (shape.size() == 3) {
        batch = shape[0], heads = 1, tokens = shape[1], depth = shape[2];
      } else if (shape.size() == 4) {
        batch = shape[0], tokens = shape[1], heads = shape[2], depth = shape[3];
      }
      step = heads * depth;
    }
    bool Of(std::int64_t all_heads, std::int64_t all_tokens, std::int64_t width) const {
      return all_tokens > 0 && batch * heads == all_heads && tokens == all_tokens && depth == width;
    }
    std::int64_t Begin(std::int64_t head) const { return (head / heads * tokens * heads + head % heads) * depth; }
  };

  // What all blocks of so many queries share.
  struct Block {
    std::int64_t rows;
    onednn::Layout queries, rounded, scores, weights, out;
    onednn::Primitive round, score, mix;
  };

  static constexpr bool kRounds = !std::is_same_v<Factor, float>;
  static constexpr std::int64_t kScoreBytes = 1 << 19;  // of a block's scores and weights, about: half of a core's cache
  static constexpr std::int64_t kFewestRows = 32, kMostRows = 256;
  static constexpr std::int64_t kFloat = sizeof(float), kFactor = sizeof(Factor);

  static std::int64_t Aligned(std::int64_t size) { return (size + 63) / 64 * 64; }

  void Describe() {
    using onednn::Layout, onednn::Primitive;
    const std::int64_t fitting = std::clamp(kScoreBytes / ((kFloat + kFactor) * seen_), kFewestRows, kMostRows);
    parts_ = (tokens_ + fitting - 1) / fitting;
    const std::int64_t step = std::min(tokens_, ((tokens_ + parts_ - 1) / parts_ + 15) / 16 * 16);
    parts_ = (tokens_ + step - 1) / step;
    keys_layout_ = Layout(onednn::kFloat32, depth_, seen_, 1, key_rows_.step);
    values_layout_ = Layout(onednn::kFloat32, seen_, depth_, value_rows_.step, 1);
    for (Block *block : {&most_, &last_}) {
      block->rows = block == &most_ ? step : tokens_ - (parts_ - 1) * step;
      block->queries = Layout(onednn::kFloat32, block->rows, depth_, depth_, 1);
      block->rounded = Layout(onednn::kTypeOf<Factor>, block->rows, depth_, depth_, 1);
      block->scores = Layout(onednn::kFloat32, block->rows, seen_, seen_, 1);
      block->weights = Layout(onednn::kTypeOf<Factor>, block->rows, seen_, seen_, 1);
      block->out = Layout(onednn::kFloat32, block->rows, depth_, depth_, 1);
      if (kRounds) {
        block->round = Primitive::Reorder(block->queries, block->rounded);
      }
      // Keys and values have one order, whatever rows they meet.
      const bool first = block == &most_;
      const Layout keys = first ? Layout::Any(onednn::kTypeOf<Factor>, depth_, seen_) : packed_keys_;
      const Layout values = first ? Layout::Any(onednn::kTypeOf<Factor>, seen_, depth_) : packed_values_;
      block->score = Primitive::Product(kRounds ? block->rounded : block->queries, keys, Layout(), block->scores);
      block->mix = Primitive::Product(block->weights, values, Layout(), block->out);
      packed_keys_ = block->score.weights();
      packed_values_ = block->mix.weights();
    }
    round_keys_ = Primitive::Reorder(keys_layout_, packed_keys_);
    round_values_ = Primitive::Reorder(values_layout_, packed_values_);
    keys_size_ = static_cast<std::size_t>(Aligned(static_cast<std::int64_t>(packed_keys_.size())));
    values_size_ = static_cast<std::size_t>(Aligned(static_cast<std::int64_t>(packed_values_.size())));
    pack_ = [this](void *, int share, float, float) { return Pack(share); };
    compute_ = [this](void *, int share, float, float) { return Compute(share); };
  }

  char *Keys(std::int64_t head) const { return packed_ + static_cast<std::size_t>(head) * (keys_size_ + values_size_); }
  char *Values(std::int64_t head) const { return Keys(head) + keys_size_; }

  int Pack(int share) {
    const std::int64_t head = share / 2;
    if (share % 2 == 0) {
      round_keys_.Run({{onednn::kSource, &keys_layout_, keys_ + key_rows_.Begin(head)},
                       {onednn::kTarget, &packed_keys_, Keys(head)}});
    } else {
      round_values_.Run({{onednn::kSource, &values_layout_, values_ + value_rows_.Begin(head)},
                         {onednn::kTarget, &packed_values_, Values(head)}});
    }
    return 0;
  }

  int Compute(int share) {
    static thread_local onednn::Scratch scratch;
    const std::int64_t head = share / parts_, part = share % parts_, first = part * most_.rows;
    const Block &block = part == parts_ - 1 ? last_ : most_;
    const std::int64_t scores_size = Aligned(block.rows * seen_ * kFloat), weights_size = Aligned(block.rows * seen_ * kFactor);
    const std::int64_t sums_size = Aligned(block.rows * depth_ * kFloat);
    const auto size = static_cast<std::size_t>(scores_size + weights_size + sums_size + block.rows * depth_ * kFactor);
    char *memory = static_cast<char *>(scratch.Get(size));
    auto *scores = reinterpret_cast<float *>(memory);
    auto *weights = reinterpret_cast<Factor *>(memory + scores_size);
    auto *sums = reinterpret_cast<float *>(memory + scores_size + weights_size);
    void *rounded = memory + scores_size + weights_size + sums_size;
    const void *queries = queries_ + (head * tokens_ + first) * depth_;
    if (kRounds) {
      block.round.Run({{onednn::kSource, &block.queries, queries}, {onednn::kTarget, &block.rounded, rounded}});
      queries = rounded;
    }
    block.score.Run({{onednn::kSource, kRounds ? &block.rounded : &block.queries, queries},
                     {onednn::kWeights, &packed_keys_, Keys(head)}, {onednn::kTarget, &block.scores, scores}});
    float factors[kMostRows];
    for (std::int64_t row = 0; row < block.rows; ++row) {
      const float *bias = bias_ == nullptr ? nullptr : bias_ + head * bias_step_ + (first + row) * seen_;
      factors[row] = SoftmaxRow(scores + row * seen_, bias, static_cast<std::size_t>(seen_), weights + row * seen_);
    }
    block.mix.Run({{onednn::kSource, &block.weights, weights}, {onednn::kWeights, &packed_values_, Values(head)},
                   {onednn::kTarget, &block.out, sums}});
    float *out = out_ + out_rows_.Begin(head) + first * out_rows_.step;
    for (std::int64_t row = 0; row < block.rows; ++row) {
      ScaleRow(sums + row * depth_, factors[row], static_cast<std::size_t>(depth_), out + row * out_rows_.step);
    }
    return 0;
  }

  std::int64_t heads_ = 0, tokens_ = 0, depth_ = 0, seen_ = 0, parts_ = 1, bias_step_ = 0;
  bool biased_ = false;
  Rows key_rows_, value_rows_, out_rows_;
  Block most_{}, last_{};
  onednn::Layout keys_layout_, values_layout_, packed_keys_, packed_values_;
  onednn::Primitive round_keys_, round_values_;
  std::size_t keys_size_ = 0, values_size_ = 0;
  SharePool::Task pack_, compute_;
  // Of the run at hand.
  const float *queries_ = nullptr, *keys_ = nullptr, *values_ = nullptr, *bias_ = nullptr;
  float *out_ = nullptr;
  char *packed_ = nullptr;
};

#endif
#endif
