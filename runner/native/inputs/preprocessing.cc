#include "inputs/preprocessing.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "common/errors.h"

namespace kandinsky {
namespace {

using Json = nlohmann::json;

constexpr char kDefaults[] = R"({
  "do_convert_rgb": true, "do_resize": true, "size": {"shortest_edge": 224}, "default_to_square": false, "resample": 3,
  "do_center_crop": true, "crop_size": {"height": 224, "width": 224}, "do_rescale": true, "rescale_factor": null,
  "do_normalize": true, "image_mean": [0.48145466, 0.4578275, 0.40821073],
  "image_std": [0.26862954, 0.26130258, 0.27577711]})";
const std::set<std::string> kClasses = {"CLIPImageProcessor", "CLIPImageProcessorPil", "CLIPImageProcessorFast",
                                        "CLIPFeatureExtractor"};
const std::set<std::string> kClassKeys = {"image_processor_type", "feature_extractor_type"};
const std::set<std::string> kIgnored = {"processor_class", "data_format", "input_data_format",
                                        "return_tensors",  "device",      "disable_grouping"};
constexpr int kLongest = 200;  // times the shorter side: a longer picture would be blown up to gigabytes, then cropped
constexpr int64_t kMostLength = 4096;

[[noreturn]] void Refuse(const std::string &key, const Json &value, const std::string &hint) {
  throw UserError("the image processor's " + key + " is " + value.dump(-1, ' ', false, Json::error_handler_t::replace) +
                  ": " + hint);
}

// (shortest edge,) or (height, width), from a number, a pair or an object.
std::vector<int64_t> Size(const std::string &key, const Json &value, bool square) {
  std::vector<Json> lengths;
  if (value.is_object()) {
    std::set<std::string> names;
    for (const auto &item : value.items()) {
      if (!item.value().is_null()) names.insert(item.key());
    }
    if (names != std::set<std::string>{"shortest_edge"} && names != std::set<std::string>{"height", "width"}) {
      Refuse(key, value, "it must hold shortest_edge, or height and width");
    }
    for (const std::string &name : names) lengths.push_back(value[name]);
  } else if (value.is_array() && value.size() == 2) {
    lengths = {value[0], value[1]};
  } else {
    lengths.assign(square ? 2 : 1, value);
  }
  std::vector<int64_t> size;
  for (const Json &length : lengths) {
    if (!length.is_number_integer() || length < 1 || length > kMostLength) {
      Refuse(key, value, "lengths must be integers from 1 to " + std::to_string(kMostLength));
    }
    size.push_back(length.get<int64_t>());
  }
  return size;
}

std::array<float, 3> Channels(const std::string &key, const Json &value) {
  const Json numbers = value.is_number() ? Json::array({value, value, value}) : value;
  std::array<float, 3> channels = {};
  bool good = numbers.is_array() && numbers.size() == 3;
  for (size_t i = 0; good && i < 3; ++i) {
    good = numbers[i].is_number();
    if (good) channels[i] = static_cast<float>(numbers[i].get<double>());
    good = good && std::isfinite(channels[i]);
  }
  if (!good) Refuse(key, value, "it must be one number, or three");
  return channels;
}

}  // namespace

