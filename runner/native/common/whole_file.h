// A file appears whole or not at all.
#pragma once

#include <cstddef>
#include <string>

namespace kandinsky {

// Writes `path` by way of a file beside it, under another name; where `path` is a symbolic link, what the link names is
// written. Files that killed programs left so in the folder are removed. UserError if it cannot be written.
void WriteWhole(const std::string &path, const void *data, size_t size);

}  // namespace kandinsky
