"""The memory of the values between operators (runner/engine/native/arena.h): alone, and under Lite."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_graph
from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.common.memory import PeakMemory
from kandinsky_mindir.runner.engine.compiler import find_compiler
from mindspore import nn, ops

# Each act prints "fine" or stops with the line in which it was not.
PROGRAM = r"""
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>
#include <sys/resource.h>
#include "arena.h"

#define REQUIRE(what) if (!(what)) { std::printf("line %d: %s\n", __LINE__, #what); return 1; }

struct Value { unsigned char *data; size_t size; unsigned char byte; };

int main(int, char **argv) {
  const std::string act = argv[1];
  if (act == "limited") {
    const rlimit limit{1 << 28, 1 << 28};
    setrlimit(RLIMIT_AS, &limit);
    REQUIRE(Arena::Make() == nullptr);
  } else if (act == "used at random") {
    const auto arena = Arena::Make();
    std::mt19937 random(0);
    std::vector<Value> values;
    const auto spare = static_cast<unsigned char *>(arena->Malloc(1));
    arena->Free(spare);
    size_t live = 0, most = 0, reach = 0;
    for (int i = 0; i < 20000; ++i) {
      if (values.size() < 40 && random() % 2 == 0) {
        const size_t size = random() % (random() % 8 == 0 ? 200000 : 3000);
        const Value value{static_cast<unsigned char *>(arena->Malloc(size)), size, static_cast<unsigned char>(i)};
        REQUIRE(value.data != nullptr && reinterpret_cast<std::uintptr_t>(value.data) % 64 == 0);
        std::memset(value.data, value.byte, size);
        values.push_back(value);
        most = std::max(most, live += size);
        reach = std::max(reach, static_cast<size_t>(value.data + size - spare));
      } else if (!values.empty()) {
        std::swap(values[random() % values.size()], values.back());
        const Value value = values.back();
        for (size_t k = 0; k < value.size; ++k) REQUIRE(value.data[k] == value.byte);
        arena->Free(value.data);
        live -= value.size;
        values.pop_back();
      }
    }
    REQUIRE(reach < 2 * most);
    for (const Value &value : values) arena->Free(value.data);
    REQUIRE(arena->Malloc(size_t{1} << 29) == spare);  // all gaps have become one
  } else if (act == "the first gap") {
    const auto arena = Arena::Make();
    const auto a = static_cast<char *>(arena->Malloc(6400)), b = static_cast<char *>(arena->Malloc(64));
    REQUIRE(b == a + 6400);
    arena->Free(a);
    REQUIRE(arena->Malloc(640) == a && arena->Malloc(5760) == a + 640);  // divided, to the last byte
    REQUIRE(arena->Malloc(1) == b + 64);
  } else if (act == "too much") {
    const auto arena = Arena::Make();
    REQUIRE(arena->Malloc(size_t{1} << 60) == nullptr);
    REQUIRE(arena->Malloc(64) != nullptr);
  } else if (act == "counted") {
    const auto arena = Arena::Make();
    char other;
    void *data = arena->Malloc(100);
    REQUIRE(arena->RefCount(data) == 0 && arena->SetRefCount(data, 1) == 1 && arena->IncRefCount(data, 2) == 3);
    REQUIRE(arena->DecRefCount(data, 1) == 2 && arena->RefCount(data) == 2);
    REQUIRE(arena->RefCount(nullptr) == -1 && arena->IncRefCount(&other, 1) == -1);
    arena->Free(&other);  // nothing of ours
    arena->Free(nullptr);
    arena->Free(data);
    REQUIRE(arena->RefCount(data) == -1 && arena->Malloc(100) == data && arena->RefCount(data) == 0);
  } else {
    return 2;
  }
  std::puts("fine");
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "main.cc").write_text(PROGRAM)
    headers = Path(engine.__file__).parent / "native", engine.create().runtime.root
    command = [*find_compiler(), "-std=c++17", "-O1", *(f"-I{path}" for path in headers), "main.cc", "-o", "program"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "program"


@pytest.mark.parametrize("act", ["used at random", "the first gap", "too much", "counted", "limited"])
def test_alone(program, act):
    assert subprocess.run([program, act], capture_output=True, text=True, timeout=60).stdout == "fine\n"


class Growing(nn.Cell):
    """COUNT times two values of 1,024 columns and of 16 rows more than the two before, of which few live at a time."""

    def __init__(self):
        super().__init__()
        self.mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x):
        total = self.mean(x, (0, 1))
        for rows in range(COUNT, 0, -1):
            total = self.mean(ops.sigmoid(ops.slice(x, (0, 0), (ROWS - 16 * rows, 1024)) * total), (0, 1))
        return total


COUNT, ROWS = 12, 1024  # 12 values, of 3.4 to 4.1 MB


def test_values_of_many_sizes_share_memory_under_lite(tmp_path):
    """Lite's own allocator cannot give a free block to a larger value: all would lie side by side."""
    x = np.random.default_rng(0).standard_normal((ROWS, 1024)).astype(np.float32)
    small_graph.write(tmp_path, Growing, lambda: [x])
    lite = engine.create("bridge")
    lite.convert(tmp_path / "lowered.mindir", tmp_path / "graph.ms")
    for file in ("lowered.mindir", "graph.ms"):
        with PeakMemory() as memory, lite.load(tmp_path / file, threads=1) as graph:
            before = memory.peak
            graph.run([x])
        # Side by side the 2 * COUNT values would take about 2 * COUNT times x: half of that parts them from the three or
        # four (x in shared memory, and two or three values) that are there at once, with what a run takes beside them.
        assert memory.peak - before < x.nbytes * COUNT, file


LIMITED = """
import os, resource, sys
import numpy as np
from kandinsky_mindir.runner import engine
half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
resource.setrlimit(resource.RLIMIT_AS, (half, half))
with np.load(sys.argv[2]) as inputs, engine.create("bridge").load(sys.argv[1]) as model:
    np.savez(sys.argv[2], *model.run([inputs["arr_0"], inputs["arr_1"]]))
"""


def test_with_a_limit_on_addresses_lite_takes_its_own(tmp_path):
    small_graph.write(tmp_path)
    x, ids = small_graph.make_inputs()
    np.savez(tmp_path / "arrays.npz", x, ids)
    subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "lowered.mindir", tmp_path / "arrays.npz"], check=True)
    with np.load(tmp_path / "arrays.npz") as outputs:
        assert all(map(np.array_equal, outputs.values(), small_graph.expected(x, ids)))
