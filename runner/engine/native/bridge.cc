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
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

#include "include/api/context.h"
#include "arena.h"
#include "convolution_kernel.h"
#include "follow_parent.h"
#include "kernel_registry.h"
#include "model_starter.h"
#include "onednn.h"
#include "our_nodes.h"
#include "product_kernel.h"
#include "shared_model.h"
#include "thread_pool.h"

namespace {

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
