// The one error that users see: bad input or a bad environment, in one line that is safe to print.
#pragma once

#include <stdexcept>
#include <string>

namespace kandinsky {

// `text` (UTF-8) as one line: lines are joined by blanks, and what a terminal would act on or could not show becomes its
// escape, as runner/common/errors.py does for ASCII; bytes that are no UTF-8 become \x80 and the like.
std::string OneLine(const std::string &text);

// `text` in quotes with its control characters escaped, as Python's repr shows a string.
std::string Quoted(const std::string &text);

// As the format %g.
std::string Short(double number);

class UserError : public std::runtime_error {
 public:
  explicit UserError(const std::string &message) : std::runtime_error(OneLine(message)) {}
};

}  // namespace kandinsky
