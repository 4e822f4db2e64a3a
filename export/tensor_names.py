"""Checkpoint tensor names -> our parameter names: one pure function for each part, nothing else knows foreign names.

Our parameters carry the names that current diffusers and transformers write, so the functions only cover what older
versions wrote, and list what inference does not use.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ..models import winograd
from ..runner.common.errors import UserError


def channels_last(array):
    """A convolution's kernel, (out, in, height, width), as our cells keep it; any other tensor as it is."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def as_stored(shape):
    """The shape that a parameter of our cells has in a checkpoint: what `channels_last` changes, changed back."""
    return [shape[0], shape[3], *shape[1:3]] if len(shape) == 4 else list(shape)


class Source(NamedTuple):
    """How a parameter is made: `combine` of the checkpoint tensors `names`.

    combined_shape: the shape of what comes of their shapes, where `combine` itself is work.
    """

    names: tuple
    combine: Callable = channels_last
    combined_shape: Callable | None = None

    def shape(self, shapes):
        """Shape of the parameter, given those of the checkpoint's tensors."""
        if self.combined_shape:
            return self.combined_shape(*(shapes[name] for name in self.names))
        return self.combine(*(np.broadcast_to(np.float32(0), shapes[name]) for name in self.names)).shape


def same_names(names) -> dict:
    return {name: Source((name,)) for name in names}


def with_products(sources: dict) -> dict:
    """`sources`, and what cells of models/winograd.py make of each convolution's weight."""
    sources = dict(sources)
    for name, source in list(sources.items()):
        if re.search(r"\.conv\d?\.weight$", name):
            for kind, combinations in (("plain", winograd.PLAIN), ("doubled", winograd.DOUBLED)):
                for column in range(len(combinations)):
                    product = name.removesuffix("weight") + f"{kind}_{column}"
                    sources[product] = Source(source.names, winograd.filters(combinations, column),
                                              winograd.shape_of_filters(combinations))
    return sources


def unet(names) -> dict:
    return with_products(same_names(names))


# diffusers before 0.15 (AttentionBlock); ModelMixin._fix_state_dict_keys_on_load makes the same replacements
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def movq(names) -> dict:
    def current(name):
        return re.sub(r"(?<=\.attentions\.)(\d+)\.(query|key|value|proj_attn)(?=\.)",
                      lambda match: f"{match[1]}.{OLD_ATTENTION[match[2]]}", name)

    return with_products({current(name): Source((name,)) for name in names})


SOURCES = {
    "text_encoder": same_names,
    "image_encoder": same_names,
    "prior": same_names,
    "unet": unet,
    "movq": movq,
}

# Tensors that no graph need hold, as patterns of whole current names.
UNUSED = {
    "text_encoder": (r"text_model\.embeddings\.position_ids",),  # 0, 1, 2, ...: a buffer that transformers < 4.31 saved
    "image_encoder": (r"vision_model\.embeddings\.position_ids",),
    "prior": (r"clip_mean", r"clip_std"),  # the runner applies them, in NumPy
    "unet": (),
    "movq": (r"quantize\.embedding\.weight",  # Kandinsky 2.2 decodes with force_not_quantize=True: no codebook
             r"encoder\..*", r"quant_conv\..*"),  # only graphs that start from a picture use the encoder
}


def resolve(part, parameter_shapes: Mapping, tensors) -> Iterator:
    """Yield (name, float32 array) for every parameter of `part`, in the order of `parameter_shapes` (name -> shape).

    `tensors` is the part's TensorFiles. All names and shapes are checked before the call returns, from the files'
    headers; each array is read when its turn comes. Raises UserError naming the tensor that is missing, left over (as
    the second of two names for one weight is) or of another shape.
    """
    names = tuple(tensors.shapes)
    sources = SOURCES[part](names)
    missing = [name for name in parameter_shapes if name not in sources]
    if missing:
        raise UserError(f"{tensors.path} lacks {listed(missing)}: the weights are incomplete or do not fit config.json")
    used = {stored for name in parameter_shapes for stored in sources[name].names}
    ignored = {stored for name, source in sources.items() for stored in source.names
               if any(re.fullmatch(pattern, name) for pattern in UNUSED[part])}
    left_over = [name for name in names if name not in used | ignored]
    if left_over:
        raise UserError(f"{tensors.path} holds {listed(left_over)}, which the {part} of config.json has no place for")
    for name, shape in parameter_shapes.items():
        found = sources[name].shape(tensors.shapes)
        if found != tuple(shape):
            show = as_stored if sources[name].combine is channels_last else list
            raise UserError(f"{tensors.path}: tensor {name!r} has shape {show(found)}, config.json asks for {show(shape)}")
    return ((name, sources[name].combine(*map(tensors.read, sources[name].names))) for name in parameter_shapes)


def listed(names) -> str:
    """The first name, and how many more there are: an error has one line."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"tensor {names[0]!r}{more}"
