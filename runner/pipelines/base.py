"""What the pipelines share: a bundle on an engine, a sampler, the memory that a call may take."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from .. import engine as engines
from .. import schedulers
from ..bundle.manifest import GraphInfo
from ..bundle.opened import Bundle
from ..common.errors import UserError
from ..common.kept_exceptions import lets_go
from ..common.memory import as_bytes, as_text
from ..common.options import as_count, as_strength, plain, without_meaning
from ..common.progress import ProgressBar
from ..diffusion.guidance import Guidance
from ..diffusion.loop import initial_latents
from ..engine.interface import parse_device
from ..loading.loader import takes_model_files
from ..loading.memory_plan import MemoryPlan
from ..loading.models import Models, Reservation
from ..request import MOST_IMAGES
from ..schedulers import Schedule, Scheduler
from .call import STATE, Callback
from .habits import Habits, precision_of, progress_bar_options, require_bundle_path

KEEP_LOADED_BELOW = 1 << 30  # bytes of weights up to which models stay loaded between calls unless told otherwise
OPTIONS = ("engine", "device", "threads", "precision", "keep_loaded", "memory", "check", "scheduler")  # of from_pretrained


class Pipeline(Habits):
    """A bundle opened on an engine; the base of the pipelines."""

    def __init_subclass__(cls, **options: Any) -> None:
        """No exception that leaves a public method holds the pipeline, and with it the models that it keeps loaded."""
        super().__init_subclass__(**options)
        for name, method in list(vars(cls).items()):
            if isinstance(method, FunctionType) and (name == "__call__" or not name.startswith("_")):
                setattr(cls, name, lets_go(method))

    def __init__(self, models: Models):
        self.models, self.bundle = models, models.bundle
        self.progress = ProgressBar()

    @classmethod
    @lets_go
    def from_pretrained(
        cls,
        bundle: str | Path | Bundle,
        *,
        engine: str = "auto",
        device: str = "cpu",
        threads: int | None = None,
        precision: str | None = None,
        keep_loaded: bool | None = None,
        memory: int | str | None = None,
        check: str = "once",
        scheduler: Scheduler | str | None = None,
        **others: Any,
    ):
        """Open an exported bundle.

        bundle: its folder. engine: "bridge" (Lite's C++ libraries, fetched when first needed), "vendor" (the
        mindspore_lite package), "mindspore" (MindSpore itself), "auto". device: "cpu" or "ascend". threads: of the engine;
        None for one on each CPU.
        precision: "float32"; "bfloat16" (x86-64) or "float16" (aarch64), which are faster on processors that have them and
        change pictures a little; or "auto" for one of these where the processor has it; None for what `torch_dtype` or
        `mindspore_dtype` says among `others`, if it is one of these, else float32.
        keep_loaded: keep models in memory between stages and calls; None keeps them if that fits into `memory`, or
        without it if the bundle's weights are small, and frees them all the same where memory gets short. memory: bytes,
        or a text such as "12GB", to stay below (None: what the machine has left): a model that does not fit is loaded a
        piece at a time in every step, which is slow; calls that cannot be made to fit are refused before a model is
        loaded. check: hash what is loaded "once" (a file that is known to be unchanged since is not hashed again),
        "always" or "never". scheduler: the sampler, instead of the bundle's default. others: options of diffusers that mean
        nothing for a bundle, with a warning. UserError if the bundle is damaged or the engine cannot be had.
        """
        precision = precision or precision_of(others) or "float32"
        without_meaning(list(others), OPTIONS, "from_pretrained")
        parse_device(device)
        threads = None if threads is None else as_count(threads, "threads")
        if not isinstance(bundle, Bundle):
            require_bundle_path(bundle)
            bundle = Bundle(bundle, check=check)
        memory = None if memory is None else as_bytes(plain(memory))
        lite = engines.create(engine, say=_say, precision=precision)
        may_free = keep_loaded is None
        if keep_loaded is None:
            keep_loaded = memory is not None or bundle.weight_bytes <= KEEP_LOADED_BELOW
        models = Models(bundle, lite, device=device, threads=threads, keep_loaded=keep_loaded, memory=memory, may_free=may_free)
        if takes_model_files(lite, device) and (advice := models.bundle.packed_for_others):
            warnings.warn(advice, stacklevel=3)
        pipeline = cls(models)
        if scheduler is not None:
            pipeline.scheduler = scheduler
        return pipeline

    @classmethod
    def from_pipe(cls, pipeline: Pipeline):
        """A pipeline of this class on the models of another one."""
        return cls(pipeline.models)

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options for tqdm; ``disable=True`` switches the bars off."""
        self.progress.options = progress_bar_options(options)

    @lets_go
    def require_memory(self, graphs: Iterable[GraphInfo], beside: int = 0, rows: int = 1, row_bytes: int = 0) -> Reservation:
        """UserError, with the figures, if `graphs` cannot run in the memory that there is for them.

        beside: bytes that the request holds at once beside models: latents, embeddings, pictures; and `row_bytes` for each
        of its `rows`. They count for other requests as long as what is returned here is held, or until it is closed: it is
        a context manager.
        """
        return self._require(list(graphs), beside, rows, row_bytes)[1]

    def _require(self, graphs: list[GraphInfo], beside: int, rows: int, row_bytes: int) -> tuple[MemoryPlan, Reservation]:
        try:
            found, reservation = self.models.require(graphs, beside + rows * row_bytes)
        except UserError:
            left = self.models.budget - self.models.plan(graphs, beside).peak
            if rows == 1 or left < row_bytes:
                raise
            raise UserError(f"{rows} pictures in a call take about {as_text(rows * row_bytes)} beside the models and "
                            f"{as_text(left)} is there: {left // row_bytes} fit; ask for fewer, or make room (free memory, "
                            "raise --memory)") from None
        for demand in found.demands:
            if demand.remark:
                warnings.warn(f"memory is short for {demand.graph.title}: {demand.remark}, which is slow", stacklevel=3)
        return found, reservation

    @lets_go
    def memory_plan(self, graphs: Iterable[GraphInfo], beside: int = 0) -> MemoryPlan:
        """What memory running `graphs` will take, with `beside` bytes of what the request makes."""
        return self.models.plan(graphs, beside)

    def unload(self) -> None:
        """Free the memory of all loaded models; the next call loads them again."""
        self.models.unload()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in STATE:
            raise UserError(f"{name} belongs to a call: set it on what callback_on_step_end is given, not on the pipeline")
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in STATE:
            raise AttributeError(f"{name} belongs to a call: read it of what callback_on_step_end is given")
        return super().__getattr__(name)


