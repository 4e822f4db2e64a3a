"""A LoRA file: which module it changes, by what, and how strongly. Every tensor in it must find its module."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ...runner.common.errors import UserError
from ..checkpoint.json_files import one_line, read_json
from ..checkpoint.safetensors_reader import PICKLES, TensorFiles
from .spelling import ALPHA, DOWN, PARTS, UP, Modules, Spelled, read_name

METADATA = "lora_adapter_metadata"  # of diffusers' files: peft's LoraConfig as JSON
PEFT_CONFIG = "adapter_config.json"  # the same beside peft's own files
PEFT_FILE = "adapter_model.safetensors"
FILES = ("pytorch_lora_weights.safetensors", PEFT_FILE)  # what a folder may hold
REFUSED_OPTIONS = {"use_dora": "DoRA", "lora_bias": "biases", "fan_in_fan_out": "weights that lie on their side"}


class Given(NamedTuple):
    """A LoRA as it is asked for. scale: of all that it adds."""

    path: Path
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Given:
        """"FILE" or "FILE:SCALE". UserError for a scale that is not finite, or is 0."""
        name, colon, scale = text.rpartition(":")
        try:
            given = cls(Path(name), float(scale)) if colon and not Path(text).exists() else cls(Path(text))
        except ValueError:  # a name with a colon
            given = cls(Path(text))
        if not math.isfinite(given.scale) or given.scale == 0:
            raise UserError(f"--lora {text}: the scale must be a number other than 0")
        return given


class Pair(NamedTuple):
    """What is added to the weight of a module: factor * up @ down. up, down: names in the file."""

    up: str
    down: str
    factor: float


class Adapter:
    """A LoRA file, matched to the modules of a checkpoint by its header alone.

    pairs: (part, module) -> Pair. UserError that names the tensor which is of another method, finds no module, has no
    counterpart or another shape than its module; for a pickle; for options that change the sum in ways not known here.
    """

    def __init__(self, given: Given, modules: Modules):
        self.given = given
        self.path = _file(given.path)
        self._tensors = TensorFiles.of_file(self.path)
        where = str(self.path)
        found = _matched({name: read_name(name, where) for name in self._tensors.shapes}, modules, where)
        config = _config(self.path)
        self.pairs: dict[tuple[str, str], Pair] = {}
        for (part, module), roles in found.items():
            self.pairs[part, module] = self._pair(part, module, roles, modules.shapes[part][module], config.get(part, {}))
        if not self.pairs:
            raise UserError(f"{where} holds no LoRA: it has no tensors")

    def delta(self, part: str, module: str) -> np.ndarray:
        """What is added to the module's weight, in the checkpoint's layout, float64. UserError for NaN or infinity."""
        pair = self.pairs[part, module]
        up, down = (self._tensors.read(name).astype(np.float64) for name in (pair.up, pair.down))
        product = up.reshape(len(up), -1) @ down.reshape(len(down), -1)
        return (self.given.scale * pair.factor * product).reshape(len(up), *down.shape[1:])

    def _pair(self, part: str, module: str, roles: Mapping[str, str], shape: tuple[int, ...], config: Mapping[str, Any]) -> Pair:
        for role in (UP, DOWN):
            if role not in roles:
                raise UserError(f"{self.path}: tensor {next(iter(roles.values()))!r} has no counterpart {role}: the file "
                                "is incomplete")
        up, down = (self._tensors.shapes[roles[role]] for role in (UP, DOWN))
        rank = down[0] if down else 0
        ones = (1,) * (len(shape) - 2)
        if down != (rank, *shape[1:]) or up != (shape[0], rank, *ones) or rank == 0:
            raise UserError(f"{self.path}: tensors {roles[UP]!r} and {roles[DOWN]!r} have shapes {list(up)} and {list(down)}, "
                            f"and the weight of {part}'s {module} has {list(shape)}: it is a LoRA for another model")
        for role in (UP, DOWN):
            self._tensors.check_type(roles[role])
        alpha = self._alpha(roles[ALPHA]) if ALPHA in roles else _alpha_of(config, module, rank)
        factor = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        return Pair(roles[UP], roles[DOWN], factor)

    def _alpha(self, name: str) -> float:
        if math.prod(self._tensors.shapes[name]) != 1:
            raise UserError(f"{self.path}: tensor {name!r} has shape {list(self._tensors.shapes[name])}: an alpha is one number")
        return float(self._tensors.read(name).reshape(()))


def _matched(spelled: Mapping[str, Spelled], modules: Modules, where: str) -> dict[tuple[str, str], dict[str, str]]:
    """(part, module) -> role -> the tensor's name."""
    found = {name: modules.find(each) for name, each in spelled.items()}
    lost = [name for name, places in found.items() if not places]
    if lost:
        more = f" and {len(lost) - 1} more" if lost[1:] else ""
        where_to = spelled[lost[0]].part or " or the ".join(PARTS)
        raise UserError(f"{where}: tensor {lost[0]!r}{more} finds no module in the {where_to}: "
                        "it is a LoRA for another model")
    sure = {places[0][0] for places in found.values() if len(places) == 1}
    matched: dict[tuple[str, str], dict[str, str]] = {}
    for name, places in found.items():
        if len(places) > 1:  # a path that both parts have: of the part that all others are of
            places = [place for place in places if {place[0]} == sure]
        if len(places) != 1:
            raise UserError(f"{where}: tensor {name!r} may be the prior's or the unet's: put prior. or unet. before its name")
        roles = matched.setdefault(places[0], {})
        if (other := roles.setdefault(spelled[name].role, name)) is not name:
            raise UserError(f"{where}: tensors {other!r} and {name!r} are two names for one: save the LoRA again, "
                            "with one of them")
    return matched


