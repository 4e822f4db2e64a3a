#include "common/machine.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <dirent.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/control_groups.h"
#include "common/errors.h"

namespace kandinsky {

namespace {

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

// Whether a process was forked and has not called exec since: it shares the pages of its parent.
bool OnlyForked(const std::string &pid) {
  const std::string line = Text("/proc/" + pid + "/stat").value_or("");
  std::istringstream words(line.substr(std::min(line.rfind(')') + 1, line.size())));
  std::string word;
  uint64_t flags = 0;
  for (int i = 0; i < 6; ++i) {  // state, parent, group, session, terminal, its group
    words >> word;
  }
  words >> flags;
  return (flags & 0x40) != 0;  // PF_FORKNOEXEC
}

// parent: what the process that has started it has of its own.
void AddUse(const std::string &pid, int64_t parent, int64_t *total, std::map<ino_t, int64_t> *files) {
  const int64_t own = Private(pid);
  *total += parent > 0 && OnlyForked(pid) ? std::max<int64_t>(0, own - parent) : own;
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
      AddUse(child, own, total, files);
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
  AddUse("self", 0, &total, &files);
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
