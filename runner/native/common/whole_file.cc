// runner/common/whole_file.py, under the same names, so that each program removes what the other one left.
#include "common/whole_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "common/errors.h"

namespace kandinsky {
namespace {

constexpr char kPrefix[] = ".kandinsky-mindir-", kSuffix[] = ".part";

// Where a path leads, links followed, though its last part need not be there.
std::string RealPath(std::string path) {
  for (int links = 0; links < 40; ++links) {
    char target[PATH_MAX];
    const ssize_t length = readlink(path.c_str(), target, sizeof target);
    if (length < 0 || static_cast<size_t>(length) == sizeof target) break;
    const std::string named(target, static_cast<size_t>(length));
    const size_t slash = path.rfind('/');
    path = named.compare(0, 1, "/") == 0 || slash == std::string::npos ? named : path.substr(0, slash + 1) + named;
  }
  return path;
}

bool EndsWith(const std::string &text, const std::string &end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// What a killed writer left is locked by nobody.
void RemoveLeft(const std::string &folder) {
  DIR *listing = opendir(folder.c_str());
  if (listing == nullptr) return;
  while (const dirent *entry = readdir(listing)) {
    const std::string name = entry->d_name;
    if (name.compare(0, sizeof kPrefix - 1, kPrefix) != 0 || !EndsWith(name, kSuffix)) continue;
    const std::string left = folder + name;
    const int file = open(left.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0) continue;
    if (flock(file, LOCK_EX | LOCK_NB) == 0) unlink(left.c_str());
    close(file);
  }
  closedir(listing);
}

// The writer's file: open, locked, and gone when this ends if it was not given its name.
class Beside {
 public:
  explicit Beside(const std::string &folder) {
    std::random_device random;
    while (file_ < 0) {
      char name[64];
      std::snprintf(name, sizeof name, "%s%08x%s", kPrefix, random(), kSuffix);
      path_ = folder + name;
      file_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (file_ < 0 && errno == EEXIST) continue;
      if (file_ < 0) throw errno;
      flock(file_, LOCK_EX);  // a file system without locks: without one
      struct stat facts;
      if (fstat(file_, &facts) == 0 && facts.st_nlink > 0) break;
      close(file_);  // another program took it for a left one before it was locked
      file_ = -1;
    }
  }

  ~Beside() {
    if (!path_.empty()) unlink(path_.c_str());
    close(file_);
  }

  void Write(const char *data, size_t size) {
    while (size > 0) {
      const ssize_t written = write(file_, data, size);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) throw errno;
      data += written;
      size -= static_cast<size_t>(written);
    }
  }

  void Become(const std::string &target) {
    if (rename(path_.c_str(), target.c_str()) != 0) throw errno;
    path_.clear();
  }

 private:
  std::string path_;
  int file_ = -1;
};

}  // namespace

void WriteWhole(const std::string &path, const void *data, size_t size) {
  const std::string target = RealPath(path);
  const size_t slash = target.rfind('/');
  const std::string folder = slash == std::string::npos ? "./" : target.substr(0, slash + 1);
  RemoveLeft(folder);
  try {
    Beside file(folder);
    file.Write(static_cast<const char *>(data), size);
    file.Become(target);
  } catch (const int error) {
    throw UserError(path + " cannot be written: " + std::strerror(error));
  }
}

}  // namespace kandinsky
