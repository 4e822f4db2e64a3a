// How a picture was made, in the text of its PNG: what kandinsky-mindir and this program need to make it again
// (runner/pictures/provenance.py).

#ifndef KANDINSKY_MINDIR_RECIPE_H
#define KANDINSKY_MINDIR_RECIPE_H

#include <map>
#include <string>

#include "pictures/png_file.h"
#include "pipelines/request.h"

namespace kandinsky {

struct Recipe {
  Request request;            // complete
  std::string bundle;         // its path, as it was given
  std::string bundle_sha256;  // of its manifest.json
  std::map<std::string, std::string> beside;  // from a path above to the same relative to the folder of the PNG
  bool grid = false;
  std::string precision = "float32";

  Json ToJson() const;
  TextChunks Text() const;  // ToJson, and `parameters` for people and viewers

  // What a PNG file says of its making; UserError if it says nothing that this program understands.
  static Recipe Read(const std::string &path);
};

extern const char *const kVersion;  // of this program

// A path as text that JSON can hold, and the path of it again: one that is not UTF-8 as an address.
std::string PathAsText(const std::string &path);
std::string TextAsPath(const std::string &text);

// `path` from the folder of `picture`.
std::string RelativeTo(const std::string &path, const std::string &picture);

}  // namespace kandinsky

#endif
