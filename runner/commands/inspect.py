"""Say what a bundle holds: parts, graphs, sizes, disk use, schedulers, defaults, where it came from.

  kandinsky-mindir inspect BUNDLE
  kandinsky-mindir inspect BUNDLE --graphs        inputs and outputs of every graph too
  kandinsky-mindir inspect BUNDLE --files         check every file against its sha256
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path, PurePosixPath

from ..bundle import packed
from ..bundle.opened import Bundle
from ..bundle.stages import CONTROL, DECODE, DENOISE, EMBED_TEXT, INPAINT, needed
from ..bundle.tensor_index import STORED, is_stored
from ..common.control_groups import thread_count
from ..common.errors import one_line
from ..common.memory import as_text, available
from ..loading.memory_plan import plan_memory
from ..upkeep.replay import read_example

DECODERS = {"unet": DENOISE, "inpaint_unet": INPAINT, "controlnet_unet": CONTROL}
HELP = "say what a bundle holds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("--graphs", action="store_true", help="list inputs and outputs of every graph")
    parser.add_argument("--files", action="store_true", help="check every file against its sha256")


def run(args: argparse.Namespace) -> None:
    bundle = Bundle(args.bundle)
    found = packed.read(bundle.path)
    if found:
        bundle = bundle.for_engine(found.made_for["threads"], found.made_for["precision"])
    if args.files:
        bundle.verify_files()
    manifest = bundle.manifest
    total = sum(info.size for info in manifest.files.values())
    print(f"{one_line(bundle.path, keep_bytes=True)}: format {manifest.format}, {len(manifest.files)} files, {_megabytes(total)}")
    for key, value in manifest.versions.items():
        print(f"  made with {key} {value}")
    for key, value in manifest.source.items():
        print(f"  {key} from {value}")
    print("sizes     " + ", ".join(f"{height}x{width}" for height, width in manifest.sizes))
    for stage in manifest.defaults:
        options = ", ".join(f"{key} {value}" for key, value in manifest.defaults[stage].items())
        print(f"{stage:9} {manifest.schedulers[stage].get('_class_name')}; defaults: {options}")
    print("graphs")
    for graph in manifest.graphs:
        size = f"{graph.size[0]}x{graph.size[1]}" if graph.size else ""
        print(f"  {graph.name:23} batch {graph.batch} {size:10} {graph.lite}")
        if args.graphs:
            for kind, tensors in (("in", graph.inputs), ("out", graph.outputs)):
                for tensor in tensors:
                    print(f"    {kind:3} {tensor.name:28} {tensor.dtype:8} {'x'.join(map(str, tensor.shape))}")
    for target, graphs in manifest.targets.items():
        print(f"graphs for {target}, float16 but for some layers")
        for row in graphs:
            size = f"{row.size[0]}x{row.size[1]}" if row.size else ""
            print(f"  {row.name:23} batch {row.batch} {size:10} {row.mindir}, float32 layers: {len(row.float32)}")
    print("weights")
    for name, info in manifest.files.items():
        if name.endswith("weights.bin"):
            types = f" {_types(bundle, name)}" if is_stored(PurePosixPath(name).name) else ""
            print(f"  {name:32} {_megabytes(info.size)}{types}")
    if any(name.endswith(f"/{STORED}") for name in manifest.files):
        print(f"  {_megabytes(bundle.weight_bytes)} as float32, which kandinsky-mindir unpack writes for MindSpore itself")
    for part in dict.fromkeys(graph.part for graph in manifest.graphs):
        print(_range(bundle, part))
    if found:
        usable = "for this machine" + (f" with --threads {bundle.threads}" if bundle.threads != thread_count(None) else "")
        usable += f" with --precision {bundle.precision}" if bundle.precision != "float32" else ""
        note = usable if bundle.packed else f"not for this machine, or an older bundle: {packed.REMEDY}"
        print(f"packed    {_megabytes(found.size)}, {note}")
    for height, width in manifest.sizes:
        print(f"memory at {height}x{width}, estimated (this machine has {as_text(available())} left)")
        task = next((task for unet, task in DECODERS.items() if manifest.has(unet)), DENOISE)
        print(plan_memory(bundle, needed(manifest, (EMBED_TEXT, task, DECODE), (height, width))))
    if args.files:
        print(f"all {len(manifest.files)} files match the manifest")


def _types(bundle: Bundle, name: str) -> str:
    """In which types the weights of a file are, the most frequent first."""
    part, _, file = name.rpartition("/")
    bytes_of = Counter[str]()
    for tensor in {tensor.offset: tensor for tensor in bundle.tensors(part).values() if tensor.file == file}.values():
        bytes_of[tensor.dtype] += tensor.length
    return ", ".join(dtype for dtype, _ in bytes_of.most_common())


def _range(bundle: Bundle, part: str) -> str:
    """The largest value of a part's layers, in its sealed examples, and which of them float16 has no room for."""
    examples = [read_example(bundle, graph) for graph in bundle.manifest.graphs if graph.part == part]
    beyond = list(dict.fromkeys(layer for example in examples for layer in example.beyond_float16))
    found = [(value, layer) for example in examples for layer, value in example.largest.items()]
    if not found:
        return f"range     {part:14} not known: an older version made the bundle"
    largest, layer = max(found)
    note = f"; beyond float16: {', '.join(beyond)}" if beyond else ""
    return f"range     {part:14} up to {largest:,.4g} ({layer}){note}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
