"""The graphs to compile for a checkpoint: each stage's row (runner/bundle/stages/) with the cell that computes it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...runner.bundle import stages
from ...runner.bundle.manifest import TensorInfo
from ...runner.bundle.stages import Size, Stage, Variant
from ...runner.common.errors import UserError
from ...runner.common.options import MOST_PIXELS

PARTS = ("text_encoder", "image_encoder", "prior", "movq")
UNETS = {"decoder": "unet", "inpaint": "inpaint_unet", "controlnet": "controlnet_unet"}  # kind of decoder -> part


@dataclass(frozen=True)
class GraphSpec:
    """A graph to compile. `cell` makes its MindSpore cell; `size` is (height, width) in pixels where it matters."""

    name: str
    part: str
    cell: Callable[[], Any]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[str, ...]
    batch: int = 1
    size: Size | None = None

    def cell_for(self, target: str) -> Any:
        """The cell, made of the layers of a target (models/targets)."""
        from ...models.targets import building_for

        with building_for(target):
            return self.cell()

    @property
    def stem(self) -> str:
        """The path of the graph's files inside the bundle, without ending."""
        size = f"_{self.size[0]}x{self.size[1]}" if self.size else ""
        return f"{self.part}/{self.name}_b{self.batch}{size}"


def plan(configs: dict[str, Any], sizes: Sequence[Size], shallow: bool = False) -> list[GraphSpec]:
    """The graphs of the parts in `configs` (part -> configuration), for pictures of `sizes`.

    shallow: with those of the UNets' outermost layers.

    UserError names the configuration values that do not fit together, or the size that cannot be made.
    """
    check_parts(configs)
    for size in sizes:
        for unet in unets(configs).values():
            check_size(size, configs["movq"], unet)
    factor = configs["movq"].scale_factor
    latent_sizes = {size: (size[0] // factor, size[1] // factor) for size in sizes}
    if shallow:
        check_shallow(configs)
    return [spec for part, config in configs.items() for spec in part_specs(part, config, latent_sizes, shallow)]


def unets(configs: dict[str, Any]) -> dict[str, Any]:
    """Those of `configs` that are of UNets."""
    return {part: configs[part] for part in UNETS.values() if part in configs}


def part_specs(part: str, config: Any, latent_sizes: Mapping[Size, Size], shallow: bool = False) -> Iterator[GraphSpec]:
    """The graphs of a part. latent_sizes: (height, width) of each picture size's latents. shallow: as of `plan`."""
    for stage in stages.STAGES:
        if stage.part != part or (stage.shallow and not shallow):
            continue
        outputs = (*stage.outputs, *(stage.kept if shallow else ()))
        sizes: list[tuple[Size | None, Size | None]] = list(latent_sizes.items()) if stage.per_size else [(None, None)]
        for size, latent_size in sizes:
            for batch in stage.batches:
                inputs = tuple(
                    TensorInfo(name, tuple(shape), "int32" if name in stage.integers else "float32")
                    for name, shape in stage.inputs(config, Variant(batch, size, latent_size)).items()
                )
                cell = partial(make_cell, stage, config, outputs != stage.outputs)
                yield GraphSpec(stage.name, part, cell, inputs, outputs, batch, size)


def make_cell(stage: Stage, config: Any, keeps: bool = False) -> Any:
    """The MindSpore cell of a stage for its part's configuration. keeps: whether it gives what the stage has as `kept`."""
    module, _, name = stage.cell.partition(":")
    cell = getattr(importlib.import_module(f"...models.{module}", __package__), name)
    return cell(config, keeps=True) if keeps else cell(config)


def check_shallow(configs: dict[str, Any]) -> None:
    """UserError unless the outermost layers of every UNet stand by themselves."""
    for part, unet in unets(configs).items():
        if not unet.deep_channels:
            raise UserError(f"--shallow: the {part}'s outermost level has attentions ({unet.down_block_types[0]}, "
                            f"{unet.up_block_types[-1]}), and what is kept between steps ends below them: export without it")


def check_size(size: Size, movq_config, unet_config) -> None:
    """UserError unless pictures of that size come out whole: no side is rounded up, every UNet level halves evenly."""
    if not 0 < size[0] * size[1] <= MOST_PIXELS:
        raise UserError(f"size {size[0]}x{size[1]}: pictures have from 1 to {MOST_PIXELS} pixels; choose a smaller --size")
    factor = movq_config.scale_factor
    step = max(factor**2, factor * 2 ** (len(unet_config.block_out_channels) - 1))
    if any(side % step for side in size):
        nearest = "x".join(str(-(-side // step) * step) for side in size)
        raise UserError(f"size {size[0]}x{size[1]}: both sides must be multiples of {step}; the next size up is {nearest}")


def check_parts(configs: dict[str, Any]) -> None:
    """UserError if the parts are not of one family: widths that must agree do not."""
    text, image, prior, movq = (configs[part] for part in PARTS)
    pairs = [
        ("text_encoder projection_dim", text.projection_dim, "prior embedding_proj_dim", prior.text_embed_dim),
        ("text_encoder hidden_size", text.hidden_size, "prior embedding_dim", prior.embedding_dim),
        ("text_encoder max_position_embeddings", text.max_position_embeddings, "prior num_embeddings", prior.num_embeddings),
        ("image_encoder projection_dim", image.projection_dim, "prior embedding_dim", prior.embedding_dim),
    ]
    for part, unet in unets(configs).items():
        extra = {"inpaint": movq.latent_channels + 1, "controlnet": movq.latent_channels}.get(unet.decoder, 0)
        wanted = f"movq latent_channels{f' with {extra} more' if extra else ''}"
        pairs += [
            (f"{part} encoder_hid_dim", unet.encoder_hid_dim, "prior embedding_dim", prior.embedding_dim),
            (f"{part} in_channels", unet.in_channels, wanted, movq.latent_channels + extra),
        ]
    for name, value, other_name, other in pairs:
        if value != other:
            raise UserError(f"{name} is {value} and {other_name} is {other}: these checkpoints do not belong together")
    for part, unet in unets(configs).items():
        if unet.out_channels not in (movq.latent_channels, 2 * movq.latent_channels):
            raise UserError(f"{part} out_channels is {unet.out_channels}: known are {movq.latent_channels} (epsilon) and "
                            f"{2 * movq.latent_channels} (epsilon and variance)")
