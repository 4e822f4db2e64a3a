// Timesteps of a run, and the noise levels at them: sigma = sqrt((1 - alpha_bar) / alpha_bar).
#include <limits>

#include "common/errors.h"
#include "schedulers/scheduler_formulas.h"

namespace kandinsky {

std::vector<double> SpacedTimesteps(const NoiseSchedule &schedule, int64_t count) {
  const int64_t train = schedule.train();
  const std::string spacing = schedule.Word("timestep_spacing");
  if (spacing == "trailing") return TrailingTimesteps(train, static_cast<double>(train) / static_cast<double>(count));
  std::vector<double> timesteps(count);
  if (spacing == "linspace") {
    timesteps = NumpyLinearSpace(0, static_cast<double>(train - 1), count);
    for (double &timestep : timesteps) timestep = std::nearbyint(timestep);
  } else {
    const auto offset = schedule.config["steps_offset"].get<int64_t>();
    for (int64_t i = 0; i < count; ++i) timesteps[i] = static_cast<double>(i * (train / count) + offset);
  }
  std::reverse(timesteps.begin(), timesteps.end());
  return timesteps;
}

// np.arange takes the step from its first two numbers; without the -1 that diffusers' rounding can add.
std::vector<double> TrailingTimesteps(int64_t last, double stride) {
  const auto start = static_cast<double>(last), second = start - stride;
  const auto count = static_cast<int64_t>(std::ceil((0.0 - start) / -stride));
  std::vector<double> timesteps;
  for (int64_t i = 0; i < count; ++i) {
    const double value = i == 0 ? start : i == 1 ? second : start + static_cast<double>(i) * (second - start);
    const double timestep = std::nearbyint(value) - 1;
    if (timestep >= 0) timesteps.push_back(timestep);
  }
  return timesteps;
}

std::vector<double> SolverTimesteps(const NoiseSchedule &schedule, int64_t count) {
  std::vector<float> rising;  // half log-SNR, from the noisiest timestep
  for (auto alpha = schedule.alphas_cumprod.rbegin(); alpha != schedule.alphas_cumprod.rend(); ++alpha) {
    rising.push_back(Log(std::sqrt(*alpha)) - Log(std::sqrt(1.0f - *alpha)));
  }
  const auto clip = static_cast<float>(schedule.Number("lambda_min_clipped"));
  const int64_t last = schedule.train() - (std::lower_bound(rising.begin(), rising.end(), clip) - rising.begin());
  const std::string spacing = schedule.Word("timestep_spacing");
  if (last < 1) throw UserError(schedule.name + ": lambda_min_clipped leaves no timesteps: lower it");
  if (spacing == "trailing") {
    return TrailingTimesteps(last, static_cast<double>(schedule.train()) / static_cast<double>(count));
  }
  std::vector<double> timesteps(count + 1);  // the last one is the end, and no call of the model
  if (spacing == "linspace") {
    timesteps = NumpyLinearSpace(0, static_cast<double>(last - 1), count + 1);
    for (double &timestep : timesteps) timestep = std::nearbyint(timestep);
  } else {
    const auto offset = schedule.config["steps_offset"].get<int64_t>();
    for (int64_t i = 0; i <= count; ++i) timesteps[i] = static_cast<double>(i * (last / (count + 1)) + offset);
  }
  std::reverse(timesteps.begin(), timesteps.end());
  timesteps.pop_back();
  return timesteps;
}

std::vector<float> TrainingSigmas(const std::vector<float> &alphas_cumprod) {
  std::vector<float> sigmas;
  for (const float alpha : alphas_cumprod) sigmas.push_back(std::sqrt((1.0f - alpha) / alpha));
  return sigmas;
}

std::string ChosenGrid(const NoiseSchedule &schedule) {
  const bool karras = schedule.Is("use_karras_sigmas"), exponential = schedule.Is("use_exponential_sigmas");
  if (karras && exponential) {
    throw UserError(schedule.name + ": use_karras_sigmas and use_exponential_sigmas exclude each other");
  }
  return karras ? "karras" : exponential ? "exponential" : "";
}

// karras: arXiv 2206.00364, eq. 5, rho 7. exponential: evenly spaced logarithms.
std::vector<double> FallingGrid(const std::string &grid, double high, double low, int64_t count) {
  if (grid == "exponential") {
    std::vector<double> sigmas = NumpyLinearSpace(std::log(high), std::log(low), count);
    for (double &sigma : sigmas) sigma = std::exp(sigma);
    return sigmas;
  }
  const double seventh = 1.0 / 7, first = Pow(high, seventh), rise = Pow(low, seventh) - first;
  std::vector<double> sigmas = NumpyLinearSpace(0, 1, count);
  for (double &sigma : sigmas) sigma = Pow(first + sigma * rise, 7);
  return sigmas;
}

std::vector<double> TimestepsOf(const std::vector<double> &sigmas, const std::vector<float> &training) {
  if (training.size() < 2) throw UserError("a grid of noise levels needs two training timesteps at least");
  std::vector<float> levels;
  for (const float sigma : training) levels.push_back(NumpyLog(sigma));
  std::vector<double> timesteps;
  for (const double sigma : sigmas) {
    const double wanted = std::log(std::max(sigma, 1e-10));
    // The last level at or below; not a binary search, as rescaling to zero terminal SNR can leave the last one lower.
    const auto found = std::find_if(levels.rbegin(), levels.rend(), [wanted](float level) { return level <= wanted; });
    size_t low = found == levels.rend() ? 0 : static_cast<size_t>(levels.rend() - found - 1);
    low = std::min(low, levels.size() - 2);
    const float rise = levels[low] - levels[low + 1];
    const double weight = std::clamp((levels[low] - wanted) / rise, 0.0, 1.0);
    timesteps.push_back((1 - weight) * static_cast<double>(low) + weight * static_cast<double>(low + 1));
  }
  return timesteps;
}

// np.interp between the whole timesteps.
std::vector<double> Interpolated(const std::vector<double> &timesteps, const std::vector<float> &training) {
  std::vector<double> sigmas;
  const auto end = static_cast<double>(training.size() - 1);
  for (const double timestep : timesteps) {
    const double below = std::floor(std::clamp(timestep, 0.0, end));
    const auto at = static_cast<size_t>(below);
    if (timestep <= below || timestep >= end) {
      sigmas.push_back(training[at]);
      continue;
    }
    const double slope = (static_cast<double>(training[at + 1]) - training[at]) / 1.0;
    sigmas.push_back(slope * (timestep - below) + training[at]);
  }
  return sigmas;
}

}  // namespace kandinsky
