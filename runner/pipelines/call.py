"""One call of a pipeline while it runs: its guidance, its progress, and what its callback may read and change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..common.options import as_guidance_scale
from ..diffusion.guidance import Guidance
from ..diffusion.loop import Step, as_latents

# What diffusers keeps on the pipeline, and this house on the call.
STATE = ("_guidance_scale", "_interrupt", "_num_timesteps", "guidance_scale", "interrupt", "num_timesteps",
         "do_classifier_free_guidance")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Callback:
    """callback_on_step_end of a call, and callback_on_step_end_tensor_inputs. function: None where there is none."""

    function: Callable | None
    tensors: tuple[str, ...] = ("latents",)

    @classmethod
    def of(cls, function: Any, names: Any, known: tuple[str, ...]) -> Callback:
        """UserError if these cannot be used. known: the tensors that there are."""
        if function is not None and not callable(function):
            raise UserError(f"callback_on_step_end is {function!r}: it must be a function")
        if isinstance(names, str) or not isinstance(names or (), (list, tuple)):
            raise UserError(f"callback_on_step_end_tensor_inputs is {names!r}: it must be a list of names")
        unknown = [str(name) for name in names or () if name not in known]
        if unknown:
            raise UserError(f"callback_on_step_end_tensor_inputs has {', '.join(unknown)}: known are {', '.join(known)}")
        return cls(function, tuple(names or ()))


@dataclasses.dataclass(frozen=True)
class Given:
    """What the pictures of a call are made of beside embeddings, at its size; one for all, or one for each embedding.

    image: (N, 3, height, width) from -1 to 1. mask_image: (N, height', width'), True to repaint. hint: (N, 3, height, width)
    from 0 to 1.
    """

    image: np.ndarray | None = None
    mask_image: np.ndarray | None = None
    hint: np.ndarray | None = None

    @property
    def count(self) -> int:
        return max([len(value) for value in vars(self).values() if value is not None], default=1)


NOTHING = Given()


@dataclasses.dataclass(frozen=True)
class Rows:
    """What the pictures of a call begin with, a row each.

    image_embeds, negatives: (N, E). latents: (N, C, h, w). encoded: the latents of the picture that each starts from or keeps
    a part of. keep: (N, 1, h, w), 1 for the latents that stay. noise: that of latents, at a standard deviation of 1. hint: as
    of Given.
    """

    image_embeds: np.ndarray
    negatives: np.ndarray
    latents: np.ndarray
    encoded: np.ndarray | None = None
    keep: np.ndarray | None = None
    noise: np.ndarray | None = None
    hint: np.ndarray | None = None

    def __getitem__(self, group: slice) -> Rows:
        return dataclasses.replace(self, **{name: value[group] for name, value in vars(self).items() if value is not None})


class Call:
    """What a callback is given in the pipeline's place: it reads as the pipeline and holds the state of this call alone.

    As in diffusers, a callback may read ``guidance_scale``, ``do_classifier_free_guidance`` and ``num_timesteps``, and
    may set ``_guidance_scale`` (1 or less switches guidance off from the next step on) and ``_interrupt = True`` (this
    step is the last; the latents are used as they are). Other attributes are the pipeline's own.
    """

    def __init__(self, pipeline: Any, guidance: Guidance, num_timesteps: int, callback: Callback):
        vars(self).update(_pipeline=pipeline, _callback=callback, guidance=guidance, _began=guidance,
                          _num_timesteps=num_timesteps, _interrupt=False)  # fmt: skip

    @property
    def guidance_scale(self) -> float:
        return self.guidance.scale

    _guidance_scale = guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self.guidance.on

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    def __getattr__(self, name: str) -> Any:
        if name == "_pipeline":
            raise UserError("the call has ended: what a callback was given cannot be used after it")
        return getattr(self._pipeline, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_guidance_scale":
            scale = as_guidance_scale(value, name)
            if scale > 1 and not self._began.on:
                raise UserError(f"_guidance_scale is {value}: the call began without guidance, which cannot be switched on")
            vars(self)["guidance"] = dataclasses.replace(self.guidance, scale=scale)
        elif name == "_interrupt":
            if not isinstance(value, (bool, np.bool_)):
                raise UserError(f"_interrupt is {value!r}: it must be True or False")
            vars(self)[name] = bool(value)
        elif name in STATE or name in vars(self):
            raise UserError(f"a callback cannot set {name}: it can set _guidance_scale and _interrupt")
        else:
            setattr(self._pipeline, name, value)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._pipeline(*arguments, **options)

    def follow(self, steps: Iterator[Step], bar: Any, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Run `steps` to their end, or until the callback interrupts them; the last latents.

        bar: a progress bar. tensors: what the callback can see beside the latents.
        """
        try:
            for step in steps:
                if self._callback.function is not None:
                    values = {name: step.latents if name == "latents" else tensors[name] for name in self._callback.tensors}
                    changed = self._callback.function(self, step.index, step.timestep, dict(values)) or {}
                    step.latents = _changed(changed, values, step.latents)
                bar.update(len(step.latents))
                if self._interrupt:
                    break
            return step.latents
        finally:
            del vars(self)["_pipeline"]  # whoever keeps the call, or an exception out of it, does not keep the models


def _changed(changed: Any, values: dict[str, np.ndarray], latents: np.ndarray) -> np.ndarray:
    """The latents after a callback that returned `changed`."""
    if not isinstance(changed, Mapping):
        raise UserError(f"callback_on_step_end returned a {type(changed).__name__}: it must return a dict or None")
    for name, value in changed.items():
        if name != "latents" and value is not values.get(name):
            raise UserError(f"callback_on_step_end replaced {name}: only latents can be replaced between steps")
    return as_latents(changed["latents"], latents.shape) if "latents" in changed else latents
