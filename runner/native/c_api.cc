#include "kandinsky_mindir.h"

#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "common/errors.h"
#include "pictures/recipe.h"
#include "pipelines/session.h"

using kandinsky::Request;
using kandinsky::Session;
using kandinsky::Stopped;
using kandinsky::UserError;

struct kandinsky_bundle {
  kandinsky_bundle(const std::string &path, const kandinsky::SessionOptions &options) : session(path, options) {}
  Session session;
};

namespace {

void Say(const std::string &line, char *error, size_t error_size) {
  if (error == nullptr || error_size == 0) {
    return;
  }
  size_t length = std::min(line.size(), error_size - 1);
  while (length < line.size() && length > 0 && (static_cast<unsigned char>(line[length]) & 0xC0) == 0x80) {
    --length;  // no half of a character
  }
  std::memcpy(error, line.data(), length);
  error[length] = '\0';
}

// Runs `act`; its status, with what is wrong in `error`.
template <typename Act>
int Guarded(const Act &act, char *error, size_t error_size) {
  Say("", error, error_size);
  try {
    act();
    return KANDINSKY_OK;
  } catch (const Stopped &) {
    Say("stopped", error, error_size);
    return KANDINSKY_STOPPED;
  } catch (const UserError &fault) {
    Say(fault.what(), error, error_size);
    return KANDINSKY_REFUSED;
  } catch (const std::bad_alloc &) {
    Say("not enough memory: ask for fewer or smaller pictures, or give the machine more", error, error_size);
    return KANDINSKY_REFUSED;
  } catch (const std::exception &fault) {
    Say(kandinsky::OneLine(std::string("a fault of this library, please report it: ") + fault.what()), error, error_size);
    return KANDINSKY_FAULT;
  }
}

void Require(const void *pointer, const char *name) {
  if (pointer == nullptr) {
    throw UserError(std::string(name) + " is NULL");
  }
}

}  // namespace

void kandinsky_options_init(kandinsky_options *options) {
  if (options != nullptr) {
    *options = {sizeof(kandinsky_options), nullptr, 0, "float32", 0, -1, "once", nullptr, nullptr};
  }
}

int kandinsky_open(const char *path, const kandinsky_options *given, kandinsky_bundle **bundle, char *error, size_t error_size) {
  return Guarded([&] {
    Require(path, "path");
    Require(bundle, "bundle");
    *bundle = nullptr;
    kandinsky_options options;
    kandinsky_options_init(&options);
    if (given != nullptr) {
      if (given->size != sizeof(kandinsky_options)) {
        throw UserError("the options have another size than this library's: begin with kandinsky_options_init, and compile with its "
                        "own header");
      }
      options = *given;
    }
    kandinsky::SessionOptions session;
    session.bridge = options.bridge == nullptr ? "" : options.bridge;
    session.precision = options.precision == nullptr ? "float32" : options.precision;
    session.check = options.check == nullptr ? "once" : options.check;
    if (options.threads < 0 || options.memory < 0 || options.keep_loaded < -1 || options.keep_loaded > 1) {
      throw UserError("threads and memory must not be negative, and keep_loaded must be 1, 0 or -1");
    }
    if (options.threads > 0) {
      session.threads = options.threads;
    }
    if (options.memory > 0) {
      session.memory = options.memory;
    }
    if (options.keep_loaded >= 0) {
      session.keep_loaded = options.keep_loaded == 1;
    }
    if (options.warn != nullptr) {
      session.warn = [warn = options.warn, context = options.context](const std::string &line) {
        warn(context, kandinsky::OneLine(line).c_str());
      };
    }
    *bundle = new kandinsky_bundle(path, session);
  }, error, error_size);
}

int kandinsky_make(kandinsky_bundle *bundle, const char *request, const kandinsky_callbacks *callbacks, char *error,
                   size_t error_size) {
  return Guarded([&] {
    Require(bundle, "bundle");
    Require(request, "request");
    Require(callbacks, "callbacks");
    Require(reinterpret_cast<const void *>(callbacks->picture), "the callback for pictures");
    Session &session = bundle->session;
    const Request whole = session.Complete(Request::Parse(request));
    const auto count = static_cast<size_t>(whole.Count());
    kandinsky::Listener listener;
    if (callbacks->progress != nullptr) {
      listener.progress = [callbacks](const std::string &stage, size_t done, size_t all) {
        if (callbacks->progress(callbacks->context, stage.c_str(), done, all) != 0) {
          throw Stopped();
        }
      };
    }
    listener.picture = [callbacks, count](size_t number, kandinsky::Image &&image, const Request &alone) {
      const std::string recipe = alone.ToJson().dump();
      const kandinsky_picture picture{number, count, image.width, image.height, image.rgb.data(), recipe.c_str()};
      if (callbacks->picture(callbacks->context, &picture) != 0) {
        throw Stopped();
      }
    };
    try {
      session.Make(whole, listener);
    } catch (const Stopped &) {
      session.stop().Forget();
      throw;
    }
  }, error, error_size);
}

int kandinsky_verify(kandinsky_bundle *bundle, char *error, size_t error_size) {
  return Guarded([&] {
    Require(bundle, "bundle");
    std::string wrong;
    try {
      bundle->session.Verify("", std::nullopt, [&wrong](const kandinsky::Verdict &verdict) {
        if (!verdict.right() && wrong.empty()) {
          wrong = verdict.Text();
        }
      });
    } catch (const Stopped &) {
      bundle->session.stop().Forget();
      throw;
    }
    if (!wrong.empty()) {
      throw UserError(wrong);
    }
  }, error, error_size);
}

void kandinsky_stop(kandinsky_bundle *bundle) {
  if (bundle != nullptr) {
    bundle->session.stop().Ask();
  }
}

void kandinsky_unload(kandinsky_bundle *bundle) {
  if (bundle != nullptr) {
    bundle->session.Unload();
  }
}

void kandinsky_close(kandinsky_bundle *bundle) { delete bundle; }

const char *kandinsky_version(void) { return kandinsky::kVersion; }
