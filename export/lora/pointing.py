"""Graphs of a part pointed to tensors that have moved to another file: their MindIR, and their layouts for Lite."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mindspore.train.mind_ir_pb2 import ModelProto

from ...runner.bundle.ms_layout import Layout
from ...runner.bundle.stored.wide_file import open_weights
from ...runner.bundle.tensor_index import StoredTensor

BEGINNING = 1 << 12  # bytes that tell nearly all tensors apart


class Place(NamedTuple):
    """Where a tensor begins: a file beside the index, and bytes in it."""

    file: str
    offset: int

    @classmethod
    def of(cls, tensor: StoredTensor) -> Place:
        return cls(tensor.file, tensor.offset)


Moves = Mapping[Place, StoredTensor]  # from where a tensor lay to what takes its place, of the same length


def point_mindir(model: ModelProto, moves: Moves) -> set[Place]:
    """Point a graph's parameters to where they have moved; the places that they leave."""
    left = set()
    for parameter in model.graph.parameter:
        place = Place(parameter.external_data.location, parameter.external_data.offset)
        if moved := moves.get(place):
            parameter.external_data.location, parameter.external_data.offset = moved.file, moved.offset
            left.add(place)
    return left


def point_layout(layout: Layout, moves: Moves) -> tuple[Layout, set[Place]]:
    """The layout with its stretches of tensors that have moved, and the places that they leave.

    A large tensor is two stretches: whole pages, and the rest.
    """
    starts: dict[str, list[int]] = defaultdict(list)
    for place in sorted(moves):
        starts[place.file].append(place.offset)
    stretches, left = [], set()
    for stretch in layout.stretches:
        before = bisect_right(starts[stretch.source], stretch.offset) - 1
        if before >= 0:
            place = Place(stretch.source, starts[stretch.source][before])
            moved, inside = moves[place], stretch.offset - place.offset
            if inside + stretch.length <= moved.length:
                stretch = stretch._replace(source=moved.file, offset=moved.offset + inside)
                left.add(place)
        stretches.append(stretch)
    return Layout(stretches, layout.skeleton), left


def twins(folder: Path, index: Iterable[StoredTensor], moves: Moves) -> set[Place]:
    """Those of `moves` whose old bytes another tensor of the part has, too: a layout may mean either by the place of one."""
    alike: dict[tuple[int, bytes], list[StoredTensor]] = defaultdict(list)
    lengths = {moved.length for moved in moves.values()}
    for tensor in index:
        if tensor.length in lengths:
            alike[tensor.length, _bytes(folder, tensor, BEGINNING).tobytes()].append(tensor)
    found = set()
    for tensors in alike.values():
        for one in tensors:
            if Place.of(one) in moves and any(other is not one and _same(folder, one, other) for other in tensors):
                found |= {Place.of(other) for other in tensors if _same(folder, one, other)}
    return found


def _same(folder: Path, one: StoredTensor, other: StoredTensor) -> bool:
    return np.array_equal(_bytes(folder, one), _bytes(folder, other))


def _bytes(folder: Path, tensor: StoredTensor, most: int | None = None) -> np.ndarray:
    length = tensor.length if most is None else min(tensor.length, most)
    return open_weights(folder / tensor.file)[tensor.offset : tensor.offset + length]
