#include "common/files.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/errors.h"

namespace kandinsky {

namespace {

constexpr const char *kAnother = ": choose another --output";

[[noreturn]] void ThrowErrno(const std::string &what) { throw std::system_error(errno, std::generic_category(), what); }

}  // namespace

Descriptor &Descriptor::operator=(Descriptor &&other) noexcept {
  if (this != &other) {
    Close();
    number_ = std::exchange(other.number_, -1);
  }
  return *this;
}

void Descriptor::Close() {
  if (number_ >= 0) {
    close(std::exchange(number_, -1));
  }
}

MappedFile::MappedFile(const std::string &path, const std::string &remedy) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status{};
  if (!file || fstat(file.get(), &status) != 0) {
    throw UserError(path + " cannot be read (" + Reason(errno) + "): " + remedy);
  }
  size_ = static_cast<size_t>(status.st_size);
  void *data = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) {
    throw UserError(path + " cannot be read (" + (size_ == 0 ? "it is empty" : Reason(errno)) + "): " + remedy);
  }
  data_ = static_cast<uint8_t *>(data);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    munmap(data_, size_);
  }
}

std::string Reason(int number) { return std::generic_category().message(number); }

Descriptor MemoryFile(const char *name) {
  Descriptor file(static_cast<int>(syscall(SYS_memfd_create, name, 1U /* MFD_CLOEXEC */)));
  if (!file) {
    throw UserError("The system gives no file in memory (memfd_create: " + Reason(errno) +
                    "): this program needs Linux 3.17 or later, and a container that allows the call");
  }
  if (file.get() <= STDERR_FILENO) {  // where a standard stream is closed: programs that are started get theirs there
    file = Descriptor(fcntl(file.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  }
  return file;
}

std::string ReadFile(const std::string &path, size_t most) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status{};
  if (!file || fstat(file.get(), &status) != 0) {
    ThrowErrno(path);
  }
  std::string content;
  content.reserve(std::min(static_cast<size_t>(std::max<off_t>(status.st_size, 0)), most) + 1);
  char block[1 << 16];
  ssize_t count;
  while ((count = read(file.get(), block, sizeof(block))) != 0) {
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      ThrowErrno(path);
    }
    content.append(block, static_cast<size_t>(count));
    if (content.size() > most) {
      throw UserError(path + " has more than " + std::to_string(most) + " bytes");
    }
  }
  return content;
}

void WriteAll(int file, const void *data, size_t size, int64_t offset) {
  const char *next = static_cast<const char *>(data);
  while (size > 0) {
    const size_t part = std::min(size, size_t{1} << 30);
    const ssize_t written = offset < 0 ? write(file, next, part) : pwrite(file, next, part, static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      ThrowErrno("write");
    }
    next += written;
    size -= static_cast<size_t>(written);
    offset += offset < 0 ? 0 : written;
  }
}

void CheckPlace(const std::string &path) {
  const std::string folder = FolderOf(path);
  if (!IsFolder(folder)) {
    throw UserError("the folder " + folder + " does not exist: make it, or choose another --output");
  }
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) {
      throw UserError(path + " cannot be written (" + Reason(errno) + ")" + kAnother);
    }
  } else if (S_ISDIR(status.st_mode)) {
    throw UserError(path + " is a folder" + kAnother);
  } else if (!S_ISREG(status.st_mode)) {
    throw UserError(path + " is a device or a pipe" + kAnother);
  } else if (access(path.c_str(), W_OK) != 0) {
    throw UserError(path + " is read-only" + kAnother);
  }
  const std::string target = FolderOf(RealPath(path));
  if (access(target.c_str(), W_OK) != 0) {
    throw UserError("the folder " + target + " is not writable" + kAnother);
  }
  std::string trial = target + "/.kandinsky-mindir-XXXXXX";
  const Descriptor file(mkostemp(trial.data(), O_CLOEXEC));
  if (!file) {
    throw UserError(target + " takes no files (" + Reason(errno) + ")" + kAnother);
  }
  unlink(trial.c_str());
}

std::string AbsolutePath(const std::string &path) {
  if (!path.empty() && path[0] == '/') {
    return path;
  }
  char folder[PATH_MAX];
  if (getcwd(folder, sizeof(folder)) == nullptr) {
    throw UserError("the working folder is gone: change to one that exists");
  }
  return std::string(folder) + (path.empty() ? "" : "/" + path);
}

std::string RealPath(const std::string &path) {
  char *found = realpath(path.c_str(), nullptr);
  if (found != nullptr) {
    std::string real(found);
    std::free(found);
    return real;
  }
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof(target));
  if (length > 0 && length < PATH_MAX) {  // a link to a file that is not there yet
    const std::string named(target, static_cast<size_t>(length));
    return named[0] == '/' ? named : FolderOf(path) + "/" + named;
  }
  found = realpath(FolderOf(path).c_str(), nullptr);
  if (found == nullptr) {
    return AbsolutePath(path);
  }
  std::string real = std::string(found) + (std::strcmp(found, "/") == 0 ? "" : "/") + NameOf(path);
  std::free(found);
  return real;
}

std::string FolderOf(const std::string &path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string NameOf(const std::string &path) { return path.substr(path.rfind('/') + 1); }

bool IsFolder(const std::string &path) {
  struct stat status{};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace kandinsky
