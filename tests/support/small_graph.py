"""Graphs as files that Lite reads; and a small one of two inputs and two outputs, with what NumPy says of it."""

import mindspore
import numpy as np
from kandinsky_mindir.export.graphs.lowering import lower
from mindspore import Parameter, Tensor, nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto

ROWS, COLUMNS = 3, 4
# Small whole numbers: every product and sum below is exact in float32, so results must be equal, not close.
TABLE = np.arange(5 * COLUMNS, dtype=np.float32).reshape(5, COLUMNS)


def expected(x, ids):
    return [x * 2 + TABLE[ids], x.T.copy()]


def make_inputs(seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.integers(-50, 50, (ROWS, COLUMNS)).astype(np.float32),
        rng.integers(0, len(TABLE), ROWS).astype(np.int32),
    ]


class Graph(nn.Cell):
    def __init__(self):
        super().__init__()
        self.table = Parameter(Tensor(TABLE))
        self.two = Tensor(np.array([2], np.float32))

    def construct(self, x, ids):
        return x * self.two + ops.Gather()(self.table, ids, 0), ops.transpose(x, (1, 0))


def write(folder, cell=Graph, inputs=make_inputs):
    """Write graph.mindir, as MindSpore makes it of a cell, and lowered.mindir into `folder`, and return it."""
    mindspore.export(cell(), *map(Tensor, inputs()), file_name=str(folder / "graph"), file_format="MINDIR")
    model = ModelProto.FromString((folder / "graph.mindir").read_bytes())
    (folder / "lowered.mindir").write_bytes(lower(model).SerializeToString())
    return folder
