"""Samplers whose betas are taken one by one and make no sense together: an error in one line, not a traceback."""

import numpy as np
import pytest
from kandinsky_mindir.runner import schedulers
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.diffusion.loop import diffuse

STEEP = list(np.linspace(1e-4, 0.03, 1000) ** 1.5 * 10)  # nearly nothing of the picture is left long before the end
WRONG = {
    "the noise levels rise": dict(_class_name="EulerAncestralDiscreteScheduler", trained_betas=STEEP, rescale_betas_zero_snr=True,
                                  prediction_type="v_prediction"),
    "(float )?division by zero": dict(_class_name="EulerAncestralDiscreteScheduler", trained_betas=[0.0] * 1000),
}  # fmt: skip


@pytest.mark.parametrize("reason", WRONG)
def test_a_step_that_cannot_be_computed(reason):
    schedule = schedulers.create(WRONG[reason]).schedule(20)
    latents = np.ones((1, 4, 2, 2), np.float32)
    with np.errstate(all="ignore"), pytest.raises(UserError, match=rf"^decoder: step \d+ of 20 cannot be computed \({reason}\): check"):
        list(diffuse(schedule, latents, lambda latents, index: latents, np.random.default_rng(0), "decoder"))
