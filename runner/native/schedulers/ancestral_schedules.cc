// DDPM (arXiv 2006.11239, algorithm 2), DDIM (arXiv 2010.02502, eq. 12 and 16) and unCLIP (arXiv 2204.06125), in float32:
// ddpm.py, ddim.py and unclip.py of runner/schedulers.
#include <cmath>

#include "common/errors.h"
#include "schedulers/prediction.h"

namespace kandinsky {
namespace {

// exp of half the predicted log variance, `predicted` from -1 to 1 moving it from `log_small` to `log_large`.
float LearnedRangeDeviation(float predicted, float log_small, float log_large) {
  const float fraction = (predicted + 1.0f) / 2.0f;
  return Exp(0.5f * (fraction * log_large + (1.0f - fraction) * log_small));
}

// DDPM and unCLIP: the posterior's mean (arXiv 2006.11239, eq. 7) and noise of its variance.
class AncestralSchedule : public BaseSchedule {
 public:
  explicit AncestralSchedule(std::shared_ptr<const NoiseSchedule> constants)
      : BaseSchedule(std::move(constants)),
        prediction_(*constants_),
        variance_type_(constants_->Word("variance_type")),
        learned_(variance_type_ == "learned" || variance_type_ == "learned_range") {}

 protected:
  // The prediction of a model's output, and its variance half if it has one.
  std::vector<float> Half(const std::vector<float> &output, const Shape &shape, std::vector<float> *variance) const {
    if (!learned_) {
      CheckCount(output, shape);
      return output;
    }
    if (output.size() != 2 * shape.count()) {
      throw UserError("the model gives " +
                      std::to_string(output.size() * shape.channels / std::max<size_t>(1, shape.count())) +
                      " channels, but variance_type learned or learned_range needs " + std::to_string(2 * shape.channels) +
                      ": set variance_type to fixed_small");
    }
    const size_t half = shape.channels * shape.size;
    std::vector<float> prediction;
    for (size_t row = 0; row < shape.rows; ++row) {
      const auto start = output.begin() + static_cast<ptrdiff_t>(2 * row * half);
      prediction.insert(prediction.end(), start, start + static_cast<ptrdiff_t>(half));
      variance->insert(variance->end(), start + static_cast<ptrdiff_t>(half), start + static_cast<ptrdiff_t>(2 * half));
    }
    return prediction;
  }

  const Prediction<float> prediction_;
  const std::string variance_type_;
  const bool learned_;
};

class DdpmSchedule : public AncestralSchedule {
 public:
  using AncestralSchedule::AncestralSchedule;

  bool TakesNoise(size_t index) const override { return timesteps[index] != 0; }

  void Step(const std::vector<float> &model_output, size_t index, const Shape &shape, std::vector<float> &sample,
            const Draw &noise, SolverState &) const override {
    std::vector<float> predicted;
    const std::vector<float> output = Half(model_output, shape, &predicted);
    const int64_t previous = NextTimestep(index);
    const float alpha_bar = AlphaBar(static_cast<int64_t>(timesteps[index]));
    const float alpha_bar_previous = previous >= 0 ? AlphaBar(previous) : 1.0f;
    const float alpha = alpha_bar / alpha_bar_previous, beta = 1.0f - alpha;
    const auto original =
        prediction_.Original(output, sample, std::sqrt(alpha_bar), std::sqrt(1.0f - alpha_bar), shape.rows);
    const float original_weight = std::sqrt(alpha_bar_previous) * beta / (1.0f - alpha_bar);
    const float sample_weight = std::sqrt(alpha) * (1.0f - alpha_bar_previous) / (1.0f - alpha_bar);
    for (size_t i = 0; i < sample.size(); ++i) sample[i] = original_weight * original[i] + sample_weight * sample[i];
    if (timesteps[index] == 0) return;
    // The two variances of section 3.2: eq. 7, and beta itself.
    float small = (1.0f - alpha_bar_previous) / (1.0f - alpha_bar) * beta;
    if (small < 1e-20f) small = 1e-20f;
    const std::vector<float> drawn = Drawn(noise, shape);
    const float fixed = learned_ ? 0.0f : FixedDeviation(small, beta), log_small = Log(small), log_large = Log(beta);
    for (size_t i = 0; i < sample.size(); ++i) {
      const float deviation = !learned_                     ? fixed
                              : variance_type_ == "learned" ? std::sqrt(predicted[i])
                                                            : LearnedRangeDeviation(predicted[i], log_small, log_large);
      sample[i] = sample[i] + deviation * drawn[i];
    }
  }

 private:
  float FixedDeviation(float small, float large) const {
    if (variance_type_ == "fixed_small") return std::sqrt(small);
    if (variance_type_ == "fixed_small_log") return Exp(0.5f * Log(small));
    return std::sqrt(large);  // fixed_large; and fixed_large_log, for which diffusers makes NaN
  }
};

class UnclipSchedule : public AncestralSchedule {
 public:
  using AncestralSchedule::AncestralSchedule;

  bool TakesNoise(size_t index) const override { return NextTimestep(index) >= 0; }

