#include "pipelines/request.h"

#include <algorithm>
#include <functional>
#include <map>

#include "common/errors.h"
#include "common/options.h"
#include "schedulers/schedulers.h"

namespace kandinsky {

namespace {

const std::vector<std::string> kGenerators = {"numpy", "numpy-legacy", "torch"};
const std::vector<std::string> kNeverOpen = {"task", "prompt", "items", "num_images_per_prompt", "guidance_rescale",
                                             "guidance_interval", "rng", "rows", "image", "mask_image", "hint",
                                             "paste"};  // null is no value of these

// Does `act`; what it refuses is said behind `where`.
template <typename Act>
void Prefixed(const std::string &where, const Act &act) {
  try {
    act();
  } catch (const UserError &error) {
    throw UserError(where + error.what());
  }
}

std::string Joined(const std::vector<std::string> &words) {
  std::string text;
  for (const auto &word : words) {
    text += (text.empty() ? "" : ", ") + word;
  }
  return text;
}

Json AsScheduler(const Json &value, const std::string &name) {
  if (!value.is_string() && !value.is_object()) {
    throw UserError(name + " is " + Repr(value) + ": it must be a name, or the options of a scheduler");
  }
  if (value.is_object()) {
    MakeScheduler(value);  // refuses what is none
  }
  return value;
}

Json AsSeed(const Json &value) {
  if (!value.is_number_integer()) {
    throw UserError("seed must be an integer" + std::string(value.is_number() ? " from -2**63 to 2**64 - 1" : "") + ", not " + Repr(value));
  }
  return value;
}

// How the fields are read, by name.
using Reader = std::function<void(Request *, const Json &)>;
const std::map<std::string, Reader> &Readers() {
  static const std::map<std::string, Reader> kReaders = {
    {"task", [](Request *request, const Json &value) { request->task = AsText(value, "task"); }},
    {"prompt", [](Request *request, const Json &value) {
       request->prompt = value.is_array() && value.empty() ? std::vector<std::string>() : AsTexts(value, "prompt"); }},
    {"items", [](Request *request, const Json &value) {
       if (!value.is_array()) {
         throw UserError("items must be a list of texts and pictures with their weights");
       }
       for (const auto &item : value) {
         request->items.push_back(Item::Of(item));
       } }},
    {"negative_prompt", [](Request *request, const Json &value) { request->negative_prompt = AsTexts(value, "negative_prompt"); }},
    {"negative_prior_prompt", [](Request *request, const Json &value) {
       request->negative_prior_prompt = AsText(value, "negative_prior_prompt"); }},
    {"image", [](Request *request, const Json &value) { request->image = PicturesOf(value, "image"); }},
    {"mask_image", [](Request *request, const Json &value) { request->mask_image = PicturesOf(value, "mask_image"); }},
    {"hint", [](Request *request, const Json &value) { request->hint = PicturesOf(value, "hint"); }},
    {"strength", [](Request *request, const Json &value) { request->strength = AsStrength(value, "strength"); }},
    {"paste", [](Request *request, const Json &value) {
       if (!value.is_boolean()) {
         throw UserError("paste is " + Repr(value) + ": it must be True or False");
       }
       request->paste = value.get<bool>(); }},
    {"num_images_per_prompt", [](Request *request, const Json &value) {
       request->num_images_per_prompt = AsCount(value, "num_images_per_prompt", kMostImages); }},
    {"scheduler", [](Request *request, const Json &value) { request->scheduler = AsScheduler(value, "scheduler"); }},
    {"prior_scheduler", [](Request *request, const Json &value) { request->prior_scheduler = AsScheduler(value, "prior_scheduler"); }},
    {"num_inference_steps", [](Request *request, const Json &value) {
       request->num_inference_steps = AsCount(value, "num_inference_steps"); }},
    {"prior_num_inference_steps", [](Request *request, const Json &value) {
       request->prior_num_inference_steps = AsCount(value, "prior_num_inference_steps"); }},
    {"guidance_scale", [](Request *request, const Json &value) { request->guidance_scale = AsGuidanceScale(value, "guidance_scale"); }},
    {"prior_guidance_scale", [](Request *request, const Json &value) {
       request->prior_guidance_scale = AsGuidanceScale(value, "prior_guidance_scale"); }},
    {"guidance_rescale", [](Request *request, const Json &value) { request->guidance_rescale = AsShare(value, "guidance_rescale"); }},
    {"guidance_interval", [](Request *request, const Json &value) {
       request->guidance_interval = AsInterval(value, "guidance_interval"); }},
    {"height", [](Request *request, const Json &value) { request->height = AsPixels(value, "height"); }},
    {"width", [](Request *request, const Json &value) { request->width = AsPixels(value, "width"); }},
    {"seed", [](Request *request, const Json &value) { request->seed = AsSeed(value); }},
    {"rng", [](Request *request, const Json &value) { request->rng = AsText(value, "rng"); }},
    {"row", [](Request *request, const Json &value) {
       if (!value.is_number_integer()) {
         throw UserError("row is " + Repr(value) + ": it must be a whole number");
       }
       request->row = value.get<int64_t>(); }},
    {"rows", [](Request *request, const Json &value) { request->rows = AsCount(value, "rows"); }},
  };
  return kReaders;
}

}  // namespace

Request Request::Of(const Json &data, const std::string &where) {
  if (!data.is_object()) {
    throw UserError(where + "expected an object, got " + Repr(data));
  }
  Request request;
  for (const auto &[name, value] : data.items()) {
    const auto reader = Readers().find(name);
    if (reader != Readers().end()) {
      if (!value.is_null() || std::find(kNeverOpen.begin(), kNeverOpen.end(), name) != kNeverOpen.end()) {
        Prefixed(where, [&, &given = value] { reader->second(&request, given); });
      }
    } else if (name != "cache_interval") {
      throw UserError(where + "the object contains unknown field '" + name + "'");
    } else if (!value.is_null() && value != Json(1)) {
      throw UserError(where + "this program runs the UNet whole in every step: use kandinsky-mindir where a request has cache_interval");
    }
  }
  if (data.count("task") == 0) {
    throw UserError(where + "the object is missing the required field 'task'");
  }
  Prefixed(where, [&request] { request.Check(); });
  return request;
}

Request Request::Parse(const std::string &text, const std::string &where) {
  if (IsTooDeep(text)) {
    throw UserError(where + "it is nested too deeply");
  }
  try {
    return Of(Json::parse(text), where);
  } catch (const Json::exception &error) {
    throw UserError(where + "it is not JSON: " + error.what());
  }
}

void Request::Check() const {
  const bool mixes = task == "interpolate";
  if (!mixes && task != "text2image") {
    throw UserError("task is '" + task + "': choose one of text2image, interpolate");
  }
  if (mixes ? !prompt.empty() : !items.empty()) {
    throw UserError("the task " + task + " takes no " + (mixes ? "prompt" : "items"));
  }
  if (!mixes && negative_prior_prompt) {
    throw UserError("the task " + task + " takes no negative_prior_prompt");
  }
  if (mixes ? items.empty() : prompt.empty()) {
    throw UserError(mixes ? "items is empty: give at least one text or picture" : "prompt is an empty list: give at least one text");
  }
  if (mixes && std::none_of(items.begin(), items.end(), [](const Item &item) { return item.weight != 0; })) {
    throw UserError("weights are all zero: at least one must not be");
  }
  if (negative_prompt && negative_prompt->size() != (mixes ? 1 : prompt.size())) {
    throw UserError(mixes ? "negative_prompt has " + std::to_string(negative_prompt->size()) + " texts: it must be one text, for the whole mix"
                          : "negative_prompt has " + std::to_string(negative_prompt->size()) + " texts and prompt has " +
                              std::to_string(prompt.size()) + ": give one for each");
  }
  for (const auto &[name, pictures] : Brought()) {
    if (pictures->size() != 1 && pictures->size() != std::max<size_t>(prompt.size(), 1)) {
      throw UserError(name + " has " + std::to_string(pictures->size()) + " pictures and prompt has " + std::to_string(prompt.size()) +
                      ": give one or as many");
    }
  }
  const DecoderKind &kind = Kind();
  if (strength && !kind.starts()) {
    throw UserError(image.empty() ? "strength is of a picture to start from: give an image, too"
                                  : "strength has no meaning with a mask: all that it shows is made anew");
  }
  if (paste && !kind.Takes("mask_image")) {
    throw UserError("paste is of a picture and a mask: give them, too");
  }
  if (std::find(kGenerators.begin(), kGenerators.end(), rng) == kGenerators.end()) {
    throw UserError("rng is '" + rng + "': choose one of " + Joined(kGenerators));
  }
  if (!seed.is_null()) {
    MakeGenerator(rng, seed.dump());
  }
  if (row) {
    if (*row < 0 || *row >= rows) {
      throw UserError("row is " + std::to_string(*row) + " of " + std::to_string(rows) + " rows: it must be from 0 to " + std::to_string(rows - 1));
    }
    if (Count() != 1) {
      throw UserError("row is " + std::to_string(*row) + ", which is one picture, and the request is for " + std::to_string(Count()));
    }
  } else if (rows != 1) {
    throw UserError("rows is " + std::to_string(rows) + " without a row: say which of the pictures to make");
  }
}

Json Request::ToJson() const {
  Json data{{"task", task}};
  const auto set = [&data](const char *name, const auto &value) {
    if (value) {
      data[name] = *value;
    }
  };
  if (!prompt.empty()) {
    data["prompt"] = prompt;
  }
  for (const auto &item : items) {
    data["items"].push_back(item.ToJson());
  }
  set("negative_prompt", negative_prompt);
  set("negative_prior_prompt", negative_prior_prompt);
  for (const auto &[name, pictures] : Brought()) {
    for (const auto &picture : *pictures) {
      data[name].push_back(picture.ToJson());
    }
  }
  set("strength", strength);
  if (paste) {
    data["paste"] = true;
  }
  if (num_images_per_prompt != 1) {
    data["num_images_per_prompt"] = num_images_per_prompt;
  }
  for (const auto &[name, value] : {std::pair{"scheduler", &scheduler}, {"prior_scheduler", &prior_scheduler}, {"seed", &seed}}) {
    if (!value->is_null()) {
      data[name] = *value;
    }
  }
  set("num_inference_steps", num_inference_steps);
  set("prior_num_inference_steps", prior_num_inference_steps);
  set("guidance_scale", guidance_scale);
  set("prior_guidance_scale", prior_guidance_scale);
  set("height", height);
  set("width", width);
  if (guidance_rescale != 0) {
    data["guidance_rescale"] = guidance_rescale;
  }
  if (guidance_interval != std::pair<double, double>{0, 1}) {
    data["guidance_interval"] = {guidance_interval.first, guidance_interval.second};
  }
  if (rng != "numpy") {
    data["rng"] = rng;
  }
  if (row) {
    data["row"] = *row;
    data["rows"] = rows;
  }
  return data;
}

int64_t Request::Count() const { return std::max<int64_t>(static_cast<int64_t>(prompt.size()), 1) * num_images_per_prompt; }

const DecoderKind &Request::Kind() const {
  std::vector<std::string> names;
  for (const auto &[name, pictures] : Brought()) {
    names.push_back(name);
  }
  return KindOf(names);
}

std::vector<std::pair<std::string, InputPictures *>> Request::Brought() {
  std::vector<std::pair<std::string, InputPictures *>> brought;
  for (const auto &[name, pictures] : {std::pair{"image", &image}, {"mask_image", &mask_image}, {"hint", &hint}}) {
    if (!pictures->empty()) {
      brought.emplace_back(name, pictures);
    }
  }
  return brought;
}

std::vector<std::pair<std::string, const InputPictures *>> Request::Brought() const {
  const auto brought = const_cast<Request *>(this)->Brought();
  return {brought.begin(), brought.end()};
}

}  // namespace kandinsky
