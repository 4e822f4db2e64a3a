// The options of samplers: their names, defaults and choices, and how a configuration becomes a sampler's.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace kandinsky {

struct Option {
  const char *name;
  const char *fallback;           // the default, as JSON; "inf" and "-inf", which JSON lacks, too
  const char *choices = nullptr;  // a JSON array; null if the default's type decides
  const char *refused = nullptr;  // why only the default is implemented
};

struct SchedulerClass {
  std::string name;
  std::vector<Option> options;

  const Option *Find(const std::string &option) const;
};

const std::vector<SchedulerClass> &SchedulerClasses();
// The class of a name; null for one that this program has not.
const SchedulerClass *FindClass(const std::string &name);
std::string ClassNames();

using SchedulerConfig = nlohmann::ordered_json;

// A scheduler_config.json as the options of its class: `Scheduler.from_config` of runner/schedulers/base.py.
SchedulerConfig FromConfig(const SchedulerClass &type, const nlohmann::json &config);
// The options of `checkpoint` that carry over to the class, and `chosen` over them: `create_by_name`.
SchedulerConfig CarriedOver(const SchedulerClass &type, const nlohmann::json &checkpoint, const nlohmann::json &chosen);

}  // namespace kandinsky
