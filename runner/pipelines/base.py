"""What the pipelines share: a bundle on an engine, progress bars, callbacks at the end of each step."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from .. import engine as engines
from .. import schedulers
from ..bundle.opened import Bundle
from ..loading.loader import takes_model_files
from ..loading.models import Models, Reservation
from ..diffusion.loop import Step, as_latents
from ..engine.interface import parse_device
from ..common.errors import UserError
from ..common.kept_exceptions import lets_go
from ..bundle.manifest import GraphInfo
from ..common.memory import as_bytes
from ..common.options import as_count
from ..loading.memory_plan import MemoryPlan
from ..common.progress import ProgressBar
from ..schedulers import Scheduler

KEEP_LOADED_BELOW = 1 << 30  # bytes of weights up to which models stay loaded between calls unless told otherwise


class Pipeline:
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
        keep_loaded: bool | None = None,
        memory: int | str | None = None,
        check: str = "once",
    ):
        """Open an exported bundle.

        bundle: its folder. engine: "bridge" (Lite's C++ libraries, fetched when first needed), "vendor" (the
        mindspore_lite package), "auto". device: "cpu" or "ascend". threads: of the engine; None for one on each CPU.
        keep_loaded: keep models in memory between stages and calls; None keeps them if that fits into `memory`, or
        without it if the bundle's weights are small, and frees them all the same where memory gets short. memory: bytes,
        or a text such as "12GB", to stay below (None: what the machine has left): a model that does not fit is loaded a
        piece at a time in every step, which is slow; calls that cannot be made to fit are refused before a model is
        loaded. check: hash what is loaded "once" (a file that is known to be unchanged since is not hashed again),
        "always" or "never". UserError if the bundle is damaged or the engine cannot be had.
        """
        parse_device(device)
        if threads is not None:
            as_count(threads, "threads")
        bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle, check=check)
        memory = None if memory is None else as_bytes(memory)
        lite = engines.create(engine, say=_say)
        may_free = keep_loaded is None
        if keep_loaded is None:
            keep_loaded = memory is not None or bundle.weight_bytes <= KEEP_LOADED_BELOW
        options = {"device": device, "threads": threads, "keep_loaded": keep_loaded, "memory": memory, "may_free": may_free}
        models = Models(bundle, lite, **options)
        if takes_model_files(lite, device) and (advice := models.bundle.packed_for_others):
            warnings.warn(advice, stacklevel=3)
        return cls(models)

    def set_progress_bar_config(self, **options) -> None:
        """Options for tqdm; ``disable=True`` switches the bars off."""
        self.progress.options = options

    @lets_go
    def require_memory(self, graphs: Iterable[GraphInfo], beside: int = 0) -> Reservation:
        """UserError, with the figures, if `graphs` cannot run in the memory that there is for them.

        beside: bytes that the request holds at once beside models: latents, embeddings, pictures. They count for other
        requests as long as what is returned here is held, or until it is closed: it is a context manager.
        """
        found, reservation = self.models.require(graphs, beside)
        for demand in found.demands:
            if demand.remark:
                warnings.warn(f"memory is short for {demand.graph.title}: {demand.remark}, which is slow", stacklevel=2)
        return reservation

    @lets_go
    def memory_plan(self, graphs: Iterable[GraphInfo], beside: int = 0) -> MemoryPlan:
        """What memory running `graphs` will take, with `beside` bytes of what the request makes."""
        return self.models.plan(graphs, beside)

    def unload(self) -> None:
        """Free the memory of all loaded models; the next call loads them again."""
        self.models.unload()


class DiffusionPipeline(Pipeline):
    """A pipeline of one diffusion: the prior's or the decoder's, which `stage` says."""

    stage: str
    callback_tensor_inputs: tuple[str, ...]

    def __init__(self, models: Models):
        super().__init__(models)
        schedulers.create(self._own_scheduler)  # refuses what is no scheduler, whether it is used or not
        self.scheduler = self.bundle.manifest.defaults[self.stage].get("scheduler", schedulers.CHECKPOINT)

    @property
    def scheduler(self) -> Scheduler:
        """The sampler: the bundle's default, unless another one is put here, or its short name: "dpmpp-2m", say, or
        "checkpoint" for the one that the checkpoint came with."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler | str) -> None:
        if isinstance(scheduler, str):
            scheduler = schedulers.create_by_name(scheduler, self._own_scheduler)
        if not isinstance(scheduler, Scheduler):
            raise UserError(f"scheduler is a {type(scheduler).__module__}.{type(scheduler).__qualname__}: it must be a "
                            "sampler of kandinsky_mindir.runner.schedulers, or the short name of one")
        self._scheduler = scheduler

    @property
    def _own_scheduler(self) -> dict[str, Any]:
        return self.bundle.manifest.schedulers[self.stage]

    def _follow(
        self, steps: Iterator[Step], total: int, callback: Callable | None, names: list[str], tensors: dict
    ) -> np.ndarray:
        """Run `steps` to the end under a progress bar and the caller's callback; returns the last latents."""
        with self.progress.bar(total, self.stage) as bar:
            for step in steps:
                if callback is not None:
                    values = {name: step.latents if name == "latents" else tensors[name] for name in names or ()}
                    changed = callback(self, step.index, step.timestep, dict(values)) or {}
                    step.latents = self._changed(changed, values, step.latents)
                bar.update()
        return step.latents

    def _check_callback(self, callback: Callable | None, names: list[str] | None) -> None:
        if callback is not None and not callable(callback):
            raise UserError(f"callback_on_step_end is {callback!r}: it must be a function")
        if isinstance(names, str) or not isinstance(names or (), (list, tuple)):
            raise UserError(f"callback_on_step_end_tensor_inputs is {names!r}: it must be a list of names")
        unknown = [str(name) for name in names or () if name not in self.callback_tensor_inputs]
        if unknown:
            raise UserError(f"callback_on_step_end_tensor_inputs has {', '.join(unknown)}: "
                            f"known are {', '.join(self.callback_tensor_inputs)}")

    @staticmethod
    def _changed(changed: dict, values: dict, latents: np.ndarray) -> np.ndarray:
        if not isinstance(changed, dict):
            raise UserError(f"callback_on_step_end returned a {type(changed).__name__}: it must return a dict or None")
        for name, value in changed.items():
            if name != "latents" and value is not values.get(name):
                raise UserError(f"callback_on_step_end replaced {name}: only latents can be replaced between steps")
        return as_latents(changed["latents"], latents.shape) if "latents" in changed else latents


def _say(line: str) -> None:
    print(line, file=sys.stderr)
