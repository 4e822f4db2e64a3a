#include "schedulers/scheduler_options.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <set>

#include "common/errors.h"

namespace kandinsky {
namespace {

using Json = nlohmann::json;

constexpr double kLargest = FLT_MAX;
constexpr size_t kMostShown = 80;            // characters of a value in an error
constexpr int64_t kMostTimesteps = 1000000;  // and of any other count
// Options of the classes that kandinsky-mindir has beside these: they belong to other samplers, and are left out.
const std::set<std::string> kElsewhere = {"corrector_order", "disable_corrector", "original_inference_steps", "predict_x0",
                                          "predictor_order", "shift_terminal",    "skip_prk_steps",           "solver_p",
                                          "tau_func",        "timestep_scaling"};
// Kinds of solver that any class has; what a class lacks of them names another class's, and is left out.
const std::set<std::string> kAlgorithmTypes = {"dpmsolver", "dpmsolver++",     "sde-dpmsolver",   "sde-dpmsolver++",
                                               "deis",      "data_prediction", "noise_prediction"};
const std::set<std::string> kSolverTypes = {"midpoint", "heun", "logrho", "bh1", "bh2"};

// The least and the most of numbers that formulas divide by, take roots of, or use as a share.
struct Range {
  const char *option;
  double least, most;
};
constexpr Range kRanges[] = {{"beta_end", 0, 1},
                             {"beta_start", 0, 1},
                             {"clip_sample_range", 0, kLargest},
                             {"dynamic_thresholding_ratio", 0, 1},
                             {"eta", 0, 1000},
                             {"s_churn", 0, 1000000},
                             {"s_noise", 0, 1000},
                             {"s_tmin", 0, kLargest},
                             {"s_tmax", 0, kLargest},
                             {"sample_max_value", 1, kLargest}};

Json Fallback(const Option &option) {
  const std::string text = option.fallback;
  if (text == "inf") return std::numeric_limits<double>::infinity();
  if (text == "-inf") return -std::numeric_limits<double>::infinity();
  return Json::parse(text);
}

bool IsForeign(const SchedulerClass &type, const std::string &name, const Json &value) {
  if (!value.is_string() || (name != "algorithm_type" && name != "solver_type")) return false;
  const auto &kinds = name == "algorithm_type" ? kAlgorithmTypes : kSolverTypes;
  const Option *option = type.Find(name);
  if (kinds.count(value.get<std::string>()) == 0) return false;
  if (option == nullptr || option->choices == nullptr) return false;
  const Json choices = Json::parse(option->choices);
  return std::find(choices.begin(), choices.end(), value) == choices.end();
}

// As Python shows a value that JSON holds.
std::string Shown(const Json &value) {
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_null()) return "None";
  if (value.is_string()) return Quoted(value.get<std::string>());
  if (!value.is_structured()) return value.dump();
  std::string items;
  for (const auto &item : value.items()) {
    items += (items.empty() ? "" : ", ") + (value.is_object() ? Quoted(item.key()) + ": " : "") + Shown(item.value());
    if (items.size() > kMostShown) break;
  }
  return value.is_object() ? "{" + items + "}" : "[" + items + "]";
}

// The same, cut where it is long.
std::string ShownShort(const Json &value) {
  const std::string text = Shown(value);
  return text.size() <= kMostShown ? text : text.substr(0, kMostShown - 3) + "...";
}

bool IsNumber(const Json &value) {
  return value.is_number() && std::isfinite(value.get<double>()) && std::fabs(value.get<double>()) <= kLargest;
}

bool IsWhole(const Json &value, int64_t least) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(kMostTimesteps)) return false;
  return value.get<int64_t>() >= least && value.get<int64_t>() <= kMostTimesteps;
}

bool AreBetas(const Json &value) {
  return value.is_array() && !value.empty() && value.size() <= static_cast<size_t>(kMostTimesteps) &&
         std::all_of(value.begin(), value.end(), IsNumber);
}

