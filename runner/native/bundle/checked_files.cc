#include "bundle/checked_files.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/errors.h"
#include "common/files.h"
#include "common/sha256.h"
#include "common/stop.h"

namespace kandinsky {

namespace {

constexpr size_t kChunk = size_t{1} << 20;

std::string HashOf(const std::string &path, const Stop *stop, const std::string &remedy) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Sha256 digest;
  std::vector<char> block(kChunk);
  ssize_t count = -1;
  while (file && (count = read(file.get(), block.data(), block.size())) != 0) {
    if (stop != nullptr) {
      stop->Check();
    }
    if (count < 0 && errno != EINTR) {
      break;
    }
    digest.Update(block.data(), count < 0 ? 0 : static_cast<size_t>(count));
  }
  if (count < 0) {
    throw UserError(path + " cannot be read (" + Reason(errno) + "): " + remedy);
  }
  return digest.HexDigest();
}

}  // namespace

Check CheckOf(const std::string &word) {
  if (word != "once" && word != "always" && word != "never") {
    throw UserError("check is '" + word + "': it must be once, always or never");
  }
  return word == "once" ? Check::kOnce : word == "always" ? Check::kAlways : Check::kNever;
}

CheckedFiles::CheckedFiles(std::string path, std::map<std::string, FileInfo> files, std::string remedy, Check check,
                           const Stop *stop)
    : path_(std::move(path)), files_(std::move(files)), remedy_(std::move(remedy)), check_(check), stop_(stop), record_(path_) {
  for (const auto &[name, info] : files_) {
    CheckSize(name, info.size);
    hashed_[name];
  }
}

std::string CheckedFiles::File(const std::string &name) const {
  const FileInfo &info = Known(name);
  if (check_ != Check::kNever) {
    Hashed &hashed = hashed_.at(name);
    const std::lock_guard<std::mutex> lock(hashed.busy);
    const FileState state = State(name);
    if (!(hashed.right == state) && !(check_ == Check::kOnce && record_.Knows(name, state, info.sha256))) {
      Hash(name, check_ == Check::kOnce);
    }
  }
  return Place(name);
}

void CheckedFiles::VerifyFiles() const {
  for (const auto &[name, info] : files_) {
    Hashed &hashed = hashed_.at(name);
    const std::lock_guard<std::mutex> lock(hashed.busy);
    if (!(hashed.right == State(name))) {
      Hash(name, check_ == Check::kOnce);
    }
  }
}

const FileInfo &CheckedFiles::Known(const std::string &name) const {
  const auto found = files_.find(name);
  if (found == files_.end()) {
    throw UserError(Place(kManifestName) + " does not list " + name + ": it is damaged; " + remedy_);
  }
  return found->second;
}

void CheckedFiles::CheckSize(const std::string &name, uint64_t size) const {
  struct stat status{};
  if (stat(Place(name).c_str(), &status) != 0) {
    throw UserError(Place(name) + " is missing from the bundle: " + remedy_);
  }
  if (static_cast<uint64_t>(status.st_size) != size) {
    throw UserError(Place(name) + " has " + std::to_string(status.st_size) + " bytes, the manifest says " +
                    std::to_string(size) + ": it is cut or damaged; " + remedy_);
  }
}

FileState CheckedFiles::State(const std::string &name) const {
  struct stat status{};
  if (stat(Place(name).c_str(), &status) != 0) {
    throw UserError(Place(name) + (errno == ENOENT ? " is missing from the bundle: "
                                                   : " cannot be read (" + Reason(errno) + "): ") + remedy_);
  }
  return FileState::Of(status);
}

void CheckedFiles::Hash(const std::string &name, bool record) const {
  const FileInfo &info = Known(name);
  CheckSize(name, info.size);
  const int64_t now = Now();
  const FileState state = State(name);  // before it is read
  const std::string found = HashOf(Place(name), stop_, remedy_);
  if (found != info.sha256) {
    throw UserError(Place(name) + " does not match its sha256 in the manifest: it is damaged; " + remedy_);
  }
  hashed_.at(name).right = state;
  if (record) {
    record_.Add(name, state, found, now);
  }
}

}  // namespace kandinsky
