// How kernels of ours take the place of Lite's, and compute nodes that Lite does not know.

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

// Of Lite's registry of kernels, for which the wheel has no header: the members that are used here.
namespace mindspore::kernel {
class KernelInterface {
 public:
  virtual ~KernelInterface() = default;
  virtual Status Infer(std::vector<MSTensor> *, std::vector<MSTensor> *, const schema::Primitive *) { return kSuccess; }
  virtual Status Infer(std::vector<MSTensor> *, std::vector<MSTensor> *, const schema::Primitive *, const Kernel *) {
    return kSuccess;  // shapes are those of the file
  }
};
}  // namespace mindspore::kernel

namespace mindspore::registry {
class RegisterKernelInterface {
 public:
  using Creator = std::function<std::shared_ptr<kernel::KernelInterface>()>;
  static Status CustomReg(const std::vector<char> &provider, const std::vector<char> &type, Creator creator);
};

class RegisterKernel {
 public:
  using Creator = std::function<std::shared_ptr<kernel::Kernel>(
    const std::vector<MSTensor> &inputs, const std::vector<MSTensor> &outputs, const schema::Primitive *primitive,
    const Context *context)>;
  static Status RegKernel(const std::vector<char> &arch, const std::vector<char> &provider, DataType data_type, int type,
                          Creator creator);
  static Status RegCustomKernel(const std::vector<char> &arch, const std::vector<char> &provider, DataType data_type,
                                const std::vector<char> &type, Creator creator);
};
}  // namespace mindspore::registry

constexpr const char *kOurProvider = "litert";  // Lite takes kernels of no other in its own sessions

inline std::vector<char> Chars(const char *text) { return std::vector<char>(text, text + std::strlen(text)); }

inline void CheckTaken(const mindspore::Status &status) {
  if (status != mindspore::kSuccess) {
    throw std::runtime_error("Lite does not take our kernels: " + status.ToString());
  }
}

// Has our kernels compute an operator in models that are built from now on, in contexts with kOurProvider. `make` gives
// nullptr for a node that Lite's own kernel is to compute.
inline void RegisterKernels(int type, const mindspore::registry::RegisterKernel::Creator &make) {
  CheckTaken(mindspore::registry::RegisterKernel::RegKernel(Chars("CPU"), Chars(kOurProvider),
                                                            mindspore::DataType::kNumberTypeFloat32, type, make));
}

// Has our kernels compute nodes of our own (ModelGraph::Replace).
inline void RegisterOurNodes(const char *type, const mindspore::registry::RegisterKernel::Creator &make) {
  using mindspore::registry::RegisterKernel, mindspore::registry::RegisterKernelInterface;
  CheckTaken(RegisterKernelInterface::CustomReg(Chars(kOurProvider), Chars(type),
                                                [] { return std::make_shared<mindspore::kernel::KernelInterface>(); }));
  CheckTaken(RegisterKernel::RegCustomKernel(Chars("CPU"), Chars(kOurProvider), mindspore::DataType::kNumberTypeFloat32,
                                             Chars(type), make));
}

#endif