// What the value must be; empty if it is that. checks.py, check_option.
std::string Wanted(const Option &option, const Json &value) {
  const std::string name = option.name;
  const Json fallback = Fallback(option);
  if (option.choices != nullptr) {
    const Json choices = Json::parse(option.choices);
    const bool plain = value.is_string() || value.is_number_integer();
    if (plain && std::find(choices.begin(), choices.end(), value) != choices.end()) return "";
    std::string known;
    for (const Json &choice : choices) {
      known += (known.empty() ? "" : ", ") + (choice.is_string() ? choice.get<std::string>() : choice.dump());
    }
    return "one of " + known;
  }
  if (name == "sigma_min" || name == "sigma_max") {
    return value.is_null() || (IsNumber(value) && value.get<double>() > 0) ? "" : "null or a number above 0";
  }
  if (name == "trained_betas") return value.is_null() || AreBetas(value) ? "" : "null or a list of numbers";
  if (fallback.is_boolean()) return value.is_boolean() ? "" : "true or false";
  if (fallback.is_number_integer()) {
    const int64_t least = name == "steps_offset" ? 0 : 1;
    return IsWhole(value, least) ? "" : "a whole number of at least " + std::to_string(least);
  }
  if (!fallback.is_number_float()) return "";
  const auto range =
      std::find_if(std::begin(kRanges), std::end(kRanges), [&](const Range &row) { return name == row.option; });
  const bool limited = range != std::end(kRanges);
  const double least = limited ? range->least : -kLargest, most = limited ? range->most : kLargest;
  const bool good = IsNumber(value) && value.get<double>() >= least && value.get<double>() <= most;
  if (good || (value.is_number_float() && value == fallback)) return "";
  return limited ? "a number from " + Short(least) + " to " + Short(most) : "a number";
}

void Check(const SchedulerClass &type, const Option &option, const Json &value) {
  const std::string head = type.name + ": " + option.name + " is ";
  if (option.refused != nullptr) {
    if (value == Fallback(option)) return;
    throw UserError(head + "not implemented (" + option.refused + "); leave it at " + Shown(Fallback(option)));
  }
  const std::string wanted = Wanted(option, value);
  if (!wanted.empty()) throw UserError(head + ShownShort(value) + "; it must be " + wanted);
}

SchedulerConfig Complete(const SchedulerClass &type, const Json &options) {
  SchedulerConfig config;
  for (const Option &option : type.options) {
    const auto found = options.find(option.name);
    if (found != options.end()) Check(type, option, *found);
    config[option.name] = found != options.end() ? *found : Fallback(option);
  }
  return config;
}

}  // namespace

SchedulerConfig FromConfig(const SchedulerClass &type, const Json &config) {
  std::set<std::string> left_out;
  if (const auto defaults = config.find("_use_default_values"); defaults != config.end() && defaults->is_array()) {
    for (const Json &name : *defaults) {
      if (name.is_string()) left_out.insert(name.get<std::string>());
    }
  }
  Json kept = Json::object();
  std::string unknown;
  for (const auto &item : config.items()) {
    const std::string &name = item.key();
    if (name.compare(0, 1, "_") == 0 || left_out.count(name) > 0 || IsForeign(type, name, item.value())) continue;
    if (type.Find(name) != nullptr) {
      kept[name] = item.value();
      continue;
    }
    const bool elsewhere =
        kElsewhere.count(name) > 0 || std::any_of(SchedulerClasses().begin(), SchedulerClasses().end(),
                                                  [&](const auto &other) { return other.Find(name) != nullptr; });
    if (!elsewhere) unknown += (unknown.empty() ? "" : ", ") + name;
  }
  if (!unknown.empty()) {
    std::string known;
    for (const Option &option : type.options) known += (known.empty() ? "" : ", ") + std::string(option.name);
    throw UserError(type.name + " has no option " + unknown + "; it has " + known);
  }
  return Complete(type, kept);
}

SchedulerConfig CarriedOver(const SchedulerClass &type, const Json &checkpoint, const Json &chosen) {
  const bool same = checkpoint.value("_class_name", "") == type.name;
  Json options = Json::object();
  for (const auto &item : checkpoint.items()) {
    const Option *option = type.Find(item.key());
    if (option == nullptr) continue;
    const bool of_solver = item.key() == "solver_order" || item.key() == "algorithm_type" || item.key() == "solver_type";
    const bool means_nothing_here = item.value().is_null() && !Fallback(*option).is_null();
    if (same || (!of_solver && !means_nothing_here)) options[item.key()] = item.value();
  }
  options.update(chosen);
  return Complete(type, options);
}

}  // namespace kandinsky
