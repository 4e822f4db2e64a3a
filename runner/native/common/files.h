// Files, descriptors and memory files, with errors of one line.

#ifndef KANDINSKY_MINDIR_FILES_H
#define KANDINSKY_MINDIR_FILES_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <sys/stat.h>

namespace kandinsky {

// A descriptor that is closed with its owner.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor &&other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor &operator=(Descriptor &&other) noexcept;
  ~Descriptor() { Close(); }

  int get() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }
  void Close();

 private:
  int number_;
};

// The pages of a file, read-only. UserError, with `remedy`, if it cannot be mapped; an empty file cannot be either.
class MappedFile {
 public:
  MappedFile(const std::string &path, const std::string &remedy);
  MappedFile(MappedFile &&other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  MappedFile &operator=(MappedFile &&) = delete;
  ~MappedFile();

  const uint8_t *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t *data_ = nullptr;
  size_t size_ = 0;
};

// The text of an error number.
std::string Reason(int number);

// A new, empty file in memory, without a name; closed in programs that are started. UserError if the system has none.
Descriptor MemoryFile(const char *name);

// The bytes of a file. Throws std::system_error if it cannot be read, UserError if it has more than `most` bytes.
std::string ReadFile(const std::string &path, size_t most);

// Writes all of it at `offset` (-1: at the descriptor's own). Throws std::system_error.
void WriteAll(int file, const void *data, size_t size, int64_t offset = -1);

// UserError if a picture could not be written to `path`: its folder is not there or takes no files, or something else is there.
void CheckPlace(const std::string &path);

std::string RealPath(const std::string &path);     // of a path whose end need not exist
std::string AbsolutePath(const std::string &path);
std::string FolderOf(const std::string &path);      // "." of a plain name
std::string NameOf(const std::string &path);
bool IsFolder(const std::string &path);

}  // namespace kandinsky

#endif
