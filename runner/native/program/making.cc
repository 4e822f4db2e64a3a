#include "program/making.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include <unistd.h>

#include "pictures/delivery.h"
#include "common/errors.h"
#include "common/files.h"
#include "common/machine.h"
#include "common/peak_memory.h"
#include "pictures/recipe.h"
#include "program/recipe_places.h"

namespace kandinsky {

namespace {

// Fields of a request that name pictures, and the options that give them.
constexpr std::pair<const char *, const char *> kBrought[] = {{"image", "--init-image"}, {"mask_image", "--mask"}, {"hint", "--hint"}};

Json SeedOf(const std::string &text) {
  const size_t digits = text.empty() || text[0] != '-' ? 0 : 1;
  const bool number = text.size() > digits && text.find_first_not_of("0123456789", digits) == std::string::npos;
  const Json seed = number ? Json::parse(text, nullptr, false) : Json();
  if (!seed.is_number_integer()) {
    throw UserError("--seed is '" + text + "': it must be a whole number from -2**63 to 2**64 - 1");
  }
  return seed;
}

std::pair<int64_t, int64_t> SizeOf(const std::string &text) {
  long long height = 0, width = 0;
  int end = 0;
  const bool found = text.size() <= 13 && std::sscanf(text.c_str(), "%6lldx%6lld%n", &height, &width, &end) == 2 &&
                     static_cast<size_t>(end) == text.size() && height > 0 && width > 0;
  if (!found) {
    throw UserError("size '" + text + "' is not HEIGHTxWIDTH, for example 512x768");
  }
  return {height, width};
}

// The fields of a request that the command line gives.
Json Fields(const Arguments &arguments, const std::vector<std::string> &prompts, const Json &like) {
  Json fields = Json::object();
  const auto set = [&fields](const char *name, const auto &value) {
    if (value) {
      fields[name] = *value;
    }
  };
  set("num_inference_steps", arguments.steps);
  set("prior_num_inference_steps", arguments.prior_steps);
  set("guidance_scale", arguments.guidance_scale);
  set("prior_guidance_scale", arguments.prior_guidance_scale);
  set("guidance_rescale", arguments.guidance_rescale);
  set("num_images_per_prompt", arguments.pictures);
  set("width", arguments.width);
  set("height", arguments.height);
  set("strength", arguments.strength);
  if (arguments.paste) {
    fields["paste"] = true;
  }
  for (const auto &[name, path] : arguments.brought) {
    fields[name] = {{{"image", PathAsText(path)}}};
  }
  if (!arguments.guidance_interval.empty()) {
    fields["guidance_interval"] = arguments.guidance_interval;
  }
  if (!arguments.scheduler.empty()) {
    fields["scheduler"] = arguments.scheduler;
  }
  if (!arguments.seed.empty()) {
    fields["seed"] = SeedOf(arguments.seed);
  }
  if (!arguments.rng.empty()) {
    fields["rng"] = arguments.rng;
  }
  if (!arguments.size.empty()) {
    std::tie(fields["height"], fields["width"]) = SizeOf(arguments.size);
  }
  if (!prompts.empty()) {
    fields["prompt"] = prompts;
  }
  for (const auto &[text, item] : arguments.items) {
    fields["items"].push_back({{text ? "text" : "image", text ? item.first : PathAsText(item.first)}, {"weight", item.second}});
  }
  if (arguments.has_negative_prior) {
    fields["negative_prior_prompt"] = arguments.negative_prior_prompt;
  }
  Json negative = arguments.has_negative ? Json(arguments.negative_prompt) : Json();
  if (negative.is_null() && like.count("negative_prompt") != 0) {
    negative = like.at("negative_prompt").at(0);
  }
  if (!negative.is_null()) {
    const size_t count = !prompts.empty() ? prompts.size() : like.count("prompt") != 0 ? like.at("prompt").size() : 1;
    fields["negative_prompt"] = std::vector<Json>(arguments.task == "interpolate" ? 1 : count, negative);
  }
  return fields;
}

// `like` with other values. One picture of several stays that picture while it is one; else all are made.
Request Changed(const Json &like, const Json &fields) {
  Json data = like;
  data.erase("row");
  data.erase("rows");
  data.update(fields);
  Request request = Request::Of(data, "");
  if (like.count("row") != 0 && request.Count() == 1) {
    data["row"] = like.at("row");
    data["rows"] = like.at("rows");
    request = Request::Of(data, "");
  }
  return request;
}

// The pictures that a recipe's request names, and the command line does not give, at the places where they are found.
void FindPictures(Json *request, const Recipe &recipe, const Arguments &arguments) {
  const auto find = [&](Json *named, const std::string &option) {
    (*named)["image"] = PathAsText(UsedPicture(*named, recipe, arguments.like, option, arguments.trust));
  };
  if (request->count("items") != 0 && arguments.items.empty()) {
    for (auto &item : request->at("items")) {
      if (item.count("text") == 0) {
        find(&item, "--text and --image");
      }
    }
  }
  for (const auto &[name, option] : kBrought) {
    if (request->count(name) != 0 && arguments.brought.count(name) == 0) {
      for (auto &picture : request->at(name)) {
        find(&picture, option);
      }
    }
  }
}

void ShowProgress(const std::string &stage, size_t done, size_t all) {
  std::fprintf(stderr, "\r%s %zu/%zu%s", stage.c_str(), done, all, done == all ? "\n" : "");
  std::fflush(stderr);
}

}  // namespace

void Make(const Arguments &arguments) {
  const auto started = std::chrono::steady_clock::now();
  PeakMemory memory;
  const std::string verb = arguments.task == "interpolate" ? "interpolate" : "generate";
  std::vector<std::string> prompts = arguments.words;
  std::string place = arguments.model;
  if (place.empty() && !prompts.empty()) {
    place = prompts.front();
    prompts.erase(prompts.begin());
  }
  prompts.insert(prompts.end(), arguments.prompts.begin(), arguments.prompts.end());
  if (arguments.task == "interpolate" && !prompts.empty()) {
    throw UserError("interpolate mixes --text TEXT WEIGHT and --image FILE WEIGHT: '" + prompts.front() + "' is neither");
  }
  std::optional<Recipe> like;
  Json base{{"task", arguments.task}};
  if (!arguments.like.empty()) {
    like = Recipe::Read(arguments.like);
    base = like->request.ToJson();
    if (like->request.task != arguments.task) {
      const std::string other = like->request.task == "interpolate" ? "interpolate" : "generate";
      throw UserError(arguments.like + " was made by " + other + ": use " + kName + " " + other + " --like");
    }
    FindPictures(&base, *like, arguments);
    if (place.empty()) {
      place = BundleOf(*like, arguments.like, arguments.trust);
    }
  } else if (arguments.task == "interpolate" && arguments.items.empty()) {
    throw UserError("nothing to mix: give at least one --text TEXT WEIGHT or --image FILE WEIGHT");
  } else if (place.empty() || (arguments.task != "interpolate" && prompts.empty())) {
    throw UserError(place.empty() ? "there is no BUNDLE: give the folder that kandinsky-mindir export wrote"
                                  : "there is no PROMPT: say what to draw, in words");
  }
  const Request asked = Changed(base, Fields(arguments, prompts, base));
  Session session(place, arguments.engine.Options(like ? like->precision : "float32"));
  StopOnSignals(&session.stop());
  const std::shared_ptr<void> until_the_end(nullptr, [](void *) { StopOnSignals(nullptr); });
  if (like && like->bundle_sha256 != session.bundle().sha256()) {
    SayError("warning: " + place + " is not the bundle that " + arguments.like + " was made with: the picture may differ");
  }
  if (arguments.verify) {
    session.Verify("", std::nullopt, [](const Verdict &verdict) {
      if (!verdict.right()) {
        throw UserError(verdict.Text());
      }
    });
  }
  const Request request = session.Complete(asked);
  if (arguments.plan) {
    const MemoryPlan plan = session.Plan(request);
    const std::string left = MemoryText(static_cast<double>(AvailableMemory()));
    PrintLine(plan.Text() + "\n" + "this machine has" + std::string(left.size() < 29 ? 29 - left.size() : 1, ' ') + left + " left");
    plan.Require(arguments.engine.memory.empty() ? AvailableMemory() + MemoryInUse() : MemoryOf(arguments.engine.memory, "--memory"));
    return;
  }
  Recipe recipe;
  recipe.request = request;
  recipe.bundle = PathAsText(place);
  recipe.bundle_sha256 = session.bundle().sha256();
  recipe.precision = session.precision();
  recipe.beside[recipe.bundle] = RelativeTo(place, arguments.output);
  std::vector<std::string> inputs = arguments.like.empty() ? std::vector<std::string>() : std::vector<std::string>{arguments.like};
  InputPictures pictures(request.items.begin(), request.items.end());
  for (const auto &[name, brought] : request.Brought()) {
    pictures.insert(pictures.end(), brought->begin(), brought->end());
  }
  for (const auto &picture : pictures) {
    if (picture.image) {
      recipe.beside[*picture.image] = RelativeTo(TextAsPath(*picture.image), arguments.output);
      inputs.push_back(TextAsPath(*picture.image));
    }
  }
  Delivery delivery(arguments.output, static_cast<size_t>(request.Count()), arguments.grid || (like && like->grid), session.PictureSize(request));
  recipe.grid = delivery.grid();
  delivery.Check(inputs);
  Listener listener;
  if (!arguments.quiet && isatty(STDERR_FILENO) != 0) {
    listener.progress = ShowProgress;
  }
  listener.picture = [&](size_t number, Image &&image, const Request &alone) {
    if (!recipe.grid) {
      recipe.request = alone;
    }
    if (const auto path = delivery.Take(number, image, recipe.Text())) {
      PrintLine(*path);
    }
  };
  try {
    session.Make(request, listener);
  } catch (...) {
    if (const auto path = delivery.KeepUnfinished()) {
      SayError("warning: " + *path);
    }
    throw;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  char text[64];
  std::snprintf(text, sizeof(text), "%.1f s, peak memory ", seconds);
  std::fprintf(stderr, "%s%s\n", text, MemoryText(static_cast<double>(memory.Peak())).c_str());
}

}  // namespace kandinsky
