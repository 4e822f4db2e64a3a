"""What users of diffusers and mindone write out of habit: it works, or one line says why not."""

import warnings

import kandinsky_mindir.runner as runner
import numpy as np
import pytest
from kandinsky_mindir.runner import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    KandinskyV22CombinedPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    UserError,
)
from kandinsky_mindir.runner.pipelines.habits import precision_of
from kandinsky_mindir.runner.pipelines.outputs import KandinskyPriorPipelineOutput
from references import MICRO

STEPS = {"num_inference_steps": 1, "generator": 0}
SMALL = {"height": 16, "width": 16, **STEPS}


@pytest.fixture(scope="module")
def prior(bundles):
    return KandinskyV22PriorPipeline.from_pretrained(bundles("narrow"))


@pytest.fixture(scope="module")
def decoder(prior):
    return KandinskyV22Pipeline.from_pipe(prior)


@pytest.fixture(scope="module", autouse=True)
def quiet(prior, decoder):
    for pipeline in (prior, decoder):
        pipeline.set_progress_bar_config(disable=True)


def test_outputs_are_mappings(prior, decoder):
    """decoder(**prior_output), as diffusers' guide to Kandinsky 2.2 writes it."""
    embeds = prior("a cat", **STEPS)
    assert list(embeds.keys()) == ["image_embeds", "negative_image_embeds"] and "image_embeds" in embeds
    assert embeds.get("image_embeds") is embeds.image_embeds is embeds["image_embeds"] is embeds[0]
    assert "images" not in embeds and 0 not in embeds and embeds.get("images", 7) == 7
    assert [name for name, _ in embeds.items()] == embeds.keys() and dict(embeds)["image_embeds"] is embeds[0]
    with pytest.raises(KeyError):
        embeds["to_tuple"]
    (expected,) = decoder(embeds.image_embeds, embeds.negative_image_embeds, **SMALL).images
    assert decoder(**embeds, **SMALL)[0][0].tobytes() == expected.tobytes()
    assert len(KandinskyPriorPipelineOutput(*embeds)) == 2


@pytest.mark.parametrize("options", (
    {"mindspore_dtype": "float64"}, {"mindspore": True}, {"torch_dtype": np.float16, "use_safetensors": True},
    {"variant": "fp16", "revision": "main", "local_files_only": True, "cache_dir": "x", "low_cpu_mem_usage": True},
))  # fmt: skip
def test_options_without_meaning_get_one_line(options, bundles):
    with pytest.warns(UserWarning, match="means nothing") as caught:
        KandinskyV22PriorPipeline.from_pretrained(bundles("narrow"), **options)
    (message,) = (str(warning.message) for warning in caught)
    assert message.startswith(", ".join(options) + ": this means nothing for a bundle") and "\n" not in message


@pytest.mark.parametrize("options, found", (
    ({"mindspore_dtype": "float16"}, "float16"), ({"mindspore": "mindspore.float16"}, "float16"), ({"dtype": "Float32"}, "float32"),
    ({"torch_dtype": "torch.bfloat16"}, "bfloat16"), ({"torch_dtype": "torch.float16"}, "float16"),
    ({"torch_dtype": "torch.float64"}, None),
))
def test_a_dtype_chooses_the_precision(options, found):
    left = dict(options)
    assert precision_of(left) == found and left == ({} if found else options)


def test_an_option_that_nobody_knows_is_named(bundles):
    with pytest.raises(UserError, match="from_pretrained has no option tread, unet; it has engine, device, threads,"):
        KandinskyV22PriorPipeline.from_pretrained(bundles("narrow"), tread=2, unet=None)


def test_the_sampler_may_be_given_at_once(bundles):
    decoder = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"), scheduler=DDIMScheduler(beta_end=0.012))
    assert decoder.scheduler.name == "DDIMScheduler" and decoder.decoder_pipe.scheduler.config.beta_end == 0.012
    assert KandinskyV22Pipeline.from_pretrained(bundles("narrow"), scheduler="euler").scheduler.name.startswith("Euler")


@pytest.mark.parametrize("path, words", [
    ("kandinsky-community/kandinsky-2-2-prior", "there is no folder kandinsky-community/kandinsky-2-2-prior. If it is a checkpoint"),
    (str(MICRO / "decoder"), "is a checkpoint, not a bundle: make one with kandinsky-mindir export --prior DIR"),
    ("no/such/bundle", "no/such/bundle is not a bundle"),
])  # fmt: skip
def test_a_name_on_a_hub_is_no_bundle(path, words):
    with pytest.raises(UserError) as error:
        KandinskyV22Pipeline.from_pretrained(path)
    assert words in str(error.value) and "kandinsky-mindir export" in str(error.value) and "\n" not in str(error.value)


