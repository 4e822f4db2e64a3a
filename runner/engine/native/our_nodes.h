// Nodes of our own in Lite's graphs: what is made of a `.ms` file before Lite reads it, and the kernels of what is found.

#ifndef KANDINSKY_MINDIR_OUR_NODES_H
#define KANDINSKY_MINDIR_OUR_NODES_H

#include <cstddef>
#include <cstring>
#include <stdexcept>

#include "attention_kernel.h"
#include "gelu_kernel.h"
#include "layer_norm_kernel.h"
#include "model_graph.h"
#include "norm_kernels.h"
#include "vectors.h"
#include "winograd_kernel.h"

#ifdef KANDINSKY_VECTORS

// In models that are built from now on.
template <typename Factor>  // of products: float, or std::uint16_t for bfloat16
void RegisterOurKernels(int shares) {
  RegisterOurNodes(kWinogradType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return WinogradKernel<Factor>::Make(shares, inputs, outputs);
  });
  RegisterOurNodes(kAttentionType, [](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return AttentionKernel<Factor>::Make(inputs, outputs);
  });
  RegisterOurNodes(kGeluType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return GeluKernel::Make(shares, inputs, outputs);
  });
  RegisterOurNodes(kLayerNormType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return LayerNormKernel::Make(shares, inputs, outputs);
  });
  RegisterOurNodes(kDeviationsType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return RowsKernel::Make<DeviationsKernel>(shares, inputs, outputs);
  });
  RegisterOurNodes(kAffineType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return RowsKernel::Make<AffineKernel<false>>(shares, inputs, outputs);
  });
  RegisterOurNodes(kAffineSwishType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return RowsKernel::Make<AffineKernel<true>>(shares, inputs, outputs);
  });
}

// Changes a `.ms` file in memory, with ModelGraph::kRoom bytes of zeros behind it. What is no such file is left to Lite to refuse.
inline void MakeOurNodes(char *file, std::size_t size) {
  constexpr char kMark[] = {'M', 'S', 'L', '2'};
  if (size < 8 || std::memcmp(file + 4, kMark, sizeof(kMark)) != 0) {
    return;
  }
  try {
    ModelGraph graph(file, size);
    WinogradFusion::Apply(&graph);
    AttentionFusion::Apply(&graph);
    GeluFusion::Apply(&graph);
    LayerNormFusion::Apply(&graph);
    NormFusion::Apply(&graph);
    graph.Sweep();
  } catch (const std::out_of_range &) {
    throw std::runtime_error("the file is damaged: it refers to nodes or tensors that it lacks");
  }
}

#else  // graphs stay as they are

template <typename Factor>
void RegisterOurKernels(int) {}
inline void MakeOurNodes(char *, std::size_t) {}

#endif
#endif
