"""`/sdapi/v1/...`: pictures as AUTOMATIC1111's clients ask for them.

Its fields that would change a picture in ways that this server does not know are refused, unless they are at the values
that change nothing. What else clients send along means nothing here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image
from starlette.requests import Request as Http
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..common.memory import available
from ..schedulers import CHECKPOINT, SHORT_NAMES
from .drawing.errors import Json, invalid
from .drawing.images import Form, as_base64, decode, decode_mask, encode
from .drawing.jobs import Drawing, Job
from .drawing.overlay import Overlay, around, whole
from .fields import number, text, truth
from .fields import whole as integer
from .office import Office, body_of

# Names of A1111's samplers -> short names. A name of our own is taken as it is.
SAMPLERS = {
    "Euler": "euler", "Euler a": "euler-a", "Heun": "heun", "LCM": "lcm", "DDIM": "ddim", "DDPM": "ddpm", "PLMS": "pndm",
    "UniPC": "unipc", "DPM++ 2M": "dpmpp-2m", "DPM++ 2M SDE": "dpmpp-2m-sde", "DPM++ 2S": "dpmpp-2s", "DPM++ 3M": "dpmpp-3m",
    "Default": CHECKPOINT,
}  # fmt: skip
SCHEDULES = ("automatic", "uniform", "karras", "exponential")
# What must be at one of these values, or left out: here it cannot be done.
ONLY: dict[str, tuple[Any, ...]] = {
    "enable_hr": (False,), "tiling": (False,), "restore_faces": (False,), "styles": ([],), "script_name": ("", "None"),
    "subseed_strength": (0,), "seed_resize_from_h": (0, -1), "seed_resize_from_w": (0, -1),
    "override_settings": ({},), "save_images": (False,), "refiner_checkpoint": ("",), "comments": ({},),
}  # fmt: skip
DEFAULT_STEPS = {"steps": 20}  # as there, where a client leaves them open
BLUR, MOST_BLUR = 4, 256  # pixels of a mask: webui's own where a client leaves it open, and the most
# What webui has under the mask before it paints. Here it is noise, and what lies there is not looked at.
FILLS = ("fill", "original", "latent noise", "latent nothing")
ORIGINAL = 1
# What clients ask for when they connect, and what there is none of here.
EMPTY = ("sd-vae", "upscalers", "latent-upscale-modes", "loras", "hypernetworks", "face-restorers", "realesrgan-models",
         "prompt-styles", "sd-modules")  # fmt: skip


class A1111:
    def __init__(self, office: Office):
        self._office = office

    @property
    def routes(self) -> list[Route]:
        rows: list[tuple[str, str, Callable]] = [
            ("txt2img", "POST", self.txt2img), ("img2img", "POST", self.img2img), ("progress", "GET", self.progress),
            ("interrupt", "POST", self.interrupt),
            ("skip", "POST", self.skip), ("options", "GET", self.options), ("options", "POST", self.set_options),
            ("samplers", "GET", self.samplers), ("schedulers", "GET", self.schedulers), ("sd-models", "GET", self.models),
            ("memory", "GET", self.memory), ("scripts", "GET", self.scripts), ("cmd-flags", "GET", self.nothing),
            ("embeddings", "GET", self.embeddings), ("refresh-checkpoints", "POST", self.nothing),
            *((name, "GET", self.empty) for name in EMPTY),
        ]  # fmt: skip
        return [Route(f"/sdapi/v1/{name}", function, methods=[method]) for name, method, function in rows]

    async def txt2img(self, http: Http) -> Response:
        return await self._answer(http, self._drawings)

    async def img2img(self, http: Http) -> Response:
        return await self._answer(http, self._starting_from)

    async def _answer(self, http: Http, reading: Callable[[Mapping[str, Any]], list[Drawing]]) -> Response:
        body = await body_of(http)
        self._office.require_room(http)
        job = Job(await asyncio.to_thread(reading, body), Form(), "a1111")
        job.warnings += remarks(body)
        self._office.accept(job, http)
        await self._office.finish(job, http)
        return Json(_result(job, body))

    def _drawings(self, body: Mapping[str, Any]) -> list[Drawing]:
        fields, count = self._fields(body)
        return self._office.reader.drawn_by({"task": "text2image", **fields}, count, seeds=True)

    def _starting_from(self, body: Mapping[str, Any]) -> list[Drawing]:
        pictures = body.get("init_images")
        if not isinstance(pictures, list) or len(pictures) != 1:
            raise invalid("init_images must be a list of one picture in base64", "init_images")
        if body.get("resize_mode", 0) != 0:
            raise invalid("resize_mode must be 0: this server resizes the picture to the size that is asked for", "resize_mode")
        most = self._office.settings.pixels
        brought = {"image": decode(pictures[0], "init_images", most)}
        fields, count = self._fields(body)
        overlay = None
        if body.get("mask"):
            invert = bool(integer(body.get("inpainting_mask_invert", 0), "inpainting_mask_invert"))
            mask = decode_mask(body["mask"], "mask", most, clear=False, invert=invert)
            if mask.size != brought["image"].size:
                raise invalid("mask has another size than the picture: send one of the same width and height", "mask")
            overlay = overlay_of(body, brought["image"], mask, (fields["width"], fields["height"]))
            brought = {name: picture.crop(overlay.box) if overlay.box else picture
                       for name, picture in (("image", brought["image"]), ("mask_image", mask))}
            fields["paste"] = False
        else:
            fields["strength"] = number(body.get("denoising_strength", 0.75), "denoising_strength")
        drawings = self._office.reader.drawn_by({"task": "text2image", **fields}, count, (), brought, seeds=True)
        return [drawing._replace(overlay=overlay) for drawing in drawings]

    def _fields(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """(fields of a request, how many pictures)."""
        body = {**DEFAULT_STEPS, **body}
        if scripts := body.get("alwayson_scripts"):
            named = ", ".join(map(str, scripts))[:100] if isinstance(scripts, dict) else json.dumps(scripts)[:100]
            raise invalid(f"alwayson_scripts asks for {named}: this server runs no scripts. A depth to follow can be sent as "
                          "the field hint of /v1/images/generations", "alwayson_scripts")
        for name, values in ONLY.items():
            if body.get(name, values[0]) not in values:
                raise invalid(f"{name} must be {' or '.join(map(json.dumps, values))}: this server has nothing of it", name)
        fields: dict[str, Any] = {
            "prompt": text(body.get("prompt", ""), "prompt"),
            "num_inference_steps": integer(body["steps"], "steps"),
            "guidance_scale": number(body.get("cfg_scale", 7.0), "cfg_scale"),
            "height": integer(body.get("height", 512), "height"),
            "width": integer(body.get("width", 512), "width"),
        }
        if negative := text(body.get("negative_prompt", ""), "negative_prompt"):
            fields["negative_prompt"] = negative
        if (seed := integer(body.get("seed", -1), "seed")) != -1:
            fields["seed"] = seed
        if sampler := sampler_of(body):
            fields["scheduler"] = sampler
        return fields, integer(body.get("batch_size", 1), "batch_size") * integer(body.get("n_iter", 1), "n_iter")

    async def progress(self, http: Http) -> Response:
        """Of the job in hand that came by this interface, as there is one queue for all."""
        line, job = self._office.line, self._office.line.current
        state: dict[str, Any] = {"skipped": False, "interrupted": False, "stopping_generation": False, "job": "", "job_count": 0,
                                 "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0}  # fmt: skip
        found: dict[str, Any] = {"progress": 0.0, "eta_relative": 0.0, "state": state, "current_image": None, "textinfo": None}
        if job is None or job.face != "a1111" or job.over:
            return JSONResponse(found)
        state |= {"skipped": job.skipped, "interrupted": job.interrupted, "job": "txt2img", "job_count": len(job.drawings),
                  "job_no": len(job.drawn), "sampling_step": job.step, "sampling_steps": job.steps}  # fmt: skip
        found |= {"progress": job.progress, "eta_relative": self._office.worker.left(job), "textinfo": f"{len(line)} wait"}
        if job.latents is not None and http.query_params.get("skip_current_image", "false").lower() != "true":
            found["current_image"] = await asyncio.to_thread(self._current, job, job.latents)
        return JSONResponse(found)

    def _current(self, job: Job, latents: Any) -> str | None:
        request = job.drawings[0].request
        image = self._office.worker.preview.show(latents, (request.height or 0, request.width or 0))
        return None if image is None else as_base64(encode(image, Form()))

    async def interrupt(self, http: Http) -> Response:
        """The picture in hand ends after its step as it is, and no other of its job is begun."""
        if (job := self._office.line.current) is not None and job.face == "a1111":
            job.interrupted = True
        return JSONResponse({})

    async def skip(self, http: Http) -> Response:
        if (job := self._office.line.current) is not None and job.face == "a1111":
            job.skipped = True
        return JSONResponse({})

    async def options(self, http: Http) -> Response:
        return JSONResponse({"sd_model_checkpoint": self._office.name, "samples_format": "png", "show_progress_every_n_steps": 1})

    async def set_options(self, http: Http) -> Response:
        """Nothing can be set; what is so already may be said."""
        body = await body_of(http)
        for name, value in body.items():
            if name != "sd_model_checkpoint" or str(value).partition(" [")[0] != self._office.name:
                raise invalid(f"the option {str(name)[:60]!r} cannot be set here", str(name)[:60])
        return JSONResponse({})

    async def samplers(self, http: Http) -> Response:
        names = [*SAMPLERS, *SHORT_NAMES]
        return JSONResponse([{"name": name, "aliases": [SAMPLERS.get(name, name)], "options": {}} for name in names])

    async def schedulers(self, http: Http) -> Response:
        return JSONResponse([{"name": name, "label": name.capitalize(), "aliases": None, "default_rho": -1,
                              "need_inner_model": False} for name in SCHEDULES])  # fmt: skip

    async def models(self, http: Http) -> Response:
        name, sha256 = self._office.name, self._office.worker.bundle_sha256
        return JSONResponse([{"title": name, "model_name": name, "hash": sha256[:10], "sha256": sha256, "filename": name,
                              "config": None}])  # fmt: skip

    async def memory(self, http: Http) -> Response:
        return JSONResponse({"ram": {"free": available()}, "cuda": {}})

    async def scripts(self, http: Http) -> Response:
        return JSONResponse({"txt2img": [], "img2img": []})

    async def embeddings(self, http: Http) -> Response:
        return JSONResponse({"loaded": {}, "skipped": {}})

    async def empty(self, http: Http) -> Response:
        return JSONResponse([])

    async def nothing(self, http: Http) -> Response:
        return JSONResponse({})


def sampler_of(body: Mapping[str, Any]) -> str | None:
    """The short name of `sampler_name` on the grid `scheduler`; None for the server's default."""
    name = text(body.get("sampler_name") or body.get("sampler_index") or "", "sampler_name")
    grid = text(body.get("scheduler") or "automatic", "scheduler").lower()
    if grid not in SCHEDULES:
        raise invalid(f"scheduler is {grid[:40]!r}: choose one of {', '.join(SCHEDULES)}", "scheduler")
    for suffix in ("Karras", "Exponential"):
        if name.endswith(f" {suffix}"):
            name, grid = name.removesuffix(f" {suffix}"), suffix.lower()
    if not name:
        return None
    short = SAMPLERS.get(name, name)
    if grid in ("karras", "exponential") and not short.endswith(grid):
        short = f"{short}-{grid}"
    if short not in (CHECKPOINT, *SHORT_NAMES):
        raise invalid(f"the sampler {name[:40]!r} with the scheduler {grid!r} is not known: GET /sdapi/v1/samplers lists those "
                      "that are", "sampler_name")
    return short


