"""The stages from a prompt to a picture, one row each: what the exporter compiles and the runner loads, plans and checks.

A new graph is a row here and its cell in models/. The exporter reads part, cell, inputs, outputs, batches and feeds; the
runner reads activations and tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..manifest import GraphInfo, Manifest
from . import estimates
from .feeds import Constant, Feed, GuidancePair, Output, Scaled, TimeProj, Tokens

Size = tuple[int, int]
Shapes = dict[str, tuple[int, ...]]

# The tasks that a request is made of.
EMBED_IMAGE = "image to embedding"
EMBED_TEXT = "text to embedding"
DENOISE = "embedding to latents"
DECODE = "latents to picture"
ENCODE = "picture to latents"
INPAINT = "embedding, picture and mask to latents"
CONTROL = "embedding and hint to latents"
CACHED = "latents from what an earlier step kept"
TEXT_TO_PICTURE = (EMBED_TEXT, DENOISE, DECODE)


class Variant(NamedTuple):
    """One graph of a stage. size: (height, width) of the picture in pixels; latent_size: of its latents. None: any."""

    batch: int
    size: Size | None = None
    latent_size: Size | None = None


@dataclass(frozen=True)
class Stage:
    """A row of the table.

    name: of its graphs. part: of the checkpoint, which owns the weights. cell: "MODULE:CLASS" in models/, which takes the
    part's configuration. inputs: name -> shape, in the order of the cell's ``construct``, for the part's configuration
    and a variant; float32, or int32 if named in `integers`. outputs: their names; compiling gives the shapes. tasks:
    those that need the stage, which run in the order of the table. batches: one graph for each; 2 is for guidance,
    (unconditional, conditional). per_size: whether each picture size has graphs of its own. feeds: what inputs are in
    the sealed example; the others are noise. activations: an estimate in bytes of what a run of a graph takes beside
    its weights. kept: further outputs of a bundle that was exported with shallow graphs, whose cell is then made with
    ``keeps=True``. shallow: whether it is one of those, which other bundles do not have.
    """

    name: str
    part: str
    cell: str
    inputs: Callable[[Any, Variant], Shapes]
    outputs: tuple[str, ...]
    tasks: tuple[str, ...]
    integers: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)
    per_size: bool = False
    feeds: Mapping[str, Feed] = field(default_factory=dict)
    activations: Callable[[GraphInfo], int] = estimates.twice_the_tensors
    kept: tuple[str, ...] = ()
    shallow: bool = False


EMPTY_TEXT = {name: Constant(f"empty_{name}") for name in ("text_embeds", "text_hidden_states", "text_mask")}
ZERO_IMAGE = {"image_embeds": Constant("zero_image_embeds")}


def _unet_context(name: str, stage: str = "unet_context") -> GuidancePair:
    return GuidancePair(Output(stage, name, ZERO_IMAGE), Output(stage, name))


def _unet_inputs(config: Any, variant: Variant) -> Shapes:
    return {
        "sample": (variant.batch, config.in_channels, *variant.latent_size),  # type: ignore[misc]  # per_size: it is there
        "time_proj": (1, config.block_out_channels[0]),
        "time_addition": (variant.batch, config.time_embed_dim),
        "added_kv": (variant.batch, config.added_kv_size),
    }


def _shallow(unet: Stage) -> Stage:
    """The row of a UNet's outermost layers, from the UNet's own."""
    context = _unet_context("time_addition", f"{unet.name}_context")

    def inputs(config: Any, variant: Variant) -> Shapes:
        shapes = unet.inputs(config, variant)
        deep = (variant.batch, config.deep_channels, *variant.latent_size)  # type: ignore[misc]  # per_size: it is there
        return {"sample": shapes.pop("sample"), "deep_features": deep,
                **{name: shape for name, shape in shapes.items() if name != "added_kv"}}

    return Stage(
        name=shallow_of(unet.name),
        part=unet.part,
        cell=unet.cell.replace(":", ":Shallow"),
        inputs=inputs,
        outputs=unet.outputs,
        tasks=(CACHED,),
        batches=unet.batches,
        per_size=True,
        feeds={name: feed for name, feed in {**unet.feeds, "time_addition": context}.items() if name != "added_kv"},
        activations=estimates.shallow_unet,
        shallow=True,
    )


def shallow_of(unet: str) -> str:
    """The name of the stage of a UNet's outermost layers."""
    return f"{unet}_shallow"


