#include "bundle/check_record.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <exception>

#include <sys/stat.h>
#include <unistd.h>

#include "common/files.h"
#include "common/sha256.h"
#include "common/whole_file.h"

namespace kandinsky {

namespace {

constexpr int64_t kSecond = 1'000'000'000, kSettled = 2 * kSecond;
constexpr size_t kLargestRecord = size_t{1} << 26;

std::string Variable(const char *name) {
  const char *value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string CacheFolder() {
  std::string base = Variable("KANDINSKY_MINDIR_CACHE");
  if (base.empty()) {
    base = Variable("XDG_CACHE_HOME");
  }
  if (base.empty()) {
    std::string home = Variable("HOME");
    if (home.empty()) {
      return "";
    }
    base = home + "/.cache";
  }
  return AbsolutePath(base) + "/kandinsky-mindir";
}

Json AsJson(const FileState &state, const std::string &sha256) {
  Json row(state.values);
  row.push_back(sha256);
  return row;
}

}  // namespace

FileState FileState::Of(const struct stat &status) {
  return {{static_cast<int64_t>(status.st_dev), static_cast<int64_t>(status.st_ino), static_cast<int64_t>(status.st_size),
           status.st_mtim.tv_sec * kSecond + status.st_mtim.tv_nsec, status.st_ctim.tv_sec * kSecond + status.st_ctim.tv_nsec}};
}

bool FileState::Settled(int64_t now) const { return std::max(values[3], values[4]) <= now - kSettled; }

int64_t Now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

bool CheckRecord::Knows(const std::string &name, const FileState &state, const std::string &sha256) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!read_) {
    known_ = Read();
    read_ = true;
  }
  const auto found = known_.find(name);
  return found != known_.end() && *found == AsJson(state, sha256);
}

void CheckRecord::Add(const std::string &name, const FileState &state, const std::string &sha256, int64_t now) {
  if (!state.Settled(now)) {
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  try {
    known_ = Read();
    known_[name] = AsJson(state, sha256);
    Write(known_);
  } catch (const std::exception &) {  // it is a convenience
  }
}

std::string CheckRecord::Path() const {
  const std::string cache = CacheFolder(), real = RealPath(folder_);
  return cache.empty() ? "" : cache + "/checked/" + Sha256Hex(real.data(), real.size()).substr(0, 32) + ".json";
}

Json CheckRecord::Read() const {
  try {
    const std::string text = ReadFile(Path(), kLargestRecord);
    if (IsTooDeep(text)) {
      return Json::object();
    }
    Json files = Json::parse(text).at("files");
    return files.is_object() ? files : Json::object();
  } catch (const std::exception &) {
    return Json::object();
  }
}

void CheckRecord::Write(const Json &files) const {
  const std::string path = Path();
  if (path.empty()) {
    return;
  }
  for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    mkdir(path.substr(0, slash).c_str(), 0700);  // those that are there stay as they are
  }
  const std::string text = Json{{"folder", RealPath(folder_)}, {"files", files}}.dump();
  WriteWhole(path, text.data(), text.size());
}

}  // namespace kandinsky
