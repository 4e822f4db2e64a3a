// Graphs on MindSpore Lite with nothing around them: bare_lite THREADS MODEL.ms... loads and runs one after another.
//
// Each stays loaded. All inputs are ones. Prints "step" once the last has run.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "include/api/context.h"
#include "include/api/model.h"
#include "include/api/types.h"

int main(int argc, char **argv) {
  std::vector<std::unique_ptr<mindspore::Model>> models;
  for (int i = 2; i < argc; ++i) {
    auto context = std::make_shared<mindspore::Context>();
    context->SetThreadNum(std::atoi(argv[1]));
    context->MutableDeviceInfo().push_back(std::make_shared<mindspore::CPUDeviceInfo>());
    std::ifstream file(argv[i], std::ios::binary | std::ios::ate);
    std::vector<char> bytes(static_cast<size_t>(file.tellg()));
    file.seekg(0).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    models.push_back(std::make_unique<mindspore::Model>());
    if (models.back()->Build(bytes.data(), bytes.size(), mindspore::kMindIR_Lite, context) != mindspore::kSuccess) {
      std::fprintf(stderr, "%s cannot be built\n", argv[i]);
      return 1;
    }
    auto inputs = models.back()->GetInputs();
    for (auto &input : inputs) {
      if (input.DataType() == mindspore::DataType::kNumberTypeInt32) {
        std::fill_n(static_cast<int32_t *>(input.MutableData()), input.ElementNum(), 1);
      } else {
        std::fill_n(static_cast<float *>(input.MutableData()), input.ElementNum(), 1.0F);
      }
    }
    std::vector<mindspore::MSTensor> outputs;
    if (models.back()->Predict(inputs, &outputs) != mindspore::kSuccess) {
      std::fprintf(stderr, "%s cannot be run\n", argv[i]);
      return 1;
    }
  }
  std::puts("step");
  std::fflush(stdout);
  std::_Exit(0);
}
