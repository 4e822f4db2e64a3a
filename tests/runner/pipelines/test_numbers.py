"""What is not finite stops the run, with what it was and the step; a picture that shows nothing is reported."""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.diffusion.loop import diffuse
from kandinsky_mindir.runner.pictures.images import to_picture
from kandinsky_mindir.runner.pipelines.encoders import Text, embed_pictures, encode_texts, prior_contexts, unet_contexts
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


class NotFinite:
    """Stands for the models of a bundle whose graphs all give one number that is none."""

    def __init__(self, bundle):
        self.bundle = bundle

    @contextmanager
    def lease(self, *_):
        yield lambda **_: (np.zeros(1), np.array([0, np.inf]))


ROW = np.zeros((1, 2), np.float32)


@pytest.mark.parametrize("graph, call", [
    ("text_encoder", lambda models: encode_texts(models, ["a cat"])),
    ("prior_context", lambda models: prior_contexts(models, {"a cat": Text(ROW, ROW, ROW)})),
    ("image_encoder", lambda models: embed_pictures(models, [ROW])),
    ("unet_context", lambda models: unet_contexts(models, "unet", ROW, None)),
])
def test_a_graph_without_steps_is_named(graph, call, bundles):
    with pytest.raises(UserError, match=f"^{graph}: it computed values that are not finite"):
        call(NotFinite(Bundle(bundles("narrow"))))


def test_weights_that_are_all_zero_are_refused(tmp_path):
    def write(*arrays):
        (tmp_path / "unet").mkdir(exist_ok=True)
        with WeightsWriter(tmp_path / "unet" / "weights.bin") as writer:
            for number, array in enumerate(arrays):
                writer.write(str(number), array)

    write()
    write(np.zeros(9), np.full(3, 1e-30))  # a bias may be
    with pytest.raises(UserError, match="^unet: all its weights are zero"):
        write(np.zeros(9), np.zeros((3, 3)))


PICTURE = np.random.default_rng(0).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)


def test_a_picture_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="^movq_decoder: the picture holds values that are not finite"):
        to_picture(np.where(PICTURE > 0.9, np.nan, PICTURE))


@pytest.mark.parametrize("picture", [0 * PICTURE, PICTURE + 5, 1e-3 * PICTURE], ids=["gray", "saturated", "faint"])
def test_a_flat_picture_is_reported(picture):
    with pytest.warns(UserWarning, match="picture 3 of 7 is flat"):
        to_picture(picture, "3 of 7")


def test_any_other_picture_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_picture(0.02 * PICTURE)