def _conditioned(kind: str, task: str, cell: str, map_inputs: Callable[[Any, Variant], Shapes]) -> tuple[Stage, ...]:
    """The rows of a UNet that is shown more than latents. cell: makes a map of what else it is shown."""
    part, context = f"{kind}_unet", f"{kind}_unet_context"
    unet = Stage(
        name=part,
        part=part,
        cell="conditions:ConditionedUNet",
        inputs=lambda config, variant: {
            **_unet_inputs(config, variant),
            "sample": (variant.batch, config.latent_channels, *variant.latent_size),  # type: ignore[misc]
            "added_map": (1, *variant.latent_size, config.block_out_channels[0]),  # type: ignore[misc]
        },
        outputs=("model_output",),
        tasks=(task,),
        batches=(1, 2),
        per_size=True,
        feeds={"time_addition": _unet_context("time_addition", context), "added_kv": _unet_context("added_kv", context),
               "time_proj": TimeProj(), "added_map": Output(f"{kind}_map", "added_map")},
        activations=estimates.unet,
        kept=("deep_features",),
    )  # fmt: skip
    return (
        Stage(
            name=context,
            part=part,
            cell="unet:UNetContext",
            inputs=lambda config, variant: {"image_embeds": (1, config.encoder_hid_dim)},
            outputs=("time_addition", "added_kv"),
            tasks=(task,),
            feeds={"image_embeds": Scaled(Output("prior", "predicted_image_embedding"), "clip_mean", "clip_std")},
        ),
        Stage(name=f"{kind}_map", part=part, cell=cell, inputs=map_inputs, outputs=("added_map",), tasks=(task,), per_size=True),
        unet,
        _shallow(unet),
    )


