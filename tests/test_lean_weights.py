"""Memory that is given back and comes back (runner/engine/lean_weights.h), in a program of its own in Lite's place."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import small_graph
from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.engine import runtime
from kandinsky_mindir.runner.footprint import RUNTIME
from kandinsky_mindir.runner.memory import in_use
from kandinsky_mindir.runner.ms_file import WEIGHTS, Piece, Recipe
from mindspore import Parameter, Tensor, nn, ops

# Does what Lite does: asks for memory as large as the file to copy it there, and reads it after the load. The first
# argument says what goes on beside that; it prints the sum of the bytes that it read, then the pages in use before that.
PROGRAM = r"""
#include <cstdio>
#include <fcntl.h>
#include <thread>
#include "lean_weights.h"

static unsigned long Sum(const unsigned char *data, size_t begin, size_t end, size_t step) {
  unsigned long sum = 0;
  for (size_t i = begin; i < end; i += step) sum += data[i] * (i % 251 + 1);
  return sum;
}

int main(int, char **argv) {
  const std::string act = argv[1];
  std::ifstream given(argv[2], std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(given)), std::istreambuf_iterator<char>());
  const size_t size = whole.size();
  const int file = memfd_create("file", 0);
  if (write(file, whole.data(), size) != static_cast<ssize_t>(size)) return 3;
  LeanWeights lean(file, size, argv[3], 1);
  void *memory = nullptr, *other = nullptr;
  if (act == "never asked") {
    lean.Release();
    posix_memalign(&memory, 64, lean.size());
    std::memset(memory, 7, size);
    std::printf("%lu\n", Sum(static_cast<unsigned char *>(memory), 0, size, 1));
    return 0;
  }
  if (posix_memalign(&memory, 64, lean.size() + 32) != 0 || posix_memalign(&other, 64, lean.size()) != 0) return 4;
  if (memory != lean.data() || memory == other) return 5;
  auto *data = static_cast<unsigned char *>(memory);
  std::memset(other, 1, size);  // asked for second: it is not lent
  if (act == "used for something else") std::memset(data, 9, size);
  if (act == "one byte is another") data[size / 2] ^= 1;
  lean.Release();
  struct stat status{};
  fstat(file, &status);
  const long pages = status.st_blocks / 8;
  if (act == "written") std::memset(data, 5, size);
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
  unsigned long sums[4];
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&, i] { sums[i] = Sum(data, i, size, 4); });
  for (auto &thread : threads) thread.join();
  if (act == "wild") sums[0] += *reinterpret_cast<volatile unsigned char *>(8);
  std::printf("%lu %ld\n", sums[0] + sums[1] + sums[2] + sums[3], pages);
}
"""


PAGE = 4096
WEIGHTS_BYTES = (300_000, 4 * 9 * 10_000)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "main.cc").write_text(PROGRAM)
    headers = Path(engine.__file__).parent
    command = [runtime._compiler(), "-std=c++17", "-O2", "-pthread", f"-I{headers}", "main.cc", "-o", "program"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "program"


@pytest.fixture
def files(tmp_path):
    """A `.ms` file of two large weights, one of them turned, its table, and the weight file they come from."""
    weights = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
    weights.tofile(tmp_path / WEIGHTS)
    plain, turned = WEIGHTS_BYTES
    pieces = [Piece(100, WEIGHTS, 64, plain), Piece(300_200, WEIGHTS, 400_000, turned, channels=100, pixels=9)]
    path = tmp_path / "small.ms.recipe"
    with Recipe(pieces, bytes(range(250))).assemble(path) as model:
        (tmp_path / "small.ms").write_bytes(Path(model.path).read_bytes())
        (tmp_path / "table").write_bytes(Path(model.pieces.path).read_bytes())
    return tmp_path


def run(program, files, act):
    command = [program, act, files / "small.ms", files / "table"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def weigh(data):
    """What the program prints for these bytes."""
    data = np.frombuffer(data, np.uint8).astype(np.uint64)
    return int((data * (np.arange(data.size, dtype=np.uint64) % 251 + 1)).sum())


def flip_in_the_middle(data):
    middle = len(data) // 2  # in the second weight
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("act, change, given_back", [
    ("nothing", lambda data: data, WEIGHTS_BYTES),
    ("written", lambda data: bytes([5]) * len(data), WEIGHTS_BYTES),
    ("freed", lambda data: bytes([3]) * len(data), WEIGHTS_BYTES),
    ("one byte is another", flip_in_the_middle, WEIGHTS_BYTES[:1]),
    ("used for something else", lambda data: bytes([9]) * len(data), ()),
    ("never asked", lambda data: bytes([7]) * len(data), None),
])
def test_it_is_memory_like_any_other(program, files, act, change, given_back):
    data = (files / "small.ms").read_bytes()
    result = run(program, files, act)
    assert result.returncode == 0, result.stderr
    found, *pages = map(int, result.stdout.split())
    assert found == weigh(change(data))
    if given_back is not None:
        least = -(-len(data) // PAGE) - sum(size // PAGE for size in given_back)
        assert least <= pages[0] <= least + len(given_back)  # a weight's own pages are one less if it starts in the middle


@pytest.mark.parametrize("change, error", [
    (lambda path: path.touch(), True),
    (lambda path: path.write_bytes(bytes(1 << 20)), True),
    (lambda path: path.write_bytes(b""), True),
    (lambda path: open(path, "r+b").truncate(500_000), True),
    (lambda path: path.unlink(), False),
    (lambda path: (path.with_name("new").write_bytes(bytes(1 << 20)), path.with_name("new").rename(path)), False),
])
def test_a_weight_file_that_changes_under_a_loaded_graph(program, files, change, error):
    """Written to or cut, it is refused by name; removed or replaced, the old one is still there."""
    command = [program, "waits", files / "small.ms", files / "table"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        change(files / WEIGHTS)
        output, _ = process.communicate("\n", timeout=60)
    if error:
        assert (process.returncode, output) == (1, f"error {files / WEIGHTS} was changed on disk while a graph made from "
                                                   "it was loaded: export the bundle again\n")
    else:
        assert process.returncode == 0 and int(output.split()[0]) == weigh((files / "small.ms").read_bytes())


def test_any_other_fault_ends_the_process(program, files):
    assert run(program, files, "wild").returncode == -11


SIDE = 4096  # of a matrix of 67 MB


class Product(nn.Cell):
    def __init__(self, weight):
        super().__init__()
        self.weight = Parameter(Tensor(weight), name="weight")
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x):
        return self.matmul(x, self.weight)


def test_lite_keeps_weights_once(tmp_path):
    """Also small ones, for which it asks no memory of their own size."""
    random = np.random.default_rng(0)
    weight, x = (random.integers(-8, 8, (rows, SIDE)).astype(np.float32) for rows in (SIDE, 2))  # products are exact
    small_graph.write(tmp_path, lambda: Product(weight), lambda: [x])
    lite = engine.create("bridge")
    lite.convert(tmp_path / "lowered.mindir", tmp_path / "graph.ms")
    content = (tmp_path / "graph.ms").read_bytes()
    position = content.index(weight.tobytes())
    weight.tofile(tmp_path / WEIGHTS)
    recipe = Recipe([Piece(position, WEIGHTS, 0, weight.nbytes)], content[:position] + content[position + weight.nbytes :])
    before = in_use()
    with recipe.assemble(tmp_path / "graph.ms.recipe") as file:
        loaded = lite.load(file, threads=1)
    with loaded:
        assert in_use() - before < 1.5 * weight.nbytes + RUNTIME  # kernels keep a packed copy
        (y,) = loaded.run([x])
        assert in_use() - before < 1.5 * weight.nbytes + RUNTIME
    assert np.array_equal(y, x @ weight.T)