def overlay_of(body: Mapping[str, Any], picture: Image.Image, mask: Image.Image, size: tuple[int, int]) -> Overlay:
    """What becomes of the picture of `size` (width, height) that is drawn where `mask`, of the size of `picture`, is white.

    As in webui: `inpaint_full_res` draws the surroundings of the mask alone at that size; `mask_blur` makes a soft edge.
    """
    blur = integer(body.get("mask_blur", BLUR), "mask_blur")
    if not 0 <= blur <= MOST_BLUR:
        raise invalid(f"mask_blur must be from 0 to {MOST_BLUR}", "mask_blur")
    for name in ("mask_blur_x", "mask_blur_y"):
        if body.get(name, blur) != blur:
            raise invalid(f"{name} must be mask_blur: this server blurs a mask alike on both axes", name)
    if (fill := integer(body.get("inpainting_fill", 0), "inpainting_fill")) not in range(len(FILLS)):
        known = ", ".join(f"{number} ({name})" for number, name in enumerate(FILLS))
        raise invalid(f"inpainting_fill is {fill}: it must be one of {known}", "inpainting_fill")
    padding = integer(body.get("inpaint_full_res_padding", 0), "inpaint_full_res_padding")
    if padding < 0 or min(size) < 1:
        raise invalid("width and height must be above 0, and inpaint_full_res_padding 0 or more", "inpaint_full_res_padding")
    full = body.get("inpaint_full_res", True)
    full = truth(bool(full) if full in (0, 1) else full, "inpaint_full_res")
    return around(picture, mask, blur, size, padding) if full else whole(picture, mask, blur)


