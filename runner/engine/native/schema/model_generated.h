// What Lite's header for kernels (include/api/kernel.h) takes from its generated schema, which the wheel has not.

#ifndef KANDINSKY_MINDIR_SCHEMA_MODEL_GENERATED_H
#define KANDINSKY_MINDIR_SCHEMA_MODEL_GENERATED_H

namespace mindspore::schema {
// A node's attributes: a table of flatbuffers (node_attributes.h).
struct Primitive;

enum PrimitiveType : int {
  PrimitiveType_NONE = 0,
  PrimitiveType_Activation = 2,
  PrimitiveType_AddFusion = 5,
  PrimitiveType_BiasAdd = 23,
  PrimitiveType_Concat = 31,
  PrimitiveType_Conv2DFusion = 35,
  PrimitiveType_DivFusion = 47,
  PrimitiveType_MatMulFusion = 89,
  PrimitiveType_MulFusion = 99,
  PrimitiveType_ReduceFusion = 118,
  PrimitiveType_Reshape = 119,
  PrimitiveType_ScaleFusion = 127,
  PrimitiveType_SliceFusion = 135,
  PrimitiveType_Softmax = 138,
  PrimitiveType_Sqrt = 146,
  PrimitiveType_SubFusion = 152,
  PrimitiveType_Transpose = 162,
  PrimitiveType_Erf = 178,
  PrimitiveType_Custom = 191,
};

enum QuantType : int { QuantType_QUANT_NONE = 0 };
}  // namespace mindspore::schema

#endif
