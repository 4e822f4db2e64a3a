"""Say before a bundle is carried to a device what of it that version of MindSpore Lite and that device can run.

  kandinsky-mindir check BUNDLE --lite 2.0 --device cpu
  kandinsky-mindir check BUNDLE --lite 2.7 --device ascend

For each graph: the operators that were run on that version and device when this program was made, those that only the
documentation or the converter's source lists, and those that nothing speaks for. Exit status 2 if there are any of the last.
For Ascend a bundle's own graphs count, if it has any. What a device then computes, kandinsky-mindir verify says there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..runner.bundle.manifest import GraphInfo
from ..runner.bundle.opened import Bundle
from ..runner.common.errors import UserError
from .ascend.operators import KNOWN
from .graphs.operators import OPERATORS

HELP = "say what of a bundle a version of Lite and a device can run"

CPU, BOTH = {"cpu"}, {"cpu", "ascend"}
# Read, not run: "List of Hardware Backends Supported by MindSpore Lite" in the documentation of MindSpore Lite 2.10
# (docs/lite/docs/source_en/reference/operator_list_lite.md). It knows some operators by another name: MatMul and
# BatchMatMul are MatMulFusion there, Sigmoid Activation, ReduceMean ReduceFusion. Ascend kernels are listed for
# float16 alone.
DOCUMENTED = {
    "Add": BOTH, "BatchMatMul": BOTH, "BiasAdd": BOTH, "BroadcastTo": CPU, "Concat": BOTH, "Conv2D": BOTH, "Div": BOTH,
    "Erf": BOTH, "Gather": BOTH, "MatMul": BOTH, "Mul": BOTH, "ReduceMean": BOTH, "Reshape": BOTH, "Sigmoid": BOTH,
    "Slice": BOTH, "Softmax": BOTH, "Sqrt": BOTH, "Sub": BOTH, "Transpose": BOTH,
}  # fmt: skip
LITE_VERSIONS = ("2.0", "2.7", "2.10")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("--lite", choices=LITE_VERSIONS, required=True, help="version of MindSpore Lite")
    parser.add_argument("--device", choices=("cpu", "ascend"), default="cpu", help="where it would run (default cpu)")


def run(args: argparse.Namespace) -> None:
    from .requirements import require_exporter

    if (args.lite, args.device) == ("2.7", "cpu"):
        raise UserError("of Lite 2.7 the converter for Ascend was read, and nothing of its CPU: choose --device ascend, or "
                        "another --lite")
    require_exporter()
    bundle = Bundle(args.bundle)
    if args.lite != "2.0":
        bundle = bundle.for_target(args.device)
    print(f"{'graph':28}{'run':>5}{'listed':>8}{'unknown':>9}  file")
    problems = []
    for graph in bundle.manifest.graphs:
        file = file_for(graph, args.lite)
        found = evidence(operators_in(bundle.mindir(file), file), args.lite, args.device)
        print(f"{graph.title:28}{len(found['run']):5}{len(found['listed']):8}{len(found['unknown']):9}  {file}")
        if found["unknown"]:
            problems.append(f"{graph.title}: nothing speaks for {', '.join(found['unknown'])} on Lite {args.lite}, "
                            f"{args.device}")
    if problems:
        more = f", and {len(problems) - 1} more graphs" if problems[1:] else ""
        raise UserError(f"{problems[0]}{more}: kandinsky-mindir verify tells there, or choose another --lite or --device")


def file_for(graph: GraphInfo, version: str) -> str:
    """Lite 2.0 reads the lowered graph; later ones (from 2.7 at the latest) read what MindSpore wrote."""
    return graph.lite if version == "2.0" else graph.mindir


def evidence(operators: list[str], version: str, device: str) -> dict[str, list[str]]:
    """`operators` by what speaks for them: "run" here, "listed" in the documentation or the source alone, or "unknown"."""
    found: dict[str, list[str]] = {"run": [], "listed": [], "unknown": []}
    for operator in operators:
        if (version, device) == ("2.0", "cpu"):  # tests/export/test_lowering.py runs every row of that table
            known = operator in OPERATORS and not OPERATORS[operator].refused
            found["run" if known else "unknown"].append(operator)
        elif (version, device) == ("2.7", "ascend"):  # of its source: ascend/operators.py says where
            found["listed" if operator in KNOWN else "unknown"].append(operator)
        else:
            listed = version == "2.10" and device in DOCUMENTED.get(operator, ())
            found["listed" if listed else "unknown"].append(operator)
    return found


def operators_in(mindir: bytes, where: str) -> list[str]:
    """Names of the operators of a MindIR file's content that compute something. where: its name, for errors."""
    from .graphs.node_layers import STRUCTURE
    from .graphs.reader import read_model

    model = read_model(mindir, where)
    return sorted({primitive.op_type for primitive in model.primitives} - set(STRUCTURE))