def remarks(body: Mapping[str, Any]) -> list[str]:
    """What has no meaning with a mask here. Where there is noise under the mask, nothing of the picture is: `FILLS` are alike."""
    if not body.get("mask"):
        return []
    given = {"denoising_strength": body.get("denoising_strength", 1) != 1,
             "inpainting_fill": body.get("inpainting_fill") == ORIGINAL}
    names = ", ".join(name for name, there in given.items() if there)
    return [f"{names}: no meaning with a mask here; all that the mask shows is painted anew, of noise"] if names else []


def _result(job: Job, body: Mapping[str, Any]) -> dict[str, Any]:
    requests = [drawn.request for drawn in job.drawn]
    texts = [f"{request.prompt[0] if request.prompt else ''}\nSteps: {request.num_inference_steps}, Seed: {request.seed}, "
             f"CFG scale: {request.guidance_scale}, Size: {request.width}x{request.height}" for request in requests]
    seeds = [request.seed for request in requests]
    first = requests[0] if requests else job.drawings[0].request
    negative = (first.negative_prompt or ("",))[0]
    info = {
        "prompt": body.get("prompt", ""), "all_prompts": [body.get("prompt", "")] * len(requests), "negative_prompt": negative,
        "all_negative_prompts": [negative] * len(requests), "seed": first.seed, "all_seeds": seeds, "subseed": -1,
        "all_subseeds": [-1] * len(requests), "subseed_strength": 0, "width": first.width, "height": first.height,
        "cfg_scale": first.guidance_scale, "steps": first.num_inference_steps, "batch_size": len(requests),
        "sampler_name": body.get("sampler_name"), "infotexts": texts, "index_of_first_image": 0, "warnings": job.warnings,
        "interrupted": job.interrupted,
    }  # fmt: skip
    images = [drawn.text for drawn in job.drawn] if body.get("send_images", True) else []
    short = {name: value for name, value in body.items() if not isinstance(value, (str, list, dict)) or len(str(value)) < 1000}
    return {"images": images, "parameters": short, "info": json.dumps(info)}
