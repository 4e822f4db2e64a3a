#include "common/fields.h"

#include <cmath>

#include "common/errors.h"

namespace kandinsky {

Field Field::operator[](const char *name) const {
  const auto found = Object().find(name);
  if (found == value_->end()) {
    Refuse(std::string("object missing required field '") + name + "'");
  }
  const bool file = where_.find(": ") == std::string::npos;
  return Field(*found, where_ + (file ? ": " : ".") + name, remedy_);
}

Field Field::At(size_t index) const {
  if (!value_->is_array() || index >= value_->size()) {
    Refuse("it has too few values");
  }
  return Field((*value_)[index], where_ + "[" + std::to_string(index) + "]", remedy_);
}

bool Field::Has(const char *name) const {
  const auto found = Object().find(name);
  return found != value_->end() && !found->is_null();
}

size_t Field::Count() const {
  if (!value_->is_array()) {
    Expect("array");
  }
  return value_->size();
}

int64_t Field::Integer(int64_t low, int64_t high) const {
  if (!value_->is_number_integer()) {
    Expect("int");
  }
  const bool huge = value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t number = huge ? INT64_MAX : value_->get<int64_t>();
  if (huge || number < low || number > high) {
    Refuse("expected 'int' from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return number;
}

double Field::Number(double low, double high) const {
  if (!value_->is_number()) {
    Expect("number");
  }
  const double number = value_->get<double>();
  if (!(number >= low && number <= high)) {
    Refuse("it is out of range");
  }
  return number;
}

bool Field::Flag() const {
  if (!value_->is_boolean()) {
    Expect("bool");
  }
  return value_->get<bool>();
}

std::string Field::Text() const {
  if (!value_->is_string()) {
    Expect("str");
  }
  return value_->get<std::string>();
}

const Json &Field::Object() const {
  if (!value_->is_object()) {
    Expect("object");
  }
  return *value_;
}

std::vector<std::string> Field::Texts() const {
  std::vector<std::string> texts;
  for (size_t i = 0; i < Count(); ++i) {
    texts.push_back(At(i).Text());
  }
  return texts;
}

void Field::Refuse(const std::string &reason) const { throw UserError(where_ + ": " + reason + remedy_); }

void Field::Expect(const char *kind) const {
  const char *found = value_->is_null()      ? "null"
                      : value_->is_boolean() ? "bool"
                      : value_->is_string()  ? "str"
                      : value_->is_array()   ? "array"
                      : value_->is_object()  ? "object"
                      : value_->is_number_float() ? "float" : "int";
  Refuse(std::string("expected '") + kind + "', got '" + found + "'");
}

Json ParseJson(const std::string &text, const std::string &where, const std::string &remedy) {
  if (IsTooDeep(text)) {
    throw UserError(where + " is nested too deeply to be read: it is damaged; " + remedy);
  }
  try {
    return Json::parse(text);
  } catch (const Json::exception &error) {
    throw UserError(where + " is not JSON (" + error.what() + "): it is cut or damaged; " + remedy);
  }
}

std::string Shortened(const std::string &text) {
  return "'" + (text.size() <= 58 ? text : text.substr(0, 55) + "...") + "'";
}

}  // namespace kandinsky
