"""The reverse diffusion loop: a generator that yields every step, so that progress, callbacks and stopping live outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..common.errors import UserError
from ..common.options import as_floats
from ..schedulers import Schedule
from . import noise


@dataclass
class Step:
    """One finished step. Whoever iterates may put other `latents` here: the loop goes on from them."""

    index: int
    timestep: float
    latents: np.ndarray


def initial_latents(shape: tuple[int, ...], given: np.ndarray | None, source, schedule: Schedule) -> np.ndarray:
    """`given` instead of the first draw, or a draw of that shape; times the schedule's initial scale. float32."""
    latents = noise.draw(source, shape) if given is None else as_latents(given, shape)
    return latents * np.float32(schedule.init_noise_sigma)


def as_latents(given: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`given` as float32, if it is of that shape and finite."""
    latents = as_floats(given, "latents")
    if latents.shape != shape:
        raise UserError(f"latents have shape {latents.shape}: this request needs {shape}")
    return latents


def finite(graph: str, arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """`arrays` as they are; UserError names `graph`, which computed them, if a value is not finite."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(f"{graph}: it computed values that are not finite: check the bundle with kandinsky-mindir verify")
    return arrays


def diffuse(
    schedule: Schedule, latents: np.ndarray, predict: Callable[[np.ndarray, int], np.ndarray], source, name: str,
    start: int = 0,
) -> Iterator[Step]:
    """Denoise `latents` along `schedule`, from its call number `start` on; the steps that are yielded count from 0.

    predict: (scaled latents, index in the schedule) -> model output. source: where the steps' noise is drawn, one tensor of
    the latents' shape for each step that needs it. UserError names what is denoised (`name`) and the step where numbers
    stop being finite.
    """
    state = None
    for index in range(start, len(schedule.timesteps)):
        timestep = schedule.timesteps[index]
        output = predict(schedule.scale_model_input(latents, index), index)
        try:
            latents, state = schedule.step(output, index, latents, lambda: noise.draw(source, latents.shape), state)
        except ArithmeticError as error:  # betas of zero make noise levels of zero
            raise UserError(f"{name}: step {index + 1} of {len(schedule.timesteps)} cannot be computed ({error}): check the "
                            "scheduler's betas") from None
        if not (np.isfinite(output).all() and np.isfinite(latents).all()):  # clipping would hide an infinite output
            raise UserError(f"{name}: values that are not finite after step {index + 1} of {len(schedule.timesteps)} "
                            f"(timestep {timestep:g}): try a lower guidance scale, or check the bundle")
        step = Step(index - start, timestep, latents)
        yield step
        latents = step.latents
