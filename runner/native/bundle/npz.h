// Arrays of a `.npz` file, NumPy's archive, read so that no header makes the program take more memory than the file may.

#ifndef KANDINSKY_MINDIR_NPZ_H
#define KANDINSKY_MINDIR_NPZ_H

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bundle/manifest.h"

namespace kandinsky {

// An array in C order: float32, int32 or text, and nothing of the others.
struct Array {
  std::string dtype;  // "float32", "int32", "text"
  Dimensions shape;
  std::vector<float> floats;
  std::vector<int32_t> integers;
  std::vector<std::string> texts;
};

// The arrays of a file, by name. UserError if it is damaged, lacks one of `required`, or holds too much.
std::map<std::string, Array> ReadArrays(const std::string &path, const std::vector<std::string> &required);

}  // namespace kandinsky

#endif
