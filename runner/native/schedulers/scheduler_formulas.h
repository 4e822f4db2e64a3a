// What the samplers share: noise schedules, spacing of timesteps, noise levels, limits of a predicted picture.
// The formulas and their sources are in runner/schedulers: base.py, formulas.py, sigmas.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "schedulers/scheduler_options.h"

namespace kandinsky {

constexpr float kLeastAlphaBar = 0x1p-24f;  // stands for an alpha_bar of zero, after rescaling to zero terminal SNR

// Correctly rounded exponential and logarithm of a float32.
float Exp(float x);
float Log(float x);
// NumPy's logarithm of a float32 on x86-64 with AVX2, which is up to four bits off.
float NumpyLog(float x);
// The C library's pow: a compiler must not make a product of it.
double Pow(double base, double exponent);
// a / b. std::domain_error for a b of 0.
double Divided(double a, double b);

// Of a configuration: what every schedule needs.
struct NoiseSchedule {
  explicit NoiseSchedule(const std::string &name, const SchedulerConfig &config);

  std::string name;
  SchedulerConfig config;
  std::vector<float> betas, alphas_cumprod;

  bool Is(const char *option) const;  // a flag that is set
  std::string Word(const char *option) const;
  double Number(const char *option) const;
  int64_t train() const { return config["num_train_timesteps"].get<int64_t>(); }
  // `count`, if it can be a number of steps.
  int64_t CheckSteps(int64_t count) const;
  // Refuses timesteps that the forward process lacks, or at which the model's prediction means nothing.
  std::vector<double> CheckTimesteps(std::vector<double> timesteps) const;
};

// `count` float32 numbers, as torch.linspace; float64, as np.linspace.
std::vector<float> LinearSpace(float start, float stop, int64_t count);
std::vector<double> NumpyLinearSpace(double start, double stop, int64_t count);

std::vector<double> SpacedTimesteps(const NoiseSchedule &schedule, int64_t count);
std::vector<double> TrailingTimesteps(int64_t last, double stride);
std::vector<double> SolverTimesteps(const NoiseSchedule &schedule, int64_t count);

std::vector<float> TrainingSigmas(const std::vector<float> &alphas_cumprod);
// "karras", "exponential" or "": the grid that the options ask for.
std::string ChosenGrid(const NoiseSchedule &schedule);
std::vector<double> FallingGrid(const std::string &grid, double high, double low, int64_t count);
std::vector<double> TimestepsOf(const std::vector<double> &sigmas, const std::vector<float> &training);
std::vector<double> Interpolated(const std::vector<double> &timesteps, const std::vector<float> &training);

}  // namespace kandinsky
