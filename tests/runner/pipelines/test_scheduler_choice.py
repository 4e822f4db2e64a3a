"""The sampler of a pipeline: the bundle's default, or another one."""

import json

import kandinsky_mindir.runner as runner
import pytest
from diffusers import DDIMScheduler
from kandinsky_mindir.runner import cli, schedulers
from kandinsky_mindir.runner.pictures.provenance import Provenance


@pytest.fixture(scope="module")
def pipeline(bundles):
    return runner.KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))


def test_every_sampler_is_at_hand():
    assert all(getattr(runner, name) is cls and name in runner.__all__ for name, cls in schedulers.SCHEDULERS.items())


def test_the_default_comes_with_the_bundle(bundles, tmp_path):
    """For the API and for the command line: the name that defaults give, on the checkpoint's own noise."""
    bundle, picture, other = bundles("narrow"), tmp_path / "picture.png", tmp_path / "other.png"
    manifest = json.loads((bundle / "manifest.json").read_text())
    default, own = manifest["defaults"]["decoder"], manifest["schedulers"]["decoder"]
    assert (default["scheduler"], own["_class_name"]) == ("dpmpp-2m-karras", "DDPMScheduler")
    opened = runner.KandinskyV22CombinedPipeline.from_pretrained(bundle)
    options = {**opened.scheduler.config}
    assert opened.scheduler.name == "DPMSolverMultistepScheduler" and options["use_karras_sigmas"]
    assert options["beta_end"] == own["beta_end"] and options["prediction_type"] == own["prediction_type"]
    assert opened.prior_pipe.scheduler.name == "UnCLIPScheduler"
    assert cli.main(["generate", str(bundle), "a cat", "--prior-steps", "2", "--quiet", "--output", str(picture)]) == 0
    request = Provenance.read(picture).request
    assert request.scheduler == schedulers.describe(opened.scheduler)
    assert request.num_inference_steps == default["num_inference_steps"]
    other = tmp_path / "other.png"
    assert cli.main(["generate", "--like", str(picture), "--scheduler", "checkpoint", "--quiet", "--output", str(other)]) == 0
    assert Provenance.read(other).request.scheduler["_class_name"] == "DDPMScheduler"


def test_the_checkpoints_own_is_at_hand(pipeline):
    for name in ("checkpoint", "DDPMScheduler"):
        pipeline.scheduler = "ddim"
        pipeline.scheduler = name
        own = pipeline.bundle.manifest.schedulers["decoder"]
        assert pipeline.scheduler.name == "DDPMScheduler" and pipeline.scheduler.learned_variance
        assert all(pipeline.scheduler.config[key] == value for key, value in own.items() if key[0] != "_")


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
