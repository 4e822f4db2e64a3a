// Requests as a bundle completes them, and the request of each of their pictures alone.

#include <random>
#include <type_traits>

#include "diffusion/generators.h"
#include "pipelines/request.h"
#include "schedulers/schedulers.h"

namespace kandinsky {

Request Request::Complete(const Manifest &manifest) const {
  const auto sampler = [&manifest](const Json &given, const std::string &of) {
    return given.is_object() ? MakeScheduler(given) : MakeScheduler(given.get<std::string>(), manifest.schedulers.at(of));
  };
  const std::string &kind = Kind().kind;
  const Json &decoder = manifest.defaults.at(kind), &prior = manifest.defaults.at("prior");
  Request whole = *this;
  whole.scheduler = sampler(scheduler.is_null() ? decoder.at("scheduler") : scheduler, kind)->Describe();
  if (!prior_scheduler.is_null()) {
    whole.prior_scheduler = sampler(prior_scheduler, "prior")->Describe();
  }
  const auto fill = [](auto *field, const Json &value) {
    if (!*field) {
      *field = value.get<typename std::decay_t<decltype(*field)>::value_type>();
    }
  };
  fill(&whole.num_inference_steps, decoder.at("num_inference_steps"));
  fill(&whole.guidance_scale, decoder.at("guidance_scale"));
  fill(&whole.prior_num_inference_steps, prior.at("num_inference_steps"));
  fill(&whole.prior_guidance_scale, prior.at("guidance_scale"));
  fill(&whole.height, decoder.at("height"));
  fill(&whole.width, decoder.at("width"));
  if (!whole.strength && Kind().starts()) {
    whole.strength = kStrength;
  }
  if (whole.seed.is_null()) {
    whole.seed = std::random_device()();  // 32 bits: what every kind of generator takes
  }
  return whole;
}

Request Request::Alone(int64_t number) const {
  if (Count() == 1) {
    return *this;
  }
  const auto text = static_cast<size_t>(number / num_images_per_prompt);
  Request alone = *this;
  alone.num_images_per_prompt = 1;
  alone.row = number;
  alone.rows = Count();
  if (!prompt.empty()) {
    alone.prompt = {prompt[text]};
    if (negative_prompt) {
      alone.negative_prompt = {{(*negative_prompt)[text]}};
    }
  }
  for (const auto &[name, pictures] : alone.Brought()) {
    if (pictures->size() > 1) {
      *pictures = {(*pictures)[text]};
    }
  }
  return alone;
}

std::shared_ptr<NoiseSource> Request::Source() const {
  auto source = SourceOf(MakeGenerator(rng, seed.dump()));
  const auto number = static_cast<size_t>(row.value_or(0));
  return row ? RowsOfBatch(std::move(source), number, number + 1, static_cast<size_t>(rows)) : source;
}

}  // namespace kandinsky
