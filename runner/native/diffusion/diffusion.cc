#include "diffusion/diffusion.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

#include "common/errors.h"

namespace kandinsky {

namespace {

constexpr double kMaxPeriod = 10000;

bool Finite(const std::vector<float> &values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

// The sum as NumPy makes it: halves of halves, down to blocks that eight sums run through (numpy/core/src/umath/
// loops_utils.h.src, pairwise_sum).
template <typename Value>
double PairwiseSum(const Value &value, size_t start, size_t count) {
  constexpr size_t kBlock = 128;
  if (count < 8) {
    double sum = -0.0;
    for (size_t i = 0; i < count; ++i) {
      sum += value(start + i);
    }
    return sum;
  }
  if (count <= kBlock) {
    double sums[8];
    for (size_t k = 0; k < 8; ++k) {
      sums[k] = value(start + k);
    }
    size_t i = 8;
    for (; i < count - count % 8; i += 8) {
      for (size_t k = 0; k < 8; ++k) {
        sums[k] += value(start + i + k);
      }
    }
    double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < count; ++i) {
      sum += value(start + i);
    }
    return sum;
  }
  const size_t half = count / 2 - count / 2 % 8;
  return PairwiseSum(value, start, half) + PairwiseSum(value, start + half, count - half);
}

// The standard deviation in float64, as NumPy computes it: its sum of float32 values goes by buffers of 8192.
double Spread(const float *values, size_t count) {
  constexpr size_t kBuffer = 8192;
  const auto value = [values](size_t i) { return static_cast<double>(values[i]); };
  double total = 0;
  for (size_t start = 0; start < count; start += kBuffer) {
    total += PairwiseSum(value, start, std::min(kBuffer, count - start));
  }
  const double mean = total / static_cast<double>(count);
  const auto square = [values, mean](size_t i) {
    const double distance = static_cast<double>(values[i]) - mean;
    return distance * distance;
  };
  return std::sqrt(PairwiseSum(square, 0, count) / static_cast<double>(count));
}

}  // namespace

bool Guidance::IsOn(size_t index, size_t count) const {
  const double place = static_cast<double>(index) / static_cast<double>(count);
  return On() && interval.first <= place && place < interval.second;
}

std::vector<float> Guidance::Combine(const float *unconditional, const float *conditional, size_t count) const {
  const auto strength = static_cast<float>(scale);
  std::vector<float> guided(count);
  for (size_t i = 0; i < count; ++i) {
    guided[i] = unconditional[i] + strength * (conditional[i] - unconditional[i]);
  }
  if (rescale != 0) {
    const double wanted = Spread(conditional, count), found = Spread(guided.data(), count);
    const auto factor = static_cast<float>(rescale * (found > 0 ? wanted / found : 1.0) + (1 - rescale));
    for (auto &value : guided) {
      value *= factor;
    }
  }
  return guided;
}

std::vector<int64_t> Sampling::Batches() const {
  std::set<int64_t> batches;
  for (size_t index = start; index < Steps(); ++index) {
    batches.insert(guidance.Batch(index, Steps()));
  }
  return {batches.begin(), batches.end()};
}

std::vector<float> TimestepEmbedding(double timestep, int64_t width, const Json &options) {
  const auto half = static_cast<size_t>(width / 2);
  const auto shift = options.at("freq_shift").get<double>();
  const auto least = static_cast<float>(-std::log(kMaxPeriod)), steps = static_cast<float>(static_cast<double>(half) - shift);
  const bool cosines_first = options.at("flip_sin_to_cos").get<bool>();
  std::vector<float> embedding(static_cast<size_t>(width), 0.0F);
  for (size_t i = 0; i < half; ++i) {
    const float exponent = least * static_cast<float>(i) / steps;
    const auto frequency = static_cast<float>(std::exp(static_cast<double>(exponent)));
    const double angle = static_cast<float>(timestep) * frequency;
    embedding[cosines_first ? i : half + i] = static_cast<float>(std::cos(angle));
    embedding[cosines_first ? half + i : i] = static_cast<float>(std::sin(angle));
  }
  return embedding;
}

void RequireFinite(const std::string &graph, const std::vector<std::vector<float>> &outputs) {
  if (!std::all_of(outputs.begin(), outputs.end(), Finite)) {
    throw UserError(graph + ": it computed values that are not finite: check the bundle with kandinsky verify");
  }
}

std::vector<float> InitialLatents(const Schedule &schedule, NoiseSource *source, size_t rows, size_t size) {
  std::vector<float> latents = source->Draw(rows, size);
  const auto scale = static_cast<float>(schedule.init_noise_sigma);
  for (auto &value : latents) {
    value *= scale;
  }
  return latents;
}

void Diffuse(const Sampling &sampling, const Shape &shape, std::vector<float> *latents, const Predict &predict,
             NoiseSource *source, const std::string &name, const std::function<void()> &after) {
  const Schedule &schedule = *sampling.schedule;
  SolverState state;
  const Draw draw = [source, &shape](float *out, size_t count) {
    const std::vector<float> noise = source->Draw(shape.rows, count / shape.rows);
    std::copy(noise.begin(), noise.end(), out);
  };
  for (size_t index = sampling.start; index < sampling.Steps(); ++index) {
    const std::vector<float> output = predict(schedule.ScaleModelInput(*latents, index), index);
    try {
      schedule.Step(output, index, shape, *latents, draw, state);
    } catch (const std::domain_error &error) {  // betas of zero make noise levels of zero
      throw UserError(name + ": step " + std::to_string(index + 1) + " of " + std::to_string(sampling.Steps()) +
                      " cannot be computed (" + error.what() + "): check the scheduler's betas");
    }
    if (!Finite(output) || !Finite(*latents)) {  // clipping would hide an infinite output
      throw UserError(name + ": values that are not finite after step " + std::to_string(index + 1) + " of " +
                      std::to_string(sampling.Steps()) + " (timestep " + Short(schedule.timesteps[index]) +
                      "): try a lower guidance scale, or check the bundle");
    }
    after();
  }
}

}  // namespace kandinsky
