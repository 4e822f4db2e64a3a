"""The fields of a request as OpenAI's clients send them, with this server's own beside them, to drawings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from ..common.errors import UserError
from ..pictures.images import pixels_sha256
from ..pipelines import KandinskyV22CombinedPipeline
from ..request import Item, Request
from ..tasks import DECODERS, InputPicture
from .drawing.errors import invalid, public
from .drawing.images import FORMATS, Form, decode, decode_mask
from .drawing.jobs import Drawing
from .settings import Settings

MOST_PREVIEWS = 3  # as OpenAI's interface has it


def text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"{name} must be a text", name)
    return value


def whole(value: Any, name: str) -> int:
    """An integer, or a form's digits."""
    try:
        if isinstance(value, str):
            return int(value)
    except ValueError:
        pass
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"{name} must be a whole number", name)
    return value


def number(value: Any, name: str) -> float:
    try:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise invalid(f"{name} must be a number", name)


def truth(value: Any, name: str) -> bool:
    found = {"true": True, "false": False, "1": True, "0": False}.get(value.lower(), value) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise invalid(f"{name} must be true or false", name)
    return found


# A field of this server -> the request's field and how its value is read. The request checks it further.
OWN: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "negative_prompt": ("negative_prompt", text),
    "negative_prior_prompt": ("negative_prior_prompt", text),
    "seed": ("seed", whole),
    "rng": ("rng", text),
    "steps": ("num_inference_steps", whole),
    "num_inference_steps": ("num_inference_steps", whole),
    "prior_steps": ("prior_num_inference_steps", whole),
    "prior_num_inference_steps": ("prior_num_inference_steps", whole),
    "guidance": ("guidance_scale", number),
    "guidance_scale": ("guidance_scale", number),
    "prior_guidance": ("prior_guidance_scale", number),
    "prior_guidance_scale": ("prior_guidance_scale", number),
    "guidance_rescale": ("guidance_rescale", number),
    "cache_interval": ("cache_interval", whole),
    "strength": ("strength", number),
    "paste": ("paste", truth),
    "sampler": ("scheduler", text),
    "scheduler": ("scheduler", text),
}
# OpenAI's fields that change no pixel here, and those of them that may have these values only.
OPENAI = ("model", "prompt", "n", "size", "stream", "partial_images", "output_format", "output_compression", "user",
          "safety_identifier", "moderation", "quality", "style", "input_fidelity")  # fmt: skip
ONLY = {"response_format": ("b64_json",), "background": ("auto", "opaque")}
MIX = ("items", "weights")
BROUGHT = {"image": "image", "mask": "mask_image", "hint": "hint"}  # a field -> the request's
KNOWN = {*OWN, *OPENAI, *ONLY, *MIX, *BROUGHT, "progress"}