def _file(path: Path) -> Path:
    """The file that `path` is, or holds as a folder."""
    if path.is_dir():
        there = [path / name for name in FILES if (path / name).is_file()]
        if len(there) != 1:
            which = "both" if there else "none"
            raise UserError(f"{path} is a folder with {which} of {' and '.join(FILES)}: give the LoRA's file")
        return there[0]
    if not path.is_file():
        raise UserError(f"{path} is not there: give a LoRA's file, or FILE:SCALE")
    if any(path.match(pattern) for pattern in PICKLES):
        raise UserError(f"{path} is a pickle, which can run code when it is read: load it with torch.load(..., weights_only=True)"
                        " and save it with safetensors.torch.save_file")
    return path


def _config(path: Path) -> dict[str, dict[str, Any]]:
    """peft's options for each part: out of the file's metadata, or of the file that peft writes beside its own."""
    try:
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get(METADATA)
        options = json.loads(text) if text else {}
        if not isinstance(options, dict):
            raise ValueError("it is no JSON object")
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: its {METADATA} cannot be read ({one_line(error)}): save the LoRA again") from None
    if not options and path.name == PEFT_FILE:
        options = read_json(path.with_name(PEFT_CONFIG))
    found = {}
    for part in PARTS:
        own = {key.removeprefix(f"{part}."): value for key, value in options.items() if key.startswith(f"{part}.")}
        found[part] = own or options
        for name, what in REFUSED_OPTIONS.items():
            if found[part].get(name):
                raise UserError(f"{path}: {name} is set: {what}, which cannot be added to weights here; train it without")
    return found


def _alpha_of(config: Mapping[str, Any], module: str, rank: int) -> float:
    """peft's alpha of a module (tuners/lora/model.py: _create_and_replace; utils/other.py: get_pattern_key); else the rank."""
    patterns = config.get("alpha_pattern") or {}
    try:
        key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
    except (re.error, TypeError):
        raise UserError(f"alpha_pattern is {patterns!r:.200}: it must map patterns of names to numbers") from None
    alpha = config.get("lora_alpha", rank) if key is None else patterns[key]
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise UserError(f"lora_alpha of {module} is {alpha!r}: it must be a number")
    return float(alpha)


def changed_parts(adapters: Iterable[Adapter]) -> list[str]:
    """The parts that any of them changes, in the order of PARTS."""
    changed = {part for adapter in adapters for part, _ in adapter.pairs}
    return [part for part in PARTS if part in changed]