def test_methods_that_have_nothing_to_do(prior):
    with pytest.warns(UserWarning, match="^enable_model_cpu_offload: this means nothing here"):
        assert prior.enable_model_cpu_offload() is None
    with pytest.warns(UserWarning, match="^disable_attention_slicing: "):
        assert prior.disable_attention_slicing("auto") is None
    with pytest.warns(UserWarning, match=r"^to\(cuda, torch.float16\): this means nothing here; from_pretrained takes device="):
        assert prior.to("cuda", dtype="torch.float16") is prior
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prior.to("cpu") is prior
    with pytest.raises(AttributeError, match="has no attribute 'unet'"):
        _ = prior.unet


def test_pipelines_share_models(prior, decoder):
    assert decoder.models is prior.models


@pytest.mark.parametrize("options", (
    {"disable": True}, {"desc": "drawing", "leave": False}, {"total": 7, "mininterval": 0.5, "ncols": 60}, {"colour": "green"},
))  # fmt: skip
def test_any_option_of_tqdm(options, decoder, capsys):
    decoder.set_progress_bar_config(**options)
    try:
        decoder(np.zeros((1, 32), np.float32), **SMALL)
    finally:
        decoder.set_progress_bar_config(disable=True)
    shown = capsys.readouterr().err
    assert (options.get("desc", "decoder") in shown) != ("disable" in options)


@pytest.mark.parametrize("options", ({"speed": 9}, {"iterable": [1]}, {"ascii": object(), "nonsense": 1}))
def test_what_tqdm_does_not_take(options, decoder):
    with pytest.raises(UserError, match="^set_progress_bar_config: ") as error:
        decoder.set_progress_bar_config(**options)
    assert "\n" not in str(error.value)


def test_a_sampler_from_another_one(decoder):
    """Scheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True), and config.NAME."""
    config = decoder.scheduler.config
    made = DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True, algorithm_type="sde-dpmsolver++")
    assert made.config["use_karras_sigmas"] is True and made.config.algorithm_type == "sde-dpmsolver++"
    assert made.config.num_train_timesteps == config.num_train_timesteps == config["num_train_timesteps"]
    assert made.config.get("beta_end") == config.beta_end and {**made.config} == made.config and "beta_end" in made.config
    with pytest.raises(UserError, match="has no option use_karras"):
        DPMSolverMultistepScheduler.from_config(config, use_karras=True)
    with pytest.raises(AttributeError, match="this configuration has no option 'use_karras'"):
        _ = config.use_karras
    for change in (lambda: config.update(beta_end=1), lambda: setattr(config, "beta_end", 1), lambda: config.pop("beta_end")):
        with pytest.raises(UserError, match="a scheduler's configuration does not change"):
            change()
    with pytest.raises(UserError, match="a configuration is a mapping of options, not a str"):
        DDIMScheduler.from_config("scheduler")


def test_a_sampler_from_a_folder(bundles, tmp_path):
    own = KandinskyV22Pipeline.from_pretrained(bundles("narrow"), scheduler="checkpoint").scheduler
    for place in (bundles("narrow"), bundles("narrow").parent / "decoder"):
        found = DDIMScheduler.from_pretrained(place, subfolder="scheduler", clip_sample=True)
        assert found.config.beta_end == own.config.beta_end and found.config.clip_sample is True
    prior = runner.UnCLIPScheduler.from_pretrained(bundles("narrow"), subfolder="prior_scheduler")
    assert prior.config == KandinskyV22PriorPipeline.from_pretrained(bundles("narrow")).scheduler.config
    with pytest.warns(UserWarning, match="^torch_dtype: this means nothing"):
        DDIMScheduler.from_pretrained(bundles("narrow"), torch_dtype="float16")
    (tmp_path / "scheduler_config.json").write_text("[1]")
    for place, words in ((tmp_path, "must hold a JSON object"), (tmp_path / "none", "there is no scheduler_config.json in"), (7, "not from 7")):
        with pytest.raises(UserError, match=words):
            DDIMScheduler.from_pretrained(place)
    with pytest.raises(UserError, match="from_pretrained has no option surprise"):
        DDIMScheduler.from_pretrained(bundles("narrow"), surprise=1)