  void Step(const std::vector<float> &model_output, size_t index, const Shape &shape, std::vector<float> &sample,
            const Draw &noise, SolverState &) const override {
    std::vector<float> predicted;
    const std::vector<float> output = Half(model_output, shape, &predicted);
    const auto timestep = static_cast<int64_t>(timesteps[index]);
    const int64_t previous = NextTimestep(index);
    const float alpha_bar = AlphaBar(timestep), alpha_bar_previous = previous >= 0 ? AlphaBar(previous) : 1.0f;
    const float beta =
        previous == timestep - 1 ? constants_->betas[static_cast<size_t>(timestep)] : 1.0f - alpha_bar / alpha_bar_previous;
    const auto original =
        prediction_.Original(output, sample, std::sqrt(alpha_bar), std::sqrt(1.0f - alpha_bar), shape.rows);
    const float original_weight = std::sqrt(alpha_bar_previous) * beta / (1.0f - alpha_bar);
    const float sample_weight = std::sqrt(1.0f - beta) * (1.0f - alpha_bar_previous) / (1.0f - alpha_bar);
    for (size_t i = 0; i < sample.size(); ++i) sample[i] = original_weight * original[i] + sample_weight * sample[i];
    if (previous < 0) return;
    const float log_small = Log((1.0f - alpha_bar_previous) / (1.0f - alpha_bar) * beta), log_large = Log(beta);
    const float fixed = Exp(0.5f * log_small);
    const std::vector<float> drawn = Drawn(noise, shape);
    for (size_t i = 0; i < sample.size(); ++i) {
      sample[i] = sample[i] + (learned_ ? LearnedRangeDeviation(predicted[i], log_small, log_large) : fixed) * drawn[i];
    }
  }
};

class DdimSchedule : public BaseSchedule {
 public:
  DdimSchedule(std::shared_ptr<const NoiseSchedule> constants, int64_t stride)
      : BaseSchedule(std::move(constants)),
        prediction_(*constants_),
        stride_(stride),
        eta_(constants_->Number("eta")),
        final_(constants_->Is("set_alpha_to_one") ? 1.0f : AlphaBar(0)),
        clips_output_(constants_->Is("use_clipped_model_output")) {}

  bool TakesNoise(size_t) const override { return eta_ > 0; }

  void Step(const std::vector<float> &output, size_t index, const Shape &shape, std::vector<float> &sample,
            const Draw &noise, SolverState &) const override {
    CheckCount(output, shape);
    const auto timestep = static_cast<int64_t>(timesteps[index]), previous = timestep - stride_;
    const float alpha = AlphaBar(timestep), alpha_previous = previous >= 0 ? AlphaBar(previous) : final_;
    const float signal = std::sqrt(alpha), noise_level = std::sqrt(1.0f - alpha);
    const auto original = prediction_.Original(output, sample, signal, noise_level, shape.rows);
    std::vector<float> epsilon(sample.size());
    if (clips_output_) {
      for (size_t i = 0; i < sample.size(); ++i) epsilon[i] = (sample[i] - signal * original[i]) / noise_level;
    } else {
      epsilon = prediction_.Noise(output, sample, signal, noise_level);
    }
    const float variance = (1.0f - alpha_previous) / (1.0f - alpha) * (1.0f - alpha / alpha_previous);  // eq. 16
    const float deviation = static_cast<float>(eta_) * std::sqrt(variance);
    // Eq. 12: the predicted picture, the direction that points to the sample, fresh noise.
    const float first = std::sqrt(alpha_previous), second = std::sqrt(1.0f - alpha_previous - deviation * deviation);
    for (size_t i = 0; i < sample.size(); ++i) sample[i] = first * original[i] + second * epsilon[i];
    if (!(eta_ > 0)) return;
    const std::vector<float> drawn = Drawn(noise, shape);
    for (size_t i = 0; i < sample.size(); ++i) sample[i] = sample[i] + deviation * drawn[i];
  }

 private:
  const Prediction<float> prediction_;
  const int64_t stride_;
  const double eta_;
  const float final_;
  const bool clips_output_;
};

}  // namespace

std::unique_ptr<Schedule> PlanDdpm(std::shared_ptr<const NoiseSchedule> constants, int64_t steps) {
  auto timesteps = constants->CheckTimesteps(SpacedTimesteps(*constants, constants->CheckSteps(steps)));
  auto schedule = std::make_unique<DdpmSchedule>(std::move(constants));
  schedule->timesteps = std::move(timesteps);
  return schedule;
}

std::unique_ptr<Schedule> PlanDdim(std::shared_ptr<const NoiseSchedule> constants, int64_t steps) {
  auto timesteps = constants->CheckTimesteps(SpacedTimesteps(*constants, constants->CheckSteps(steps)));
  const int64_t stride = constants->train() / steps;
  auto schedule = std::make_unique<DdimSchedule>(std::move(constants), stride);
  schedule->timesteps = std::move(timesteps);
  return schedule;
}

std::unique_ptr<Schedule> PlanUnclip(std::shared_ptr<const NoiseSchedule> constants, int64_t steps) {
  const auto last = static_cast<double>(constants->train() - 1);
  constants->CheckSteps(steps);
  auto schedule = std::make_unique<UnclipSchedule>(std::move(constants));
  if (steps == 1) schedule->timesteps = {last};
  for (int64_t i = steps - 1; steps > 1 && i >= 0; --i) {
    schedule->timesteps.push_back(std::nearbyint(static_cast<double>(i) * (last / static_cast<double>(steps - 1))));
  }
  return schedule;
}

}  // namespace kandinsky
