// The attributes of a node, in the table of flatbuffers that Lite hands to the maker of a kernel.

#ifndef KANDINSKY_MINDIR_NODE_ATTRIBUTES_H
#define KANDINSKY_MINDIR_NODE_ATTRIBUTES_H

#include <cstdint>
#include <vector>

#include "flat_table.h"
#include "schema/model_generated.h"

class NodeAttributes {
 public:
  // primitive: a union of which field 1 is the operator's own table.
  explicit NodeAttributes(const mindspore::schema::Primitive *primitive)
      : table_(FlatTable(reinterpret_cast<const std::uint8_t *>(primitive)).Table(1)) {}

  // A field that the file leaves out has its default, 0.
  bool Flag(int field) const { return table_.Value<std::uint8_t>(field) != 0; }
  int Byte(int field) const { return table_.Value<std::int8_t>(field); }
  std::int64_t Number(int field) const { return table_.Value<std::int64_t>(field); }
  std::vector<std::int64_t> Numbers(int field) const { return table_.Values<std::int64_t>(field); }

 private:
  FlatTable table_;
};

#endif
