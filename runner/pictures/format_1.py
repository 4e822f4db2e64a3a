"""The first form of a recipe, in pictures of versions 0.1: what may stand in it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

FORMAT = 1

Number = Annotated[float, Meta(ge=-1e300, le=1e300)]  # finite
Count = Annotated[int, Meta(ge=1, le=2**31)]
Pair = Annotated[list[Number], Meta(min_length=2, max_length=2)]
Size = Annotated[list[Count], Meta(min_length=2, max_length=2)]
Texts = Annotated[list[str], Meta(min_length=1)]
Option = None | bool | int | float | str | list[Number] | dict[str, Any]


class Sampling(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    steps: Count
    prior_steps: Count
    guidance_scale: Number
    prior_guidance_scale: Number
    guidance_rescale: Number
    guidance_interval: Pair
    scheduler: dict[str, Option]
    images: Count
    seed: int
    rng: str
    size: Size
    grid: bool
    negative_prompt: str | None = None


class Generate(Sampling):
    prompt: Texts


class Item(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text, or a picture by its path or address, as it was given."""

    weight: Number
    text: str | None = None
    image: str | None = None
    sha256: str | None = None

    def __post_init__(self):
        if (self.text is None) == (self.image is None):
            raise ValueError("an item must be a text or a picture")


class Interpolate(Sampling):
    items: Annotated[list[Item], Meta(min_length=1)]
    negative_prior_prompt: str | None = None


class Recipe(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    command: str
    options: dict[str, Any]
    bundle: str
    bundle_sha256: str
    row: Annotated[int, Meta(ge=0)] | None = None
    rows: Count = 1
    versions: dict[str, str] = {}
    format: int


OPTIONS = {"generate": Generate, "interpolate": Interpolate}


def constant(name: str) -> float:
    """What ``json.loads`` makes of a constant that JSON lacks. The first form has one: a logarithm that is not clipped."""
    if name != "-Infinity":
        raise ValueError(f"{name} is no JSON")
    return float("-inf")


def upgrade(data: Any) -> dict[str, Any]:
    """The fields of a `Provenance` from `data`, parsed JSON of the first form. ValueError if it is not of this form."""
    recipe = msgspec.convert(data, Recipe)
    if recipe.command not in OPTIONS:
        raise ValueError(f"{recipe.command!r} is no command")
    options = msgspec.convert(recipe.options, OPTIONS[recipe.command])
    if recipe.row is not None and recipe.row >= recipe.rows:
        raise ValueError(f"picture {recipe.row} of {recipe.rows}")
    request = {
        "scheduler": {name: value for name, value in options.scheduler.items() if _is_held(name, value)},
        "num_inference_steps": options.steps,
        "prior_num_inference_steps": options.prior_steps,
        "guidance_scale": options.guidance_scale,
        "prior_guidance_scale": options.prior_guidance_scale,
        "guidance_rescale": options.guidance_rescale,
        "guidance_interval": options.guidance_interval,
        "height": options.size[0],
        "width": options.size[1],
        "num_images_per_prompt": options.images,
        "seed": options.seed,
        "rng": options.rng,
    }
    if isinstance(options, Generate):
        request |= {"task": "text2image", "prompt": options.prompt}
        negatives = [options.negative_prompt] * len(options.prompt)
    else:
        request |= {"task": "interpolate", "items": msgspec.to_builtins(options.items)}
        negatives = [options.negative_prompt]
        if options.negative_prior_prompt is not None:
            request["negative_prior_prompt"] = options.negative_prior_prompt
    if options.negative_prompt is not None:
        request["negative_prompt"] = negatives
    if recipe.row is not None:
        request |= {"row": recipe.row, "rows": recipe.rows}
    return {
        "request": request,
        "bundle": recipe.bundle,
        "bundle_sha256": recipe.bundle_sha256,
        "grid": options.grid,
        "versions": recipe.versions,
    }


def _is_held(name: str, value: Option) -> bool:
    """Whether JSON can hold an option of a scheduler. ValueError if it cannot, and is not the one that was written so."""
    if not isinstance(value, float) or abs(value) < float("inf"):
        return True
    if (name, value) != ("lambda_min_clipped", float("-inf")):  # which is that option's default
        raise ValueError(f"{name} is {value}")
    return False
