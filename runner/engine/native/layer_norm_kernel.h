// Layer norm as one node: what LayerNormFusion finds. In float32.

#ifndef KANDINSKY_MINDIR_LAYER_NORM_KERNEL_H
#define KANDINSKY_MINDIR_LAYER_NORM_KERNEL_H

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <vector>

#include "include/api/kernel.h"
#include "include/api/types.h"
#include "layer_norm_fusion.h"
#include "thread_pool.h"
#include "vectors.h"

#ifdef KANDINSKY_VECTORS

class LayerNormKernel : public mindspore::kernel::Kernel {
 public:
  using Tensors = std::vector<mindspore::MSTensor>;

  // nullptr: a node that is none of LayerNormFusion's.
  static std::shared_ptr<Kernel> Make(int shares, const Tensors &inputs, const Tensors &outputs) {
    try {
      return std::make_shared<LayerNormKernel>(shares, inputs, outputs);
    } catch (const std::exception &error) {
      std::fprintf(stderr, "[ERROR] a layer norm cannot be computed: %s\n", error.what());
      return nullptr;
    }
  }

  // inputs: x (…, width), weight (width), bias (width), and one number that is added to the variance.
  LayerNormKernel(int shares, const Tensors &inputs, const Tensors &outputs) : shares_(shares) {
    inputs_ = inputs;
    outputs_ = outputs;
    width_ = inputs.at(0).Shape().back();
    if (inputs.size() != 4 || inputs[1].ElementNum() != width_ || inputs[2].ElementNum() != width_ ||
        inputs[3].ElementNum() != 1) {
      throw std::runtime_error("its inputs have other shapes");
    }
    rows_ = inputs[0].ElementNum() / width_;
    task_ = [this](void *, int share, float, float) {
      const std::int64_t end = rows_ * (share + 1) / shares_;
      for (std::int64_t row = rows_ * share / shares_; row < end; ++row) {
        Row(in_ + row * width_, out_ + row * width_);
      }
      return 0;
    };
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    in_ = static_cast<const float *>(inputs_[0].MutableData());
    weight_ = static_cast<const float *>(inputs_[1].MutableData());
    bias_ = static_cast<const float *>(inputs_[2].MutableData());
    epsilon_ = *static_cast<const float *>(inputs_[3].MutableData());
    out_ = static_cast<float *>(outputs_[0].MutableData());
    return SharePool::instance().Run(task_, nullptr, shares_);
  }

 private:
  KANDINSKY_AVX512 __mmask16 Here(std::int64_t i) const {
    return static_cast<__mmask16>(width_ - i >= 16 ? 0xFFFF : (1U << (width_ - i)) - 1);
  }

  KANDINSKY_AVX512 void Row(const float *in, float *out) const {
    const auto width = static_cast<float>(width_);
    __m512 sum = _mm512_setzero_ps();
    for (std::int64_t i = 0; i < width_; i += 16) {
      sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(Here(i), in + i));
    }
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
    sum = _mm512_setzero_ps();
    for (std::int64_t i = 0; i < width_; i += 16) {
      const __m512 deviation = _mm512_maskz_sub_ps(Here(i), _mm512_maskz_loadu_ps(Here(i), in + i), mean);
      sum = _mm512_fmadd_ps(deviation, deviation, sum);
    }
    const __m512 factor = _mm512_set1_ps(1.0F / std::sqrt(_mm512_reduce_add_ps(sum) / width + epsilon_));
    for (std::int64_t i = 0; i < width_; i += 16) {
      const __mmask16 here = Here(i);
      const __m512 deviation = _mm512_sub_ps(_mm512_maskz_loadu_ps(here, in + i), mean);
      const __m512 value = _mm512_fmadd_ps(_mm512_mul_ps(deviation, factor), _mm512_maskz_loadu_ps(here, weight_ + i),
                                           _mm512_maskz_loadu_ps(here, bias_ + i));
      _mm512_mask_storeu_ps(out + i, here, value);
    }
  }

  int shares_;
  std::int64_t rows_ = 0, width_ = 0;
  const float *in_ = nullptr, *weight_ = nullptr, *bias_ = nullptr;
  float epsilon_ = 0, *out_ = nullptr;
  SharePool::Task task_;
};

#endif
#endif
