"""What trainers call the tensors of a LoRA: from any spelling to the module that is changed, and the tensor's role.

old       down_blocks.1.attentions.0.processor.to_q_lora.down.weight    diffusers up to 0.21, ai-forever's trainers
dotted    down_blocks.1.attentions.0.to_q.lora.down.weight              diffusers 0.22 to 0.29
peft      down_blocks.1.attentions.0.to_q.lora_A.weight                 diffusers today, mindone, peft
kohya     lora_unet_down_blocks_1_attentions_0_to_q.lora_down.weight    kohya's scripts and what follows them

diffusers 0.42.1 drops old names of add_k_proj and add_v_proj without a word (utils/state_dict_utils.py: UNET_TO_DIFFUSERS has
no line for them), and fails on kohya's. Here they are read as all others are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

from ...runner.common.errors import UserError

DOWN, UP, ALPHA = "down", "up", "alpha"
PARTS = ("prior", "unet")  # those that LoRAs of Kandinsky change
PREFIX = re.compile(r"(base_model\.model|module|prior|unet)\.")

# Tensors of other methods, which are refused by their names.
REFUSED = (
    (re.compile(r"lora_magnitude_vector|dora_scale"), "DoRA, which scales whole weights"),
    (re.compile(r"lora_bias|(lora_[AB](\.[^.]+)?|lora_up|lora_down|lora\.up|lora\.down)\.bias$|\.diff_b$"), "a bias"),
    (re.compile(r"hada_w|\.hada_t"), "LoHa"),
    (re.compile(r"lokr_"), "LoKr"),
    (re.compile(r"lora_mid|lora_t[12]"), "a Tucker decomposition"),
    (re.compile(r"oft_|boft_"), "OFT"),
    (re.compile(r"lora_embedding_"), "an embedding's LoRA"),
    (re.compile(r"\.diff$"), "a whole difference of weights"),
)
_SIDES = {"A": DOWN, "B": UP, "down": DOWN, "up": UP}
# Patterns of whole names behind the prefix; the first that matches counts.
PATTERNS = tuple(re.compile(pattern) for pattern in (
    r"(?P<module>.+)\.lora_(?P<side>[AB])(\.[^.]+)?\.weight",  # peft may put its adapter's name in between
    r"(?P<module>.+)\.(lora|lora_linear_layer)\.(?P<side>down|up)\.weight",
    r"(?P<owner>.+?)(\.processor)?\.(?P<layer>\w+?)_lora\.((?P<side>down|up)\.weight|alpha)",
    r"lora_(?P<part>prior|unet)_(?P<flat>[^.]+)\.(lora_(?P<side>down|up)\.weight|alpha)",
    r"(?P<module>.+)\.lora_(?P<side>down|up)\.weight",
    r"(?P<module>.+?)(\.lora)?\.alpha",
))  # fmt: skip


class Spelled(NamedTuple):
    """What a tensor's name says. part: None where it does not say. module: by its path in the part, or, `flat`, with "_" in
    place of its dots. role: DOWN, UP or ALPHA."""

    part: str | None
    module: str
    flat: bool
    role: str


def read_name(name: str, where: str) -> Spelled:
    """UserError, which names `where` and the tensor, if it is none of a LoRA that can be added to weights."""
    for pattern, method in REFUSED:
        if pattern.search(name):
            raise UserError(f"{where}: tensor {name!r} is of {method}: only plain LoRA can be added to weights; train it without")
    part, rest = None, name
    while match := PREFIX.match(rest):
        part = match[1] if match[1] in PARTS else part
        rest = rest[match.end() :]
    for pattern in PATTERNS:
        if match := pattern.fullmatch(rest):
            found = defaultdict(lambda: None, match.groupdict())
            module = found["module"] or found["flat"] or f"{found['owner']}.{found['layer']}"
            return Spelled(found["part"] or part, module, found["flat"] is not None, _SIDES.get(found["side"] or "", ALPHA))
    raise UserError(f"{where}: tensor {name!r} is no LoRA's that is known here: known are names like those of diffusers, "
                    "peft and kohya's scripts")


class Modules:
    """The modules of a checkpoint's parts that have a weight. shapes: part -> path -> the shape of its weight."""

    def __init__(self, shapes: dict[str, dict[str, tuple[int, ...]]]):
        self.shapes = shapes
        self._flat = {part: {module.replace(".", "_"): module for module in modules} for part, modules in shapes.items()}

    def find(self, spelled: Spelled) -> list[tuple[str, str]]:
        """(part, path) of each module that the name may mean."""
        found = []
        for part in (spelled.part,) if spelled.part else self.shapes:
            for name in (spelled.module, f"{spelled.module}{'_' if spelled.flat else '.'}0"):  # to_out is a list of one
                path = self._flat[part].get(name) if spelled.flat else name
                if path in self.shapes[part]:
                    found.append((part, path))
                    break
        return found
