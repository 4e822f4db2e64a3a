// Euler and Euler ancestral in sigma: arXiv 2206.00364 (algorithm 2 with first-order steps), and k-diffusion's ancestral
// steps; runner/schedulers/euler.py. Samples are the picture plus sigma times noise.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "schedulers/prediction.h"

namespace kandinsky {
namespace {

class SigmaSchedule : public PreciseSchedule {
 public:
  SigmaSchedule(std::shared_ptr<const NoiseSchedule> constants, std::vector<double> steps, std::vector<float> sigmas)
      : PreciseSchedule(std::move(constants)), sigmas_(std::move(sigmas)) {
    timesteps = std::move(steps);
    const double largest = *std::max_element(sigmas_.begin(), sigmas_.end());
    const bool leading = constants_->Word("timestep_spacing") == "leading";
    init_noise_sigma = leading ? std::sqrt(Pow(largest, 2) + 1) : largest;
  }

  std::vector<float> ScaleModelInput(const std::vector<float> &sample, size_t index) const override {
    const auto signal = static_cast<float>(Signal(sigmas_[index]));
    std::vector<float> scaled(sample.size());
    for (size_t i = 0; i < sample.size(); ++i) scaled[i] = sample[i] * signal;
    return scaled;
  }

  std::vector<float> Noised(const std::vector<float> &original, const std::vector<float> &noise,
                            size_t index) const override {
    std::vector<float> noised(original.size());
    for (size_t i = 0; i < noised.size(); ++i) noised[i] = original[i] + sigmas_[index] * noise[i];
    return noised;
  }

 protected:
  static double Signal(double sigma) { return 1 / std::sqrt(sigma * sigma + 1); }

  // (sample - the predicted picture at noise level `level`) / divisor
  std::vector<double> Derivative(const std::vector<double> &output, const std::vector<double> &sample, double level,
                                 double divisor, size_t rows) const {
    const double signal = Signal(level);
    std::vector<double> scaled(sample.size());
    for (size_t i = 0; i < sample.size(); ++i) scaled[i] = signal * sample[i];
    std::vector<double> derivative = prediction_.Original(output, scaled, signal, signal * level, rows);
    for (size_t i = 0; i < sample.size(); ++i) derivative[i] = (sample[i] - derivative[i]) / divisor;
    return derivative;
  }

  const std::vector<float> sigmas_;  // one for each timestep, and the final one
};

class EulerSchedule : public SigmaSchedule {
 public:
  using SigmaSchedule::SigmaSchedule;

  bool TakesNoise(size_t index) const override { return Gamma(index) > 0; }

 private:
  double Gamma(size_t index) const {
    const double sigma = sigmas_[index];
    if (!(constants_->Number("s_tmin") <= sigma && sigma <= constants_->Number("s_tmax"))) return 0;
    return std::min(constants_->Number("s_churn") / static_cast<double>(sigmas_.size() - 1), std::sqrt(2.0) - 1);
  }

  std::vector<double> PreciseStep(const std::vector<double> &output, size_t index, const Shape &shape,
                                  const std::vector<double> &given, const Draw &noise, SolverState &) const override {
    const double sigma = sigmas_[index], gamma = Gamma(index), raised = sigma * (gamma + 1);
    std::vector<double> sample = given;
    if (gamma > 0) {
      const auto scale = static_cast<float>(constants_->Number("s_noise") * std::sqrt(Pow(raised, 2) - Pow(sigma, 2)));
      const std::vector<float> drawn = Drawn(noise, shape);
      for (size_t i = 0; i < sample.size(); ++i) sample[i] += scale * drawn[i];  // a float32 product
    }
    // As diffusers, which takes the raised noise level for a predicted noise alone.
    const double level = constants_->Word("prediction_type") == "epsilon" ? raised : sigma;
    const auto derivative = Derivative(output, sample, level, raised, shape.rows);
    const double step = static_cast<double>(sigmas_[index + 1]) - raised;
    for (size_t i = 0; i < sample.size(); ++i) sample[i] = sample[i] + step * derivative[i];
    return sample;
  }
};

class EulerAncestralSchedule : public SigmaSchedule {
 public:
  using SigmaSchedule::SigmaSchedule;

  bool TakesNoise(size_t) const override { return true; }

