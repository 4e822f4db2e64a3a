#include "engine/engine.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kandinsky {

namespace {

constexpr const char *kBridge = "kandinsky-bridge", *kBridgeVariable = "KANDINSKY_MINDIR_BRIDGE";
constexpr int kMs = 4;  // mindspore::ModelType (include/api/types.h)
constexpr size_t kMostTensors = 1024;

std::string TypeName(int type) {  // of mindspore::DataType (include/api/data_type.h)
  return type == 43 ? "float32" : type == 34 ? "int32" : "type " + std::to_string(type);
}

class BridgeModel : public Model {
 public:
  BridgeModel(const EngineOptions &options, const ModelFile &file)
      : memory_(MemoryFile("kandinsky-mindir")), name_(file.origin),
        process_(options.starters.get(), std::to_string(kMs) + " cpu 0 " + std::to_string(options.threads) + " " + options.precision +
                                         " " + options.kernels,
                 {memory_.get(), file.file.get(), file.table.get()}, name_, options.deadline, options.stop) {
    Describe();
    struct stat status{};
    fstat(memory_.get(), &status);
    size_ = static_cast<size_t>(status.st_size);
    for (size_t i = 0; i < offsets_.size(); ++i) {
      const TensorInfo &tensor = i < inputs_.size() ? inputs_[i] : outputs_[i - inputs_.size()];
      const uint64_t bytes = 4 * static_cast<uint64_t>(Elements(tensor.shape));
      if (offsets_[i] > size_ || bytes > size_ - offsets_[i]) {
        throw EngineError(name_ + ": " + tensor.Describe() + " does not lie in the memory for it");
      }
    }
    void *mapped = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
    if (mapped == MAP_FAILED) {
      throw EngineError(name_ + ": no memory for its inputs and outputs: " + Reason(errno));
    }
    data_ = static_cast<char *>(mapped);
  }
  ~BridgeModel() override {
    if (data_ != nullptr) {
      munmap(data_, size_);
    }
  }

  const std::vector<TensorInfo> &inputs() const override { return inputs_; }
  const std::vector<TensorInfo> &outputs() const override { return outputs_; }
  bool usable() const override { return process_.usable(); }

  Outputs Run(const Inputs &inputs) override {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const auto given = inputs.find(inputs_[i].name);
      const size_t bytes = 4 * static_cast<size_t>(Elements(inputs_[i].shape));
      if (given == inputs.end() || given->second.size != bytes) {
        throw EngineError(name_ + ": its input " + inputs_[i].Describe() +
                          (given == inputs.end() ? " is not there" : " was given another number of values"));
      }
      std::memcpy(data_ + offsets_[i], given->second.data, bytes);
    }
    process_.Run();
    Outputs outputs;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const auto *values = reinterpret_cast<const float *>(data_ + offsets_[inputs_.size() + i]);
      outputs.emplace_back(values, values + Elements(outputs_[i].shape));
    }
    return outputs;
  }

 private:
  // Inputs and outputs, and where in the shared memory each of them lies.
  void Describe() {
    for (std::string line = process_.Line(); line != "ready"; line = process_.Line()) {
      std::istringstream words(line);
      std::string kind;
      int type = 0;
      size_t offset = 0, rank = 0;
      words >> kind >> type >> offset >> rank;
      TensorInfo tensor{"", Dimensions(std::min<size_t>(rank, 16)), TypeName(type)};
      for (auto &side : tensor.shape) {
        words >> side;
      }
      words.get();
      std::getline(words, tensor.name);
      if ((kind != "input" && kind != "output") || !words || offsets_.size() > kMostTensors) {
        throw EngineError(name_ + ": MindSpore Lite's process said '" + line + "': this program and it do not belong together");
      }
      if (tensor.dtype != "float32" && tensor.dtype != "int32") {
        throw EngineError(name_ + ": " + kind + " " + tensor.name + " has an element type that this program lacks (" + tensor.dtype + ")");
      }
      (kind == "input" ? inputs_ : outputs_).push_back(tensor);
      offsets_.push_back(offset);  // inputs come before outputs
    }
  }

  Descriptor memory_;
  std::string name_;
  BridgeProcess process_;
  std::vector<TensorInfo> inputs_, outputs_;
  std::vector<size_t> offsets_;
  char *data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace

std::string FindBridge(const std::string &given) {
  const char *variable = std::getenv(kBridgeVariable);
  std::string path = !given.empty() ? given : variable != nullptr ? variable : "";
  if (path.empty()) {
    Dl_info here{};
    char program[4096];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof(program));
    std::string place = dladdr(reinterpret_cast<void *>(&FindBridge), &here) != 0 && here.dli_fname != nullptr ? here.dli_fname : "";
    if (place.find(".so") == std::string::npos && length > 0) {  // this is the program itself, however it was called
      place.assign(program, static_cast<size_t>(length));
    }
    path = FolderOf(RealPath(place)) + "/" + kBridge;
  }
  if (access(path.c_str(), X_OK) != 0 || IsFolder(path)) {
    throw UserError("the program that runs models is not at " + path + ": keep " + kBridge + " beside this program, or set " +
                    kBridgeVariable + " to its path");
  }
  return AbsolutePath(path);
}

double Deadline() {
  const char *given = std::getenv("KANDINSKY_MINDIR_DEADLINE");
  if (given == nullptr || *given == '\0') {
    return 3600;
  }
  char *end = nullptr;
  const double seconds = std::strtod(given, &end);
  if (*end != '\0' || !(seconds > 0)) {
    throw UserError(std::string("KANDINSKY_MINDIR_DEADLINE is '") + given + "': it must be a number of seconds above 0");
  }
  return std::min(seconds, 1e9);
}

std::unique_ptr<Model> LoadModel(const EngineOptions &options, const ModelFile &file) {
  return std::make_unique<BridgeModel>(options, file);
}

}  // namespace kandinsky
