// What is known of files that were hashed before: a record in the user's cache, which kandinsky-mindir shares
// (runner/bundle/check_record.py). Where it cannot be read or written, files are hashed again.

#ifndef KANDINSKY_MINDIR_CHECK_RECORD_H
#define KANDINSKY_MINDIR_CHECK_RECORD_H

#include <array>
#include <cstdint>
#include <mutex>
#include <string>

#include "common/json.h"

struct stat;

namespace kandinsky {

// Device, inode, size, time of change of the contents and of anything else in ns: what differs after a change.
struct FileState {
  std::array<int64_t, 5> values{};

  static FileState Of(const struct stat &status);
  bool Settled(int64_t now) const;  // whether a change after `now` (ns) would show
  bool operator==(const FileState &other) const { return values == other.values; }
};

// Nanoseconds since 1970.
int64_t Now();

class CheckRecord {
 public:
  explicit CheckRecord(std::string folder) : folder_(std::move(folder)) {}

  bool Knows(const std::string &name, const FileState &state, const std::string &sha256);
  void Add(const std::string &name, const FileState &state, const std::string &sha256, int64_t now);

 private:
  std::string Path() const;  // "" if this user has no cache
  Json Read() const;
  void Write(const Json &files) const;

  std::string folder_;
  std::mutex mutex_;
  bool read_ = false;
  Json known_;
};

}  // namespace kandinsky

#endif