 private:
  std::vector<double> PreciseStep(const std::vector<double> &output, size_t index, const Shape &shape,
                                  const std::vector<double> &given, const Draw &noise, SolverState &) const override {
    const double sigma = sigmas_[index], following = sigmas_[index + 1];
    if (following > sigma) throw std::domain_error("the noise levels rise");  // odd betas, rescaled
    // What noise puts back of `following`.
    const auto up = static_cast<float>(Divided(following * std::sqrt(Pow(sigma, 2) - Pow(following, 2)), sigma));
    const double step = Divided(Pow(following, 2), sigma) - sigma;
    const auto derivative = Derivative(output, given, sigma, sigma, shape.rows);
    const std::vector<float> drawn = Drawn(noise, shape);
    std::vector<double> sample = given;
    for (size_t i = 0; i < sample.size(); ++i) sample[i] = sample[i] + step * derivative[i] + up * drawn[i];
    return sample;
  }
};

// float32 timesteps and float64 sigmas of `count` model calls.
void TimestepsAndSigmas(const NoiseSchedule &constants, int64_t count, std::vector<double> *timesteps,
                        std::vector<double> *sigmas) {
  const auto training = TrainingSigmas(constants.alphas_cumprod);
  if (constants.Word("timestep_spacing") == "linspace") {  // not rounded: the model takes fractional timesteps
    *timesteps = NumpyLinearSpace(0, static_cast<double>(constants.train() - 1), count);
    std::reverse(timesteps->begin(), timesteps->end());
  } else {
    *timesteps = constants.CheckTimesteps(SpacedTimesteps(constants, count));
  }
  for (double &timestep : *timesteps) timestep = static_cast<float>(timestep);
  *sigmas = Interpolated(*timesteps, training);
  if (constants.Word("interpolation_type") == "log_linear") {
    const auto logarithms = LinearSpace(NumpyLog(training.back()), NumpyLog(training.front()), count + 1);
    sigmas->clear();
    for (const float value : logarithms) sigmas->push_back(Exp(value));
  }
  const std::string grid = ChosenGrid(constants);
  if (grid.empty()) return;
  const auto end = [&](const char *option, double otherwise) {
    const auto found = constants.config.find(option);
    return found == constants.config.end() || found->is_null() ? otherwise : found->get<double>();
  };
  *sigmas = FallingGrid(grid, end("sigma_max", sigmas->front()), end("sigma_min", sigmas->back()), count);
  *timesteps = TimestepsOf(*sigmas, training);
  for (double &timestep : *timesteps) timestep = static_cast<float>(timestep);
}

std::vector<float> Rounded(const std::vector<double> &sigmas, float final) {
  std::vector<float> rounded(sigmas.begin(), sigmas.end());
  rounded.push_back(final);
  return rounded;
}

}  // namespace

std::unique_ptr<Schedule> PlanEuler(std::shared_ptr<const NoiseSchedule> constants, int64_t steps) {
  std::vector<double> timesteps, sigmas;
  TimestepsAndSigmas(*constants, constants->CheckSteps(steps), &timesteps, &sigmas);
  const bool to_zero = constants->Word("final_sigmas_type") == "zero";
  const auto levels = Rounded(sigmas, to_zero ? 0.0f : TrainingSigmas(constants->alphas_cumprod).front());
  if (constants->Word("timestep_type") == "continuous" && constants->Word("prediction_type") == "v_prediction") {
    timesteps.resize(levels.size() - 1);
    for (size_t i = 0; i < timesteps.size(); ++i) {
      timesteps[i] = static_cast<float>(0.25 * std::log(static_cast<double>(levels[i])));
    }
  }
  return std::make_unique<EulerSchedule>(std::move(constants), std::move(timesteps), levels);
}

std::unique_ptr<Schedule> PlanEulerAncestral(std::shared_ptr<const NoiseSchedule> constants, int64_t steps) {
  std::vector<double> timesteps, sigmas;
  TimestepsAndSigmas(*constants, constants->CheckSteps(steps), &timesteps, &sigmas);
  return std::make_unique<EulerAncestralSchedule>(std::move(constants), std::move(timesteps), Rounded(sigmas, 0.0f));
}

}  // namespace kandinsky
