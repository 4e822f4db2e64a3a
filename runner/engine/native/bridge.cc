// The program that runs one model on MindSpore Lite for bridge.py, in a process of its own.
//
//   bridge MODEL TYPE DEVICE DEVICE_ID THREADS PRECISION KERNELS MEMORY [PIECES [KEEP]]
//   bridge start KERNELS                                        (makes such processes: model_starter.h)
//
// TYPE is Lite's ModelType (0 MindIR, 4 .ms, which may be a file without a name, given as /proc/self/fd/N), DEVICE "cpu"
// or "ascend", THREADS 0 leaves Lite's default, PRECISION is "float32", "bfloat16" or "float16" (other kernels of Lite's),
// KERNELS is "lite", or "own" for kernels of ours (product_kernel.h, our_nodes.h), which bfloat16 needs and float32 can do
// without, and MEMORY is the descriptor of an empty shared file, in which the program lays out the model's inputs and outputs.
// PIECES, a file, says in lines what lies in other files of a `.ms` file without a name (mapped_weights.h): whole pages of it,
// or what Lite makes of a weight in it; KEEP is the descriptor of an empty file for all of the latter. It answers in lines on
// standard output: once loaded
//
//   packed POSITION LENGTH OFFSET                          (one line a weight in KEEP)
//   input|output TYPE OFFSET RANK DIMENSION... NAME        (one line a tensor; TYPE is Lite's DataType)
//   ready
//
// and then, for each line with a number N on standard input, which asks for one run over the shared memory, "done N" or
// "failed N TEXT". A line "error TEXT" may stand in place of each of these lines: it is the last one. Standard input and
// output are one socket or two; the program ends when standard input does, or its parent.

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/api/context.h"
#include "include/api/model.h"
#include "include/api/types.h"
#include "arena.h"
#include "convolution_kernel.h"
#include "follow_parent.h"
#include "kernel_registry.h"
#include "mapped_weights.h"
#include "model_starter.h"
#include "onednn.h"
#include "our_nodes.h"
#include "product_kernel.h"
#include "thread_pool.h"

