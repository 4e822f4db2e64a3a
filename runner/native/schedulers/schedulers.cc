#include "schedulers/schedulers.h"

#include <cmath>

#include "common/errors.h"
#include "schedulers/prediction.h"

namespace kandinsky {
namespace {

using Plan = std::unique_ptr<Schedule> (*)(std::shared_ptr<const NoiseSchedule>, int64_t);

const std::vector<std::pair<std::string, Plan>> kPlans = {
    {"DDPMScheduler", PlanDdpm},           {"DDIMScheduler", PlanDdim},
    {"UnCLIPScheduler", PlanUnclip},       {"DPMSolverMultistepScheduler", PlanDpmSolver},
    {"EulerDiscreteScheduler", PlanEuler}, {"EulerAncestralDiscreteScheduler", PlanEulerAncestral},
};

// Short name, class, and the options that it sets over the checkpoint's, as JSON.
struct ShortName {
  const char *name, *type, *options;
  bool has_grids;  // whether NAME-karras and NAME-exponential are names, too
};
constexpr ShortName kShortNames[] = {
    {"ddpm", "DDPMScheduler", "{}", false},
    {"ddim", "DDIMScheduler", "{}", false},
    {"unclip", "UnCLIPScheduler", "{}", false},
    {"dpmpp-2m", "DPMSolverMultistepScheduler", "{}", true},
    {"dpmpp-2m-sde", "DPMSolverMultistepScheduler", R"({"algorithm_type": "sde-dpmsolver++"})", true},
    {"dpmpp-3m", "DPMSolverMultistepScheduler", R"({"solver_order": 3})", true},
    {"euler", "EulerDiscreteScheduler", "{}", true},
    {"euler-a", "EulerAncestralDiscreteScheduler", "{}", false},
};

class AnyScheduler : public Scheduler {
 public:
  AnyScheduler(const SchedulerClass &type, const SchedulerConfig &config) {
    auto constants = std::make_shared<NoiseSchedule>(type.name, config);
    if (type.Find("use_karras_sigmas") != nullptr) ChosenGrid(*constants);
    if (type.Find("algorithm_type") != nullptr) CheckDpmSolver(*constants);
    const bool in_sigma = type.Find("use_karras_sigmas") != nullptr || type.name == "EulerAncestralDiscreteScheduler";
    if (in_sigma && constants->Is("rescale_betas_zero_snr")) constants->alphas_cumprod.back() = kLeastAlphaBar;
    constants_ = std::move(constants);
    for (const auto &[name, plan] : kPlans) {
      if (name == type.name) plan_ = plan;
    }
  }

  const std::string &name() const override { return constants_->name; }

  bool learned_variance() const override {
    const std::string variance = constants_->Word("variance_type");
    const bool takes_variance = plan_ == PlanDdpm || plan_ == PlanUnclip;
    return takes_variance && (variance == "learned" || variance == "learned_range");
  }

  SchedulerConfig Describe() const override {
    SchedulerConfig config;
    config["_class_name"] = name();
    for (const auto &option : constants_->config.items()) {
      // JSON has no infinity: it is the default of its option.
      const bool infinite = option.value().is_number_float() && !std::isfinite(option.value().get<double>());
      if (!infinite) config[option.key()] = option.value();
    }
    return config;
  }

  std::unique_ptr<Schedule> Plan(int64_t num_inference_steps) const override {
    return plan_(constants_, num_inference_steps);
  }

 private:
  std::shared_ptr<const NoiseSchedule> constants_;
  kandinsky::Plan plan_ = nullptr;
};

std::string Names() {
  std::string names = "checkpoint";
  for (const ShortName &row : kShortNames) {
    names += std::string(", ") + row.name;
    if (row.has_grids) names += std::string(", ") + row.name + "-karras, " + row.name + "-exponential";
  }
  return names;
}

}  // namespace

std::vector<float> Schedule::ScaleModelInput(const std::vector<float> &sample, size_t) const { return sample; }

std::unique_ptr<Scheduler> MakeScheduler(const nlohmann::json &config) {
  const auto name = config.is_object() ? config.find("_class_name") : config.end();
  const SchedulerClass *type = name != config.end() && name->is_string() ? FindClass(name->get<std::string>()) : nullptr;
  if (type == nullptr) {
    const std::string shown = name == config.end() ? "None"
                              : name->is_string()  ? Quoted(name->get<std::string>())
                                                   : name->dump();
    throw UserError("scheduler class " + shown + " is not known to this program; known are " + ClassNames());
  }
  return std::make_unique<AnyScheduler>(*type, FromConfig(*type, config));
}

std::unique_ptr<Scheduler> MakeScheduler(const std::string &name, const nlohmann::json &checkpoint) {
  const auto own = checkpoint.is_object() ? checkpoint.find("_class_name") : checkpoint.end();
  if (name == "checkpoint" || (own != checkpoint.end() && *own == name)) return MakeScheduler(checkpoint);
  if (const SchedulerClass *type = FindClass(name)) {
    return std::make_unique<AnyScheduler>(*type, CarriedOver(*type, checkpoint, nlohmann::json::object()));
  }
  for (const ShortName &row : kShortNames) {
    nlohmann::json options = nlohmann::json::parse(row.options);
    for (const std::string grid : {"", "karras", "exponential"}) {
      if (!grid.empty() && !row.has_grids) continue;
      if (name != row.name + (grid.empty() ? "" : "-" + grid)) continue;
      if (!grid.empty()) options["use_" + grid + "_sigmas"] = true;
      const SchedulerClass &type = *FindClass(row.type);
      return std::make_unique<AnyScheduler>(type, CarriedOver(type, checkpoint, options));
    }
  }
  throw UserError("scheduler " + Quoted(name) + " is not known to this program; choose one of " + Names());
}

}  // namespace kandinsky
