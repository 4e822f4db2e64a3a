// The control groups that limit this process (runner/common/control_groups.py), and how the system's files of numbers are read.

#ifndef KANDINSKY_MINDIR_CONTROL_GROUPS_H
#define KANDINSKY_MINDIR_CONTROL_GROUPS_H

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kandinsky {

std::optional<std::string> Text(const std::string &path);  // of a whole file
std::vector<std::string> Split(const std::string &text, char separator);
std::optional<int64_t> Number(const std::optional<std::string> &text);
std::optional<int64_t> Counted(const std::optional<std::string> &text, const std::string &key);  // of the line that begins so

// A group that limits this process: the version of control groups, its folder, whether it is the innermost.
struct Group {
  int version;
  std::string folder;
  bool innermost;

  std::optional<std::string> Read(const std::string &name) const { return Text(folder + "/" + name); }
};

// The groups that limit this process by `controller` ("memory", "cpu"), from the innermost outwards.
std::vector<Group> Groups(const std::string &controller);

std::optional<int64_t> MemoryLeft(const Group &group);  // bytes
std::optional<double> Quota(const Group &group);        // CPUs

}  // namespace kandinsky

#endif
