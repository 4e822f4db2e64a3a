"""The tasks of the decoders, ours beside diffusers': each task's two pipelines, what is brought to them, and how they are called.

Both sides draw from a torch.Generator each: after a call their states are equal, which they are if both drew the same numbers
of the same shapes and nothing else.
"""

from dataclasses import dataclass, field

import checkpoints
import diffusers
import numpy as np
import torch
from kandinsky_mindir import runner
from PIL import Image
from psnr import psnr

STEPS = 6
# diffusers never scales what it shows the model, which Euler and Heun need: these five are right there.
SAMPLERS = {
    "checkpoint": None, "ddim": diffusers.DDIMScheduler, "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
    "dpmpp-2m-sde": diffusers.DPMSolverMultistepScheduler, "lcm": diffusers.LCMScheduler,
}  # fmt: skip


def image(height, width, seed=0):
    """Edges, gradients and some noise, of the seed's own colors."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 200 // width, y * 250 // height, 255 * ((x + seed * y) % 9 > 4)], -1)
    return Image.fromarray(np.clip(pixels + random.integers(0, 30, 3) * (1 + seed), 0, 255).astype(np.uint8))


def mask(size, seed=0):
    """Float, white where to repaint: a rectangle and a dot that is just white."""
    height, width = size
    found = np.zeros(size, np.float32)
    found[height // 8 : height * 5 // 8, (width // 8) * (1 + seed) : (width // 8) * (4 + seed)] = 1
    found[height - 3, width - 4] = 0.5
    return found


def hint(size, seed=0):
    """A cone (3, height, width), near bright."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    depth = np.clip(1 - np.hypot(y - height / 2, x - width * (3 + seed) / 8) / (height / 2), 0, 1).astype(np.float32)
    return np.stack([depth] * 3)


@dataclass(frozen=True)
class Task:
    """A decoder's task. ours, theirs: the pipelines. kind: of the checkpoint. takes: what is brought. options: of both calls.
    turned: whether diffusers exchanges height and width of the picture that it is brought."""

    ours: type
    theirs: type
    kind: str
    takes: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)
    turned: bool = False


TASKS = {
    "text2img": Task(runner.KandinskyV22Pipeline, diffusers.KandinskyV22Pipeline, "decoder"),
    "img2img": Task(runner.KandinskyV22Img2ImgPipeline, diffusers.KandinskyV22Img2ImgPipeline, "decoder", ("image",),
                    {"strength": 0.7}, turned=True),
    "inpaint": Task(runner.KandinskyV22InpaintPipeline, diffusers.KandinskyV22InpaintPipeline, "inpaint", ("image", "mask_image")),
    "controlnet": Task(runner.KandinskyV22ControlnetPipeline, diffusers.KandinskyV22ControlnetPipeline, "controlnet", ("hint",)),
    "controlnet-img2img": Task(runner.KandinskyV22ControlnetImg2ImgPipeline, diffusers.KandinskyV22ControlnetImg2ImgPipeline,
                               "controlnet", ("image", "hint"), {"strength": 0.7}, turned=True),
}  # fmt: skip


class Family:
    """A bundle of the three kinds of decoders beside its checkpoint in diffusers. name: a key of checkpoints.FAMILIES."""

    def __init__(self, name, bundle):
        self.name, self.bundle = checkpoints.FAMILIES[name], bundle
        self.size = checkpoints.SIZES[name][-1]
        self._first = runner.KandinskyV22Pipeline.from_pretrained(bundle)

    def parts(self, kind):
        if kind != "decoder":
            return dict(checkpoints.conditioned(kind, self.name))
        decoder = checkpoints.pipelines(self.name)[1]
        return {"unet": decoder.unet, "movq": decoder.movq, "scheduler": decoder.scheduler}

    def ours(self, cls, sampler="checkpoint"):
        found = cls.from_pipe(self._first)
        found.set_progress_bar_config(disable=True)
        found.scheduler = sampler
        return found

    def theirs(self, cls, kind, sampler="checkpoint", **more):
        parts = self.parts(kind)
        if sampler != "checkpoint":
            config = {key: value for key, value in parts["scheduler"].config.items()
                      if key not in ("variance_type", "_use_default_values")}
            options = {"algorithm_type": "sde-dpmsolver++"} if sampler.endswith("-sde") else {}
            parts["scheduler"] = SAMPLERS[sampler].from_config(config, **options)
        found = cls(**parts, **more)
        found.set_progress_bar_config(disable=True)
        return found

    def embeds(self, rows, seed=0):
        """Like those of the prior: the trained checkpoint's have their mean and deviation."""
        prior = checkpoints.pipelines(self.name)[0].prior
        noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, prior.clip_mean.shape[-1])).astype(np.float32))
        return (noise * prior.clip_std + prior.clip_mean).detach().numpy() if self.name == "micro" else noise.numpy()

    def brought(self, task, seed=0):
        """(what ours is brought, what theirs is): a picture of another size, a mask, a hint of eight times the latents."""
        height, width = self.size
        factor = 2 ** (len(self.parts(task.kind)["movq"].config.block_out_channels) - 1)
        hints = hint((8 * height // factor, 8 * width // factor), seed)
        ours = {"image": image(height + 14, width + 16, seed), "mask_image": mask(self.size, seed), "hint": hints}
        theirs = {**ours, "hint": torch.from_numpy(hints)[None]}
        return tuple({name: side[name] for name in task.takes} for side in (ours, theirs))

    def expected(self, task, sampler, given, brought, generator, **options):
        size = self.size[::-1] if task.turned else self.size
        pipeline = self.theirs(task.theirs, task.kind, sampler)
        return pipeline(image_embeds=torch.from_numpy(given[0]), negative_image_embeds=torch.from_numpy(given[1]), height=size[0],
                        width=size[1], num_inference_steps=STEPS, output_type="np", generator=generator, **brought, **task.options,
                        **options).images  # fmt: skip

    def actual(self, task, sampler, given, brought, generator, **options):
        pipeline = self.ours(task.ours, sampler)
        return pipeline(image_embeds=given[0], negative_image_embeds=given[1], height=self.size[0], width=self.size[1],
                        num_inference_steps=STEPS, output_type="np", generator=generator, **brought, **task.options,
                        **options).images  # fmt: skip

    def compare(self, name, sampler, rows=1, **options):
        """PSNR of a task's pictures to diffusers', both from torch's numbers."""
        task, given = TASKS[name], (self.embeds(rows), self.embeds(rows, 5))
        ours, theirs = self.brought(task)
        generators = [torch.Generator().manual_seed(3) for _ in range(2)]
        expected = self.expected(task, sampler, given, theirs, generators[0], **options)
        actual = self.actual(task, sampler, given, ours, generators[1], **options)
        assert torch.equal(*(generator.get_state() for generator in generators)), "the draws differ"
        return judged(actual, expected)


def judged(actual, expected):
    assert actual.shape == expected.shape and expected.std() > 0.01, "a flat picture proves nothing"
    return psnr(actual, expected)
