// The process that starts those of models: runner/engine/native/model_starter.h.

#ifndef KANDINSKY_MINDIR_STARTER_H
#define KANDINSKY_MINDIR_STARTER_H

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <sys/types.h>

#include "common/files.h"
#include "engine/lite_log.h"

namespace kandinsky {

// One such process; it ends with this object, and those of its models with it. Any thread may use it.
class Starter {
 public:
  // Returns at once, while it loads the libraries. bridge: the program; kernels: "lite", or "own", which need oneDNN, too.
  // EngineError if it does not start.
  Starter(const std::string &bridge, const std::string &kernels);
  ~Starter();
  Starter(const Starter &) = delete;
  Starter &operator=(const Starter &) = delete;

  bool Send(const std::string &message, const std::vector<int> &descriptors) const;  // false: it has ended
  bool ready() const;          // whether it has loaded the libraries; before that there is no process of a model
  std::string CauseOfDeath();  // of one that has ended

 private:
  Descriptor socket_;
  LiteLog log_;
  std::mutex mutex_;
  pid_t pid_ = -1;
  std::string cause_;
};

// The starter of a session, and another one where that has died.
class Starters {
 public:
  Starters(std::string bridge, std::string kernels) : bridge_(std::move(bridge)), kernels_(std::move(kernels)) {}

  void Prepare();  // has one load the libraries from now on, while something else goes on
  // Has a process started, and returns who has done it. message, descriptors: as model_starter.h has them. EngineError.
  std::shared_ptr<Starter> Start(const std::string &message, const std::vector<int> &descriptors);
  void End();  // frees the memory that it takes, too; processes of models that are there lose it

 private:
  std::string bridge_, kernels_;
  std::mutex mutex_;
  std::shared_ptr<Starter> current_;
};

}  // namespace kandinsky

#endif