ImageProcessor::ImageProcessor(const Json &config) {
  Json options = Json::parse(kDefaults);
  options["rescale_factor"] = 1.0 / 255;
  const Json defaults = options;
  if (!config.is_object()) throw UserError("the image processor's configuration must be a JSON object: check the bundle");
  for (const auto &item : config.items()) {
    const std::string &key = item.key();
    const Json &value = item.value();
    const bool of_class = kClassKeys.count(key) > 0;
    if (of_class && !(value.is_string() && kClasses.count(value.get<std::string>()) > 0)) {
      Refuse(key, value, "known are CLIPImageProcessor and its relatives");
    }
    if (defaults.contains(key)) {
      if (!value.is_null()) options[key] = value;  // transformers writes null for its defaults
    } else if (!of_class && kIgnored.count(key) == 0 && !value.is_null() && value != false) {
      Refuse(key, value, "this program does not know it");
    }
  }
  for (const auto &item : defaults.items()) {
    if (item.value().is_boolean() && !options[item.key()].is_boolean()) {
      Refuse(item.key(), options[item.key()], "it must be true or false");
    }
  }
  const Json &resample = options["resample"], &scale = options["rescale_factor"];
  if (!resample.is_number_integer() || resample < 1 || resample > 5) {
    Refuse("resample", resample, "known are 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box), 5 (hamming)");
  }
  if (!scale.is_number() || !(scale.get<double>() > 0) || !std::isfinite(scale.get<double>())) {
    Refuse("rescale_factor", scale, "it must be a positive number");
  }
  resize_ = options["do_resize"], crop_ = options["do_center_crop"];
  rescale_ = options["do_rescale"], normalize_ = options["do_normalize"];
  size_ = Size("size", options["size"], options["default_to_square"]);
  crop_size_ = Size("crop_size", options["crop_size"], true);
  if (crop_size_.size() != 2) Refuse("crop_size", options["crop_size"], "it needs height and width");
  filter_ = static_cast<Filter>(resample.get<int>());
  scale_ = scale.get<double>();
  mean_ = Channels("image_mean", options["image_mean"]);
  std_ = Channels("image_std", options["image_std"]);
  if (*std::min_element(std_.begin(), std_.end()) <= 0) Refuse("image_std", options["image_std"], "it must be positive");
}

ImageProcessor::Pixels ImageProcessor::operator()(const Image &image) const {
  const int shorter = std::min(image.width, image.height), longer = std::max(image.width, image.height);
  if (shorter < 1 || longer > static_cast<int64_t>(kLongest) * shorter) {
    throw UserError("a picture of " + std::to_string(image.width) + "x" + std::to_string(image.height) +
                    " pixels cannot be used: its sides must not be empty nor differ by more than " +
                    std::to_string(kLongest) + " times");
  }
  int height = image.height, width = image.width;
  if (resize_ && size_.size() == 2) {
    height = static_cast<int>(size_[0]), width = static_cast<int>(size_[1]);
  } else if (resize_) {
    // transformers, get_resize_output_image_size: the longer side in proportion, rounded down
    const auto short_side = static_cast<int>(size_[0]);
    const int long_side = static_cast<int>(static_cast<double>(static_cast<int64_t>(short_side) * longer) / shorter);
    height = image.width <= image.height ? long_side : short_side;
    width = image.width <= image.height ? short_side : long_side;
  }
  const Image resized = height == image.height && width == image.width ? image : Resized(image, width, height, filter_);
  // The middle, with black around it where the picture is smaller. Halves are rounded down, of negative numbers, too.
  Pixels pixels{crop_ ? static_cast<int>(crop_size_[0]) : height, crop_ ? static_cast<int>(crop_size_[1]) : width, {}};
  const int left = (width - pixels.width) >> 1, top = (height - pixels.height) >> 1;
  float table[3][256];
  for (size_t channel = 0; channel < 3; ++channel) {
    for (int level = 0; level < 256; ++level) {
      const auto value = static_cast<float>(rescale_ ? level * scale_ : level);
      table[channel][level] = normalize_ ? (value - mean_[channel]) / std_[channel] : value;
    }
  }
  pixels.values.reserve(size_t{3} * static_cast<size_t>(pixels.height) * static_cast<size_t>(pixels.width));
  for (size_t channel = 0; channel < 3; ++channel) {
    for (int y = top; y < top + pixels.height; ++y) {
      for (int x = left; x < left + pixels.width; ++x) {
        const bool inside = y >= 0 && y < height && x >= 0 && x < width;
        const size_t at = 3 * (static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)) + channel;
        pixels.values.push_back(table[channel][inside ? resized.rgb[at] : 0]);
      }
    }
  }
  return pixels;
}

}  // namespace kandinsky
