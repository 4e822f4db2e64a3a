// A process that runs one model, and what is said to it (runner/engine/process.py).

#ifndef KANDINSKY_MINDIR_PROCESS_H
#define KANDINSKY_MINDIR_PROCESS_H

#include <string>
#include <vector>

#include <sys/types.h>

#include "common/errors.h"
#include "common/files.h"
#include "common/stop.h"

namespace kandinsky {

// A graph could not be loaded or run.
class EngineError : public UserError {
 public:
  using UserError::UserError;
};

// Lite's log: the standard error of a program that runs Lite, as a file in memory. It is the terminal instead where GLOG_v asks
// for more than errors.
class LiteLog {
 public:
  LiteLog();
  int file() const { return file_.get(); }  // -1: the terminal
  void Clear();
  std::string Reason() const;    // the first cause that Lite logged; "" if there is none
  std::string LastLine() const;

 private:
  std::string Read() const;
  Descriptor file_;
};

// The program `command`, ready to load its model; it ends with this object.
class BridgeProcess {
 public:
  // inherited: descriptors that it gets under their numbers. name: of the graph, for messages. EngineError if it does not start.
  BridgeProcess(const std::vector<std::string> &command, const std::vector<int> &inherited, std::string name, double deadline,
                const Stop *stop);
  ~BridgeProcess() { Close(); }
  BridgeProcess(const BridgeProcess &) = delete;
  BridgeProcess &operator=(const BridgeProcess &) = delete;

  std::string Line();  // the next that it says; EngineError, with Lite's own reason, if it is an error or there is none in time
  void Run();          // one run over the shared memory, to its end
  bool usable() const { return pid_ > 0; }
  void Close();

 private:
  void Wait();
  std::string CauseOfDeath();
  [[noreturn]] void Refuse(const std::string &text);

  std::string name_, received_;
  double deadline_;
  const Stop *stop_;
  LiteLog log_;
  Descriptor socket_;
  pid_t pid_ = -1;
  unsigned long requests_ = 0;
};

}  // namespace kandinsky

#endif
