// The part of oneDNN that the kernels use: its C interface, of a library that is opened where it is there.
//
// Lite brings a oneDNN of its own, an old one, whose functions have the same names. This one is opened apart from it, and
// called through pointers. The interface of version 3 hides its structures, so that names and numbers are all it takes:
// they are those of oneapi/dnnl/dnnl.h.

#ifndef KANDINSKY_MINDIR_ONEDNN_H
#define KANDINSKY_MINDIR_ONEDNN_H

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <dlfcn.h>

namespace onednn {

using Status = int;  // 0 is success
using Handle = void *;
using Dims = std::int64_t[12];

enum DataType { kBfloat16 = 2, kFloat32 = 3 };
template <typename Number>  // of a tensor in memory: float, or std::uint16_t for bfloat16
constexpr DataType kTypeOf = sizeof(Number) == sizeof(float) ? kFloat32 : kBfloat16;
enum { kAnyTag = 1, kCpu = 1, kInOrder = 1, kUserScratchpad = 1 };
enum { kInference = 96, kDirect = 1 };
enum { kQueryWeights = 131, kQueryScratchpad = 136 };
enum { kSource = 1, kTarget = 17, kWeights = 33, kBias = 41, kScratchpad = 80 };
struct Argument {
  int name;
  Handle memory;
};

#define KANDINSKY_ONEDNN_FUNCTIONS(F)                                                                       \
  F(engine_create, Status, (Handle *, int, std::size_t))                                                    \
  F(stream_create, Status, (Handle *, Handle, unsigned))                                                    \
  F(memory_desc_create_with_strides, Status, (Handle *, int, const Dims, int, const Dims))                  \
  F(memory_desc_create_with_tag, Status, (Handle *, int, const Dims, int, int))                             \
  F(memory_desc_clone, Status, (Handle *, Handle))                                                          \
  F(memory_desc_destroy, Status, (Handle))                                                                  \
  F(memory_desc_get_size, std::size_t, (Handle))                                                            \
  F(memory_create, Status, (Handle *, Handle, Handle, void *))                                              \
  F(memory_destroy, Status, (Handle))                                                                       \
  F(primitive_attr_create, Status, (Handle *))                                                              \
  F(primitive_attr_set_scratchpad_mode, Status, (Handle, int))                                              \
  F(matmul_primitive_desc_create, Status, (Handle *, Handle, Handle, Handle, Handle, Handle, Handle))       \
  F(convolution_forward_primitive_desc_create, Status, (Handle *, Handle, int, int, Handle, Handle, Handle,  \
                                                        Handle, const Dims, const Dims, const Dims, const Dims, Handle)) \
  F(reorder_primitive_desc_create, Status, (Handle *, Handle, Handle, Handle, Handle, Handle))              \
  F(primitive_desc_query_md, Handle, (Handle, int, int))                                                    \
  F(primitive_desc_destroy, Status, (Handle))                                                               \
  F(primitive_create, Status, (Handle *, Handle))                                                           \
  F(primitive_execute, Status, (Handle, Handle, int, const Argument *))

struct Library {
#define KANDINSKY_ONEDNN_POINTER(name, result, parameters) result(*name) parameters;
  KANDINSKY_ONEDNN_FUNCTIONS(KANDINSKY_ONEDNN_POINTER)
#undef KANDINSKY_ONEDNN_POINTER
  Handle engine = nullptr;
  Handle attributes = nullptr;  // each thread brings the memory that a primitive works with
};

inline void Check(Status status, const char *what) {
  if (status != 0) {
    throw std::runtime_error(std::string("oneDNN: ") + what + " failed with status " + std::to_string(status));
  }
}

// The library, opened by the first call. Its own threads are not used: our pool's threads call it, each for itself.
inline const Library &library() {
  static const Library opened = [] {
    setenv("OMP_NUM_THREADS", "1", 1);  // read when OpenMP is loaded, which it comes with
    Handle file = dlopen("libdnnl.so.3", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (file == nullptr) {
      throw std::runtime_error(std::string("oneDNN cannot be loaded: ") + dlerror());
    }
    Library found{};
#define KANDINSKY_ONEDNN_LOAD(name, result, parameters)                                        \
  found.name = reinterpret_cast<result(*) parameters>(dlsym(file, "dnnl_" #name));              \
  if (found.name == nullptr) {                                                                  \
    throw std::runtime_error("oneDNN is of another version: it lacks dnnl_" #name);             \
  }
    KANDINSKY_ONEDNN_FUNCTIONS(KANDINSKY_ONEDNN_LOAD)
#undef KANDINSKY_ONEDNN_LOAD
    Check(found.engine_create(&found.engine, kCpu, 0), "an engine");
    Check(found.primitive_attr_create(&found.attributes), "attributes");
    Check(found.primitive_attr_set_scratchpad_mode(found.attributes, kUserScratchpad), "attributes");
    return found;
  }();
  return opened;
}

// A tensor in memory: its type, shape, and how far apart the elements along each side are; of a matrix, rows and columns.
class Layout {
 public:
  Layout() = default;
  Layout(DataType type, std::initializer_list<std::int64_t> sides, std::initializer_list<std::int64_t> steps) {
    Dims dims = {}, strides = {};
    std::copy(sides.begin(), sides.end(), dims);
    std::copy(steps.begin(), steps.end(), strides);
    Handle made = nullptr;
    Check(library().memory_desc_create_with_strides(&made, static_cast<int>(sides.size()), dims, type, strides), "a layout");
    Own(made);
  }
  Layout(DataType type, std::int64_t rows, std::int64_t columns, std::int64_t row_stride, std::int64_t column_stride) {
    const Dims dims = {rows, columns}, strides = {row_stride, column_stride};
    Handle made = nullptr;
    Check(library().memory_desc_create_with_strides(&made, 2, dims, type, strides), "a layout");
    Own(made);
  }
  // In whatever order oneDNN likes best.
  static Layout Any(DataType type, std::int64_t rows, std::int64_t columns) { return Any(type, {rows, columns}); }
  static Layout Any(DataType type, std::initializer_list<std::int64_t> sides) {
    Dims dims = {};
    std::copy(sides.begin(), sides.end(), dims);
    Handle made = nullptr;
    Check(library().memory_desc_create_with_tag(&made, static_cast<int>(sides.size()), dims, type, kAnyTag), "a layout");
    Layout layout;
    layout.Own(made);
    return layout;
  }
  static Layout Copy(Handle other) {
    Handle made = nullptr;
    Check(library().memory_desc_clone(&made, other), "a layout");
    Layout layout;
    layout.Own(made);
    return layout;
  }

  Handle get() const { return handle_.get(); }
  std::size_t size() const { return handle_ ? library().memory_desc_get_size(get()) : 0; }

 private:
  void Own(Handle made) {
    handle_ = std::shared_ptr<void>(made, [](Handle handle) { library().memory_desc_destroy(handle); });
  }
  std::shared_ptr<void> handle_;
};

// Memory of a thread that grows to the most that was asked of it.
class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  void *Get(std::size_t size) {
    if (size > size_) {
      std::free(data_);
      size_ = (size + 4095) / 4096 * 4096;
      data_ = std::aligned_alloc(4096, size_);
      if (data_ == nullptr) {
        throw std::bad_alloc();
      }
    }
    return data_;
  }

 private:
  void *data_ = nullptr;
  std::size_t size_ = 0;
};

// Something that oneDNN computes: a product of two matrices, a convolution, or a copy of a tensor in another layout.
class Primitive {
 public:
  Primitive() = default;

  // source (rows, depth) x weights (depth, columns) + bias (1, columns) into target. bias: an empty layout where there is none.
  static Primitive Product(const Layout &source, const Layout &weights, const Layout &bias, const Layout &target) {
    const Library &dnnl = library();
    Handle description = nullptr;
    Check(dnnl.matmul_primitive_desc_create(&description, dnnl.engine, source.get(), weights.get(), bias.get(),
                                            target.get(), dnnl.attributes), "a product");
    return Primitive(description);
  }

  // A picture's axis under a convolution: steps between the pixels of the result, and zeros at both ends.
  struct Axis {
    std::int64_t stride, before, after;
  };

  // source (1, channels, height, width) and weights (out channels, channels, kernel height, kernel width) + bias (out
  // channels) into target (1, out channels, height, width). bias: an empty layout where there is none.
  static Primitive Convolution(const Layout &source, const Layout &weights, const Layout &bias, const Layout &target,
                               const Axis &vertical, const Axis &horizontal) {
    const Library &dnnl = library();
    const Dims strides = {vertical.stride, horizontal.stride}, dilations = {0, 0};
    const Dims before = {vertical.before, horizontal.before}, after = {vertical.after, horizontal.after};
    Handle description = nullptr;
    Check(dnnl.convolution_forward_primitive_desc_create(&description, dnnl.engine, kInference, kDirect, source.get(),
                                                         weights.get(), bias.get(), target.get(), strides, dilations,
                                                         before, after, dnnl.attributes), "a convolution");
    return Primitive(description);
  }

  static Primitive Reorder(const Layout &source, const Layout &target) {
    const Library &dnnl = library();
    Handle description = nullptr;
    Check(dnnl.reorder_primitive_desc_create(&description, source.get(), dnnl.engine, target.get(), dnnl.engine,
                                             dnnl.attributes), "a copy");
    return Primitive(description);
  }

  const Layout &weights() const { return weights_; }  // the layout that it chose for them

  struct Operand {
    int name;
    const Layout *layout;  // an empty one: this operand is not there
    const void *data;  // it is written to where it is the target
  };

  void Run(std::initializer_list<Operand> operands) const {
    const Library &dnnl = library();
    static thread_local Handle stream = nullptr;
    static thread_local Scratch scratch;
    if (stream == nullptr) {
      Check(dnnl.stream_create(&stream, dnnl.engine, kInOrder), "a stream");
    }
    Argument arguments[6];
    int count = 0;
    const auto add = [&](int name, const Layout &layout, void *data) {
      arguments[count].name = name;
      Check(dnnl.memory_create(&arguments[count].memory, layout.get(), dnnl.engine, data), "memory");
      ++count;
    };
    for (const auto &operand : operands) {
      if (operand.layout->get() != nullptr) {
        add(operand.name, *operand.layout, const_cast<void *>(operand.data));
      }
    }
    if (scratchpad_.size() > 0) {
      add(kScratchpad, scratchpad_, scratch.Get(scratchpad_.size()));
    }
    const Status status = dnnl.primitive_execute(handle_.get(), stream, count, arguments);
    for (int i = 0; i < count; ++i) {
      dnnl.memory_destroy(arguments[i].memory);
    }
    Check(status, "a computation");
  }

 private:
  explicit Primitive(Handle description) {
    const Library &dnnl = library();
    Handle made = nullptr;
    const Status status = dnnl.primitive_create(&made, description);
    if (const Handle layout = dnnl.primitive_desc_query_md(description, kQueryWeights, 0); layout != nullptr) {
      weights_ = Layout::Copy(layout);
    }
    if (const Handle layout = dnnl.primitive_desc_query_md(description, kQueryScratchpad, 0); layout != nullptr) {
      scratchpad_ = Layout::Copy(layout);
    }
    dnnl.primitive_desc_destroy(description);
    Check(status, "a primitive");
    handle_ = std::shared_ptr<void>(made, [](Handle) {});  // it lives as long as the process
  }

  std::shared_ptr<void> handle_;
  Layout weights_, scratchpad_;
};

}  // namespace onednn

#endif
