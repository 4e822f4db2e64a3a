"""How each MindSpore operator is written for MindSpore Lite 2.0: data only, one row an operator.

MindIR version 3 stores the arguments that an operator is created with (`transpose_b`, `axis`, ...) as constant
inputs after its operands; older readers expect them as attributes. A row says how many inputs stay and names the
attributes that the others become, in the order of MindSpore's operator definitions. Operators with a reason in
`refused` have no kernel in Lite 2.0, or one that computes something else. The others are those of our graphs: a cell
that needs another one adds its row here, to interpreter.py and to check.py.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Operator(NamedTuple):
    operands: int | None = None                   # how many inputs stay inputs; None: all of them
    arguments: tuple[str, ...] = ()               # the attributes that the others become
    enums: Mapping[str, Mapping[int, str]] = {}   # attributes that MindIR 3 numbers and Lite spells
    refused: str = ""                             # why Lite cannot run it correctly, and what to use instead


PLAIN = Operator()
DATA_FORMAT = {0: "NCHW", 1: "NHWC"}
COMPOSE = "compose it from"
NO_KERNEL = f"Lite 2.0 has no kernel for it; {COMPOSE}"
NUMBER = "Lite 2.0 takes no Python number here; hold it in a tensor of one element"

OPERATORS: Mapping[str, Operator] = {
    # Structure of the graph
    "Depend": PLAIN,
    "Load": PLAIN,
    "MakeTuple": PLAIN,
    "UpdateState": PLAIN,
    # Element by element
    "Add": PLAIN,
    "Div": PLAIN,
    "Erf": PLAIN,
    "Mul": PLAIN,
    "Sigmoid": PLAIN,
    "Sqrt": PLAIN,
    "Sub": PLAIN,
    "Divs": Operator(refused=NUMBER),
    "Muls": Operator(refused=NUMBER),
    "Cos": Operator(refused="Lite 2.0 is off by 2e-4; compute it outside the graph"),
    "GeLU": Operator(refused=f"Lite 2.0 computes the tanh approximation, 2e-4 off; {COMPOSE} Erf"),
    "Pow": Operator(refused=f"Lite 2.0 loses its shape; {COMPOSE} Mul and Sqrt"),
    "Rsqrt": Operator(refused=f"Lite 2.0 is off by 2e-5; {COMPOSE} Sqrt and Div"),
    "SiLU": Operator(refused=f"{NO_KERNEL} Sigmoid and Mul"),
    "Sin": Operator(refused="Lite 2.0 is off by 2e-4; compute it outside the graph"),
    "Tanh": Operator(refused=f"Lite 2.0 is off by 2e-5; {COMPOSE} Sigmoid"),
    # Shape and place
    "BroadcastTo": Operator(1, ("shape",)),
    "Concat": Operator(1, ("axis",)),
    "Gather": Operator(3, ("batch_dims",)),
    "Reshape": PLAIN,
    "Slice": PLAIN,
    "Transpose": PLAIN,
    # Sums and products
    "BatchMatMul": Operator(2, ("transpose_a", "transpose_b")),
    "BiasAdd": Operator(2, ("format",), enums={"format": DATA_FORMAT}),
    "Conv2D": PLAIN,
    "MatMul": Operator(2, ("transpose_a", "transpose_b")),
    "ReduceMean": Operator(2, ("keep_dims",)),
    "Softmax": Operator(1, ("axis",)),
    "ReduceMax": Operator(refused="Lite 2.0 returns 1e-38 for a negative maximum over any axis but the last"),
    "GroupNorm": Operator(refused=f"{NO_KERNEL} ReduceMean"),
    "LayerNorm": Operator(refused=f"Lite 2.0 runs it and returns wrong numbers; {COMPOSE} ReduceMean"),
}
