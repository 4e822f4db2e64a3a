// What a request draws from and brings (runner/tasks.py): the texts and pictures of a mix, and the pictures that the decoder is
// shown.

#ifndef KANDINSKY_MINDIR_ITEMS_H
#define KANDINSKY_MINDIR_ITEMS_H

#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "pictures/images.h"

namespace kandinsky {

// A picture: its path, and the sha256 of its pixels once they are known.
struct InputPicture {
  std::optional<std::string> image, sha256;

  // UserError unless `data` is a picture of the request's field `name`.
  static InputPicture Of(const Json &data, const std::string &name);
  Json ToJson() const;

  // Its pixels. UserError, which calls it `name`, if it has no path, cannot be read, or is not the one whose sha256 it holds.
  Image Open(const std::string &name) const;
};

using InputPictures = std::vector<InputPicture>;

// The pictures in the list `data`, the request's field `name`.
InputPictures PicturesOf(const Json &data, const std::string &name);

// A text or a picture of a mix, and its weight.
struct Item : InputPicture {
  double weight = 1;
  std::optional<std::string> text;

  static Item Of(const Json &data);
  Json ToJson() const;
};

}  // namespace kandinsky

#endif
