// Files of known size and sha256, which are checked before they are used (runner/bundle/checked_files.py).

#ifndef KANDINSKY_MINDIR_CHECKED_FILES_H
#define KANDINSKY_MINDIR_CHECKED_FILES_H

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bundle/check_record.h"
#include "bundle/manifest.h"

namespace kandinsky {

// When to hash what is in files: "once", unless a file is known to be unchanged since; "always", in every process; "never".
enum class Check { kOnce, kAlways, kNever };
Check CheckOf(const std::string &word);  // UserError for another word

class Stop;

// Any thread may use it.
class CheckedFiles {
 public:
  // path: the folder. remedy: what errors advise. stop: what ends a long check early. UserError if a file is missing or has
  // another size.
  CheckedFiles(std::string path, std::map<std::string, FileInfo> files, std::string remedy, Check check, const Stop *stop);
  virtual ~CheckedFiles() = default;

  // The path of a file, after its size and sha256 were checked: again if it was changed.
  std::string File(const std::string &name) const;
  void VerifyFiles() const;  // hashes what this object has not hashed yet

  std::string Place(const std::string &name) const { return path_ + "/" + name; }
  const std::string &path() const { return path_; }
  const std::map<std::string, FileInfo> &files() const { return files_; }

 private:
  const FileInfo &Known(const std::string &name) const;
  void CheckSize(const std::string &name, uint64_t size) const;
  FileState State(const std::string &name) const;
  void Hash(const std::string &name, bool record) const;

  std::string path_;
  std::map<std::string, FileInfo> files_;
  std::string remedy_;
  Check check_;
  const Stop *stop_;
  mutable CheckRecord record_;
  struct Hashed {
    std::mutex busy;
    FileState right;  // the state in which the file was right, in this process
  };
  mutable std::map<std::string, Hashed> hashed_;
};

}  // namespace kandinsky

#endif
