// All of the program kandinsky but its main: finds its subcommand, runs it, turns bad input into one line and status 2.

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "program/command_line.h"
#include "program/program.h"
#include "common/errors.h"
#include "common/files.h"
#include "common/machine.h"
#include "pictures/recipe.h"

namespace kandinsky {

namespace {

constexpr int kBrokenPipe = 141;  // 128 + SIGPIPE

std::atomic<Stop *> signalled_stop{nullptr};
volatile std::sig_atomic_t signalled = 0;

void OnSignal(int number) {
  if (signalled == 0) {
    signalled = number;
  }
  if (Stop *stop = signalled_stop.load()) {
    stop->Ask();
  }
}

void HandleSignals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action{};
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {  // nohup's stays ignored
      action.sa_handler = OnSignal;
      action.sa_flags = 0;
      sigemptyset(&action.sa_mask);
      sigaction(number, &action, nullptr);
    }
  }
  std::signal(SIGPIPE, SIG_IGN);
}

// Opens those of descriptors 0, 1 and 2 that are closed: no other file may take their place.
void OpenStandardStreams() {
  int file = open("/dev/null", O_RDWR);
  while (file >= 0 && file <= STDERR_FILENO) {
    file = open("/dev/null", O_RDWR);
  }
  if (file >= 0) {
    close(file);
  }
}

int Run(int argc, char **argv) {
  CLI::App app("Kandinsky 2.2 from prompt to picture on MindSpore Lite, without Python.", kName);
  app.footer("typical use:\n"
             "  kandinsky generate BUNDLE \"a red cat, 4k photo\" --seed 7 --output cat.png\n"
             "  kandinsky interpolate BUNDLE --text \"a cat\" 0.3 --image starry_night.png 0.7\n"
             "  kandinsky verify BUNDLE\n\n"
             "A command ends with status 0; 2 after bad input; 1 after a fault of this program, which is then named in one line.");
  app.set_version_flag("--version", std::string(kName) + " " + kVersion);
  app.require_subcommand(1);
  AddMaking(&app);
  AddVerify(&app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError &error) {
    if (error.get_exit_code() == 0) {  // help, or the version
      return app.exit(error);
    }
    SayError(std::string("error: ") + error.what() + " (see " + kName + " --help)");
    return 2;
  } catch (const Stopped &) {
    SayError("stopped");
    return StoppedStatus() != 0 ? StoppedStatus() : 130;
  } catch (const UserError &error) {
    SayError(std::string("error: ") + error.what());
    return 2;
  } catch (const OutputFailure &failure) {
    if (failure.number == EPIPE) {
      return kBrokenPipe;
    }
    SayError("error: standard output cannot be written: " + Reason(failure.number));
    return 2;
  } catch (const std::bad_alloc &) {
    SayError("error: not enough memory: ask for fewer or smaller pictures, or give the machine more");
    return 2;
  } catch (const std::system_error &error) {
    SayError(std::string("error: ") + error.what());
    return 2;
  } catch (const std::exception &error) {
    SayError(std::string("error: a fault of this program, please report it: ") + error.what());
    return 1;
  }
}

}  // namespace

void SayError(const std::string &line) {
  const std::string text = std::string(kName) + ": " + OneLine(line) + "\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());  // else nobody hears it
}

void PrintLine(const std::string &line) {
  try {
    WriteAll(STDOUT_FILENO, (line + "\n").data(), line.size() + 1);
  } catch (const std::system_error &error) {
    throw OutputFailure(error.code().value());
  }
}

void StopOnSignals(Stop *stop) {
  signalled_stop = stop;
  if (stop != nullptr && signalled != 0) {
    stop->Ask();
  }
}

int StoppedStatus() { return signalled == 0 ? 0 : 128 + signalled; }

SessionOptions EngineArguments::Options(const std::string &precision_of_recipe) const {
  SessionOptions options;
  options.threads = threads;
  options.precision = precision.empty() ? precision_of_recipe : precision;
  options.check = check;
  if (keep_loaded) {
    options.keep_loaded = true;
  }
  if (!memory.empty()) {
    options.memory = MemoryOf(memory, "--memory");
  }
  options.warn = [](const std::string &line) { SayError("warning: " + line); };
  return options;
}

void AddThreadsAndPrecision(CLI::App *command, EngineArguments *arguments) {
  command->add_option("-t,--threads", arguments->threads, "threads of the engine (default: one on each CPU)");
  command->add_option("--precision", arguments->precision, "of products and convolutions: float32 (default), bfloat16, float16 or auto");
}

}  // namespace kandinsky

int KandinskyProgram(int argc, char **argv) {
  kandinsky::OpenStandardStreams();
  kandinsky::HandleSignals();
  return kandinsky::Run(argc, argv);
}