class Reader:
    """Reads bodies for a pipeline within the server's limits. Its methods may run in any thread."""

    def __init__(self, pipeline: KandinskyV22CombinedPipeline, settings: Settings):
        self.pipeline, self.settings = pipeline, settings
        sizes = [tuple(size) for size in pipeline.bundle.manifest.sizes]
        self.sizes = [size for size in sizes if not settings.sizes or size in settings.sizes]
        if not self.sizes:
            raise UserError(f"the bundle has no size of those to allow: it has {sized(sizes)}")

    @property
    def takes(self) -> list[str]:
        """Which pictures the bundle can use: the fields of BROUGHT, and items for pictures in a mix."""
        manifest = self.pipeline.bundle.manifest
        names = {graph.name for graph in manifest.graphs}
        can = {"image": "movq_encoder" in names, "mask": "inpaint" in manifest.schedulers,
               "hint": "controlnet" in manifest.schedulers, "items": "image_encoder" in names}
        return [name for name, there in can.items() if there]

    def form(self, body: Mapping[str, Any]) -> Form:
        name = text(body.get("output_format", "png"), "output_format")
        if name not in FORMATS:
            raise invalid(f"output_format is {name[:40]!r}: choose one of {', '.join(FORMATS)}", "output_format")
        compression = whole(body.get("output_compression", 100), "output_compression")
        if not 0 <= compression <= 100:
            raise invalid("output_compression must be from 0 to 100", "output_compression")
        return Form(name, compression)

    def previews(self, body: Mapping[str, Any]) -> int:
        count = whole(body.get("partial_images", 0), "partial_images")
        if not 0 <= count <= MOST_PREVIEWS:
            raise invalid(f"partial_images must be from 0 to {MOST_PREVIEWS}", "partial_images")
        return count if truth(body.get("stream", False), "stream") else 0

    def drawings(self, body: Mapping[str, Any]) -> list[Drawing]:
        """What `body` asks for, picture by picture. ApiError 400, naming the field, for what cannot be."""
        for name in body:
            if name not in KNOWN:
                raise invalid(f"there is no field {str(name)[:60]!r}: known are {', '.join(sorted(KNOWN))}", str(name)[:60],
                              "unknown_parameter")
        for name, values in ONLY.items():
            if name in body and body[name] not in values:
                raise invalid(f"{name} must be {' or '.join(values)}", name)
        fields: dict[str, Any] = {}
        for name, (field, read) in OWN.items():
            if name in body:
                if field in fields and fields[field] != read(body[name], name):
                    raise invalid(f"{name} says otherwise than another name of the same field", name)
                fields[field] = read(body[name], name)
        fields |= self._size(text(body.get("size", "auto"), "size"))
        items, pictures = self._items(body)
        if items:
            if body.get("prompt"):
                raise invalid("give either a prompt or items", "items")
            fields |= {"task": "interpolate", "items": tuple(items)}
        else:
            if "prompt" not in body:
                raise invalid("prompt is missing", "prompt", "missing_required_parameter")
            fields |= {"task": "text2image", "prompt": text(body["prompt"], "prompt")}
        return self.drawn_by(fields, whole(body.get("n", 1), "n"), tuple(pictures), self.brought(body))

    def brought(self, body: Mapping[str, Any]) -> dict[str, Image.Image]:
        """The picture to start from, the mask of what to repaint and the depth to follow, in base64 or as a form's bytes, by
        the request's fields."""
        most, found = self.settings.pixels, {}
        for name, field in BROUGHT.items():
            if name in body:
                mask = name == "mask"
                found[field] = decode_mask(body[name], name, most, clear=True) if mask else decode(body[name], name, most)
        if len({found[name].size for name in ("image", "mask_image") if name in found}) > 1:
            raise invalid("mask has another size than image: send one of the same width and height", "mask")
        return found

    def variations(self, body: Mapping[str, Any]) -> list[Drawing]:
        """Pictures like the one that `body` brings: a mix of that picture alone."""
        own = {name: value for name, value in body.items() if name not in BROUGHT}
        if own.keys() & {*MIX, "prompt"}:
            raise invalid("a variation follows a picture alone: for more send items, or an edit", "prompt")
        picture = decode(body["image"], "image", self.settings.pixels)
        return self.drawings({**own, "items": [{"image": picture}]})

    def drawn_by(self, fields: Mapping[str, Any], count: int, pictures: tuple[Image.Image, ...] = (),
                 brought: Mapping[str, Image.Image] = {}, *, seeds: bool = False) -> list[Drawing]:
        """brought: by the request's fields. With a mask, pixels that are kept are the picture's own unless `fields` say
        otherwise. seeds: whether each picture has a seed of its own, one above the other's; else all are drawn from one."""
        if tuple(brought) not in DECODERS:
            raise invalid(f"{' and '.join(brought)}: this server cannot draw from that together", "image")
        if not 1 <= count <= self.settings.images:
            raise invalid(f"{count} pictures in one request: 1 to {self.settings.images} can be asked for", "n")
        for name, param in (("prompt", "prompt"), ("negative_prompt", "negative_prompt"), ("negative_prior_prompt",) * 2):
            if len(fields.get(name) or "") > self.settings.prompt:
                raise invalid(f"{param} has more than {self.settings.prompt} characters", param)
        if "mask_image" in brought:
            fields = {"paste": True, **fields}
        try:
            named = {name: (InputPicture(sha256=pixels_sha256(picture)),) for name, picture in brought.items()}
            request = self.pipeline.complete(Request(**{"num_images_per_prompt": 1 if seeds else count, **fields, **named}))
            self._check(request)
            if seeds:
                each = [request.replace(seed=(request.seed or 0) + index) for index in range(count)]
            else:
                each = [request.alone(row) for row in range(count)]
        except UserError as error:
            raise invalid(public(error, self.pipeline.bundle.path), _param(str(error))) from None
        return [Drawing(one, pictures, dict(brought)) for one in each]

    def _check(self, request: Request) -> None:
        steps = (request.num_inference_steps or 1, request.prior_num_inference_steps or 1)
        for value, name in zip(steps, ("steps", "prior_steps")):
            if value > self.settings.steps:
                raise invalid(f"{name} is {value}: at most {self.settings.steps} can be asked for", name)
        if (request.height, request.width) not in self.sizes:
            raise invalid(f"size is {request.width}x{request.height} (width x height): choose one of "
                          f"{sized(self.sizes)}", "size", "invalid_size")
        decoder, prior = self.pipeline.decoder_of(request), self.pipeline.prior_pipe
        if "image" in request.brings:
            self.pipeline.bundle.manifest.find("movq_encoder", 1, (request.height or 0, request.width or 0))
        if any(item.text is None for item in request.items):
            self.pipeline.bundle.manifest.find("image_encoder")
        strength = 1.0 if request.strength is None else request.strength
        sampler = decoder.as_scheduler(request.scheduler)
        decoder.sampling(steps[0], 1, request.guidance_scale, scheduler=sampler, strength=strength)
        own = prior.as_scheduler(request.prior_scheduler) if request.prior_scheduler else None
        prior.sampling(steps[1], 1, request.prior_guidance_scale, scheduler=own)

    def _size(self, value: str) -> dict[str, int]:
        if value == "auto":
            return {}
        width, _, height = value.partition("x")
        if not (width.isdecimal() and height.isdecimal() and len(value) < 16):
            raise invalid(f"size is {value[:40]!r}: it must be WIDTHxHEIGHT, one of {sized(self.sizes)}, or auto", "size",
                          "invalid_size")
        return {"width": int(width), "height": int(height)}

    def _items(self, body: Mapping[str, Any]) -> tuple[list[Item], list[Image.Image]]:
        given = body.get("items") or []
        if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
            raise invalid("items must be a list of objects with a text or an image, and a weight", "items")
        if len(given) > self.settings.items:
            raise invalid(f"items has {len(given)} items: at most {self.settings.items} can be mixed", "items")
        weights = body.get("weights", [item.get("weight", 1.0) for item in given])
        if not isinstance(weights, list) or len(weights) != len(given):
            raise invalid(f"weights must be a list of {len(given)} numbers, one for each item", "weights")
        items, pictures = [], []
        for item, weight in zip(given, weights):
            if unknown := item.keys() - {"text", "image", "weight"}:
                raise invalid(f"an item has no {min(map(str, unknown))[:60]}", "items")
            if ("text" in item) == ("image" in item):
                raise invalid("an item must have either a text or an image", "items")
            try:
                if "text" in item:
                    if len(text(item["text"], "items")) > self.settings.prompt:
                        raise invalid(f"a text in items has more than {self.settings.prompt} characters", "items")
                    items.append(Item(number(weight, "weights"), text=item["text"]))
                else:
                    found = item["image"]  # a picture already, or one to decode
                    pictures.append(found if isinstance(found, Image.Image) else decode(found, "items", self.settings.pixels))
                    items.append(Item(number(weight, "weights"), sha256=pixels_sha256(pictures[-1])))
            except UserError as error:
                raise invalid(str(error), "items") from None
        return items, pictures


def sized(sizes: Any) -> str:
    """Sizes (height, width) as OpenAI's interface writes them: width first."""
    return ", ".join(f"{width}x{height}" for height, width in sizes)


def _param(message: str) -> str | None:
    """The field that an error of a request begins with, under the name that callers know."""
    first = message.split(" ", 1)[0].rstrip(":")
    return next((name for name, (field, _) in OWN.items() if field == first), "prompt" if first == "prompt" else None)
