// The samplers that this program has, and their options: `OPTIONS`, `CHOICES` and `REFUSED` of runner/schedulers.
#include <algorithm>

#include "schedulers/scheduler_options.h"

namespace kandinsky {
namespace {

constexpr char kThreeBetas[] = R"(["linear","scaled_linear","squaredcos_cap_v2"])";
constexpr char kPredictions[] = R"(["epsilon","sample","v_prediction"])";
constexpr char kSpacings[] = R"(["linspace","leading","trailing"])";
constexpr char kQuantiles[] = "it needs SciPy's quantiles of the beta distribution";
constexpr char kFlow[] = "it is for models of flow matching, which Kandinsky 2.2 is not";

std::vector<Option> Joined(std::initializer_list<std::vector<Option>> groups) {
  std::vector<Option> all;
  for (const auto &group : groups) all.insert(all.end(), group.begin(), group.end());
  return all;
}

std::vector<Option> Betas(const char *choices) {
  return {{"num_train_timesteps", "1000"},
          {"beta_start", "0.0001"},
          {"beta_end", "0.02"},
          {"beta_schedule", "\"linear\"", choices},
          {"trained_betas", "null"}};
}

std::vector<SchedulerClass> MakeClasses() {
  const std::vector<Option> thresholding = {
      {"thresholding", "false"}, {"dynamic_thresholding_ratio", "0.995"}, {"sample_max_value", "1.0"}};
  const std::vector<Option> clipping = {{"clip_sample", "true"}, {"clip_sample_range", "1.0"}};
  const std::vector<Option> grids = {{"use_karras_sigmas", "false"},
                                     {"use_exponential_sigmas", "false"},
                                     {"use_beta_sigmas", "false", nullptr, kQuantiles}};
  const Option prediction = {"prediction_type", "\"epsilon\"", kPredictions}, offset = {"steps_offset", "0"};
  const Option leading = {"timestep_spacing", "\"leading\"", kSpacings},
               linspace = {"timestep_spacing", "\"linspace\"", kSpacings};
  const Option zero_snr = {"rescale_betas_zero_snr", "false"};
  const Option final_sigmas = {"final_sigmas_type", "\"zero\"", R"(["zero","sigma_min"])"};
  return {
      {"DDPMScheduler",
       Joined({Betas(R"(["linear","scaled_linear","squaredcos_cap_v2","sigmoid","laplace"])"),
               {{"variance_type", "\"fixed_small\"",
                 R"(["fixed_small","fixed_small_log","fixed_large","fixed_large_log","learned","learned_range"])"}},
               clipping,
               thresholding,
               {prediction, leading, offset, zero_snr}})},
      {"DDIMScheduler", Joined({Betas(kThreeBetas),
                                clipping,
                                {{"set_alpha_to_one", "true"}, offset, prediction},
                                thresholding,
                                {leading, zero_snr, {"eta", "0.0"}, {"use_clipped_model_output", "false"}}})},
      {"UnCLIPScheduler", Joined({{{"num_train_timesteps", "1000"},
                                   {"variance_type", "\"fixed_small_log\"", R"(["fixed_small_log","learned_range"])"}},
                                  clipping,
                                  {{"prediction_type", "\"epsilon\"", R"(["epsilon","sample"])"},
                                   {"beta_schedule", "\"squaredcos_cap_v2\"", R"(["squaredcos_cap_v2"])"}}})},
      {"DPMSolverMultistepScheduler",
       Joined({Betas(kThreeBetas),
               {{"solver_order", "2", "[1,2,3]"}, prediction},
               thresholding,
               {{"algorithm_type", "\"dpmsolver++\"", R"(["dpmsolver","dpmsolver++","sde-dpmsolver","sde-dpmsolver++"])"},
                {"solver_type", "\"midpoint\"", R"(["midpoint","heun"])"}},
               grids,
               {{"use_flow_sigmas", "false", nullptr, kFlow},
                {"flow_shift", "1.0"},
                {"use_dynamic_shifting", "false", nullptr, kFlow},
                {"time_shift_type", "\"exponential\""},
                final_sigmas,
                {"lambda_min_clipped", "-inf"},
                {"variance_type", "null"},
                {"lower_order_final", "true"},
                {"euler_at_final", "false"},
                {"use_lu_lambdas", "false", nullptr, "in diffusers it is the grid of use_exponential_sigmas: set that"},
                linspace,
                offset,
                zero_snr}})},
      {"EulerDiscreteScheduler", Joined({Betas(kThreeBetas),
                                         {prediction, {"interpolation_type", "\"linear\"", R"(["linear","log_linear"])"}},
                                         grids,
                                         {{"sigma_min", "null"},
                                          {"sigma_max", "null"},
                                          linspace,
                                          {"timestep_type", "\"discrete\"", R"(["discrete","continuous"])"},
                                          offset,
                                          zero_snr,
                                          final_sigmas,
                                          {"s_churn", "0.0"},
                                          {"s_tmin", "0.0"},
                                          {"s_tmax", "inf"},
                                          {"s_noise", "1.0"}}})},
      {"EulerAncestralDiscreteScheduler", Joined({Betas(kThreeBetas), {prediction, linspace, offset, zero_snr}})},
  };
}

}  // namespace

const std::vector<SchedulerClass> &SchedulerClasses() {
  static const std::vector<SchedulerClass> classes = MakeClasses();
  return classes;
}

const Option *SchedulerClass::Find(const std::string &option) const {
  const auto found = std::find_if(options.begin(), options.end(), [&](const Option &row) { return option == row.name; });
  return found == options.end() ? nullptr : &*found;
}

const SchedulerClass *FindClass(const std::string &name) {
  const auto found = std::find_if(SchedulerClasses().begin(), SchedulerClasses().end(),
                                  [&](const auto &type) { return type.name == name; });
  return found == SchedulerClasses().end() ? nullptr : &*found;
}

std::string ClassNames() {
  std::string names;
  for (const SchedulerClass &type : SchedulerClasses()) names += (names.empty() ? "" : ", ") + type.name;
  return names;
}

}  // namespace kandinsky
