// What the subcommands of the program share: streams, signals, statuses.

#ifndef KANDINSKY_MINDIR_COMMAND_LINE_H
#define KANDINSKY_MINDIR_COMMAND_LINE_H

#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "pipelines/session.h"

namespace kandinsky {

constexpr const char *kName = "kandinsky";

void SayError(const std::string &line);  // one line on standard error, after the program's name

// Standard output cannot be written.
class OutputFailure : public std::exception {
 public:
  explicit OutputFailure(int number) : number(number) {}
  int number;  // of the error
};

void PrintLine(const std::string &line);  // on standard output; throws OutputFailure

// SIGINT, SIGTERM and SIGHUP end what `stop` ends, from now on. A second one changes nothing.
void StopOnSignals(Stop *stop);
int StoppedStatus();  // 128 + the number of the signal that came; 0 if none did

// Options that several subcommands have; what is left out is not there.
struct EngineArguments {
  std::optional<int64_t> threads;
  std::string precision, memory, check = "once";
  bool keep_loaded = false;

  SessionOptions Options(const std::string &precision_of_recipe = "float32") const;
};

void AddThreadsAndPrecision(CLI::App *command, EngineArguments *arguments);

// Adds subcommands; what each does is its callback.
void AddMaking(CLI::App *app);
void AddVerify(CLI::App *app);

}  // namespace kandinsky

#endif
