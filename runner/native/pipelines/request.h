// A request for pictures: the same value as runner/request.py's, with the same fields in JSON and the same refusals.

#ifndef KANDINSKY_MINDIR_REQUEST_H
#define KANDINSKY_MINDIR_REQUEST_H

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/json.h"
#include "bundle/manifest.h"
#include "diffusion/noise.h"
#include "pipelines/decoder_kinds.h"
#include "pipelines/items.h"

namespace kandinsky {

constexpr double kStrength = 0.3;  // as in the reference
constexpr int64_t kMostImages = 10'000;  // of a prompt in one request

// What to draw. What is not there is left to the bundle's defaults.
struct Request {
  std::string task = "text2image";
  std::vector<std::string> prompt;
  std::vector<Item> items;
  std::optional<std::vector<std::string>> negative_prompt;
  std::optional<std::string> negative_prior_prompt;
  InputPictures image, mask_image, hint;  // one for all prompts, or one for each
  std::optional<double> strength;
  bool paste = false;
  int64_t num_images_per_prompt = 1;
  Json scheduler, prior_scheduler;  // null, a name, or the options of one with `_class_name`
  std::optional<int64_t> num_inference_steps, prior_num_inference_steps, height, width;
  std::optional<double> guidance_scale, prior_guidance_scale;
  double guidance_rescale = 0;
  std::pair<double, double> guidance_interval{0, 1};
  Json seed;  // null or a whole number
  std::string rng = "numpy";
  std::optional<int64_t> row;  // which one of `rows` pictures that are drawn together to make
  int64_t rows = 1;

  // The request in `data`; UserError says `where`, and names the field.
  static Request Of(const Json &data, const std::string &where = "the request: ");
  static Request Parse(const std::string &text, const std::string &where = "the request: ");
  Json ToJson() const;  // fields that are at their defaults are left out

  int64_t Count() const;  // how many pictures it makes
  const DecoderKind &Kind() const;  // of the decoder that makes them
  // The pictures that it brings, by the names of the fields, in order; fields without one are not there.
  std::vector<std::pair<std::string, InputPictures *>> Brought();
  std::vector<std::pair<std::string, const InputPictures *>> Brought() const;
  // The same with what it leaves open: defaults of the bundle, samplers with all their options, and a seed.
  Request Complete(const Manifest &manifest) const;
  Request Alone(int64_t number) const;  // makes that picture of this one again, alone
  std::shared_ptr<NoiseSource> Source() const;  // the same numbers each time; needs a seed

 private:
  void Check() const;
};

}  // namespace kandinsky

#endif
