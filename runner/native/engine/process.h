// A process that runs one model, and what is said to it (runner/engine/process.py).

#ifndef KANDINSKY_MINDIR_PROCESS_H
#define KANDINSKY_MINDIR_PROCESS_H

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/stop.h"
#include "engine/lite_log.h"
#include "engine/starter.h"

namespace kandinsky {

// The process of a model, which is loading it; it ends with this object.
class BridgeProcess {
 public:
  // message: of the model, for its starter. descriptors: of its memory, its file and what that has in other files. name: of the
  // graph, for messages. EngineError if it does not start.
  BridgeProcess(Starters *starters, const std::string &message, const std::vector<int> &descriptors, std::string name, double deadline,
                const Stop *stop);
  ~BridgeProcess() { Close(); }
  BridgeProcess(const BridgeProcess &) = delete;
  BridgeProcess &operator=(const BridgeProcess &) = delete;

  std::string Line();  // the next that it says; EngineError, with Lite's own reason, if it is an error or there is none in time
  void Run();          // one run over the shared memory, to its end
  bool usable() const { return static_cast<bool>(leash_); }
  void Close();

 private:
  void Wait();
  std::string CauseOfDeath();
  std::optional<int> WaitForEnd() const;  // its wait status, unless its starter has ended
  [[noreturn]] void Refuse(const std::string &text);

  std::string name_, received_;
  double deadline_;
  const Stop *stop_;
  LiteLog log_;
  std::shared_ptr<Starter> starter_;
  Descriptor socket_, leash_;
  unsigned long requests_ = 0;
};

}  // namespace kandinsky

#endif
