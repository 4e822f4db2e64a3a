"""Runs a sampler of this project and diffusers' class of the same name on the same model outputs and noises."""

import importlib
import inspect
from contextlib import contextmanager

import diffusers
import numpy as np
import pytest
import torch
from kandinsky_mindir.runner import schedulers

SHAPE = (2, 4, 3, 5)
# The decoder's own scheduler, as checkpoints have it.
KANDINSKY = dict(
    _class_name="DDPMScheduler", beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False,
    prediction_type="epsilon", timestep_spacing="leading", variance_type="learned_range",
)  # fmt: skip


class Noises:
    """A fixed sequence of standard normal arrays, dealt one at a time."""

    def __init__(self, seed=1):
        self.random, self.count = np.random.default_rng(seed), 0

    def __call__(self):
        self.count += 1
        return self.random.standard_normal(SHAPE).astype(np.float32)


@contextmanager
def rounded_correctly():
    """torch with square roots, exponentials and logarithms of float32 that are right to the last bit.

    Its own (MKL's) are not: one root in 150 is off by a bit, on this machine or another; the noisiest steps divide by
    such roots, of 0.07 and less, and turn the bit into 1e-6 of a trajectory of a hundred steps.
    """

    def exact(function):
        return lambda x, *rest: function(x.double() if x.dtype == torch.float32 else x, *rest).to(x.dtype)

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((torch.Tensor, "__pow__"), (torch.Tensor, "sqrt"), (torch.Tensor, "log"),
                            (torch.Tensor, "exp"), (torch, "exp"), (torch, "log")):  # fmt: skip
            patch.setattr(owner, name, exact(getattr(owner, name)))
        yield


class DoubleTorch:
    """torch, but for its float32, to which some of diffusers' steps cast what they are given."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextmanager
def stepping(module, noises, dtype):
    """`module` of diffusers drawing its noise, if any, from `noises`, and computing in `dtype`."""
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", lambda *args, **kwargs: torch.from_numpy(noises()).to(dtype))
        if dtype == torch.float64:
            patch.setattr(module, "torch", DoubleTorch())
        yield


class Case:
    """One model: a first sample and an output for each call, that do not depend on the sampler.

    Outputs of a model with a variance have twice the channels; the second half is within the range -1 to 1, and
    above 0 for the variance type that takes it for the variance itself.
    """

    def __init__(self, variance=None, seed=0):
        self.random, self.variance = np.random.default_rng(seed), variance
        self.first, self.outputs = self.random.standard_normal(SHAPE).astype(np.float32), []

    def output(self, index):
        while len(self.outputs) <= index:
            output = self.random.standard_normal(SHAPE).astype(np.float32)
            if self.variance:
                low = 0 if self.variance == "learned" else -1
                half = self.random.uniform(low, 1, SHAPE).astype(np.float32)
                output = np.concatenate([output, half], axis=1)
            self.outputs.append(output)
        return self.outputs[index]


def trajectory(schedule, case, noises, start=0):
    """(model inputs, samples) of every step of this project's `schedule`."""
    sample, state, inputs, samples = case.first * np.float32(schedule.init_noise_sigma), None, [], []
    for index in range(start, len(schedule.timesteps)):
        inputs.append(schedule.scale_model_input(sample, index))
        sample, state = schedule.step(case.output(index), index, sample, noises, state)
        samples.append(sample)
    return inputs, samples


def diffusers_trajectory(scheduler, case, noises, start=0, dtype=torch.float32, **step_options):
    """(model inputs, samples) of every step of diffusers' `scheduler`, its timesteps set, computed in `dtype`."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = scheduler.sigmas.to(dtype)
    sample, inputs, samples = torch.from_numpy(case.first).to(dtype) * scheduler.init_noise_sigma, [], []
    accepted = inspect.signature(scheduler.step).parameters
    with stepping(importlib.import_module(type(scheduler).__module__), noises, dtype):
        for index in range(start, len(scheduler.timesteps)):
            t = scheduler.timesteps[index]
            inputs.append(scheduler.scale_model_input(sample, t).numpy())
            if "prev_timestep" in accepted:  # UnCLIP, as the prior pipeline calls it
                last = index + 1 == len(scheduler.timesteps)
                step_options["prev_timestep"] = None if last else scheduler.timesteps[index + 1]
            output = torch.from_numpy(case.output(index)).to(dtype)
            sample = scheduler.step(output, t, sample, **step_options).prev_sample
            samples.append(sample.numpy())
    return inputs, samples


def worst_error(name, options, steps, start=0, dtype=torch.float32, case=None, **step_options):
    """The greatest relative error over all steps' inputs and samples: greatest difference by greatest magnitude.

    `step_options` are arguments of diffusers' `step` and options here. dtype: what diffusers computes in.
    """
    theirs = getattr(diffusers, name)(**options)
    scheduler = schedulers.SCHEDULERS[name](**options, **step_options)
    schedule = scheduler.schedule(steps)
    theirs.set_timesteps(steps)
    extra = int((theirs.timesteps == -1).sum())
    if extra:  # diffusers' trailing spacing makes one timestep too many where rounding is unlucky; Heun names it twice
        theirs.timesteps = theirs.timesteps[:-extra]
        if hasattr(theirs, "sigmas"):
            theirs.sigmas = torch.cat([theirs.sigmas[: -1 - extra], theirs.sigmas[-1:]])
    assert_timesteps(schedule, theirs)
    start = min(start, len(schedule.timesteps) - 1)  # there may be fewer steps than were asked for
    case = case or Case(options.get("variance_type") if scheduler.learned_variance else None)
    our_noises, their_noises = Noises(), Noises()
    ours = trajectory(schedule, case, our_noises, start)
    reference = diffusers_trajectory(theirs, case, their_noises, start, dtype, **step_options)
    assert our_noises.count == their_noises.count
    return max(relative_error(x, y) for pair in zip(ours, reference) for x, y in zip(*pair))


def assert_timesteps(schedule, theirs):
    ours, theirs = schedule.timesteps, theirs.timesteps.numpy()
    if ours.dtype == np.int64:
        assert np.array_equal(ours, theirs)
    else:
        # Fractional, found by float32 logarithms of noise levels: 1e-7 of a level, of which a timestep is 1e-3 or more.
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-3)


def relative_error(x, y):
    assert x.dtype == np.float32 and x.shape == y.shape and np.all(np.isfinite(y))
    return float(np.abs(x - y).max() / np.abs(y).max())
