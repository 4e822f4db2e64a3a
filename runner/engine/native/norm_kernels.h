// The passes of a group norm over a whole picture, each as one node: what NormFusion finds. In float32.

#ifndef KANDINSKY_MINDIR_NORM_KERNELS_H
#define KANDINSKY_MINDIR_NORM_KERNELS_H

#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <vector>

#include "exponential.h"
#include "include/api/kernel.h"
#include "include/api/types.h"
#include "kernel_registry.h"
#include "norm_fusion.h"
#include "thread_pool.h"

#ifdef KANDINSKY_VECTORS

// A kernel that computes rows, each for itself.
class RowsKernel : public mindspore::kernel::Kernel {
 public:
  using Tensors = std::vector<mindspore::MSTensor>;

  // nullptr: a node that is none of NormFusion's.
  template <typename Rows>
  static std::shared_ptr<Kernel> Make(int shares, const Tensors &inputs, const Tensors &outputs) {
    try {
      return std::make_shared<Rows>(shares, inputs, outputs);
    } catch (const std::exception &error) {
      std::fprintf(stderr, "[ERROR] a norm cannot be computed: %s\n", error.what());
      return nullptr;
    }
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      in_[i] = static_cast<const float *>(inputs_[i].MutableData());
    }
    out_ = static_cast<float *>(outputs_[0].MutableData());
    return SharePool::instance().Run(task_, nullptr, shares_);
  }

 protected:
  RowsKernel(int shares, std::size_t operands, const Tensors &inputs, const Tensors &outputs) : shares_(shares) {
    inputs_ = inputs;
    outputs_ = outputs;
    if (inputs.size() != operands || outputs.size() != 1) {
      throw std::runtime_error("it has another number of tensors");
    }
    task_ = [this](void *, int share, float, float) {
      const std::int64_t end = rows_ * (share + 1) / shares_;
      for (std::int64_t row = rows_ * share / shares_; row < end; ++row) {
        Row(row);
      }
      return 0;
    };
  }

  virtual void Row(std::int64_t row) const = 0;

  int shares_;
  std::int64_t rows_ = 0;
  const float *in_[3] = {};
  float *out_ = nullptr;
  SharePool::Task task_;
};

// The mean along each row of (picture - number)^2: (batch, height, 1, channels).
class DeviationsKernel final : public RowsKernel {
 public:
  DeviationsKernel(int shares, const Tensors &inputs, const Tensors &outputs) : RowsKernel(shares, 2, inputs, outputs) {
    const auto picture = inputs[0].Shape();
    if (picture.size() != 4 || picture[3] % 16 != 0 ||
        inputs[1].Shape() != std::vector<std::int64_t>{picture[0], 1, 1, picture[3]}) {
      throw std::runtime_error("it takes a picture and one number a channel");
    }
    height_ = picture[1], width_ = picture[2], channels_ = picture[3], rows_ = picture[0] * height_;
  }

 private:
  KANDINSKY_AVX512 void Row(std::int64_t row) const override {
    const float *in = in_[0] + row * width_ * channels_, *means = in_[1] + row / height_ * channels_;
    float *out = out_ + row * channels_;
    for (std::int64_t channel = 0; channel < channels_; channel += 16) {
      const __m512 mean = _mm512_loadu_ps(means + channel);
      __m512 sum = _mm512_setzero_ps();
      for (std::int64_t column = 0; column < width_; ++column) {
        const __m512 deviation = _mm512_sub_ps(_mm512_loadu_ps(in + column * channels_ + channel), mean);
        sum = _mm512_fmadd_ps(deviation, deviation, sum);
      }
      _mm512_storeu_ps(out + channel, _mm512_div_ps(sum, _mm512_set1_ps(static_cast<float>(width_))));
    }
  }

  std::int64_t height_ = 0, width_ = 0, channels_ = 0;
};

// picture * scale + shift; with Swish, that times its sigmoid.
template <bool Swish>
class AffineKernel final : public RowsKernel {
 public:
  AffineKernel(int shares, const Tensors &inputs, const Tensors &outputs) : RowsKernel(shares, 3, inputs, outputs) {
    const RepeatedRows sides(inputs[0].Shape(), inputs[1].Shape());
    if (sides.length == 0 || sides.length % 16 != 0 || inputs[2].Shape() != inputs[1].Shape() ||
        outputs[0].ElementNum() != inputs[0].ElementNum()) {
      throw std::runtime_error("it takes a picture's rows, and numbers for them");
    }
    rows_ = sides.outer * sides.repeats, repeats_ = sides.repeats, length_ = sides.length;
  }

 private:
  KANDINSKY_AVX512 void Row(std::int64_t row) const override {
    const std::int64_t numbers = row / repeats_ * length_;
    const float *in = in_[0] + row * length_, *scale = in_[1] + numbers, *shift = in_[2] + numbers;
    float *out = out_ + row * length_;
    const __m512 one = _mm512_set1_ps(1.0F), zero = _mm512_setzero_ps();
    for (std::int64_t i = 0; i < length_; i += 16) {
      __m512 value = _mm512_fmadd_ps(_mm512_loadu_ps(in + i), _mm512_loadu_ps(scale + i), _mm512_loadu_ps(shift + i));
      if constexpr (Swish) {  // e^x / (1 + e^x) or 1 / (1 + e^-x): the power does not overflow
        const __m512 power = ExpOfNegative(_mm512_sub_ps(zero, _mm512_abs_ps(value)));
        const __m512 above = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(value, zero, _CMP_LT_OQ), one, power);
        value = _mm512_div_ps(_mm512_mul_ps(value, above), _mm512_add_ps(one, power));
      }
      _mm512_storeu_ps(out + i, value);
    }
  }

  std::int64_t repeats_ = 0, length_ = 0;
};

#endif
#endif
