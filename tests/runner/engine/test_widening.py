"""Weights that the bridge widens when Lite reads them: the same bits as in NumPy, and gone once they are packed."""

import subprocess

import numpy as np
import pytest
from kandinsky_mindir.export.contents.stored_writer import encode
from kandinsky_mindir.models import winograd
from kandinsky_mindir.runner.bundle.stored.widening import widened
from kandinsky_mindir.runner.bundle.tensor_index import TAPS, StoredTensor
from kandinsky_mindir.runner.engine.compiler import SOURCES, find_compiler

UNIT = 1 << 16
# Reads a table as MappedWeights does, with all places in one block of memory, and writes that block twice: what was read while
# the first weight was packed, and all of it after the build. Two threads read at once.
PROGRAM = r"""
#include <cstdio>
#include <fstream>
#include <thread>

#include "stored_weights.h"

int main(int, char **arguments) {
  const size_t size = std::stoul(arguments[2]);
  WeightFiles files(2);
  StoredWeights weights(2);
  char *memory = MapPrivate(nullptr, size, files.Open(arguments[3]), 0);
  std::ifstream lines(arguments[1]);
  size_t position, length;
  for (std::string kind; lines >> kind >> position >> length;) weights.Add(memory + position, length, lines, &files);
  std::vector<char> read(size), again(size);
  StoredWeights::Packing(memory);
  std::thread other([&] { std::copy(memory + size / 2, memory + size, read.begin() + size / 2); });
  std::copy(memory, memory + size / 2, read.begin());
  other.join();
  StoredWeights::Packing(memory + size / 2);
  weights.EndBuilding();
  std::copy(memory, memory + size, again.begin());
  fwrite(read.data(), 1, size, stdout);
  fwrite(again.data(), 1, size, stdout);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "main.cc").write_text(PROGRAM)
    command = [*find_compiler(), "-std=c++17", "-O2", "-pthread", f"-I{SOURCES}", str(folder / "main.cc"), "-o", str(folder / "main")]
    subprocess.run(command, check=True)
    return folder / "main"


def test_the_program_widens_as_numpy_does(program, tmp_path):
    """Every float16 there is; random values of the other types; sums for Winograd's transform; blocks and parts of rows."""
    finite = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = finite[np.isfinite(finite)].astype(np.float32)
    random = np.random.default_rng(0).standard_normal((1100, 499)).astype(np.float32)
    kernel = np.random.default_rng(1).standard_normal((3, 3, 70, 241)).astype(np.float16).astype(np.float32)
    tensors, data = [], bytearray()

    def add(array, dtype, taps=None):
        encoded = encode(array, dtype, TAPS if taps is not None else 1)
        assert encoded.dtype == dtype
        places = []
        for part in (encoded.values, encoded.scales):
            if part is not None:
                data.extend(bytes(-len(data) % 64))
                places.append(len(data))
                data.extend(part.tobytes())
        shape = array.shape if taps is None else (len(taps), *array.shape[2:])
        rows = tuple(map(tuple, taps)) if taps is not None else ()
        tensors.append(StoredTensor("stored", places[0], shape, dtype, *([rows] if rows else []), **(
            {"scales": places[1]} if len(places) > 1 else {})))

    add(finite, "float16")
    for dtype in ("float32", "bfloat16", "int8"):
        add(random, dtype)
    for dtype in ("float16", "bfloat16", "int8"):
        for column, combinations in ((1, winograd.PLAIN), (2, winograd.DOUBLED)):
            add(kernel, dtype, winograd.taps(combinations, column))
    (tmp_path / "stored").write_bytes(data)
    table, expected, position = "", b"", 0
    content = np.frombuffer(data, np.uint8)
    for tensor in tensors:
        values = widened(tensor, content)
        for first in (0, 5):  # a table has whole pages, which may begin within a tensor
            length = (values.size - first) * 4 // UNIT * UNIT
            factors = [factor for row in tensor.taps or () for factor in row]
            plane = int(np.prod(tensor.shape[1:]))
            words = (first, tensor.dtype, tensor.offset, tensor.rows[1], plane, tensor.scales or 0, len(factors), *factors)
            table += f"stored {position} {length} {' '.join(map(str, words))} {tmp_path / 'stored'}\n"
            expected += values[first : first + length // 4].tobytes()
            position += length
    (tmp_path / "table").write_text(table)
    (tmp_path / "memory").write_bytes(bytes(position))
    found = subprocess.run([program, tmp_path / "table", str(position), tmp_path / "memory"], capture_output=True, check=True).stdout
    assert found[:position] == expected and found[position:] == expected
    whole = finite.size * 4 // UNIT * UNIT // 4
    np.testing.assert_array_equal(np.frombuffer(expected, "<f4")[:whole], finite[:whole])


@pytest.mark.parametrize("line", ["stored 0 65536 0 float16 0 64 64 0 0 {}", "stored 0 65536 0 float8 0 64 64 0 0 {}", "stored 0 65536 0"])
def test_what_does_not_fit_is_refused(program, tmp_path, line):
    (tmp_path / "stored").write_bytes(bytes(32768 - 1))
    (tmp_path / "memory").write_bytes(bytes(UNIT))
    (tmp_path / "table").write_text(line.format(tmp_path / "stored") + "\n")
    found = subprocess.run([program, tmp_path / "table", str(UNIT), tmp_path / "memory"], capture_output=True, text=True)
    assert found.returncode and ("ends before" in found.stderr or "no weights of type" in found.stderr or "cannot be read" in found.stderr)
