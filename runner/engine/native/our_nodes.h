// Nodes of our own in Lite's graphs: what is made of a `.ms` file before Lite reads it, and the kernels of what is found.

#ifndef KANDINSKY_MINDIR_OUR_NODES_H
#define KANDINSKY_MINDIR_OUR_NODES_H

#include <cstddef>

#include "attention_kernel.h"
#include "gelu_kernel.h"
#include "layer_norm_kernel.h"
#include "model_graph.h"
#include "norm_kernels.h"
#include "vectors.h"
#include "winograd_kernel.h"

#ifdef KANDINSKY_VECTORS

// In models that are built from now on.
inline void RegisterOurKernels(int shares) {
  RegisterOurNodes(kWinogradType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return WinogradKernel::Make(shares, inputs, outputs);
  });
  RegisterOurNodes(kAttentionType, [](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return AttentionKernel::Make(inputs, outputs);
  });
  RegisterOurNodes(kGeluType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return GeluKernel::Make(shares, inputs, outputs);
  });
  RegisterOurNodes(kLayerNormType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return LayerNormKernel::Make(shares, inputs, outputs);
  });
  RegisterOurNodes(kDeviationsType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return RowsKernel::Make<DeviationsKernel>(shares, 1, inputs, outputs);
  });
  RegisterOurNodes(kAffineType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return RowsKernel::Make<AffineKernel<false>>(shares, 2, inputs, outputs);
  });
  RegisterOurNodes(kAffineSwishType, [shares](const auto &inputs, const auto &outputs, const auto *, const auto *) {
    return RowsKernel::Make<AffineKernel<true>>(shares, 2, inputs, outputs);
  });
}

// Changes a `.ms` file in memory, with ModelGraph::kRoom bytes of zeros behind it.
inline void MakeOurNodes(char *file, std::size_t size) {
  ModelGraph graph(file, size);
  WinogradFusion::Apply(&graph);
  AttentionFusion::Apply(&graph);
  GeluFusion::Apply(&graph);
  LayerNormFusion::Apply(&graph);
  NormFusion::Apply(&graph);
  graph.Sweep();
}

#else  // graphs stay as they are

inline void RegisterOurKernels(int) {}
inline void MakeOurNodes(char *, std::size_t) {}

#endif
#endif
