#include "schedulers/scheduler_formulas.h"

#include <cfloat>
#include <stdexcept>

#include "common/errors.h"

namespace kandinsky {
namespace {

constexpr double kPi = 3.141592653589793238462643383279502884;

double Cosine(double t) { return Pow(std::cos((t + 0.008) / 1.008 * kPi / 2), 2); }

double Laplace(double t) {
  const double snr = std::exp(-0.5 * std::copysign(1.0, 0.5 - t) * std::log(1 - 2 * std::fabs(0.5 - t) + 1e-6));
  return std::sqrt(snr / (1 + snr));
}

// Betas whose cumulative product of 1 - beta follows `alpha_bar` on [0, 1], each at most 0.999.
std::vector<float> FromAlphaBar(double (*alpha_bar)(double), int64_t count) {
  std::vector<float> betas(count);
  for (int64_t i = 0; i < count; ++i) {
    const auto n = static_cast<double>(count);
    const double ratio = alpha_bar(static_cast<double>(i + 1) / n) / alpha_bar(static_cast<double>(i) / n);
    betas[i] = static_cast<float>(std::min(1 - ratio, 0.999));
  }
  return betas;
}

std::vector<float> Sigmoid(double start, double end, int64_t count) {
  std::vector<float> betas = LinearSpace(-6, 6, count);
  const auto rise = static_cast<float>(end - start), low = static_cast<float>(start);
  for (float &beta : betas) beta = 1.0f / (1.0f + Exp(-beta)) * rise + low;
  return betas;
}

// Accumulated in float64 and stored in float32, as torch.cumprod does on a CPU.
std::vector<float> CumulativeAlphas(const std::vector<float> &betas) {
  std::vector<float> alphas(betas.size());
  double product = 1;
  for (size_t i = 0; i < betas.size(); ++i) {
    product *= 1.0f - betas[i];
    alphas[i] = static_cast<float>(product);
  }
  return alphas;
}

// Betas shifted and scaled so that the last timestep is pure noise (arXiv 2305.08891, algorithm 1).
std::vector<float> ZeroTerminalSnr(const std::vector<float> &betas) {
  std::vector<float> root = CumulativeAlphas(betas);
  for (float &value : root) value = std::sqrt(value);
  const float first = root.front(), last = root.back(), scale = first / (first - last);
  for (float &value : root) {
    value = (value - last) * scale;
    value = value * value;  // alpha_bar
  }
  std::vector<float> rescaled(betas.size());
  for (size_t i = 0; i < betas.size(); ++i) rescaled[i] = 1.0f - (i == 0 ? root[0] : root[i] / root[i - 1]);
  return rescaled;
}

std::vector<float> Betas(const NoiseSchedule &schedule) {
  const auto trained = schedule.config.find("trained_betas");
  if (trained != schedule.config.end() && trained->is_array()) {
    std::vector<float> betas;
    for (const auto &beta : *trained) betas.push_back(static_cast<float>(beta.get<double>()));
    return betas;
  }
  const std::string kind = schedule.Word("beta_schedule");
  const int64_t count = schedule.train();
  if (kind == "squaredcos_cap_v2") return FromAlphaBar(Cosine, count);
  if (kind == "laplace") return FromAlphaBar(Laplace, count);
  const double start = schedule.Number("beta_start"), end = schedule.Number("beta_end");
  if (kind == "sigmoid") return Sigmoid(start, end, count);
  if (kind == "linear") return LinearSpace(static_cast<float>(start), static_cast<float>(end), count);
  std::vector<float> root = LinearSpace(static_cast<float>(Pow(start, 0.5)), static_cast<float>(Pow(end, 0.5)), count);
  for (float &value : root) value = value * value;
  return root;  // scaled_linear
}

}  // namespace

float Exp(float x) { return static_cast<float>(std::exp(static_cast<double>(x))); }

float Log(float x) { return static_cast<float>(std::log(static_cast<double>(x))); }

// numpy, _core/src/umath/loops_exponent_log.dispatch.c.src, simd_log_FLOAT: a ratio of two polynomials on
// [sqrt(1/2), sqrt(2)), for positive normal numbers.
float NumpyLog(float x) {
  constexpr float kAbove[] = {2.589979117907922693523e-02f, 3.808837741388407920751e-01f, 1.480000633576506585156e+00f,
                              2.112677543073053063722e+00f, 9.999999999999998702752e-01f, 0.0f};
  constexpr float kBelow[] = {5.875095403124574342950e-03f, 1.546476374983906719538e-01f, 9.864942958519418960339e-01f,
                              2.453006071784736363091e+00f, 2.612677543073109236779e+00f, 1.0f};
  if (!(x >= FLT_MIN) || std::isinf(x)) return std::log(x);
  int exponent;
  float mantissa = std::frexp(x, &exponent);
  if (mantissa <= 0.707106781186547524400844362104849039f) {
    mantissa += mantissa;
    --exponent;
  }
  mantissa -= 1.0f;
  float above = kAbove[0], below = kBelow[0];
  for (int i = 1; i < 6; ++i) {
    above = std::fma(above, mantissa, kAbove[i]);
    below = std::fma(below, mantissa, kBelow[i]);
  }
  return std::fma(static_cast<float>(exponent), 0.693147180559945309417232121458176568f, above / below);
}

__attribute__((noinline)) double Pow(double base, double exponent) {
  const volatile double hidden = exponent;
  return std::pow(base, hidden);
}

double Divided(double a, double b) {
  if (b == 0) throw std::domain_error("float division by zero");
  return a / b;
}

NoiseSchedule::NoiseSchedule(const std::string &name, const SchedulerConfig &config) : name(name), config(config) {
  betas = Betas(*this);
  if (Is("rescale_betas_zero_snr")) betas = ZeroTerminalSnr(betas);
  if (!std::all_of(betas.begin(), betas.end(), [](float beta) { return beta >= 0 && beta <= 1; })) {
    const auto ends = std::minmax_element(betas.begin(), betas.end());
    throw UserError(name + ": betas run from " + Short(*ends.first) + " to " + Short(*ends.second) +
                    "; they must be from 0 to 1: check beta_start, beta_end or trained_betas");
  }
  alphas_cumprod = CumulativeAlphas(betas);
}

bool NoiseSchedule::Is(const char *option) const {
  const auto found = config.find(option);
  return found != config.end() && found->is_boolean() && found->get<bool>();
}

std::string NoiseSchedule::Word(const char *option) const {
  const auto found = config.find(option);
  return found != config.end() && found->is_string() ? found->get<std::string>() : "";
}

double NoiseSchedule::Number(const char *option) const { return config.at(option).get<double>(); }

int64_t NoiseSchedule::CheckSteps(int64_t count) const {
  if (count < 1 || count > train()) {
    throw UserError("num_inference_steps is " + std::to_string(count) + "; " + name + " takes a whole number from 1 to " +
                    std::to_string(train()) + ", the timesteps that the model was trained on");
  }
  return count;
}

std::vector<double> NoiseSchedule::CheckTimesteps(std::vector<double> timesteps) const {
  if (timesteps.empty() || timesteps.back() < 0) throw UserError(name + ": these options leave no timesteps");
  const auto first = static_cast<size_t>(timesteps.front());
  if (first >= alphas_cumprod.size()) {
    throw UserError(name + ": the first timestep is " + std::to_string(first) + ", but the model was trained on 0 to " +
                    std::to_string(alphas_cumprod.size() - 1) + "; lower steps_offset or take one step less");
  }
  if (alphas_cumprod[first] == 0 && Word("prediction_type") == "epsilon") {
    throw UserError(name + ": with rescale_betas_zero_snr nothing of the picture is left at timestep " +
                    std::to_string(first) +
                    ", and a predicted noise cannot tell it; set timestep_spacing to \"leading\" or prediction_type to "
                    "v_prediction");
  }
  return timesteps;
}

std::vector<float> LinearSpace(float start, float stop, int64_t count) {
  if (count == 1) return {start};
  const double step = (stop - start) / static_cast<float>(count - 1);  // a float32 quotient
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) {
    const double value =
        i < count / 2 ? start + step * static_cast<double>(i) : stop - step * static_cast<double>(count - 1 - i);
    values[i] = static_cast<float>(value);
  }
  return values;
}

std::vector<double> NumpyLinearSpace(double start, double stop, int64_t count) {
  if (count == 1) return {start};
  const double step = (stop - start) / static_cast<double>(count - 1);
  std::vector<double> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<double>(i) * step + start;
  values.back() = stop;
  return values;
}

}  // namespace kandinsky
