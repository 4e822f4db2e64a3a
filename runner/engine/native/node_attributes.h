// The attributes of a node, in the table of flatbuffers that Lite hands to the maker of a kernel.

#ifndef KANDINSKY_MINDIR_NODE_ATTRIBUTES_H
#define KANDINSKY_MINDIR_NODE_ATTRIBUTES_H

#include <cstdint>
#include <cstring>
#include <vector>

#include "schema/model_generated.h"

class NodeAttributes {
 public:
  // primitive: a union of which field 1 is the operator's own table.
  explicit NodeAttributes(const mindspore::schema::Primitive *primitive) {
    if (const std::uint8_t *field = Field(reinterpret_cast<const std::uint8_t *>(primitive), 1); field != nullptr) {
      table_ = field + Read<std::uint32_t>(field);
    }
  }

  // A field that the file leaves out has its default, 0.
  bool Flag(int field) const { return Value<std::uint8_t>(field) != 0; }
  int Byte(int field) const { return Value<std::int8_t>(field); }
  std::int64_t Number(int field) const { return Value<std::int64_t>(field); }
  std::vector<std::int64_t> Numbers(int field) const {
    const std::uint8_t *place = table_ == nullptr ? nullptr : Field(table_, field);
    if (place == nullptr) {
      return {};
    }
    const std::uint8_t *vector = place + Read<std::uint32_t>(place);
    std::vector<std::int64_t> numbers(Read<std::uint32_t>(vector));
    std::memcpy(numbers.data(), vector + sizeof(std::uint32_t), numbers.size() * sizeof(std::int64_t));
    return numbers;
  }

 private:
  template <typename T>
  static T Read(const std::uint8_t *from) {
    T value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }

  static const std::uint8_t *Field(const std::uint8_t *table, int number) {
    const std::uint8_t *offsets = table - Read<std::int32_t>(table);
    const int place = 4 + 2 * number;
    const auto offset = place + 2 > Read<std::uint16_t>(offsets) ? 0 : Read<std::uint16_t>(offsets + place);
    return offset == 0 ? nullptr : table + offset;
  }

  template <typename T>
  T Value(int number) const {
    const std::uint8_t *field = table_ == nullptr ? nullptr : Field(table_, number);
    return field == nullptr ? T{} : Read<T>(field);
  }

  const std::uint8_t *table_ = nullptr;
};

#endif
