// What a model's output says of the picture and of the noise: _predict_original and its relatives of schedulers/base.py.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "schedulers/scheduler_formulas.h"
#include "schedulers/schedulers.h"

namespace kandinsky {

// In float32 or float64 (T). The sample is `signal` times the picture plus `noise_level` times noise.
template <typename T>
class Prediction {
 public:
  explicit Prediction(const NoiseSchedule &schedule);

  // The predicted picture, clipped or thresholded as the options say. Thresholds are of each row.
  std::vector<T> Original(const std::vector<T> &output, const std::vector<T> &sample, T signal, T noise_level,
                          size_t rows) const;
  // The predicted noise; never clipped.
  std::vector<T> Noise(const std::vector<T> &output, const std::vector<T> &sample, T signal, T noise_level) const;
  bool thresholding() const { return thresholding_; }

 private:
  enum { kEpsilon, kSample, kVelocity } kind_;
  bool thresholding_ = false, clip_ = false;
  double ratio_ = 0, maximum_ = 0, range_ = 0;
};

// A schedule of a scheduler's constants, which it keeps.
class BaseSchedule : public Schedule {
 public:
  explicit BaseSchedule(std::shared_ptr<const NoiseSchedule> constants) : constants_(std::move(constants)) {}
  std::vector<float> Noised(const std::vector<float> &original, const std::vector<float> &noise,
                            size_t index) const override;

 protected:
  float AlphaBar(int64_t timestep) const { return constants_->alphas_cumprod[static_cast<size_t>(timestep)]; }
  // The timestep that step `index` leads to, -1 after the last: the picture itself.
  int64_t NextTimestep(size_t index) const {
    return index + 1 < timesteps.size() ? static_cast<int64_t>(timesteps[index + 1]) : -1;
  }

  const std::shared_ptr<const NoiseSchedule> constants_;
};

// Steps in float64, rounded once: for samplers that subtract large parts of the sample from one another.
class PreciseSchedule : public BaseSchedule {
 public:
  explicit PreciseSchedule(std::shared_ptr<const NoiseSchedule> constants);
  void Step(const std::vector<float> &model_output, size_t index, const Shape &shape, std::vector<float> &sample,
            const Draw &noise, SolverState &state) const final;

 protected:
  // The next sample of `sample`.
  virtual std::vector<double> PreciseStep(const std::vector<double> &model_output, size_t index, const Shape &shape,
                                          const std::vector<double> &sample, const Draw &noise,
                                          SolverState &state) const = 0;

  const Prediction<double> prediction_;
};

// One tensor of noise of the shape.
std::vector<float> Drawn(const Draw &noise, const Shape &shape);
void CheckCount(const std::vector<float> &model_output, const Shape &shape);

// The schedules of the classes.
std::unique_ptr<Schedule> PlanDdpm(std::shared_ptr<const NoiseSchedule> constants, int64_t steps);
std::unique_ptr<Schedule> PlanDdim(std::shared_ptr<const NoiseSchedule> constants, int64_t steps);
std::unique_ptr<Schedule> PlanUnclip(std::shared_ptr<const NoiseSchedule> constants, int64_t steps);
std::unique_ptr<Schedule> PlanDpmSolver(std::shared_ptr<const NoiseSchedule> constants, int64_t steps);
std::unique_ptr<Schedule> PlanEuler(std::shared_ptr<const NoiseSchedule> constants, int64_t steps);
std::unique_ptr<Schedule> PlanEulerAncestral(std::shared_ptr<const NoiseSchedule> constants, int64_t steps);
// What the options of a class exclude together.
void CheckDpmSolver(const NoiseSchedule &schedule);

}  // namespace kandinsky
