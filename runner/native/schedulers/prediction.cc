#include "schedulers/prediction.h"

#include <algorithm>

#include "common/errors.h"

namespace kandinsky {
namespace {

// np.clip: a NaN stays one.
template <typename T>
T Clipped(T value, T bound) {
  return value < -bound ? -bound : value > bound ? bound : value;
}

template <typename T>
bool Before(T a, T b) {  // in the order of np.sort, which has NaN at the end
  return a < b || (std::isnan(b) && !std::isnan(a));
}

// Dynamic thresholding (Imagen, arXiv 2205.11487, section 2.3) of one item: clipped to a quantile of its absolute values,
// and divided by it. The quantile interpolates as torch.quantile does.
template <typename T>
void Threshold(T *values, size_t count, double ratio, double maximum) {
  std::vector<T> flat(count);
  for (size_t i = 0; i < count; ++i) flat[i] = std::fabs(values[i]);
  const float rank = static_cast<float>(ratio) * static_cast<float>(count - 1);
  const auto below = std::min(static_cast<size_t>(rank), count - 1);
  const float weight = rank - static_cast<float>(below);
  std::nth_element(flat.begin(), flat.begin() + below, flat.end(), Before<T>);
  const T low = flat[below];
  const T high = below + 1 < count ? *std::min_element(flat.begin() + below + 1, flat.end(), Before<T>) : low;
  T bound = weight < 0.5f ? low + weight * (high - low) : high - (1.0f - weight) * (high - low);
  if (bound < 1) bound = 1;
  if (bound > static_cast<T>(maximum)) bound = static_cast<T>(maximum);
  for (size_t i = 0; i < count; ++i) values[i] = Clipped(values[i], bound) / bound;
}

}  // namespace

template <typename T>
Prediction<T>::Prediction(const NoiseSchedule &schedule) {
  const std::string kind = schedule.Word("prediction_type");
  kind_ = kind == "epsilon" ? kEpsilon : kind == "sample" ? kSample : kVelocity;
  thresholding_ = schedule.Is("thresholding");
  if (thresholding_) {
    ratio_ = schedule.Number("dynamic_thresholding_ratio");
    maximum_ = schedule.Number("sample_max_value");
  }
  clip_ = schedule.Is("clip_sample");
  if (clip_) range_ = schedule.Number("clip_sample_range");
}

// epsilon: arXiv 2006.11239, eq. 15. v_prediction: arXiv 2202.00512, appendix D.
template <typename T>
std::vector<T> Prediction<T>::Original(const std::vector<T> &output, const std::vector<T> &sample, T signal, T noise_level,
                                       size_t rows) const {
  std::vector<T> original = output;
  if (kind_ == kEpsilon) {
    for (size_t i = 0; i < original.size(); ++i) original[i] = (sample[i] - noise_level * output[i]) / signal;
  } else if (kind_ == kVelocity) {
    for (size_t i = 0; i < original.size(); ++i) original[i] = signal * sample[i] - noise_level * output[i];
  }
  if (thresholding_ && !original.empty()) {
    const size_t count = original.size() / rows;
    for (size_t row = 0; row < rows; ++row) Threshold(original.data() + row * count, count, ratio_, maximum_);
  } else if (clip_) {
    for (T &value : original) value = Clipped(value, static_cast<T>(range_));
  }
  return original;
}

template <typename T>
std::vector<T> Prediction<T>::Noise(const std::vector<T> &output, const std::vector<T> &sample, T signal,
                                    T noise_level) const {
  std::vector<T> noise = output;
  if (kind_ == kSample) {
    for (size_t i = 0; i < noise.size(); ++i) noise[i] = (sample[i] - signal * output[i]) / noise_level;
  } else if (kind_ == kVelocity) {
    for (size_t i = 0; i < noise.size(); ++i) noise[i] = signal * output[i] + noise_level * sample[i];
  }
  return noise;
}

template class Prediction<float>;
template class Prediction<double>;

// The forward process: DDPM, arXiv 2006.11239, eq. 4.
std::vector<float> BaseSchedule::Noised(const std::vector<float> &original, const std::vector<float> &noise,
                                        size_t index) const {
  const float alpha = AlphaBar(static_cast<int64_t>(timesteps[index]));
  const float signal = std::sqrt(alpha), noise_level = std::sqrt(1.0f - alpha);
  std::vector<float> noised(original.size());
  for (size_t i = 0; i < noised.size(); ++i) noised[i] = signal * original[i] + noise_level * noise[i];
  return noised;
}

PreciseSchedule::PreciseSchedule(std::shared_ptr<const NoiseSchedule> constants)
    : BaseSchedule(std::move(constants)), prediction_(*constants_) {}

void PreciseSchedule::Step(const std::vector<float> &model_output, size_t index, const Shape &shape,
                           std::vector<float> &sample, const Draw &noise, SolverState &state) const {
  CheckCount(model_output, shape);
  const std::vector<double> output(model_output.begin(), model_output.end()), start(sample.begin(), sample.end());
  const std::vector<double> next = PreciseStep(output, index, shape, start, noise, state);
  std::transform(next.begin(), next.end(), sample.begin(), [](double value) { return static_cast<float>(value); });
}

std::vector<float> Drawn(const Draw &noise, const Shape &shape) {
  std::vector<float> values(shape.count());
  noise(values.data(), values.size());
  return values;
}

void CheckCount(const std::vector<float> &model_output, const Shape &shape) {
  if (model_output.size() == shape.count()) return;
  throw UserError("the model gives " + std::to_string(model_output.size()) + " values, but its sample has " +
                  std::to_string(shape.count()) + ": check the bundle");
}

}  // namespace kandinsky
