// Tables of flatbuffers, read without the library: a `.ms` file is one, and the attributes of its nodes are some.

#ifndef KANDINSKY_MINDIR_FLAT_TABLE_H
#define KANDINSKY_MINDIR_FLAT_TABLE_H

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

class FlatTable {
 public:
  FlatTable() = default;  // an empty one: no field is there
  explicit FlatTable(const std::uint8_t *table) : table_(table) {}

  template <typename T>
  static T Read(const std::uint8_t *from) {
    T value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }

  // Where a field lies; nullptr: the file leaves it out, and it has its default.
  const std::uint8_t *Field(int number) const {
    if (table_ == nullptr) {
      return nullptr;
    }
    const std::uint8_t *offsets = table_ - Read<std::int32_t>(table_);
    const int place = 4 + 2 * number;
    const auto offset = place + 2 > Read<std::uint16_t>(offsets) ? 0 : Read<std::uint16_t>(offsets + place);
    return offset == 0 ? nullptr : table_ + offset;
  }

  template <typename T>
  T Value(int number) const {
    const std::uint8_t *field = Field(number);
    return field == nullptr ? T{} : Read<T>(field);
  }

  FlatTable Table(int number) const {
    const std::uint8_t *field = Field(number);
    return field == nullptr ? FlatTable() : FlatTable(field + Read<std::uint32_t>(field));
  }

  // The first element of a vector, and how many there are; nullptr and 0 where the file leaves it out.
  struct Vector {
    const std::uint8_t *data;
    std::size_t size;
  };
  Vector VectorAt(int number) const {
    const std::uint8_t *field = Field(number);
    if (field == nullptr) {
      return {nullptr, 0};
    }
    const std::uint8_t *vector = field + Read<std::uint32_t>(field);
    return {vector + sizeof(std::uint32_t), Read<std::uint32_t>(vector)};
  }

  template <typename T>
  std::vector<T> Values(int number) const {
    const Vector vector = VectorAt(number);
    std::vector<T> values(vector.size);
    if (vector.size > 0) {
      std::memcpy(values.data(), vector.data, vector.size * sizeof(T));
    }
    return values;
  }

  std::vector<FlatTable> Tables(int number) const {
    const Vector vector = VectorAt(number);
    std::vector<FlatTable> tables;
    for (std::size_t i = 0; i < vector.size; ++i) {
      const std::uint8_t *place = vector.data + i * sizeof(std::uint32_t);
      tables.emplace_back(place + Read<std::uint32_t>(place));
    }
    return tables;
  }

 private:
  const std::uint8_t *table_ = nullptr;
};

#endif
