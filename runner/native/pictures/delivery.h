// Finished pictures become files, one by one as they are made, or one grid of all (runner/pictures/delivery.py).

#ifndef KANDINSKY_MINDIR_DELIVERY_H
#define KANDINSKY_MINDIR_DELIVERY_H

#include <optional>
#include <string>
#include <vector>

#include "pictures/images.h"
#include "bundle/manifest.h"
#include "pictures/png_file.h"

namespace kandinsky {

class Delivery {
 public:
  // output: the file of one picture or of a grid; several pictures are numbered. size: of each picture. UserError for a name
  // that is no PNG's.
  Delivery(std::string output, size_t count, bool grid, Size size);

  bool grid() const { return grid_; }
  // UserError if the pictures could not be written; `inputs` are files that must not be overwritten.
  void Check(const std::vector<std::string> &inputs) const;
  // Takes picture `number`; the path of the file that it has written, if it has.
  std::optional<std::string> Take(size_t number, const Image &image, const TextChunks &text);
  // Writes an unfinished grid into a file whose name says so; what to tell of it.
  std::optional<std::string> KeepUnfinished();

 private:
  std::string Numbered(size_t number) const;
  std::string Renamed(const std::string &suffix) const;

  std::string output_;
  size_t count_, rows_ = 1, columns_ = 1, made_ = 0;
  bool grid_;
  Size size_;
  Image whole_{};
};

}  // namespace kandinsky

#endif
