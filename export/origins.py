"""What decides the bytes of a part: where all of it is the same, a part that was made before would be made the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..runner.bundle.checked_files import sha256_of
from .graphs.graph_specs import GraphSpec

HOME = Path(__file__).parents[1]
VERSIONED = ("kandinsky-mindir", "mindspore")

# Patterns of the program's files that decide what is in a part's files. tests/export/test_origins.py holds this table and
# the next to what parts.py imports: a module that is in neither fails it.
OF_PARTS = (
    "models/*.py", "models/targets/*.py",
    "export/parts.py", "export/checkpoint/safetensors_reader.py", "export/checkpoint/tensor_names.py",
    "export/graphs/cutting.py", "export/graphs/lowering.py", "export/graphs/mindir.py", "export/graphs/node_layers.py",
    "export/graphs/operators.py", "export/contents/ms_files.py", "export/contents/weights.py",
    "export/contents/stored_writer.py", "export/lora/adapter.py", "export/lora/spelling.py", "export/lora/tensors.py",
    "runner/bundle/mindir_archive.py", "runner/bundle/ms_layout.py", "runner/bundle/tensor_index.py", "runner/bundle/stored/*.py",
    "runner/engine/framework/mindir.py", "runner/engine/native/convert.cc", "runner/engine/native/follow_parent.h",
)  # fmt: skip
# What is imported beside that, and why a change of it changes no part.
NOT_OF_PARTS = {
    "export/isolation.py": "in which process a part is made",
    "export/staging.py": "in which folder a part is made",
    "export/checkpoint/json_files.py": "reads the names of shards",
    "export/origins.py": "this table",
    "export/graphs/graph_specs.py": "the specs themselves are hashed",
    "runner/bundle/stages/__init__.py": "the specs that come of its rows are hashed",
    "runner/bundle/stages/estimates.py": "plans of memory",
    "runner/bundle/stages/feeds.py": "what sealed examples are made of",
    "runner/bundle/manifest.py": "what the manifest says of a part",
    "runner/bundle/checked_files.py": "checks files",
    "runner/bundle/check_record.py": "remembers which files were checked",
    "runner/bundle/ms_file.py": "a model in memory",
    "runner/bundle/packed.py": "packs what is exported, on other machines",
    "runner/bundle/__init__.py": "empty",
    "runner/__init__.py": "names of the runner's classes",
    "runner/common/*.py": "errors, locks, scratch folders",
    "runner/engine/*.py": "starts convert.cc, with the Lite whose version is hashed",
    "runner/engine/framework/*.py": "runs what is exported",
}
# The same for the sealed examples, beside the parts.
OF_EXAMPLES = (
    "export/contents/seal_examples.py", "export/graphs/interpreter.py", "export/graphs/reader.py",
    "export/graphs/node_layers.py",
    "runner/bundle/stages/__init__.py", "runner/bundle/stages/feeds.py", "runner/bundle/sealed_examples.py",
    "runner/diffusion/sinusoid.py", "runner/inputs/tokens.py",
)  # fmt: skip


def part_origin(specs: Sequence[GraphSpec], cells: Iterable[Any], config: Any, files: Iterable[Path],
                scales: Sequence[Any] = ()) -> str:
    """A digest of what decides a part's bytes, but for the engine that converts its graphs.

    cells: of the specs. config: the part's configuration. files: its weights, which count as the same while their names,
    sizes and times are. scales: of the LoRAs among them.
    """
    return digest([
        [(spec.name, spec.part, spec.batch, spec.size, spec.outputs, [tuple(vars(tensor).values()) for tensor in spec.inputs])
         for spec in specs],
        [f"{type(cell).__module__}.{type(cell).__qualname__}" for cell in cells],
        repr(config),
        [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)],
        list(scales),
        program(OF_PARTS),
        [version(name) for name in VERSIONED],
    ])  # fmt: skip


@cache
def program(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The sha256 of each of the program's files that match."""
    return tuple(sha256_of(path) for path in sorted({path for pattern in patterns for path in HOME.glob(pattern)}))


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
