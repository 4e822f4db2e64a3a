#include "common/machine.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include <dirent.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/errors.h"

namespace kandinsky {

namespace {

std::optional<std::string> Text(const std::string &path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return std::nullopt;
  }
  return text.str();
}

std::vector<std::string> Split(const std::string &text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    parts.push_back(part);
  }
  return parts;
}

std::optional<int64_t> Number(const std::optional<std::string> &text) {
  if (!text) {
    return std::nullopt;
  }
  char *end = nullptr;
  const long long number = std::strtoll(text->c_str(), &end, 10);
  return end == text->c_str() || (*end != '\0' && std::isspace(static_cast<unsigned char>(*end)) == 0)
           ? std::nullopt : std::optional<int64_t>(number);
}

// The number behind `key` in lines "KEY: NUMBER kB" or "KEY NUMBER".
std::optional<int64_t> Counted(const std::optional<std::string> &text, const std::string &key) {
  std::istringstream lines(text.value_or(""));
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, key.size(), key) == 0) {
      return std::strtoll(line.c_str() + key.size(), nullptr, 10);
    }
  }
  return std::nullopt;
}

// A group that limits this process: the version of control groups, its folder, whether it is the innermost.
struct Group {
  int version;
  std::string folder;
  bool innermost;

  std::optional<std::string> Read(const std::string &name) const { return Text(folder + "/" + name); }
};

std::string Unescaped(const std::string &field) {  // \ooo of proc_pid_mountinfo(5)
  std::string text;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size()) {
      text += static_cast<char>(std::strtol(field.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      text += field[i];
    }
  }
  return text;
}

bool Names(const std::string &list, const std::string &word) {
  const auto words = Split(list, ',');
  return std::find(words.begin(), words.end(), word) != words.end();
}

// The groups that limit this process by `controller` ("memory", "cpu"), from the innermost outwards.
std::vector<Group> Groups(const std::string &controller) {
  std::vector<Group> groups;
  const auto mounts = Split(Text("/proc/self/mountinfo").value_or(""), '\n');
  for (const auto &line : Split(Text("/proc/self/cgroup").value_or(""), '\n')) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string number = line.substr(0, first), controllers = line.substr(first + 1, second - first - 1);
    const int version = number == "0" && controllers.empty() ? 2 : 1;
    if (version == 1 && !Names(controllers, controller)) {
      continue;
    }
    for (const auto &mount : mounts) {
      const size_t dash = mount.find(" - ");
      const auto fields = Split(mount.substr(0, dash), ' ');
      const auto rest = dash == std::string::npos ? std::vector<std::string>() : Split(mount.substr(dash + 3), ' ');
      if (fields.size() < 5 || rest.empty() || rest[0] != (version == 2 ? "cgroup2" : "cgroup") ||
          (version == 1 && (rest.size() < 3 || !Names(rest[2], controller)))) {
        continue;
      }
      std::string path = line.substr(second + 1), root = Unescaped(fields[3]);
      root = root == "/" ? "" : root;
      path = path.compare(0, root.size(), root) == 0 && path.find("..") == std::string::npos ? path.substr(root.size()) : "";
      for (bool innermost = true;; innermost = false) {
        while (!path.empty() && path.back() == '/') {
          path.pop_back();
        }
        groups.push_back({version, Unescaped(fields[4]) + path, innermost});
        if (path.empty()) {
          break;
        }
        path = path.substr(0, path.rfind('/'));
      }
    }
  }
  return groups;
}

std::optional<int64_t> MemoryLeft(const Group &group) {
  std::vector<std::optional<int64_t>> limits;
  std::optional<int64_t> used;
  const std::string prefix = group.version == 2 ? "" : "total_";
  if (group.version == 2) {
    limits = {Number(group.Read("memory.max")), Number(group.Read("memory.high"))};  // above the second it is slowed down
    used = Number(group.Read("memory.current"));
  } else {
    if (!group.innermost && Number(group.Read("memory.use_hierarchy")) == 0) {
      return std::nullopt;
    }
    limits = {Number(group.Read("memory.limit_in_bytes"))};
    used = Number(group.Read("memory.usage_in_bytes"));
  }
  std::optional<int64_t> least;
  for (const auto &limit : limits) {
    if (limit && *limit >= 0) {
      least = std::min(*limit, least.value_or(*limit));
    }
  }
  if (!least || !used) {
    return std::nullopt;
  }
  const auto counts = group.Read("memory.stat");  // pages of files are taken back when they are needed
  const int64_t files = Counted(counts, prefix + "inactive_file ").value_or(0) + Counted(counts, prefix + "active_file ").value_or(0);
  return *least - std::max<int64_t>(0, *used - files);
}