@dataclass(frozen=True)
class Sampling:
    """What a call runs, once its options are checked. It keeps the sampler that the pipeline had when the call began.

    schedule: its steps. learned_variance: whether they take a variance that the model predicts. start: the number of the
    call of the model that is the first, of those of the schedule. cache_interval: of so many calls of the decoder's UNet one is
    whole.
    """

    schedule: Schedule
    learned_variance: bool
    guidance: Guidance
    num_images_per_prompt: int
    callback: Callback
    start: int = 0
    cache_interval: int = 1

    @property
    def steps(self) -> int:
        """Of the whole schedule."""
        return len(self.schedule.timesteps)

    @property
    def run(self) -> int:
        """How many of its steps are run."""
        return self.steps - self.start

    @property
    def batches(self) -> list[int]:
        """The batches that these steps run, ascending."""
        return sorted({self.guidance.batch(index, self.steps) for index in range(self.start, self.steps)})


class DiffusionPipeline(Pipeline):
    """A pipeline of one diffusion. kind: "prior" or "decoder", as the manifest names them."""

    kind: str
    callback_tensor_inputs: tuple[str, ...]

    def __init__(self, models: Models):
        super().__init__(models)
        if self.kind not in self.bundle.manifest.schedulers:
            raise UserError(f"{self.bundle.path} has no {self.kind} decoder: export it again, with that checkpoint as one more "
                            "--decoder")
        schedulers.create(self._own_scheduler)  # refuses what is no scheduler, whether it is used or not
        self.scheduler = self.default_scheduler

    @property
    def scheduler(self) -> Scheduler:
        """The sampler: the bundle's default, unless another one is put here, or its short name: "dpmpp-2m", say, or
        "checkpoint" for the one that the checkpoint came with. A call goes on with the one that it began with."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler | str) -> None:
        self._scheduler = self.as_scheduler(scheduler)

    @property
    def default_scheduler(self) -> Scheduler:
        """The sampler that the bundle says."""
        return self.as_scheduler(self.bundle.manifest.defaults[self.kind].get("scheduler", schedulers.CHECKPOINT))

    def as_scheduler(self, scheduler: Any) -> Scheduler:
        """A sampler, from itself, its name or its options, for this pipeline's checkpoint."""
        if isinstance(scheduler, str):
            return schedulers.create_by_name(scheduler, self._own_scheduler)
        if isinstance(scheduler, dict):
            return schedulers.create(scheduler)
        if not isinstance(scheduler, Scheduler):
            raise UserError(f"scheduler is a {type(scheduler).__module__}.{type(scheduler).__qualname__}: it must be a "
                            "sampler of kandinsky_mindir.runner.schedulers, or the short name of one")
        return scheduler

    def _first(self, sampling: Sampling, shape: tuple[int, ...], latents: Any, source, encoded: Any = None) -> np.ndarray:
        """What diffusion begins with: the user's latents, or noise. encoded: the latents of pictures, for who starts there."""
        return initial_latents(shape, latents, source, sampling.schedule)

    @property
    def _own_scheduler(self) -> dict[str, Any]:
        return self.bundle.manifest.schedulers[self.kind]

    def sampling(
        self,
        num_inference_steps: int | None,
        num_images_per_prompt: int,
        guidance_scale: float | None,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        callback: Callable | None = None,
        callback_tensors: list[str] | None = None,
        scheduler: Scheduler | None = None,
        strength: float = 1.0,
        cache_interval: int = 1,
    ) -> Sampling:
        """What a call with these options runs; None is the bundle's default. UserError if it would be refused."""
        defaults, scheduler = self.bundle.manifest.defaults[self.kind], scheduler or self.scheduler
        steps = defaults["num_inference_steps"] if num_inference_steps is None else num_inference_steps
        scale = defaults["guidance_scale"] if guidance_scale is None else guidance_scale
        schedule = scheduler.schedule(steps := as_count(steps, "num_inference_steps"))
        return Sampling(
            schedule,
            scheduler.learned_variance,
            Guidance(scale, guidance_rescale, guidance_interval),
            as_count(num_images_per_prompt, "num_images_per_prompt", MOST_IMAGES),
            Callback.of(callback, callback_tensors, self.callback_tensor_inputs),
            skipped_steps(steps, strength) * schedule.calls_per_step,
            as_count(cache_interval, "cache_interval"),
        )


def skipped_steps(steps: int, strength: float) -> int:
    """How many of `steps` a run leaves out that starts from something: all but int(steps * strength), as in the reference
    (pipeline_kandinsky2_2_img2img.py: get_timesteps). UserError if none is left."""
    run = int(steps * as_strength(strength))
    if run == 0:
        least = next(share / 1000 for share in range(1, 1001) if int(steps * (share / 1000)))
        raise UserError(f"strength {strength:g} makes none of {steps} steps: give at least {least:g}, or more steps")
    return steps - run


def _say(line: str) -> None:
    print(line, file=sys.stderr)
