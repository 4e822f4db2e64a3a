// Lite's log, and what is read in it when something fails (runner/engine/lite_log.py).

#ifndef KANDINSKY_MINDIR_LITE_LOG_H
#define KANDINSKY_MINDIR_LITE_LOG_H

#include <optional>
#include <string>

#include "common/errors.h"
#include "common/files.h"

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
  // What a program that wrote it died of, by its wait status (none: nobody knows it).
  std::string CauseOfDeath(std::optional<int> status) const;

 private:
  std::string Read() const;
  Descriptor file_;
};

}  // namespace kandinsky

#endif
