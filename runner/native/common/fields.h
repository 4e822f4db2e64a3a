// Values of JSON objects, read strictly: every refusal is one line that names the field.

#ifndef KANDINSKY_MINDIR_FIELDS_H
#define KANDINSKY_MINDIR_FIELDS_H

#include <cstdint>
#include <string>
#include <vector>

#include "common/json.h"

namespace kandinsky {

// A value, and what errors say before and after what is wrong with it.
class Field {
 public:
  Field(const Json &value, std::string where, std::string remedy)
      : value_(&value), where_(std::move(where)), remedy_(std::move(remedy)) {}

  const Json &json() const { return *value_; }
  const std::string &where() const { return where_; }

  Field operator[](const char *name) const;  // a member that must be there
  Field At(size_t index) const;
  bool Has(const char *name) const;  // whether the object has the member, and it is not null
  size_t Count() const;              // of an array
  int64_t Integer(int64_t low, int64_t high) const;
  double Number(double low, double high) const;
  bool Flag() const;
  std::string Text() const;
  const Json &Object() const;
  std::vector<std::string> Texts() const;

  [[noreturn]] void Refuse(const std::string &reason) const;

 private:
  [[noreturn]] void Expect(const char *kind) const;

  const Json *value_;
  std::string where_, remedy_;
};

// The JSON in `text`. UserError: "WHERE is not JSON (...): it is cut or damaged; REMEDY".
Json ParseJson(const std::string &text, const std::string &where, const std::string &remedy);

// A path as errors quote it, not longer than 60 characters.
std::string Shortened(const std::string &text);

}  // namespace kandinsky

#endif
