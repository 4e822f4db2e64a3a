"""Checkpoint tensor names -> our parameter names: one pure function for each part, nothing else knows foreign names.

Our parameters carry the names that current diffusers and transformers write. The tables only cover what older versions
and mindone wrote, and list what inference does not use.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ...models import winograd
from ...runner.common.errors import UserError


def as_it_is(array):
    return array


def channels_last(array):
    """A convolution's kernel, (out, in, height, width), as our cells keep it; any other tensor as it is."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def as_stored(shape):
    """The shape that a parameter of our cells has in a checkpoint: what `channels_last` changes, changed back."""
    return [shape[0], shape[3], *shape[1:3]] if len(shape) == 4 else list(shape)


class Source(NamedTuple):
    """How a parameter is made: `combine` of the checkpoint tensors `names`.

    combined_shape: the shape of what comes of their shapes, where `combine` itself is work. taps: where it is made of one
    kernel, the factors of its nine values (models/winograd.py).
    """

    names: tuple
    combine: Callable = channels_last
    combined_shape: Callable | None = None
    taps: np.ndarray | None = None

    def shape(self, shapes):
        """Shape of the parameter, given those of the checkpoint's tensors."""
        if self.combined_shape:
            return self.combined_shape(*(shapes[name] for name in self.names))
        return self.combine(*(np.broadcast_to(np.float32(0), shapes[name]) for name in self.names)).shape


def with_products(sources: dict) -> dict:
    """`sources`, and what cells of models/winograd.py make of each convolution's weight."""
    sources = dict(sources)
    for name, source in list(sources.items()):
        if re.search(r"\.conv\d?\.weight$", name):
            for kind, combinations in (("plain", winograd.PLAIN), ("doubled", winograd.DOUBLED)):
                for column in range(len(combinations)):
                    product = name.removesuffix("weight") + f"{kind}_{column}"
                    sources[product] = Source(source.names, winograd.filters(combinations, column),
                                              winograd.shape_of_filters(combinations),
                                              winograd.taps(combinations, column))
    return sources


def with_kernels(sources: dict) -> dict:
    """`sources`, and each weight once more as it is: what a convolution of the Ascend target takes (models/targets/native.py)."""
    return sources | {name.removesuffix("weight") + "kernel": Source(source.names, as_it_is)
                      for name, source in sources.items() if name.endswith(".weight")}


# What MindSpore's cells call their parameters (nn.LayerNorm, nn.GroupNorm, nn.Embedding), and so what mindone saves;
# mindone/diffusers/models/modeling_utils.py: _get_pt2ms_mappings has the same pairs, the other way round.
MINDSPORE = {"gamma": "weight", "beta": "bias", "embedding_table": "weight"}
# diffusers before 0.15 (AttentionBlock); ModelMixin._fix_state_dict_keys_on_load makes the same replacements
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def current_name(part, name):
    """The name that current diffusers and transformers give the tensor that a checkpoint calls `name`."""
    if part == "movq":
        name = re.sub(r"(?<=\.attentions\.)(\d+)\.(query|key|value|proj_attn)(?=\.)",
                      lambda match: f"{match[1]}.{OLD_ATTENTION[match[2]]}", name)
    owner, dot, last = name.rpartition(".")
    return owner + dot + MINDSPORE.get(last, last) if dot else name


def same_names(names) -> dict:
    return with_kernels({name: Source((name,)) for name in names})


def same_names_and_products(names) -> dict:
    return with_products(same_names(names))


