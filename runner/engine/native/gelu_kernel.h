// GELU as one node: what GeluFusion finds. In float32.

#ifndef KANDINSKY_MINDIR_GELU_KERNEL_H
#define KANDINSKY_MINDIR_GELU_KERNEL_H

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "exponential.h"
#include "gelu_fusion.h"
#include "include/api/kernel.h"
#include "include/api/types.h"
#include "thread_pool.h"
#include "vectors.h"

#ifdef KANDINSKY_VECTORS

// x times the share of a normal distribution that lies below x, to 2^-20 of x. That share's complement is a polynomial of
// 1 / (1 + 0.3275911 z) times e^-z^2, where z is |x| / sqrt(2): formula 7.1.26 of Abramowitz and Stegun, off by 1.5e-7 at most.
KANDINSKY_AVX512 inline __m512 Gelu(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0F), zero = _mm512_setzero_ps();
  const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678118654752F));
  const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911F), one));
  __m512 sum = _mm512_set1_ps(1.061405429F);
  for (const float term : {-1.453152027F, 1.421413741F, -0.284496736F, 0.254829592F}) {
    sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(term));
  }
  const __m512 power = ExpOfNegative(_mm512_fnmadd_ps(z, z, zero));
  const __m512 beyond = _mm512_mul_ps(_mm512_mul_ps(sum, t), _mm512_mul_ps(power, _mm512_set1_ps(0.5F)));
  const __mmask16 above = _mm512_cmp_ps_mask(x, zero, _CMP_GT_OQ);
  const __m512 share = _mm512_mask_sub_ps(beyond, above, one, beyond);
  return _mm512_mul_ps(x, share);
}

class GeluKernel : public mindspore::kernel::Kernel {
 public:
  using Tensors = std::vector<mindspore::MSTensor>;

  static std::shared_ptr<Kernel> Make(int shares, const Tensors &inputs, const Tensors &outputs) {
    return std::make_shared<GeluKernel>(shares, inputs, outputs);
  }

  GeluKernel(int shares, const Tensors &inputs, const Tensors &outputs) : shares_(shares) {
    inputs_ = inputs;
    outputs_ = outputs;
    task_ = [this](void *, int share, float, float) {
      Compute(Start(share), Start(share + 1));
      return 0;
    };
  }

  int Prepare() override { return 0; }
  int ReSize() override { return 1; }  // graphs have one shape

  int Execute() override {
    in_ = static_cast<const float *>(inputs_[0].MutableData());
    out_ = static_cast<float *>(outputs_[0].MutableData());
    count_ = inputs_[0].ElementNum();
    return SharePool::instance().Run(task_, nullptr, shares_);
  }

 private:
  std::int64_t Start(int share) const { return std::min(count_, (count_ * share / shares_ + 15) / 16 * 16); }

  KANDINSKY_AVX512 void Compute(std::int64_t first, std::int64_t end) const {
    for (std::int64_t i = first; i < end; i += 16) {
      const auto here = static_cast<__mmask16>(end - i >= 16 ? 0xFFFF : (1U << (end - i)) - 1);
      _mm512_mask_storeu_ps(out_ + i, here, Gelu(_mm512_maskz_loadu_ps(here, in_ + i)));
    }
  }

  int shares_;
  std::int64_t count_ = 0;
  const float *in_ = nullptr;
  float *out_ = nullptr;
  SharePool::Task task_;
};

#endif
#endif
