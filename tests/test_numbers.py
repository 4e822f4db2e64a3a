"""What is not finite stops the run, with the stage and the step; a picture that shows nothing is reported."""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from kandinsky_mindir.runner.decoder import decode_latents
from kandinsky_mindir.runner.diffusion import diffuse
from kandinsky_mindir.runner.errors import UserError
from kandinsky_mindir.runner.schedulers import create_by_name

LATENTS = np.random.default_rng(0).standard_normal((1, 4, 2, 2)).astype(np.float32)
BASE = {"_class_name": "DDPMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "variance_type": "fixed_small"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpmpp-2m"])
def test_a_step_that_is_not_finite_is_named(scheduler, value):
    def predict(latents, index):
        output = np.zeros_like(latents)
        output[0, 0, 0, 0] = value if index == 2 else 0
        return output

    steps = diffuse(create_by_name(scheduler, BASE).schedule(5), LATENTS, predict, np.random.default_rng(0), "prior")
    with pytest.raises(UserError, match=r"^prior: values that are not finite after step 3 of 5 \(timestep \d+\)"):
        list(steps)


class Movq:
    """Stands for the components of a bundle whose MoVQ makes `picture` of any latents."""

    def __init__(self, picture):
        self.picture = picture.astype(np.float32)

    def __getitem__(self, name):
        return self

    @contextmanager
    def loaded(self, *_):
        yield lambda latents: (self.picture,)


PICTURE = np.random.default_rng(0).uniform(-1, 1, (1, 3, 16, 16))


def test_a_picture_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="^movq_decoder: the picture holds values that are not finite"):
        decode_latents(Movq(np.where(PICTURE > 0.9, np.nan, PICTURE)), LATENTS, (16, 16))


@pytest.mark.parametrize("picture", [0 * PICTURE, PICTURE + 5, 1e-3 * PICTURE], ids=["gray", "saturated", "faint"])
def test_a_flat_picture_is_reported(picture):
    with pytest.warns(UserWarning, match="picture 1 of 1 is flat"):
        decode_latents(Movq(picture), LATENTS, (16, 16))


def test_any_other_picture_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_latents(Movq(0.02 * PICTURE), LATENTS, (16, 16))
