// Samplers: runner/schedulers in C++, in the same float types and the same order of operations.
//
// Steps in float32 are equal to Python's to the last bit. Constants go through exp, log, cos and pow in float64 and are then
// rounded to float32: NumPy's own versions of these functions differ from the C library's in the last of 53 bits, which
// shows in one float32 of 2^28 or so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace kandinsky {

// Fills `count` float32 with standard normal numbers: one tensor of noise.
using Draw = std::function<void(float *out, size_t count)>;

struct Shape {
  size_t rows, channels, size;  // size: of what lies behind the channels; 1 for an embedding
  size_t count() const { return rows * channels * size; }
};

// What a multistep solver remembers of a run. Empty at its start.
struct SolverState {
  std::vector<std::vector<double>> predictions;  // newest first
};

// The plan of one run. Does not change once made.
class Schedule {
 public:
  virtual ~Schedule() = default;

  std::vector<double> timesteps;  // in the order of the model's calls
  double init_noise_sigma = 1.0;  // what the first standard normal sample is multiplied by, as a float32

  // What the model is shown at call `index`.
  virtual std::vector<float> ScaleModelInput(const std::vector<float> &sample, size_t index) const;
  // Whether step `index` draws noise: one tensor of the sample's shape, or none.
  virtual bool TakesNoise(size_t index) const = 0;
  // `sample` becomes the next one. model_output: as large as the sample, or twice that (prediction and variance, on the axis
  // of channels) if the scheduler has a learned_variance. std::domain_error for betas that make noise levels of zero.
  virtual void Step(const std::vector<float> &model_output, size_t index, const Shape &shape, std::vector<float> &sample,
                    const Draw &noise, SolverState &state) const = 0;
  // `original` as noisy as the sample is before call `index`.
  virtual std::vector<float> Noised(const std::vector<float> &original, const std::vector<float> &noise,
                                    size_t index) const = 0;
};

// A sampler's options.
class Scheduler {
 public:
  virtual ~Scheduler() = default;
  virtual const std::string &name() const = 0;  // the class name
  // Whether steps want the variance half of the model's output; drop it before the step otherwise.
  virtual bool learned_variance() const = 0;
  // All options, and `_class_name`, from which MakeScheduler makes it again.
  virtual nlohmann::ordered_json Describe() const = 0;
  // UserError where the options allow no such run.
  virtual std::unique_ptr<Schedule> Plan(int64_t num_inference_steps) const = 0;
};

// Of a scheduler_config.json, by its _class_name; options of other classes are left out. UserError for an unknown class or
// option, or a value that an option does not take.
std::unique_ptr<Scheduler> MakeScheduler(const nlohmann::json &config);
// Of a short name ("ddim", "dpmpp-2m-karras"), a class name or "checkpoint", for a checkpoint whose own scheduler has the
// configuration `checkpoint`: what both classes have carries over.
std::unique_ptr<Scheduler> MakeScheduler(const std::string &name, const nlohmann::json &checkpoint);

}  // namespace kandinsky
