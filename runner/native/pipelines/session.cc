#include "pipelines/session.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "common/errors.h"
#include "common/files.h"
#include "common/machine.h"
#include "common/options.h"
#include "engine/precision.h"
#include "inputs/preprocessing.h"
#include "pictures/recipe.h"
#include "schedulers/schedulers.h"
#include "pipelines/verify.h"

namespace kandinsky {

namespace {

constexpr size_t kLargestTokenizer = size_t{1} << 28;

// How many of `steps` a run leaves out that starts from something: all but those of its share of them, rounded down, as in the
// reference (pipeline_kandinsky2_2_img2img.py: get_timesteps). UserError if none is left.
size_t SkippedSteps(int64_t steps, double strength) {
  const auto of = [steps](double share) { return static_cast<int64_t>(static_cast<double>(steps) * share); };
  if (of(strength) == 0) {
    int least = 1;
    while (of(least / 1000.0) == 0) {
      ++least;
    }
    throw UserError("strength " + Short(strength) + " makes none of " + std::to_string(steps) + " steps: give at least " +
                    Short(least / 1000.0) + ", or more steps");
  }
  return static_cast<size_t>(steps - of(strength));
}

Sampling SamplingOf(const std::unique_ptr<Scheduler> &scheduler, int64_t steps, Guidance guidance, int64_t images, double strength = 1) {
  Sampling sampling;
  sampling.schedule = scheduler->Plan(steps);
  sampling.learned_variance = scheduler->learned_variance();
  sampling.guidance = guidance;
  sampling.images = static_cast<size_t>(images);
  sampling.start = SkippedSteps(steps, strength);
  return sampling;
}

std::vector<std::string> TextsOf(const Request &request) {
  std::vector<std::string> texts = request.prompt;
  for (const auto &item : request.items) {
    texts.push_back(item.text.value_or(""));
  }
  if (request.negative_prompt) {
    texts.insert(texts.end(), request.negative_prompt->begin(), request.negative_prompt->end());
  }
  texts.push_back(request.negative_prior_prompt.value_or(""));
  return texts;
}

bool MixesPictures(const Request &request) {
  return std::any_of(request.items.begin(), request.items.end(), [](const Item &item) { return !item.text; });
}

// Refuses what is no scheduler, whether it is used or not; one that only kandinsky-mindir has is refused where it is used.
void CheckScheduler(const Json &config) {
  try {
    MakeScheduler(Json{{"_class_name", config.value("_class_name", "")}});
  } catch (const UserError &error) {
    if (std::string(error.what()).find("known to this program") != std::string::npos) {
      return;
    }
    throw;
  }
  MakeScheduler(config);
}

}  // namespace

// What a complete request runs.
struct Session::Plans {
  Sampling prior, decoder;
  Size size;
  std::vector<const GraphInfo *> graphs;
  int64_t beside = 0;
};

Session::Session(const std::string &bundle, const SessionOptions &options) : warn_(options.warn) {
  EngineOptions engine;
  const std::string bridge = FindBridge(options.bridge);
  engine.precision = ChoosePrecision(options.precision, warn_);
  engine.kernels = WhoseKernels(engine.precision, bridge);
  starters_ = std::make_shared<Starters>(bridge, engine.kernels);
  starters_->Prepare();
  bundle_ = std::make_unique<Bundle>(bundle, CheckOf(options.check), &stop_);
  const Manifest &manifest = bundle_->manifest();
  for (const char *kind : {"prior", "decoder"}) {
    CheckScheduler(manifest.schedulers.at(kind));
  }
  if (!manifest.image_processor.is_null()) {
    const ImageProcessor known(manifest.image_processor);
  }
  engine.starters = starters_;
  engine.threads = ThreadCount(options.threads);
  engine.deadline = Deadline();
  engine.stop = &stop_;
  const std::string advice = bundle_->UsePacked(engine.threads, engine.precision, engine.kernels);
  if (!advice.empty()) {
    warn_(advice);
  }
  models_ = std::make_unique<Models>(*bundle_, engine, options.keep_loaded, options.memory, warn_);
}

Request Session::Complete(const Request &request) const {
  RequireKind(bundle_->manifest(), request.Kind(), bundle_->path());
  Request whole = request.Complete(bundle_->manifest());
  for (auto &item : whole.items) {
    if (!item.text) {
      item.sha256 = PixelsSha256(item.Open("an item"));
    }
  }
  for (const auto &[name, pictures] : whole.Brought()) {
    for (auto &picture : *pictures) {
      picture.sha256 = PixelsSha256(picture.Open(name));
    }
  }
  return whole;
}

Session::Plans Session::PlansOf(const Request &request) const {
  const Manifest &manifest = bundle_->manifest();
  const DecoderKind &kind = request.Kind();
  const auto scheduler = [&manifest](const Json &given, const std::string &of) {
    return given.is_object() ? MakeScheduler(given)
                             : MakeScheduler(given.is_null() ? std::string("checkpoint") : given.get<std::string>(), manifest.schedulers.at(of));
  };
  const Json &prior = manifest.defaults.at("prior");
  const Json chosen = request.prior_scheduler.is_null() ? prior.value("scheduler", Json("checkpoint")) : request.prior_scheduler;
  Plans plans;
  plans.prior = SamplingOf(scheduler(chosen, "prior"), *request.prior_num_inference_steps, {*request.prior_guidance_scale}, request.num_images_per_prompt);
  plans.decoder = SamplingOf(scheduler(request.scheduler, kind.kind), *request.num_inference_steps,
                             {*request.guidance_scale, request.guidance_rescale, request.guidance_interval}, request.num_images_per_prompt,
                             request.strength.value_or(1));
  plans.size = PictureSize(request);

  std::vector<const GraphInfo *> graphs = Decoder::Graphs(manifest, kind, plans.decoder, plans.size);
  if (MixesPictures(request)) {
    graphs.push_back(&manifest.Find("image_encoder"));
  }
  for (const char *name : {"text_encoder", "prior_context"}) {
    graphs.push_back(&manifest.Find(name));
  }
  graphs.push_back(&manifest.Find("prior", plans.prior.guidance.On() ? 2 : 1));
  for (const auto &graph : manifest.graphs) {  // in the order of the bundle
    if (std::find(graphs.begin(), graphs.end(), &graph) != graphs.end()) {
      plans.graphs.push_back(&graph);
    }
  }
  const auto [text, context] = TextBytes(*bundle_);
  const auto distinct = static_cast<int64_t>(Distinct(TextsOf(request)).size());
  const int64_t rows = 2 * request.Count() * std::max<int64_t>(static_cast<int64_t>(request.items.size()), 1);
  plans.beside = distinct * text + (std::min(distinct, std::max<int64_t>(3, kMostContexts / context)) + 2) * context +
                 rows * kPriorRowCopies * 4 * bundle_->EmbeddingSize() +
                 Decoder::Beside(manifest, kind, plans.size, static_cast<size_t>(request.Count()), false);
  return plans;
}

Size Session::PictureSize(const Request &request) const {
  return AsSize(*request.height, *request.width, bundle_->manifest().settings.at("movq_scale_factor").get<int64_t>());
}

MemoryPlan Session::Plan(const Request &request) const {
  const Plans plans = PlansOf(request);
  return models_->Plan(plans.graphs, plans.beside);
}

void Session::Make(const Request &request, const Listener &listener) {
  const std::lock_guard<std::mutex> lock(busy_);
  stop_.Check();
  const Plans plans = PlansOf(request);
  const auto source = request.Source();
  std::vector<MixItem> items;
  if (MixesPictures(request)) {
    const ImageProcessor processor(bundle_->manifest().image_processor.is_null() ? Json::object() : bundle_->manifest().image_processor);
    for (const auto &item : request.items) {
      items.push_back({item.text.value_or(""), item.text ? std::vector<float>() : processor(item.Open("an item")).values, item.weight});
    }
  } else {
    for (const auto &item : request.items) {
      items.push_back({*item.text, {}, item.weight});
    }
  }
  Given given = Given::Of(request, bundle_->manifest(), plans.size);
  const MemoryPlan memory = models_->Require(plans.graphs, plans.beside);
  const std::shared_ptr<void> until_the_end(nullptr, [this](void *) { models_->EndRequest(); });
  const Tokenizer &texts = tokenizer();

  const auto count = static_cast<size_t>(request.Count());
  size_t rows = count * (request.negative_prompt ? 2 : 1);  // of the prior
  if (!items.empty()) {
    const bool plain = !request.negative_prior_prompt && (!request.negative_prompt || request.negative_prompt->front().empty());
    const auto runs = static_cast<size_t>(std::count_if(items.begin(), items.end(), [](const MixItem &item) { return item.pixel_values.empty(); }));
    rows = (runs + (plain ? 0 : 1)) * count * (request.negative_prior_prompt ? 2 : 1);
  }
  const auto ticker = [this, &listener](const char *stage, size_t all) {
    return [this, &listener, stage, all, done = size_t{0}](size_t more) mutable {
      done += more;
      listener.progress(stage, done, all);
      stop_.Check();
    };
  };
  Prior prior(models_.get(), texts, plans.prior, ticker("prior", rows * plans.prior.Steps()));
  const std::string negative = request.negative_prompt ? request.negative_prompt->front() : "";
  const std::string *negative_prior = request.negative_prior_prompt ? &*request.negative_prior_prompt : nullptr;
  const ImageEmbeds embeds = items.empty()
                               ? prior.EmbedPrompts(request.prompt, request.negative_prompt ? &*request.negative_prompt : nullptr, source)
                               : prior.Mix(items, negative, negative_prior, source);
  Decoder decoder(models_.get(), request.Kind(), plans.decoder, plans.size, std::move(given), memory.keep_loaded,
                  ticker("decoder", count * (plans.decoder.Steps() - plans.decoder.start)));
  decoder.Make(embeds, source, [&](size_t number, Image &&image) {
    listener.picture(number, std::move(image), request.Alone(static_cast<int64_t>(number)));
    stop_.Check();
  });
}

const Tokenizer &Session::tokenizer() {
  if (!tokenizer_) {
    const Json &given = bundle_->manifest().tokenizer;
    TokenizerOptions options;
    options.max_length = given.at("max_length").get<int>();
    options.pad_token_id = given.at("pad_token_id").get<int64_t>();
    options.eos_token_id = given.at("eos_token_id").get<int64_t>();
    if (given.count("vocab_size") != 0 && !given.at("vocab_size").is_null()) {
      options.vocab_size = given.at("vocab_size").get<int64_t>();
    }
    const std::string path = bundle_->files().File("tokenizer.json");
    try {
      tokenizer_ = std::make_unique<Tokenizer>(path, ReadFile(path, kLargestTokenizer), options);
    } catch (const std::system_error &error) {
      throw UserError(path + " cannot be read (" + error.code().message() + "): " + kExportAgain);
    }
  }
  return *tokenizer_;
}

void Session::Verify(const std::string &part, std::optional<double> tolerance, const std::function<void(const Verdict &)> &tell) {
  const std::lock_guard<std::mutex> lock(busy_);
  Replay(models_.get(), part, tolerance, tell);
}

void Session::Unload() {
  const std::lock_guard<std::mutex> lock(busy_);
  models_->Unload();
  starters_->End();
}

}  // namespace kandinsky