namespace {

using mindspore::MSTensor;

constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register

size_t Aligned(size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

void Check(const mindspore::Status &status) {
  if (status != mindspore::kSuccess) {
    throw std::runtime_error(status.ToString());
  }
}

std::shared_ptr<mindspore::Context> MakeContext(const std::string &device, int device_id, int threads,
                                                const std::string &precision, bool own) {
  auto context = std::make_shared<mindspore::Context>();
  if (threads > 0) {
    SharePool::Start(threads);
    context->SetThreadNum(SharePool::Shares(threads));
  }
  if (device == "ascend") {
    auto ascend = std::make_shared<mindspore::AscendDeviceInfo>();
    ascend->SetDeviceID(device_id);
    context->MutableDeviceInfo().push_back(ascend);
  }
  auto cpu = std::make_shared<mindspore::CPUDeviceInfo>();  // Ascend's fallback, too
  cpu->SetAllocator(Arena::Make());
  cpu->SetProvider(own ? kOurProvider : "");
  cpu->SetProviderDevice(own ? "CPU" : "");
  const int shares = SharePool::Shares(threads);
  if (own && precision == "bfloat16") {
    RegisterProducts<std::uint16_t>(shares);
    RegisterConvolutions(shares);
    RegisterOurKernels<std::uint16_t>(shares);
  } else if (own && precision == "float32") {  // Lite's convolutions are as fast
    RegisterProducts<float>(shares);
    RegisterOurKernels<float>(shares);
  } else if (!own && precision == "float16") {
    cpu->SetEnableFP16(true);
  } else if (own || precision != "float32") {
    throw std::runtime_error("there are no such kernels for " + precision);
  }
  context->MutableDeviceInfo().push_back(cpu);
  return context;
}

// A file's bytes. Lite itself opens a file by its real path, which a file without a name lacks.
class FileView {
 public:
  explicit FileView(const char *path) {
    const int file = open(path, O_RDONLY);
    struct stat status{};
    if (file < 0 || fstat(file, &status) != 0) {
      throw std::runtime_error("the file cannot be opened");
    }
    size_ = static_cast<size_t>(status.st_size);
    data_ = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
    file_ = file;
    if (data_ == MAP_FAILED) {
      throw std::runtime_error(size_ == 0 ? "the file is empty" : "the file cannot be mapped");
    }
  }
  ~FileView() {
    munmap(data_, size_);
    close(file_);
  }
  FileView(const FileView &) = delete;
  FileView &operator=(const FileView &) = delete;

  const void *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  int file_ = -1;
  size_t size_ = 0;
  void *data_ = nullptr;
};

class SharedModel {
 public:
  SharedModel(const char *path, int type, const std::shared_ptr<mindspore::Context> &context, int memory,
              const char *table, int keep, int replies, bool fuse) {
    // An unchecked failure here would be a segmentation fault at the first use of the model.
    if (type == mindspore::kMindIR_Lite) {
      if (table != nullptr) {
        weights_ = std::make_unique<MappedWeights>(open(path, O_RDWR), FileView(path).size(), table, keep, replies);
        if (fuse) {
          MakeOurNodes(weights_->lean.data(), weights_->lean.file_size());
        }
        Check(model_.Build(weights_->lean.data(), weights_->lean.size(), mindspore::kMindIR_Lite, context));
        weights_->EndBuilding();
      } else {
        const FileView file(path);
        const auto *data = static_cast<const char *>(file.data());
        std::vector<char> own(data, data + file.size());
        own.resize(file.size() + ModelGraph::kRoom);
        if (fuse) {
          MakeOurNodes(own.data(), file.size());
        }
        Check(model_.Build(own.data(), own.size(), mindspore::kMindIR_Lite, context));  // Lite copies what it keeps
      }
    } else {
      Check(model_.Build(path, static_cast<mindspore::ModelType>(type), context));
    }
    const auto inputs = model_.GetInputs();
    for (const auto &tensor : model_.GetOutputs()) {
      output_sizes_.push_back(tensor.DataSize());
    }
    size_t total = 0;
    for (const auto &tensor : inputs) {
      total += Aligned(tensor.DataSize());
    }
    for (const auto size : output_sizes_) {
      total += Aligned(size);
    }
    if (ftruncate(memory, static_cast<off_t>(total)) != 0) {
      throw std::runtime_error("no shared memory for inputs and outputs");
    }
    void *mapped = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (mapped == MAP_FAILED) {
      throw std::runtime_error("the shared memory for inputs and outputs cannot be mapped");
    }
    memory_ = static_cast<char *>(mapped);
    size_t offset = 0;
    for (const auto &tensor : inputs) {  // Lite reads inputs in place
      inputs_.emplace_back(Reference(tensor, memory_ + offset));
      offset += Aligned(tensor.DataSize());
    }
    outputs_offset_ = offset;
  }

  void Describe(FILE *replies) {
    if (weights_) {
      for (const auto &weight : weights_->packed.kept()) {
        std::fprintf(replies, "packed %zu %zu %zu\n", weight.position, weight.length, weight.offset);
      }
    }
    size_t offset = 0;
    for (const auto &tensor : inputs_) {
      Describe(replies, "input", tensor, &offset);
    }
    for (const auto &tensor : model_.GetOutputs()) {
      Describe(replies, "output", tensor, &offset);
    }
  }

  void Run() {
    std::vector<MSTensor> outputs;
    Check(model_.Predict(inputs_, &outputs));
    if (weights_) {
      weights_->files.Check();
    }
    if (outputs.size() != output_sizes_.size()) {
      throw std::runtime_error("the model returned another number of outputs than it declares");
    }
    size_t offset = outputs_offset_;
    for (size_t i = 0; i < outputs.size(); ++i) {
      const void *data = outputs[i].MutableData();
      if (data == nullptr || outputs[i].DataSize() != output_sizes_[i]) {
        throw std::runtime_error("output " + outputs[i].Name() + " has another size than the model declares");
      }
      std::memcpy(memory_ + offset, data, output_sizes_[i]);
      offset += Aligned(output_sizes_[i]);
    }
  }

 private:
  static MSTensor Reference(const MSTensor &tensor, void *data) {
    MSTensor *made =
      MSTensor::CreateRefTensor(tensor.Name(), tensor.DataType(), tensor.Shape(), data, tensor.DataSize(), false);
    if (made == nullptr) {
      throw std::runtime_error("no tensor could be made for input " + tensor.Name());
    }
    MSTensor copy = *made;  // copies share the data
    MSTensor::DestroyTensorPtr(made);
    return copy;
  }

  static void Describe(FILE *replies, const char *kind, const MSTensor &tensor, size_t *offset) {
    std::fprintf(replies, "%s %d %zu %zu", kind, static_cast<int>(tensor.DataType()), *offset, tensor.Shape().size());
    for (const auto dimension : tensor.Shape()) {
      std::fprintf(replies, " %lld", static_cast<long long>(dimension));
    }
    std::fprintf(replies, " %s\n", tensor.Name().c_str());
    *offset += Aligned(tensor.DataSize());
  }

  std::unique_ptr<MappedWeights> weights_;
  mindspore::Model model_;
  std::vector<MSTensor> inputs_;
  std::vector<size_t> output_sizes_;
  size_t outputs_offset_ = 0;
  char *memory_ = nullptr;
};

std::string OnOneLine(const char *text) {
  std::string line(text);
  for (auto &character : line) {
    character = character == '\n' ? ' ' : character;
  }
  return line;
}

// Opens it here, once, for the processes that are forked, and has it write the code that all products of a kind share. One that
// needs it says why it cannot be opened.
void OpenOneDnn() {
  try {
    constexpr std::int64_t kSide = 64;
    const std::vector<float> factors(kSide * kSide);
    std::vector<float> sums(2 * kSide * kSide);
    const onednn::Layout factor(onednn::kFloat32, kSide, kSide, kSide, 1), sum(onednn::kFloat32, kSide, kSide, 2 * kSide, 1);
    onednn::Primitive::Product(factor, factor, onednn::Layout(), sum)
      .Run({{onednn::kSource, &factor, factors.data()}, {onednn::kWeights, &factor, factors.data()},
            {onednn::kTarget, &sum, sums.data()}});
  } catch (const std::exception &) {
  }
}

// Answers requests until there are no more.
void Serve(SharedModel *model, FILE *replies) {
  for (char request[32]; std::fgets(request, sizeof(request), stdin) != nullptr;) {
    const unsigned long long number = std::strtoull(request, nullptr, 10);
    try {
      model->Run();
      std::fprintf(replies, "done %llu\n", number);
    } catch (const std::exception &error) {
      std::fprintf(replies, "failed %llu %s\n", number, OnOneLine(error.what()).c_str());
    }
    std::fflush(replies);
  }
}

}  // namespace

int main(int argc, char **argv) {
  OpenStandardStreams();
  std::signal(SIGINT, SIG_IGN);  // Ctrl-C is the parent's to handle
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 2 && words[0] == "start") {
    if (words[1] == "own") {
      OpenOneDnn();
    }
    words = ModelStarter::Serve();
  }
  if (words.size() < 8 || words.size() > 10) {
    std::fprintf(stderr, "usage: bridge MODEL TYPE DEVICE DEVICE_ID THREADS PRECISION KERNELS MEMORY [PIECES [KEEP]] | bridge start KERNELS\n");
    return 2;
  }
  FollowParent(STDIN_FILENO);
  FILE *replies = fdopen(dup(STDOUT_FILENO), "w");
  dup2(STDERR_FILENO, STDOUT_FILENO);  // whatever the libraries print is no reply
  const auto number = [&words](size_t i) { return std::atoi(words[i].c_str()); };
  try {
    const bool own = words[6] == "own";
    SharedModel model(words[0].c_str(), number(1), MakeContext(words[2], number(3), number(4), words[5], own), number(7),
                      words.size() > 8 ? words[8].c_str() : nullptr, words.size() > 9 ? number(9) : -1, fileno(replies), own);
    model.Describe(replies);
    std::fprintf(replies, "ready\n");
    std::fflush(replies);
    Serve(&model, replies);
    std::_Exit(0);  // the system frees it all, at once
  } catch (const std::exception &error) {
    std::fprintf(replies, "error %s\n", OnOneLine(error.what()).c_str());
    std::fflush(replies);
    std::_Exit(1);
  }
}
