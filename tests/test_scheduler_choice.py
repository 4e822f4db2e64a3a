"""Another sampler in a pipeline, from the API."""

import kandinsky_mindir.runner as runner
import pytest
from diffusers import DDIMScheduler
from kandinsky_mindir.runner import schedulers


@pytest.fixture(scope="module")
def pipeline(bundles):
    return runner.KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))


def test_every_sampler_is_at_hand():
    assert all(getattr(runner, name) is cls and name in runner.__all__ for name, cls in schedulers.SCHEDULERS.items())


def test_by_object_and_by_short_name(pipeline):
    prior = pipeline.prior_pipe.scheduler
    pipeline.scheduler = own = runner.DDPMScheduler(beta_end=0.012)
    assert pipeline.scheduler is pipeline.decoder_pipe.scheduler is own
    pipeline.scheduler = "dpmpp-2m"
    assert isinstance(pipeline.decoder_pipe.scheduler, runner.DPMSolverMultistepScheduler)
    # The checkpoint's noise, whatever sampler was there before.
    assert pipeline.scheduler.config["beta_start"] == pipeline.bundle.manifest.schedulers["decoder"]["beta_start"]
    assert pipeline.prior_pipe.scheduler is prior


@pytest.mark.parametrize("other", (DDIMScheduler(), DDIMScheduler, runner.DDIMScheduler, None))
def test_anything_else_is_refused_at_once(other, pipeline):
    before = pipeline.scheduler
    with pytest.raises(runner.UserError, match="it must be a sampler of kandinsky_mindir.runner"):
        pipeline.scheduler = other
    assert pipeline.scheduler is before
