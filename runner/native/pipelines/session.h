// An opened bundle and its models: requests to pictures, and whether it computes what it should.

#ifndef KANDINSKY_MINDIR_SESSION_H
#define KANDINSKY_MINDIR_SESSION_H

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "bundle/bundle.h"
#include "pipelines/decoder.h"
#include "loading/models.h"
#include "pipelines/prior.h"
#include "pipelines/request.h"
#include "common/stop.h"
#include "inputs/tokenizer.h"

namespace kandinsky {

struct SessionOptions {
  std::string bridge;                // the program that runs models; "": see FindBridge
  std::optional<int64_t> threads;    // of the engine; one for each CPU
  std::string precision = "float32";  // of products and convolutions, or "bfloat16", "float16", "auto", which fall back
  std::optional<bool> keep_loaded;   // whether models stay in memory between stages and requests
  std::optional<int64_t> memory;     // bytes to stay below
  std::string check = "once";        // when to hash files: once, always, never
  Warn warn = [](const std::string &) {};
};

// What is told of a request while it runs.
struct Listener {
  // After each step: "prior" or "decoder", and how many steps of how many rows are done of all.
  std::function<void(const std::string &stage, size_t done, size_t all)> progress = [](const std::string &, size_t, size_t) {};
  // A finished picture, its number, and the request that makes it again alone.
  std::function<void(size_t number, Image &&image, const Request &alone)> picture;
};

// What came of a graph's sealed example (runner/upkeep/replay.py). failure: why it could not be run; "" if it was.
struct Verdict {
  const GraphInfo *graph = nullptr;
  double error = 0, bound = 0, psnr = 0, seconds = 0;
  std::string failure;

  bool right() const { return failure.empty() && error <= bound; }
  std::string Text() const;  // one line
};

// Any thread may use it; requests wait for each other.
class Session {
 public:
  // bundle: the folder that `kandinsky-mindir export` wrote. UserError if it is damaged, or cannot be used here.
  Session(const std::string &bundle, const SessionOptions &options);

  // The same request with what it leaves open, and with the sha256 of its pictures, which are read for it.
  Request Complete(const Request &request) const;
  // Makes the pictures of a complete request. All that can be refused, is refused before the first is made. Throws Stopped.
  void Make(const Request &request, const Listener &listener);
  MemoryPlan Plan(const Request &request) const;
  Size PictureSize(const Request &request) const;

  // The verdict on each graph, of one part or ("") all, one after another. tolerance: instead of what rounding explains.
  void Verify(const std::string &part, std::optional<double> tolerance, const std::function<void(const Verdict &)> &tell);

  void Unload();               // frees all models; the next request loads them again
  Stop &stop() { return stop_; }  // ends what is running, as soon as it can be
  const Bundle &bundle() const { return *bundle_; }
  const std::string &precision() const { return models_->engine().precision; }

 private:
  struct Plans;
  Plans PlansOf(const Request &request) const;
  const Tokenizer &tokenizer();

  Stop stop_;
  Warn warn_;
  std::mutex busy_;
  std::shared_ptr<Starters> starters_;
  std::unique_ptr<Bundle> bundle_;
  std::unique_ptr<Models> models_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

}  // namespace kandinsky

#endif
