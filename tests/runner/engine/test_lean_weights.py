"""Weights that take no memory (runner/engine/native/lean_weights.h), in a program in Lite's place, and under Lite."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import small_graph
from damage import assert_one_line
from kandinsky_mindir.export.contents.ms_files import WeightStore, write_layout
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.bundle.ms_layout import LITE_WEIGHTS, UNIT, WEIGHTS, Layout, Stretch
from kandinsky_mindir.runner.common.memory import in_use
from kandinsky_mindir.runner.engine.compiler import find_compiler
from kandinsky_mindir.runner.loading.footprint import PACKED, RUNTIME
from mindspore import Parameter, Tensor, nn, ops

# Does what Lite does: asks for memory as large as the file to copy it there, and reads it after the load. The first
# argument says what goes on beside that; it prints the sum of the bytes that it read.
PROGRAM = r"""
#include <cstdio>
#include <iterator>
#include "mapped_weights.h"

static unsigned long Sum(const unsigned char *data, size_t size) {
  unsigned long sum = 0;
  for (size_t i = 0; i < size; ++i) sum += data[i] * (i % 251 + 1);
  return sum;
}

int main(int, char **argv) {
  const std::string act = argv[1];
  std::ifstream given(argv[2], std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(given)), std::istreambuf_iterator<char>());
  const size_t size = whole.size();
  const int file = memfd_create("file", 0);
  if (write(file, whole.data(), size) != static_cast<ssize_t>(size)) return 3;
  MappedWeights weights(file, size, argv[3], -1, 1);
  LeanWeights &lean = weights.lean;
  void *memory = nullptr, *other = nullptr;
  if (act == "never asked") lean.EndLending();
  if (posix_memalign(&memory, 64, lean.size() + 32) != 0 || posix_memalign(&other, 64, lean.size()) != 0) return 4;
  if ((memory == lean.data()) == (act == "never asked") || memory == other) return 5;
  auto *data = static_cast<unsigned char *>(memory);
  std::memset(other, 1, size);  // asked for second: it is not lent
  if (act == "never asked") std::memset(data, 7, size);
  if (act == "written") std::memset(data, 5, size);
  if (act == "one byte is another") data[size / 2] ^= 1;
  weights.EndBuilding();
  if (act == "freed") {
    std::free(memory);
    memory = std::malloc(size);
    std::memset(memory, 3, size);
    data = static_cast<unsigned char *>(memory);
  }
  if (act == "waits") {
    std::puts("ready");
    std::fflush(stdout);
    std::getchar();
  }
  unsigned long sum = Sum(data, size);
  if (act == "wild") sum += *reinterpret_cast<volatile unsigned char *>(8);
  try {
    weights.files.Check();
  } catch (const std::exception &error) {
    std::printf("error %s\n", error.what());
    return 1;
  }
  std::printf("%lu\n", sum);
}
"""

# Two large weights, what lies between, and an end that is no page.
STRETCHES = [Stretch(UNIT, WEIGHTS, 2 * UNIT, 4 * UNIT), Stretch(6 * UNIT, WEIGHTS, 9 * UNIT, 3 * UNIT)]
SKELETON = bytes(range(256)) * (2 * UNIT // 256) + b"end"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "main.cc").write_text(PROGRAM)
    headers = Path(engine.__file__).parent / "native"
    command = [*find_compiler(), "-std=c++17", "-O2", f"-I{headers}", "main.cc", "-o", "program"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "program"


@pytest.fixture
def files(tmp_path):
    """A `.ms` file as it is put together, its table, and the weight file that is mapped into it."""
    np.random.default_rng(0).integers(0, 256, 20 * UNIT, np.uint8).tofile(tmp_path / WEIGHTS)
    with Layout(STRETCHES, SKELETON).assemble(tmp_path / "small.ms.layout") as model:
        (tmp_path / "small.ms").write_bytes(Path(model.path).read_bytes())
        (tmp_path / "table").write_bytes(Path(model.table.path).read_bytes())
    return tmp_path


def mapped(files):
    """What is in memory once the weights are mapped."""
    content, weights = bytearray((files / "small.ms").read_bytes()), (files / WEIGHTS).read_bytes()
    for piece in STRETCHES:
        content[piece.position : piece.position + piece.length] = weights[piece.offset : piece.offset + piece.length]
    return bytes(content)


def run(program, files, act):
    command = [program, act, files / "small.ms", files / "table"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def weigh(data):
    """What the program prints for these bytes."""
    data = np.frombuffer(data, np.uint8).astype(np.uint64)
    return int((data * (np.arange(data.size, dtype=np.uint64) % 251 + 1)).sum())


def flip_in_the_middle(data):
    middle = len(data) // 2  # in the first weight
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("act, change", [
    ("nothing", lambda data: data),
    ("written", lambda data: bytes([5]) * len(data)),
    ("freed", lambda data: bytes([3]) * len(data)),
    ("one byte is another", flip_in_the_middle),
    ("never asked", lambda data: bytes([7]) * len(data)),
])
def test_it_is_memory_like_any_other(program, files, act, change):
    """And what is written to it reaches no file."""
    weights, expected = (files / WEIGHTS).read_bytes(), weigh(change(mapped(files)))
    result = run(program, files, act)
    assert (result.returncode, result.stdout) == (0, f"{expected}\n"), result.stderr
    assert (files / WEIGHTS).read_bytes() == weights


@pytest.mark.parametrize("change, error", [
    (lambda path: path.touch(), True),
    (lambda path: path.write_bytes(bytes(20 * UNIT)), True),
    (lambda path: path.write_bytes(b""), True),
    (lambda path: open(path, "r+b").truncate(10 * UNIT), True),
    (lambda path: path.unlink(), False),
    (lambda path: (path.with_name("new").write_bytes(bytes(20 * UNIT)), path.with_name("new").rename(path)), False),
])
def test_a_weight_file_that_changes_under_a_loaded_graph(program, files, change, error):
    """Written to or cut, it is refused by name; removed or replaced, the old one is still there."""
    expected = weigh(mapped(files))
    command = [program, "waits", files / "small.ms", files / "table"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        change(files / WEIGHTS)
        output, _ = process.communicate("\n", timeout=60)
    if error:
        said = f"error {files / WEIGHTS} was changed on disk while a graph made from it was loaded: load the bundle again\n"
        assert (process.returncode, output) == (1, said)
    else:
        assert (process.returncode, output) == (0, f"{expected}\n")


def test_any_other_fault_ends_the_process(program, files):
    assert run(program, files, "wild").returncode == -11


@pytest.mark.parametrize("row, reason", [
    (f"raw {8 * UNIT} {2 * UNIT} 0", "a weight lies beyond its end"),
    (f"raw {2**63} {2**63} 0", "a weight lies beyond its end"),
    (f"raw 0 {UNIT} 5", "its weights cannot be mapped"),
    (f"packed 0 {UNIT} 5", "its weights cannot be mapped"),
    (f"packed 0 {UNIT} 0", "its weights were packed for another processor"),
])
def test_a_table_that_does_not_fit(program, files, row, reason):
    (files / "table").write_text(f"{row} {files / WEIGHTS}\n")
    result = run(program, files, "nothing")
    assert result.returncode != 0 and reason in result.stderr


SHAPES = (4096, 4097), (4097, 4097)  # of two matrices of 67 MB, neither of whole pages


class Products(nn.Cell):
    def __init__(self, weight, other):
        super().__init__()
        self.weight, self.other = Parameter(Tensor(weight), name="weight"), Parameter(Tensor(other), name="other")
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x):
        return self.matmul(x, self.weight), self.matmul(x, self.other)


# The C library's memcpy on some processors: it writes each byte, also onto itself.
ALWAYS_COPIES = r"""
#include <stddef.h>
void *memcpy(void *to, const void *from, size_t size) {
  for (volatile char *target = to; size > 0; --size) *target++ = *(const char *)from, from = (const char *)from + 1;
  return to;
}
"""
# Has the pages of a file copied to where they lie, and prints how many kB of them became this process's own.
COPIES_ONTO_ITSELF = r"""
#include <cstdio>
#include <cstring>
#include <fstream>
#ifdef OURS
#include "lean_weights.h"
#else
#include "weight_files.h"
#endif
int main(int, char **argv) {
  const size_t size = 1 << 20;
  char *data = MapPrivate(nullptr, size, open(argv[1], O_RDONLY), 0);
  void *(*volatile copy)(void *, const void *, size_t) = std::memcpy;
  copy(data, data, size);
  char from[64] = "bytes that are elsewhere are copied", to[64] = "";
  if (copy(to, from, sizeof(from)) != to || std::strcmp(to, from) != 0) return 3;
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  for (unsigned long kilobytes; std::getline(maps, line);) {
    inside = inside || line.find(argv[1]) != std::string::npos;
    if (inside && std::sscanf(line.c_str(), "Private_Dirty: %lu", &kilobytes) == 1) {
      std::printf("%lu\n", kilobytes);
      return 0;
    }
  }
  return 4;
}
"""


@pytest.fixture(scope="module")
def always_copies(tmp_path_factory):
    """A library to be preloaded, whose memcpy always copies."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "copies.c").write_text(ALWAYS_COPIES)
    command = [*find_compiler(), "-x", "c", "-O1", "-fno-builtin", "-fPIC", "-shared", "copies.c", "-o", "libcopies.so"]
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "libcopies.so")