def conv_in_in_two(names) -> dict:
    """As above, for a UNet whose conv_in sees more than latents: the halves of its weight that see latents, and the rest."""
    def latents(weight):
        return weight[:, : weight.shape[1] // 2]

    def context(weight):
        return weight[:, weight.shape[1] // 2 :]

    halves: dict = {}
    for name, half in (("conv_in", latents), ("conv_in_context", context)):
        halves[f"{name}.weight"] = Source(("conv_in.weight",), lambda weight, half=half: channels_last(half(weight)))
        halves[f"{name}.kernel"] = Source(("conv_in.weight",), half)
    return same_names_and_products(names) | halves


# How the parameters of each part are made: a function of the current names of a checkpoint's tensors.
SOURCES = {
    "text_encoder": same_names,
    "image_encoder": same_names,
    "prior": same_names,
    "unet": same_names_and_products,
    "movq": same_names_and_products,
    "inpaint_unet": conv_in_in_two,
    "controlnet_unet": conv_in_in_two,
}

# Tensors that no graph need hold, as patterns of whole current names.
UNUSED = {
    "text_encoder": (r"text_model\.embeddings\.position_ids",),  # 0, 1, 2, ...: a buffer that transformers < 4.31 saved
    "image_encoder": (r"vision_model\.embeddings\.position_ids",),
    "prior": (r"clip_mean", r"clip_std"),  # the runner applies them, in NumPy
    **dict.fromkeys(("unet", "inpaint_unet", "controlnet_unet"), ()),
    "movq": (r"quantize\.embedding\.weight",  # Kandinsky 2.2 decodes with force_not_quantize=True: no codebook
             r"encoder\..*", r"quant_conv\..*"),  # bundles of older versions have no graph that starts from a picture
}


class Weight(NamedTuple):
    """A parameter, and what a bundle stores of it.

    dtype: of the checkpoint's tensor, as safetensors calls it. array: reads the parameter, as float32. stored: reads what is
    to be stored: the parameter itself, or the kernel, (3, 3, out, in), that it is made of by `taps` (models/winograd.py).
    kernel: its name; empty if there is none.
    """

    name: str
    dtype: str
    array: Callable[[], np.ndarray]
    stored: Callable[[], np.ndarray]
    kernel: str = ""
    taps: np.ndarray | None = None


def resolve(part, parameter_shapes: Mapping, tensors) -> Iterator:
    """Yield (name, float32 array) for every parameter of `part`: see `weights`."""
    return ((weight.name, weight.array()) for weight in weights(part, parameter_shapes, tensors))


def weights(part, parameter_shapes: Mapping, tensors) -> list[Weight]:
    """Every parameter of `part`, in the order of `parameter_shapes` (name -> shape).

    `tensors` is the part's TensorFiles. All names, shapes and types are checked before the call returns, from the files'
    headers; each array is read when its turn comes. Raises UserError naming the tensor that is missing, left over, there
    under two names, of another shape or of a type that is not read.
    """
    stored = stored_names(part, tensors)
    sources = SOURCES[part](tuple(stored))
    missing = [name for name in parameter_shapes if name not in sources]
    if missing:
        raise UserError(f"{tensors.path} lacks {listed(missing)}: the weights are incomplete or do not fit config.json")
    used = {name for parameter in parameter_shapes for name in sources[parameter].names}
    left_over = [stored[name] for name in stored
                 if name not in used and not any(re.fullmatch(pattern, name) for pattern in UNUSED[part])]
    if left_over:
        raise UserError(f"{tensors.path} holds {listed(left_over)}, which the {part} of config.json has no place for")
    shapes = {name: tensors.shapes[stored[name]] for name in used}
    for name, shape in parameter_shapes.items():
        found = sources[name].shape(shapes)
        if found != tuple(shape):
            show = as_stored if sources[name].combine is channels_last else list
            raise UserError(f"{tensors.path}: tensor {name!r} has shape {show(found)}, config.json asks for {show(shape)}")
    for name in used:
        tensors.check_type(stored[name])

    def weight(name, source):
        def array():
            return source.combine(*(tensors.read(stored[each]) for each in source.names))

        dtype = tensors.types[stored[source.names[0]]]
        if source.taps is None:
            return Weight(name, dtype, array, array)
        (kernel,) = source.names
        return Weight(name, dtype, array, lambda: tensors.read(stored[kernel]).transpose(2, 3, 0, 1), kernel, source.taps)

    return [weight(name, sources[name]) for name in parameter_shapes]


def stored_names(part, tensors) -> dict:
    """Current name -> the name in the checkpoint, of each tensor of `tensors`; UserError if two have the same."""
    stored: dict[str, str] = {}
    for name in tensors.shapes:
        other = stored.setdefault(current_name(part, name), name)
        if other != name:
            raise UserError(f"{tensors.path} holds tensor {other!r} and tensor {name!r}, which are two names for one: "
                            "save the checkpoint again, with one of them")
    return stored


def listed(names) -> str:
    """The first name, and how many more there are: an error has one line."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"tensor {names[0]!r}{more}"
