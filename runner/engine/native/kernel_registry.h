// How kernels of ours take the place of Lite's.

#ifndef KANDINSKY_MINDIR_KERNEL_REGISTRY_H
#define KANDINSKY_MINDIR_KERNEL_REGISTRY_H

#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include "include/api/context.h"
#include "include/api/kernel.h"
#include "include/api/status.h"
#include "include/api/types.h"

// Of Lite's registry of kernels, for which the wheel has no header: the member that is used here.
namespace mindspore::registry {
class RegisterKernel {
 public:
  using Creator = std::function<std::shared_ptr<kernel::Kernel>(
    const std::vector<MSTensor> &inputs, const std::vector<MSTensor> &outputs, const schema::Primitive *primitive,
    const Context *context)>;
  static Status RegKernel(const std::vector<char> &arch, const std::vector<char> &provider, DataType data_type, int type,
                          Creator creator);
};
}  // namespace mindspore::registry

constexpr const char *kOurProvider = "litert";  // Lite takes kernels of no other in its own sessions

// Has our kernels compute an operator in models that are built from now on, in contexts with kOurProvider. `make` gives
// nullptr for a node that Lite's own kernel is to compute.
inline void RegisterKernels(int type, const mindspore::registry::RegisterKernel::Creator &make) {
  const auto chars = [](const char *text) { return std::vector<char>(text, text + std::strlen(text)); };
  const auto status = mindspore::registry::RegisterKernel::RegKernel(chars("CPU"), chars(kOurProvider),
                                                                     mindspore::DataType::kNumberTypeFloat32, type, make);
  if (status != mindspore::kSuccess) {
    throw std::runtime_error("Lite does not take our kernels: " + status.ToString());
  }
}

#endif
