"""How each MindSpore operator is written for MindSpore Lite 2.0: data only, one row an operator.

MindIR version 3 stores the arguments that an operator is created with (`transpose_b`, `axis`, ...) as constant
inputs after its operands; older readers expect them as attributes. A row says how many inputs stay and names the
attributes that the others become, in the order of MindSpore's operator definitions. Operators with a reason in
`refused` have no kernel in Lite 2.0, or one that computes something else.
"""

from typing import Mapping, NamedTuple


class Operator(NamedTuple):
    operands: int | None = None                   # how many inputs stay inputs; None: all of them
    arguments: tuple[str, ...] = ()               # the attributes that the others become
    enums: Mapping[str, Mapping[int, str]] = {}   # attributes that MindIR 3 numbers and Lite spells
    windows: tuple[str, ...] = ()                 # attributes (height, width) that Lite wants as (1, 1, height, width)
    dtype: int | None = None                      # the operand that is a data type, which MindIR 3 numbers
    refused: str = ""                             # why Lite cannot run it correctly, and what to use instead


PLAIN = Operator()
DATA_FORMAT = {0: "NCHW", 1: "NHWC"}
PAD_MODE = {1: "SAME", 2: "VALID"}
COMPOSE = "compose it from"
NO_KERNEL = f"Lite 2.0 has no kernel for it; {COMPOSE}"
NUMBER = "Lite 2.0 takes no Python number here; hold it in a tensor of one element"

OPERATORS: Mapping[str, Operator] = {
    # Structure of the graph
    "Depend": PLAIN,
    "Load": PLAIN,
    "MakeTuple": PLAIN,
    "TupleGetItem": PLAIN,
    "UpdateState": PLAIN,
    # Element by element
    "Abs": PLAIN,
    "Add": PLAIN,
    "Div": PLAIN,
    "Erf": PLAIN,
    "Exp": PLAIN,
    "Log": PLAIN,
    "Maximum": PLAIN,
    "Minimum": PLAIN,
    "Mul": PLAIN,
    "Neg": PLAIN,
    "RealDiv": PLAIN,
    "ReLU": PLAIN,
    "Sigmoid": PLAIN,
    "Sqrt": PLAIN,
    "Square": PLAIN,
    "Sub": PLAIN,
    "Divs": Operator(refused=NUMBER),
    "Muls": Operator(refused=NUMBER),
    "Cast": Operator(dtype=1),
    "Cos": Operator(refused="Lite 2.0 is off by 2e-4; compute it outside the graph"),
    "GeLU": Operator(refused=f"Lite 2.0 computes the tanh approximation, 2e-4 off; {COMPOSE} Erf"),
    "Pow": Operator(refused=f"Lite 2.0 loses its shape; {COMPOSE} Mul, Square and Sqrt"),
    "Rsqrt": Operator(refused=f"Lite 2.0 is off by 2e-5; {COMPOSE} Sqrt and Div"),
    "SiLU": Operator(refused=f"{NO_KERNEL} Sigmoid and Mul"),
    "Sin": Operator(refused="Lite 2.0 is off by 2e-4; compute it outside the graph"),
    "Tanh": Operator(refused=f"Lite 2.0 is off by 2e-5; {COMPOSE} Sigmoid"),
    # Shape and place
    "BroadcastTo": Operator(1, ("shape",)),
    "Concat": Operator(1, ("axis",)),
    "ExpandDims": PLAIN,
    "Gather": Operator(3, ("batch_dims",)),
    "Reshape": PLAIN,
    "ResizeNearestNeighbor": Operator(1, ("size", "align_corners", "half_pixel_centers")),
    "Slice": PLAIN,
    "Split": Operator(1, ("axis", "output_num")),
    "Squeeze": Operator(1, ("axis",)),
    "Stack": PLAIN,
    "StridedSlice": Operator(4, ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")),
    "Tile": PLAIN,
    "Transpose": PLAIN,
    # Sums and products
    "AvgPool": Operator(
        1,
        ("kernel_size", "strides", "pad_mode", "format"),
        enums={"pad_mode": PAD_MODE, "format": DATA_FORMAT},
        windows=("kernel_size", "strides"),
    ),
    "BatchMatMul": Operator(2, ("transpose_a", "transpose_b")),
    "BiasAdd": Operator(2, ("format",), enums={"format": DATA_FORMAT}),
    "Conv2D": PLAIN,
    "MatMul": Operator(2, ("transpose_a", "transpose_b")),
    "MaxPool": PLAIN,
    "ReduceMean": Operator(2, ("keep_dims",)),
    "ReduceSum": Operator(2, ("keep_dims", "skip_mode")),
    "Softmax": Operator(1, ("axis",)),
    "ReduceMax": Operator(refused="Lite 2.0 returns 1e-38 for a negative maximum over any axis but the last"),
    "GroupNorm": Operator(refused=f"{NO_KERNEL} ReduceMean"),
    "LayerNorm": Operator(refused=f"Lite 2.0 runs it and returns wrong numbers; {COMPOSE} ReduceMean"),
}
