// The precision of products and convolutions, and whose kernels compute in it (runner/engine/precision.py).

#ifndef KANDINSKY_MINDIR_PRECISION_H
#define KANDINSKY_MINDIR_PRECISION_H

#include <functional>
#include <string>

namespace kandinsky {

// The precision that `asked`, "float32", "bfloat16", "float16" or "auto", comes to on this machine; `warn` is told where it is
// another one. UserError for another word.
std::string ChoosePrecision(const std::string &asked, const std::function<void(const std::string &)> &warn);

// "own": kernels of ours, which open oneDNN, in the folder lib beside the program `bridge`. "lite": Lite's.
std::string WhoseKernels(const std::string &precision, const std::string &bridge);

}  // namespace kandinsky

#endif
