// The denoising loop, guidance and the embedding of timesteps (runner/diffusion/).

#ifndef KANDINSKY_MINDIR_DIFFUSION_H
#define KANDINSKY_MINDIR_DIFFUSION_H

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/json.h"
#include "diffusion/noise.h"
#include "schedulers/schedulers.h"

namespace kandinsky {

// Classifier-free guidance: how strong, and at which share of the steps (runner/diffusion/guidance.py).
struct Guidance {
  double scale = 1, rescale = 0;
  std::pair<double, double> interval{0, 1};

  bool On() const { return scale > 1; }
  bool IsOn(size_t index, size_t count) const;
  int64_t Batch(size_t index, size_t count) const { return IsOn(index, count) ? 2 : 1; }
  // The guided prediction of one row of `count` values: Ho & Salimans (2022); rescaled: Lin et al. (2023), section 3.4.
  std::vector<float> Combine(const float *unconditional, const float *conditional, size_t count) const;
};

// What a diffusion runs, once its options are checked. start: the number of the first call of the model that is made.
struct Sampling {
  std::unique_ptr<Schedule> schedule;
  bool learned_variance = false;
  Guidance guidance;
  size_t images = 1, start = 0;  // images: of each prompt

  size_t Steps() const { return schedule->timesteps.size(); }
  std::vector<int64_t> Batches() const;  // that these steps run, ascending
};

// The embedding of one timestep, `width` values. options: flip_sin_to_cos, freq_shift (runner/diffusion/sinusoid.py).
std::vector<float> TimestepEmbedding(double timestep, int64_t width, const Json &options);

// Throws UserError that names `graph` unless all values are finite.
void RequireFinite(const std::string &graph, const std::vector<std::vector<float>> &outputs);

using Predict = std::function<std::vector<float>(const std::vector<float> &latents, size_t index)>;

// A first draw of (rows, size), times the schedule's initial scale.
std::vector<float> InitialLatents(const Schedule &schedule, NoiseSource *source, size_t rows, size_t size);

// Denoises `latents`, which have `shape`, along the schedule. predict: (scaled latents, index) -> model output. source: where
// the steps' noise is drawn. name: what errors call it. after: called after each step. UserError where numbers stop being finite.
void Diffuse(const Sampling &sampling, const Shape &shape, std::vector<float> *latents, const Predict &predict,
             NoiseSource *source, const std::string &name, const std::function<void()> &after);

}  // namespace kandinsky

#endif
