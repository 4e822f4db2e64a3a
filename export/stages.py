"""Which graphs a bundle has: for each its part, cell, batch, size, and the names, shapes and types of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..runner.common.errors import UserError
from ..runner.bundle.manifest import TensorInfo
from ..runner.common.options import MOST_PIXELS

Size = tuple[int, int]


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

    @property
    def stem(self) -> str:
        """The path of the graph's files inside the bundle, without ending."""
        size = f"_{self.size[0]}x{self.size[1]}" if self.size else ""
        return f"{self.part}/{self.name}_b{self.batch}{size}"


def plan(configs: dict[str, Any], sizes: Sequence[Size]) -> list[GraphSpec]:
    """The graphs of the parts in `configs` (part -> configuration), for pictures of `sizes`.

    UserError names the configuration values that do not fit together, or the size that cannot be made.
    """
    check_parts(configs)
    for size in sizes:
        check_size(size, configs["movq"], configs["unet"])
    latent_sizes = {size: tuple(side // movq_scale_factor(configs["movq"]) for side in size) for size in sizes}
    return [spec for part, config in configs.items() for spec in PARTS[part](config, latent_sizes)]


def text_encoder(config, sizes: dict[Size, Size]) -> Iterator[GraphSpec]:
    from ..models.clip import TextEncoder

    inputs = (_int("input_ids", 1, config.max_position_embeddings), _int("end_position", 1))
    yield GraphSpec("text_encoder", "text_encoder", lambda: TextEncoder(config), inputs, ("text_embeds", "last_hidden_state"))


def image_encoder(config, sizes: dict[Size, Size]) -> Iterator[GraphSpec]:
    from ..models.clip import ImageEncoder

    inputs = (_float("pixel_values", 1, config.num_channels, config.image_size, config.image_size),)
    yield GraphSpec("image_encoder", "image_encoder", lambda: ImageEncoder(config), inputs, ("image_embeds",))


def prior(config, sizes: dict[Size, Size]) -> Iterator[GraphSpec]:
    from ..models.prior import Prior, PriorContext

    width, mask = config.embedding_dim, config.num_embeddings
    inputs = (
        _float("text_embeds", 1, config.text_embed_dim),
        _float("text_hidden_states", 1, mask, width),
        _float("text_mask", 1, mask),
    )
    yield GraphSpec("prior_context", "prior", lambda: PriorContext(config), inputs, ("context",))
    for batch in (1, 2):
        inputs = (
            _float("latents", batch, width),
            _float("time_proj", 1, config.inner_dim),
            _float("context", 2 * config.num_layers, batch * config.num_attention_heads,
                   (mask + 1) * config.attention_head_dim),
            _float("text_mask", batch, mask),
        )
        yield GraphSpec("prior", "prior", lambda: Prior(config), inputs, ("predicted_image_embedding",), batch)


def unet(config, sizes: dict[Size, Size]) -> Iterator[GraphSpec]:
    from ..models.unet import UNet, UNetContext, added_kv_size

    inputs = (_float("image_embeds", 1, config.encoder_hid_dim),)
    yield GraphSpec("unet_context", "unet", lambda: UNetContext(config), inputs, ("time_addition", "added_kv"))
    for size, latent_size in sizes.items():
        for batch in (1, 2):
            inputs = (
                _float("sample", batch, config.in_channels, *latent_size),
                _float("time_proj", 1, config.block_out_channels[0]),
                _float("time_addition", batch, config.time_embed_dim),
                _float("added_kv", batch, added_kv_size(config)),
            )
            yield GraphSpec("unet", "unet", lambda: UNet(config), inputs, ("model_output",), batch, size)


def movq(config, sizes: dict[Size, Size]) -> Iterator[GraphSpec]:
    from ..models.movq import MoVQDecoder

    for size, latent_size in sizes.items():
        inputs = (_float("latents", 1, config.latent_channels, *latent_size),)
        yield GraphSpec("movq_decoder", "movq", lambda: MoVQDecoder(config), inputs, ("image",), 1, size)


PARTS = {"text_encoder": text_encoder, "image_encoder": image_encoder, "prior": prior, "unet": unet, "movq": movq}


def movq_scale_factor(config) -> int:
    """Pixels a latent stands for along each side."""
    return 2 ** (len(config.block_out_channels) - 1)


def check_size(size: Size, movq_config, unet_config) -> None:
    """UserError unless pictures of that size come out whole: no side is rounded up, every UNet level halves evenly."""
    if not 0 < size[0] * size[1] <= MOST_PIXELS:
        raise UserError(f"size {size[0]}x{size[1]}: pictures have from 1 to {MOST_PIXELS} pixels; choose a smaller --size")
    factor = movq_scale_factor(movq_config)
    step = max(factor**2, factor * 2 ** (len(unet_config.block_out_channels) - 1))
    if any(side % step for side in size):
        nearest = "x".join(str(-(-side // step) * step) for side in size)
        raise UserError(f"size {size[0]}x{size[1]}: both sides must be multiples of {step}; the next size up is {nearest}")


def check_parts(configs: dict[str, Any]) -> None:
    """UserError if the parts are not of one family: widths that must agree do not."""
    text, image, prior, unet, movq = (configs.get(part) for part in PARTS)
    pairs = [
        ("text_encoder projection_dim", text.projection_dim, "prior embedding_proj_dim", prior.text_embed_dim),
        ("text_encoder hidden_size", text.hidden_size, "prior embedding_dim", prior.embedding_dim),
        ("text_encoder max_position_embeddings", text.max_position_embeddings, "prior num_embeddings", prior.num_embeddings),
        ("image_encoder projection_dim", image.projection_dim, "prior embedding_dim", prior.embedding_dim),
        ("unet encoder_hid_dim", unet.encoder_hid_dim, "prior embedding_dim", prior.embedding_dim),
        ("unet in_channels", unet.in_channels, "movq latent_channels", movq.latent_channels),
    ]
    for name, value, other_name, other in pairs:
        if value != other:
            raise UserError(f"{name} is {value} and {other_name} is {other}: these checkpoints do not belong together")
    if unet.out_channels not in (unet.in_channels, 2 * unet.in_channels):
        raise UserError(f"unet out_channels is {unet.out_channels}: known are {unet.in_channels} (epsilon) and "
                        f"{2 * unet.in_channels} (epsilon and variance)")


def _float(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, shape, "float32")


def _int(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, shape, "int32")
