"""Decoder checkpoints of one bundle: of three kinds, told by the UNet's configuration, with one MoVQ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ...runner.common.errors import UserError
from .folder import Checkpoint
from .tensor_names import stored_names

KINDS = {"decoder": "text to image", "inpaint": "inpainting", "controlnet": "depth"}


def by_kind(folders: Sequence[str | Path]) -> dict[str, Checkpoint]:
    """Kind -> checkpoint, in the order of KINDS; UserError if two folders are of one kind, or if there is none."""
    found: dict[str, Checkpoint] = {}
    for folder in folders:
        checkpoint = Checkpoint(folder, "decoder")
        kind = checkpoint.config("unet").decoder
        other = found.setdefault(kind, checkpoint)
        if other is not checkpoint:
            raise UserError(f"{other.path} and {folder} are both decoders for {KINDS[kind]}: a bundle holds one of a kind")
    if not found:
        raise UserError("no decoder is given: give the folder of at least one")
    return {kind: found[kind] for kind in KINDS if kind in found}


def require_one_movq(checkpoints: Sequence[Checkpoint]) -> None:
    """UserError unless all have the same MoVQ, by its configuration and its tensors: a bundle stores it once."""
    first, *others = checkpoints
    for other in others:
        if first.config("movq") != other.config("movq") or not _same(first, other):
            raise UserError(f"the MoVQ of {other.path} is not that of {first.path}, and a bundle holds one: "
                            f"export {other.path} to a bundle of its own")


def _same(first: Checkpoint, other: Checkpoint) -> bool:
    sides = [(side.tensors("movq"), stored_names("movq", side.tensors("movq"))) for side in (first, other)]
    if sides[0][1].keys() != sides[1][1].keys():
        return False
    return all(np.array_equal(one, other) for one, other in _pairs(sides))


def _pairs(sides: list) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each tensor of both, one pair after another."""
    for name in sides[0][1]:
        one, other = (tensors.read(names[name]) for tensors, names in sides)
        yield one, other