@pytest.mark.parametrize("flags, kilobytes", [(["-DOURS"], 0), ([], 1024)])
def test_bytes_that_are_there_are_not_copied(tmp_path, always_copies, flags, kilobytes):
    """With the header, whatever the C library does; without it they are."""
    (tmp_path / "main.cc").write_text(COPIES_ONTO_ITSELF)
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 4096)
    headers = Path(engine.__file__).parent / "native"
    command = [*find_compiler(), "-std=c++17", "-O2", "-rdynamic", *flags, f"-I{headers}", "main.cc", "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True)
    result = subprocess.run([tmp_path / "program", tmp_path / "weights"], env={"LD_PRELOAD": always_copies},
                            capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"{kilobytes}\n"), result.stderr


@pytest.mark.parametrize("memcpy", ["the C library's", "one that always copies"])
def test_lite_keeps_weights_once(tmp_path, monkeypatch, always_copies, memcpy):
    """Also small ones, for which it asks no memory of their own size. A run that follows a change of the file fails."""
    if memcpy != "the C library's":
        monkeypatch.setenv("LD_PRELOAD", always_copies)
    random = np.random.default_rng(0)
    weight, other, x = (random.integers(-8, 8, shape).astype(np.float32) for shape in (*SHAPES, (2, 4097)))  # exact products
    small_graph.write(tmp_path, lambda: Products(weight, other), lambda: [x])
    lite = engine.create("bridge")
    lite.convert(tmp_path / "lowered.mindir", tmp_path / "graph.ms")
    with WeightsWriter(tmp_path / WEIGHTS) as writer:
        writer.write("weight", weight)
        writer.write("other", other)
    layout = tmp_path / "graph.ms.layout"
    write_layout(tmp_path / "graph.ms", WeightStore(tmp_path, writer.index), layout)
    assert not (tmp_path / LITE_WEIGHTS).exists()
    before, most = in_use(), PACKED * (weight.nbytes + other.nbytes) + RUNTIME  # beside a raw copy it would be twice
    with Layout.read(layout).assemble(layout) as file:
        loaded = lite.load(file, threads=1)
        assert in_use() - before < most
    with loaded:
        y, z = loaded.run([x])
        assert in_use() - before < most
        assert np.array_equal(y, x @ weight.T) and np.array_equal(z, x @ other.T)
        (tmp_path / WEIGHTS).touch()
        assert_one_line(f"{tmp_path / WEIGHTS} was changed on disk while", lambda: loaded.run([x]))