UNET = Stage(
    name="unet",
    part="unet",
    cell="unet:UNet",
    inputs=_unet_inputs,
    outputs=("model_output",),
    tasks=(DENOISE,),
    batches=(1, 2),
    per_size=True,
    feeds={"time_addition": _unet_context("time_addition"), "added_kv": _unet_context("added_kv"), "time_proj": TimeProj()},
    activations=estimates.unet,
    kept=("deep_features",),
)
STAGES: tuple[Stage, ...] = (
    Stage(
        name="text_encoder",
        part="text_encoder",
        cell="clip:TextEncoder",
        inputs=lambda config, variant: {"input_ids": (1, config.max_position_embeddings), "end_position": (1,)},
        integers=("input_ids", "end_position"),
        outputs=("text_embeds", "last_hidden_state"),
        tasks=(EMBED_TEXT,),
        feeds={"input_ids": Tokens("input_ids"), "end_position": Tokens("end_position")},
    ),
    Stage(
        name="image_encoder",
        part="image_encoder",
        cell="clip:ImageEncoder",
        inputs=lambda config, variant: {"pixel_values": (1, config.num_channels, config.image_size, config.image_size)},
        outputs=("image_embeds",),
        tasks=(EMBED_IMAGE,),
    ),
    Stage(
        name="prior_context",
        part="prior",
        cell="prior:PriorContext",
        inputs=lambda config, variant: {
            "text_embeds": (1, config.text_embed_dim),
            "text_hidden_states": (1, config.num_embeddings, config.embedding_dim),
            "text_mask": (1, config.num_embeddings),
        },
        outputs=("context",),
        tasks=(EMBED_TEXT,),
        feeds={
            "text_embeds": Output("text_encoder", "text_embeds"),
            "text_hidden_states": Output("text_encoder", "last_hidden_state"),
            "text_mask": Tokens("mask"),
        },
    ),
    Stage(
        name="prior",
        part="prior",
        cell="prior:Prior",
        inputs=lambda config, variant: {
            "latents": (variant.batch, config.embedding_dim),
            "time_proj": (1, config.inner_dim),
            "context": (2 * config.num_layers, variant.batch * config.num_attention_heads,
                        (config.num_embeddings + 1) * config.attention_head_dim),
            "text_mask": (variant.batch, config.num_embeddings),
        },
        outputs=("predicted_image_embedding",),
        tasks=(EMBED_TEXT,),
        batches=(1, 2),
        feeds={
            "context": GuidancePair(Output("prior_context", "context", EMPTY_TEXT), Output("prior_context", "context"), 1),
            "text_mask": GuidancePair(EMPTY_TEXT["text_mask"], Tokens("mask")),
            "time_proj": TimeProj(),
        },
    ),
    Stage(
        name="unet_context",
        part="unet",
        cell="unet:UNetContext",
        inputs=lambda config, variant: {"image_embeds": (1, config.encoder_hid_dim)},
        outputs=("time_addition", "added_kv"),
        tasks=(DENOISE,),
        feeds={"image_embeds": Scaled(Output("prior", "predicted_image_embedding"), "clip_mean", "clip_std")},
    ),
    UNET,
    _shallow(UNET),
    Stage(
        name="movq_decoder",
        part="movq",
        cell="movq:MoVQDecoder",
        inputs=lambda config, variant: {
            "latents": (1, config.latent_channels, *variant.latent_size),  # type: ignore[misc]  # per_size: it is there
        },
        outputs=("image",),
        tasks=(DECODE,),
        per_size=True,
        activations=estimates.movq_decoder,
    ),
    Stage(
        name="movq_encoder",
        part="movq",
        cell="movq:MoVQEncoder",
        inputs=lambda config, variant: {
            "image": (1, config.in_channels, *variant.size),  # type: ignore[misc]  # per_size: it is there
        },
        outputs=("latents",),
        tasks=(ENCODE,),
        per_size=True,
        feeds={"image": Output("movq_decoder", "image")},
        activations=estimates.movq_encoder,
    ),
    *_conditioned("inpaint", INPAINT, "conditions:InpaintMap", lambda config, variant: {
        "masked_latents": (1, config.latent_channels, *variant.latent_size),  # type: ignore[misc]  # per_size: it is there
        "mask": (1, 1, *variant.latent_size),  # type: ignore[misc]
    }),
    *_conditioned("controlnet", CONTROL, "conditions:HintMap", lambda config, variant: {
        "hint": (1, 3, *(8 * side for side in variant.latent_size)),  # type: ignore[union-attr]  # three convolutions halve it
    }),
)


def stage(name: str) -> Stage:
    """The row of that name; KeyError if there is none."""
    for row in STAGES:
        if row.name == name:
            return row
    raise KeyError(name)


def activations(graph: GraphInfo) -> int:
    """An estimate of what a run of `graph` takes beside its weights, in bytes."""
    known = {row.name: row.activations for row in STAGES}
    return known.get(graph.name, estimates.twice_the_tensors)(graph)


def needed(
    manifest: Manifest, tasks: Iterable[str], size: Size | None = None, batches: Mapping[str, Sequence[int]] | None = None
) -> list[GraphInfo]:
    """The graphs of a bundle that `tasks` run, in order. UserError if the bundle lacks one.

    size: (height, width) of the picture. batches: by the stage's name, where it is not the largest that the stage has.
    """
    tasks = set(tasks)
    return [
        manifest.find(row.name, batch, size if row.per_size else None)
        for row in STAGES if tasks & set(row.tasks)
        for batch in (batches or {}).get(row.name, row.batches[-1:])
    ]
