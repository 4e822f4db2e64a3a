"""Which of a part's tensors its graphs reach, through MindIR and through layouts for Lite."""

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


Tensors = Mapping[Place, StoredTensor]  # some of a part, by where graphs find them


def in_mindir(model: ModelProto, tensors: Tensors) -> set[Place]:
    """The places of those of `tensors` that are parameters of a graph."""
    places = (Place(parameter.external_data.location, parameter.external_data.offset) for parameter in model.graph.parameter)
    return {place for place in places if place in tensors}


def in_layout(layout: Layout, tensors: Tensors) -> set[Place]:
    """The places of those of `tensors` that a layout has stretches of."""
    starts: dict[str, list[int]] = defaultdict(list)
    for place in sorted(tensors):
        starts[place.file].append(place.offset)
    found = set()
    for stretch in layout.stretches:
        before = bisect_right(starts[stretch.source], stretch.offset) - 1
        if before >= 0:
            place = Place(stretch.source, starts[stretch.source][before])
            if stretch.offset + stretch.length <= place.offset + tensors[place].length:
                found.add(place)
    return found


def twins(folder: Path, index: Iterable[StoredTensor], tensors: Tensors) -> set[Place]:
    """Those of `tensors` whose bytes another tensor of the part has, too: a layout may mean either by the place of one."""
    alike: dict[tuple[int, bytes], list[StoredTensor]] = defaultdict(list)
    lengths = {tensor.length for tensor in tensors.values()}
    for tensor in index:
        if tensor.length in lengths:
            alike[tensor.length, _bytes(folder, tensor, BEGINNING).tobytes()].append(tensor)
    found = set()
    for some in alike.values():
        for one in some:
            if Place.of(one) in tensors and any(other is not one and _same(folder, one, other) for other in some):
                found |= {Place.of(other) for other in some if _same(folder, one, other)}
    return found


def _same(folder: Path, one: StoredTensor, other: StoredTensor) -> bool:
    return np.array_equal(_bytes(folder, one), _bytes(folder, other))


def _bytes(folder: Path, tensor: StoredTensor, most: int | None = None) -> np.ndarray:
    length = tensor.length if most is None else min(tensor.length, most)
    return open_weights(folder / tensor.file)[tensor.offset : tensor.offset + length]
