#include "engine/precision.h"

#include <algorithm>
#include <vector>

#include <dlfcn.h>
#include <unistd.h>

#include "common/errors.h"
#include "common/machine.h"

namespace kandinsky {

namespace {

// What computes in a precision (runner/engine/precision.py). words: of /proc/cpuinfo, where its kernels run.
struct Kernels {
  const char *precision, *machine;
  std::vector<std::string> words;
  const char *instructions;
};
const Kernels kKernels[] = {{"bfloat16", "x86_64", {"avx512_bf16"}, "AVX512_BF16"},
                            {"float16", "aarch64", {"asimdhp"}, "ASIMDHP, of ARMv8.2"}};
const Kernels kOwnFloat32 = {"float32", "x86_64", {"avx512bw", "avx512f", "avx512vl"}, "AVX512F, AVX512BW, AVX512VL"};

std::string Lacking(const Kernels &kernels) {  // "" if nothing
  const std::string processor = Processor() + " ", machine = processor.substr(0, processor.find(' '));
  if (machine != kernels.machine) {
    return std::string("its kernels are for ") + kernels.machine + ", not " + machine;
  }
  const bool has_all = std::all_of(kernels.words.begin(), kernels.words.end(), [&processor](const std::string &word) {
    return processor.find(" " + word + " ") != std::string::npos;
  });
  return has_all ? "" : std::string("this processor lacks its instructions (") + kernels.instructions + ")";
}

}  // namespace

std::string ChoosePrecision(const std::string &asked, const std::function<void(const std::string &)> &warn) {
  for (const auto &kernels : kKernels) {
    if (asked == kernels.precision || asked == "auto") {
      const std::string reason = Lacking(kernels);
      if (reason.empty()) {
        return kernels.precision;
      }
      if (asked != "auto") {
        warn(asked + ": " + reason + ": float32 is used instead");
        return "float32";
      }
    }
  }
  if (asked != "float32" && asked != "auto") {
    throw UserError("precision is '" + asked + "': choose one of float32, bfloat16, float16, auto");
  }
  return "float32";
}

std::string WhoseKernels(const std::string &precision, const std::string &bridge) {
  const std::string lib = bridge.substr(0, bridge.rfind('/') + 1) + "lib/", openmp = "libgomp.so.1";
  const auto usable = [&] {  // oneDNN is linked with GCC's OpenMP
    return access((lib + "libdnnl.so.3").c_str(), R_OK) == 0 &&
           (access((lib + openmp).c_str(), R_OK) == 0 || dlopen(openmp.c_str(), RTLD_LAZY | RTLD_LOCAL) != nullptr);
  };
  return precision == "bfloat16" || (precision == "float32" && Lacking(kOwnFloat32).empty() && usable()) ? "own" : "lite";
}

}  // namespace kandinsky