std::optional<double> Quota(const Group &group) {
  std::optional<int64_t> quota, period;
  if (group.version == 2) {
    const auto words = Split(group.Read("cpu.max").value_or("max"), ' ');
    quota = Number(words.empty() ? std::string() : words[0]);
    period = words.size() > 1 ? Number(words[1]) : std::nullopt;
  } else {
    quota = Number(group.Read("cpu.cfs_quota_us"));
    period = Number(group.Read("cpu.cfs_period_us"));
  }
  if (!quota || !period || *quota < 0 || *period <= 0) {
    return std::nullopt;
  }
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

int64_t Private(const std::string &pid) { return 1024 * Counted(Text("/proc/" + pid + "/status"), "RssAnon:").value_or(0); }

std::vector<std::string> Entries(const std::string &folder) {
  std::vector<std::string> names;
  if (DIR *open = opendir(folder.c_str())) {
    while (const dirent *entry = readdir(open)) {
      if (entry->d_name[0] != '.') {
        names.emplace_back(entry->d_name);
      }
    }
    closedir(open);
  }
  return names;
}

void AddUse(const std::string &pid, int64_t *total, std::map<ino_t, int64_t> *files) {
  *total += Private(pid);
  for (const auto &number : Entries("/proc/" + pid + "/fd")) {
    const std::string path = "/proc/" + pid + "/fd/" + number;
    char target[64];
    const ssize_t length = readlink(path.c_str(), target, sizeof(target) - 1);
    struct stat status{};
    if (length > 7 && std::memcmp(target, "/memfd:", 7) == 0 && stat(path.c_str(), &status) == 0) {
      (*files)[status.st_ino] = status.st_blocks * 512;
    }
  }
  for (const auto &task : Entries("/proc/" + pid + "/task")) {
    for (const auto &child : Split(Text("/proc/" + pid + "/task/" + task + "/children").value_or(""), ' ')) {
      AddUse(child, total, files);
    }
  }
}

}  // namespace

int ThreadCount(std::optional<int64_t> threads) {
  if (!threads) {
    cpu_set_t set;
    CPU_ZERO(&set);
    int64_t least = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    for (const auto &group : Groups("cpu")) {
      if (const auto quota = Quota(group); quota && *quota > 0) {
        least = std::min(least, static_cast<int64_t>(std::ceil(*quota)));
      }
    }
    const char *named = std::getenv("OMP_NUM_THREADS");  // may be a list, for nested regions
    if (named != nullptr) {
      const std::string first = Split(std::string(named) + ",", ',')[0];
      const size_t start = first.find_first_not_of(" \t"), end = first.find_last_not_of(" \t");
      const std::string digits = start == std::string::npos ? "" : first.substr(start, end - start + 1);
      if (!digits.empty() && digits.size() <= 9 && digits.find_first_not_of("0123456789") == std::string::npos) {
        least = std::stoll(digits) > 0 ? std::min<int64_t>(least, std::stoll(digits)) : least;
      }
    }
    threads = std::max<int64_t>(least, 1);
  }
  if (*threads < 1 || *threads > INT32_MAX) {
    throw UserError("threads is " + std::to_string(*threads) + ": it must be a whole number of at least 1");
  }
  return static_cast<int>(*threads);
}

std::string Processor() {
  static constexpr const char *kVectors[] = {"avx", "sse", "fma", "f16c", "asimd", "neon", "sve", "fp", "i8mm", "bf16"};
  std::set<std::string> words;
  std::istringstream lines(Text("/proc/cpuinfo").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    const std::string key = line.substr(0, line.find_first_of(" \t:"));
    if ((key == "flags" || key == "Features") && colon != std::string::npos) {
      for (const auto &word : Split(line.substr(colon + 1), ' ')) {
        if (std::any_of(std::begin(kVectors), std::end(kVectors), [&word](const char *start) { return word.rfind(start, 0) == 0; })) {
          words.insert(word);
        }
      }
      break;
    }
  }
  utsname system{};
  uname(&system);
  std::string text = system.machine;
  for (const auto &word : words) {
    text += " " + word;
  }
  return text;
}

int64_t AvailableMemory() {
  const auto found = Counted(Text("/proc/meminfo"), "MemAvailable:");
  if (!found) {
    throw UserError("/proc/meminfo does not say what memory is available: this needs Linux 3.14 or later");
  }
  int64_t least = *found * 1024;
  for (const auto &group : Groups("memory")) {
    if (const auto left = MemoryLeft(group)) {
      least = std::min(least, std::max<int64_t>(0, *left));
    }
  }
  return least;
}

int64_t PrivateMemory() { return Private("self"); }

int64_t MemoryInUse() {
  int64_t total = 0;
  std::map<ino_t, int64_t> files;
  AddUse("self", &total, &files);
  for (const auto &[number, size] : files) {
    total += size;
  }
  return total;
}

std::string MemoryText(double bytes) {
  const bool large = bytes >= 1e9;
  char digits[64];
  std::snprintf(digits, sizeof(digits), large ? "%.2f" : "%.1f", bytes / (large ? 1e9 : 1e6));
  std::string text = digits;
  for (size_t point = text.find('.'); point > 3; point -= 3) {
    text.insert(point - 3, ",");
  }
  return text + (large ? " GB" : " MB");
}

int64_t MemoryOf(const std::string &text, const std::string &name) {
  static const std::map<std::string, double> kUnits = {
    {"", 1}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"KI", 1024.0}, {"MI", 1048576.0}, {"GI", 1073741824.0},
    {"TI", 1099511627776.0}};
  std::string upper;
  for (const char c : text) {
    if (std::isspace(static_cast<unsigned char>(c)) == 0) {
      upper += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
  }
  const size_t digits = std::min(upper.find_first_not_of("0123456789."), upper.size());
  std::string unit = upper.substr(digits);
  if (!unit.empty() && unit.back() == 'B') {
    unit.pop_back();
  }
  const std::string number = upper.substr(0, digits);
  const size_t point = number.find('.');
  const bool plain = !number.empty() && number[0] != '.' && number.back() != '.' && number.find('.', point + 1) == std::string::npos &&
                     std::min(point, number.size()) <= 9 && (point == std::string::npos || number.size() - point <= 10);
  const auto found = kUnits.find(unit);
  const double size = plain && found != kUnits.end() ? std::strtod(number.c_str(), nullptr) * found->second : 0;
  if (!(size >= 1)) {
    throw UserError(name + " is '" + text + "': it must be an amount of memory, for example 12GB");
  }
  return static_cast<int64_t>(size);
}

}  // namespace kandinsky
