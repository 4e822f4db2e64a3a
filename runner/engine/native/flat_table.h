// Tables of flatbuffers, read without the library: a `.ms` file is one, and the attributes of its nodes are some. Of a file,
// nothing is read beyond its end: std::runtime_error.

#ifndef KANDINSKY_MINDIR_FLAT_TABLE_H
#define KANDINSKY_MINDIR_FLAT_TABLE_H

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

class FlatTable {
 public:
  FlatTable() = default;  // an empty one: no field is there
  explicit FlatTable(const std::uint8_t *table) : table_(table) {}
  // The table that a file begins with.
  FlatTable(const std::uint8_t *file, std::size_t size) : begin_(file), end_(file + size) { table_ = Follow(file); }

  // Where a field lies; nullptr: the file leaves it out, and it has its default.
  const std::uint8_t *Field(int number) const {
    if (table_ == nullptr) {
      return nullptr;
    }
    const std::uint8_t *offsets = table_ - Read<std::int32_t>(table_);
    const int place = 4 + 2 * number;
    const int offset = place + 2 > Read<std::uint16_t>(offsets) ? 0 : Read<std::uint16_t>(offsets + place);
    return offset == 0 ? nullptr : table_ + offset;
  }

  template <typename T>
  T Value(int number) const {
    const std::uint8_t *field = Field(number);
    return field == nullptr ? T{} : Read<T>(field);
  }

  FlatTable Table(int number) const {
    const std::uint8_t *field = Field(number);
    return field == nullptr ? FlatTable() : Next(field);
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
    const std::uint8_t *vector = Follow(field);
    const auto size = Read<std::uint32_t>(vector);
    Require(vector + sizeof(std::uint32_t), size);  // an element has a byte at least
    return {vector + sizeof(std::uint32_t), size};
  }

  template <typename T>
  std::vector<T> Values(int number) const {
    const Vector vector = VectorAt(number);
    Require(vector.data, vector.size * sizeof(T));
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
      tables.push_back(Next(vector.data + i * sizeof(std::uint32_t)));
    }
    return tables;
  }

 private:
  void Require(const std::uint8_t *from, std::size_t size) const {
    if (begin_ != nullptr && (from < begin_ || from > end_ || size > static_cast<std::size_t>(end_ - from))) {
      throw std::runtime_error("the file is damaged: it refers to what lies outside of it");
    }
  }

  template <typename T>
  T Read(const std::uint8_t *from) const {
    Require(from, sizeof(T));
    T value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }

  const std::uint8_t *Follow(const std::uint8_t *reference) const { return reference + Read<std::uint32_t>(reference); }

  FlatTable Next(const std::uint8_t *reference) const {
    FlatTable table(Follow(reference));
    table.begin_ = begin_, table.end_ = end_;
    return table;
  }

  const std::uint8_t *table_ = nullptr;
  const std::uint8_t *begin_ = nullptr, *end_ = nullptr;  // of the file; of a table in memory of Lite's nothing is known
};

#endif
