// A model whose inputs and outputs lie in memory that another process shares.

#ifndef KANDINSKY_MINDIR_SHARED_MODEL_H
#define KANDINSKY_MINDIR_SHARED_MODEL_H

#include <cstddef>
#include <cstdio>
#include <cstring>
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
#include "mapped_weights.h"
#include "model_graph.h"
#include "our_nodes.h"

inline void Check(const mindspore::Status &status) {
  if (status != mindspore::kSuccess) {
    throw std::runtime_error(status.ToString());
  }
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
  // The model in a file of that type. memory: the descriptor of an empty file, which it makes as large as inputs and outputs
  // are; table, keep, replies: of MappedWeights, nullptr where its weights are all in the file; fuse: whether nodes of our own
  // take the place of Lite's where they can.
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

  // Says what is packed and what each tensor is, in lines.
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

  // Computes the outputs from the inputs in the memory.
  void Run() {
    std::vector<mindspore::MSTensor> outputs;
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
  using MSTensor = mindspore::MSTensor;
  static constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register

  static size_t Aligned(size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

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

#endif
