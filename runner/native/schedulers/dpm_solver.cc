// DPM-Solver and DPM-Solver++ multistep, as ODE and as SDE solvers (arXiv 2206.00927, 2211.01095): DPM++ 2M and its
// relatives; runner/schedulers/dpm_solver.py and log_snr.py. Coefficients are float64 from the float32 sigmas of the grid.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/errors.h"
#include "schedulers/prediction.h"

namespace kandinsky {
namespace {

bool EndsWithPlusPlus(const std::string &text) { return text.size() > 2 && text.compare(text.size() - 2, 2, "++") == 0; }

// A noise level: the sample is `signal` times the picture plus `noise` times noise; lambda = log(signal / noise).
struct Level {
  double signal, noise, lambda;
};

using Array = std::vector<double>;

class DpmSolverSchedule : public PreciseSchedule {
 public:
  DpmSolverSchedule(std::shared_ptr<const NoiseSchedule> constants, std::vector<double> steps, std::vector<float> sigmas)
      : PreciseSchedule(std::move(constants)),
        sigmas_(std::move(sigmas)),
        algorithm_(constants_->Word("algorithm_type")),
        data_(EndsWithPlusPlus(algorithm_)),
        stochastic_(algorithm_.compare(0, 3, "sde") == 0),
        midpoint_(constants_->Word("solver_type") == "midpoint"),
        order_(constants_->config["solver_order"].get<size_t>()) {
    timesteps = std::move(steps);
  }

  bool TakesNoise(size_t) const override { return stochastic_; }

  std::vector<float> Noised(const std::vector<float> &original, const std::vector<float> &noise,
                            size_t index) const override {
    const Level level = At(index);
    const auto signal = static_cast<float>(level.signal), noise_level = static_cast<float>(level.noise);
    std::vector<float> noised(original.size());
    for (size_t i = 0; i < noised.size(); ++i) noised[i] = 0.0f + signal * original[i] + noise_level * noise[i];
    return noised;
  }

 private:
  Level At(size_t index) const {
    const double sigma = sigmas_[index], signal = 1 / std::sqrt(sigma * sigma + 1);
    return {signal, sigma * signal, sigma != 0 ? -std::log(sigma) : std::numeric_limits<double>::infinity()};
  }

  // The prediction at call `index`: of the picture, or of the noise; with thresholding, that of the thresholded picture.
  Array Predicted(const Array &output, size_t index, const Array &sample, size_t rows) const {
    const Level level = At(index);
    if (!data_ && !prediction_.thresholding()) return prediction_.Noise(output, sample, level.signal, level.noise);
    Array original = prediction_.Original(output, sample, level.signal, level.noise, rows);
    if (data_) return original;
    for (size_t i = 0; i < sample.size(); ++i) original[i] = (sample[i] - level.signal * original[i]) / level.noise;
    return original;
  }

  Array PreciseStep(const Array &output, size_t index, const Shape &shape, const Array &sample, const Draw &noise,
                    SolverState &state) const override {
    state.predictions.insert(state.predictions.begin(), Predicted(output, index, sample, shape.rows));
    if (state.predictions.size() > order_) state.predictions.resize(order_);
    const size_t order = std::min(state.predictions.size(), OrderLimit(index));
    return Advanced(sample, index, Derivatives(state.predictions, order, index), noise, shape);
  }

  // Few steps end in lower orders, and so does a step to no noise at all or to the noise that there is.
  size_t OrderLimit(size_t index) const {
    const size_t count = timesteps.size(), left = count - index;
    const bool few = constants_->Is("lower_order_final") && count < 15;
    const float last = sigmas_.back(), before = sigmas_[sigmas_.size() - 2];
    if (left == 1 && (few || constants_->Is("euler_at_final") || last == 0 || last == before)) return 1;
    return left == 2 && few ? 2 : 3;
  }

  // D0, D1, D2 from divided differences of the predictions at this call and those before it.
  std::vector<Array> Derivatives(const std::vector<Array> &predictions, size_t order, size_t index) const {
    std::vector<Array> derivatives{predictions[0]};
    if (order == 1) return derivatives;
    double lambda[4], ratio[2];
    for (size_t i = 0; i <= order; ++i) lambda[i] = At(index + 1 - i).lambda;
    const double h = lambda[0] - lambda[1];
    for (size_t i = 1; i < order; ++i) ratio[i - 1] = Divided(lambda[i] - lambda[i + 1], h);
    for (size_t i = 0; i + 1 < order; ++i) {
      Array slope(predictions[0].size());
      for (size_t k = 0; k < slope.size(); ++k) slope[k] = (predictions[i][k] - predictions[i + 1][k]) / ratio[i];
      derivatives.push_back(std::move(slope));
    }
    if (order == 2) return derivatives;
    Array &first = derivatives[1], &second = derivatives[2];
    for (size_t k = 0; k < first.size(); ++k) {
      const double bend = (first[k] - second[k]) / (ratio[0] + ratio[1]);
      first[k] = first[k] + ratio[0] * bend;
      second[k] = bend;
    }
    return derivatives;
  }

