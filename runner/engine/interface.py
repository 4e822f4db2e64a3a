"""What an engine is: something that loads a graph file and runs it on NumPy arrays."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ..common.errors import UserError

if TYPE_CHECKING:
    from ..bundle.ms_layout import Stretch

Say = Callable[[str], None]  # receives a line for the user


class EngineError(UserError):
    """A graph could not be loaded or run."""


class TensorSpec(NamedTuple):
    """An input or output of a graph: `dtype` is NumPy's name of the element type ("float32", "int32")."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class LiteModel(Protocol):
    """One loaded graph. Its weights stay in memory until `close`, which may be called twice; run then fails."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def usable(self) -> bool:
        """Whether `run` may be called: the model is not closed, every run of it so far has ended well, and the running
        process has loaded it itself. A model that is not usable stays so: close it and load another.
        """

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for `arrays`, one for each of `inputs`, in that order.

        Any thread may call it; calls of one model wait for each other. ValueError when an array does not fit its
        input, RuntimeError when the model is closed, EngineError when Lite fails, when an exception ended an earlier run
        before Lite had answered, or when this process was forked from the one that loaded the model.
        """

    def close(self) -> None:
        """Free it. In a process that was forked from the one that loaded it this does nothing."""


class Engine(Protocol):
    """A way to MindSpore Lite."""

    name: str
    version: str
    precision: str  # one of precision.PRECISIONS: of products and convolutions; "float16" is of all that a graph computes
    takes_model_files: bool  # `load` takes an ms_file.ModelFile, too; `convert` makes `.ms` files, `pack` packs them
    reads: str  # which MindIR of a GraphInfo it reads: "lite", lowered for Lite 2.0, or "mindir", as MindSpore wrote it

    def load(self, path: Any, *, device: str = "cpu", threads: int | None = None) -> LiteModel:
        """Load a MindIR or `.ms` file; `device` is "cpu", "ascend" or "ascend:1". EngineError names the file."""


class PackedModel(LiteModel, Protocol):
    """A model that was packed. packed: where the packed form of each weight lies, in the file that it was written to."""

    packed: list[Stretch]


class ModelFileEngine(Engine, Protocol):
    """An engine that `takes_model_files`: it makes Lite's own format, and packs its weights."""

    kernels: str  # "own": kernels of ours compute products, and nodes of our own; "lite": Lite's compute all

    def convert(self, mindir: Path, ms: Path) -> None:
        """Write the MindIR file `mindir`, one that Lite reads, as the `.ms` file `ms`."""

    def pack(self, file: Any, keep: Any, *, threads: int | None = None) -> PackedModel:
        """Load a ModelFile and write its weights, as Lite packs them, to the empty file `keep`."""


def check_arrays(specs: Sequence[TensorSpec], arrays: Sequence[np.ndarray]) -> None:
    """ValueError unless `arrays` are as `specs` say, naming the input that is not."""
    if len(arrays) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise ValueError(f"{len(arrays)} arrays given for {len(specs)} inputs ({names})")
    for spec, array in zip(specs, arrays):
        if not isinstance(array, np.ndarray):
            raise ValueError(f"input {spec.name!r} must be a NumPy array, not {type(array).__name__}")
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise ValueError(
                f"input {spec.name!r} must be {spec.dtype} of shape {spec.shape}, not {array.dtype} of {array.shape}"
            )


def parse_device(device: str) -> tuple[str, int]:
    """"cpu", "ascend" or "ascend:1" as (name, device id)."""
    name, _, index = str(device).partition(":")
    if name not in ("cpu", "ascend") or (index and (name == "cpu" or not index.isdecimal())):
        raise EngineError(f"unknown device {device!r}: use cpu, ascend or ascend:ID")
    return name, int(index or 0)


def say_on_stderr(line: str) -> None:
    """Where installing the runtime reports to, unless the caller has another place. Nowhere if it is closed."""
    if sys.stderr is not None:  # print would take standard output instead
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)
