#include "common/control_groups.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include <sys/stat.h>

namespace kandinsky {

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

namespace {

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

}  // namespace

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

}  // namespace kandinsky