  // The sample at call `start` + 1. The expansion in u is exact, or takes u as 1/2 (midpoint, for D1 alone). The SDE's
  // integral is the ODE's over twice the distance (`span`), with noise beside it.
  Array Advanced(const Array &sample, size_t start, const std::vector<Array> &derivatives, const Draw &noise,
                 const Shape &shape) const {
    const Level s = At(start), t = At(start + 1);
    const double h = t.lambda - s.lambda;
    double weights[3], scale, keep, spread;
    const size_t order = derivatives.size();
    if (data_) {
      const double span = stochastic_ ? 2 * h : h, rise = -std::expm1(-span);
      weights[0] = rise;
      if (order > 1) weights[1] = 1 - Divided(rise, span);
      if (order > 2) weights[2] = 0.5 - Divided(span - rise, Pow(span, 2));
      scale = t.signal;
      keep = Divided(t.noise, s.noise) * (stochastic_ ? std::exp(-h) : 1);
      spread = t.noise * std::sqrt(std::max(0.0, -std::expm1(-2 * h)));
    } else {
      const double rise = std::expm1(h);
      weights[0] = rise;
      if (order > 1) weights[1] = Divided(rise, h) - 1;
      if (order > 2) weights[2] = Divided(rise - h, Pow(h, 2)) - 0.5;
      scale = -t.noise * (stochastic_ ? 2 : 1);
      keep = Divided(t.signal, s.signal);
      spread = t.noise * std::sqrt(std::max(0.0, std::expm1(2 * h)));
    }
    if (midpoint_ && order == 2) weights[1] = 0.5 * weights[0];
    Array next(sample.size());
    for (size_t i = 0; i < next.size(); ++i) next[i] = 0.0 + keep * sample[i];
    for (size_t k = 0; k < order; ++k) {
      const double weight = scale * weights[k];
      for (size_t i = 0; i < next.size(); ++i) next[i] += weight * derivatives[k][i];
    }
    if (stochastic_) {
      const std::vector<float> drawn = Drawn(noise, shape);
      const auto size = static_cast<float>(spread);
      for (size_t i = 0; i < next.size(); ++i) next[i] += size * drawn[i];  // a float32 product
    }
    return next;
  }

  const std::vector<float> sigmas_;  // one for each timestep, and the final one
  const std::string algorithm_;
  const bool data_, stochastic_, midpoint_;
  const size_t order_;
};

}  // namespace

void CheckDpmSolver(const NoiseSchedule &schedule) {
  const std::string algorithm = schedule.Word("algorithm_type");
  if (!EndsWithPlusPlus(algorithm) && schedule.Word("final_sigmas_type") == "zero") {
    throw UserError(schedule.name + ": algorithm_type " + algorithm +
                    " divides by the final noise level; set final_sigmas_type to \"sigma_min\", or algorithm_type to "
                    "\"dpmsolver++\"");
  }
}

std::unique_ptr<Schedule> PlanDpmSolver(std::shared_ptr<const NoiseSchedule> constants, int64_t steps) {
  const int64_t count = constants->CheckSteps(steps);
  const auto training = TrainingSigmas(constants->alphas_cumprod);
  auto timesteps = constants->CheckTimesteps(SolverTimesteps(*constants, count));
  const std::string grid = ChosenGrid(*constants);
  std::vector<double> levels;
  if (grid.empty()) {
    levels = Interpolated(timesteps, training);
  } else {
    levels = FallingGrid(grid, training.back(), training.front(), count);
    timesteps = TimestepsOf(levels, training);
    // Rounded, or cut, as diffusers does for the exponential grid and cosine betas.
    const bool rounds = grid != "exponential" && constants->Word("beta_schedule") != "squaredcos_cap_v2";
    for (double &timestep : timesteps) timestep = rounds ? std::nearbyint(timestep) : std::trunc(timestep);
  }
  std::vector<float> sigmas(levels.begin(), levels.end());
  for (size_t i = 1; i < sigmas.size(); ++i) {
    if (!(sigmas[i] - sigmas[i - 1] >= 0)) continue;
    throw UserError(constants->name + ": " + std::to_string(count) + " steps are too many for " +
                    std::to_string(constants->train()) +
                    " training timesteps with these options: two steps would have the same noise level");
  }
  sigmas.push_back(constants->Word("final_sigmas_type") == "zero" ? 0.0f : training.front());
  return std::make_unique<DpmSolverSchedule>(std::move(constants), std::move(timesteps), std::move(sigmas));
}

}  // namespace kandinsky
