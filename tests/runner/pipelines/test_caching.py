"""Steps of the UNet's outermost layers alone: what they compute, which they are, and what a bundle must have for them."""

import checkpoints
import numpy as np
import pytest
from kandinsky_mindir.export.graphs.graph_specs import plan
from kandinsky_mindir.models.config import MoVQConfig, UNetConfig
from kandinsky_mindir.runner import (
    KandinskyV22CombinedPipeline,
    KandinskyV22ControlnetPipeline,
    KandinskyV22InpaintPipeline,
    KandinskyV22Pipeline,
    Request,
    UserError,
)
from kandinsky_mindir.runner.bundle.stages import shallow_of
from kandinsky_mindir.runner.diffusion.caching import DeepFeatures
from references import CONFIGURATIONS

SIZE = checkpoints.SIZES["family"][0]
OPTIONS = {"height": SIZE[0], "width": SIZE[1], "num_inference_steps": 6, "output_type": "latent", "generator": 0}
EMBEDS = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)


def opened(cls, bundle):
    pipeline = cls.from_pretrained(bundle)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("name", ("family", pytest.param("micro-family", marks=pytest.mark.slow)))
@pytest.mark.parametrize("cls", (KandinskyV22Pipeline, KandinskyV22InpaintPipeline, KandinskyV22ControlnetPipeline))
def test_where_nothing_has_changed_it_is_the_whole_step(cls, name, bundles):
    """To the last bit: the same kernels compute the same numbers."""
    models, size = opened(cls, bundles(name)).models, checkpoints.SIZES[name][0]
    random = np.random.default_rng(1)
    for batch in (1, 2):
        graph = models.bundle.manifest.find(cls.unet, batch, size)
        assert [tensor.name for tensor in graph.outputs] == ["model_output", "deep_features"]
        inputs = {tensor.name: random.standard_normal(tensor.shape).astype(np.float32) for tensor in graph.inputs}
        with models.lease(cls.unet, batch, size) as run:
            output, features = run(**inputs)
        kept = DeepFeatures(2)
        kept.keep([features])
        sample, time_proj = inputs.pop("sample"), inputs.pop("time_proj")
        with models.lease(shallow_of(cls.unet), batch, size) as run:
            (again,) = run(sample=sample, time_proj=time_proj, **kept.given(inputs, 0))
            (other,) = run(sample=sample + 1, time_proj=time_proj, **kept.given(inputs, 0))
        assert np.array_equal(again, output) and not np.allclose(other, output, atol=1e-2)


@pytest.mark.parametrize("interval, batches, expected", (
    (1, [2] * 4, "++++"), (2, [2] * 5, "+-+-+"), (3, [2] * 7, "+--+--+"), (9, [1] * 4, "+---"),
    (3, [1, 1, 2, 2, 2, 1, 1], "+-++--+"),  # guidance sets in at a third call: nothing is kept of its unconditional row
))  # fmt: skip
def test_which_calls_are_whole(interval, batches, expected):
    deep, found = DeepFeatures(interval), ""
    for number, batch in enumerate(batches):
        whole = deep.whole(number, batch)
        if whole:
            deep.keep([np.zeros((batch, 3, 4), np.float32)] * 2)
        found += "+" if whole else "-"
    assert found == expected


def test_pictures(bundles):
    """One in N calls is whole; all pictures of a call keep their own; guidance may come and go."""
    pipeline = opened(KandinskyV22Pipeline, bundles("family"))
    plain, pair, far = (pipeline(EMBEDS, cache_interval=interval, **OPTIONS)[0] for interval in (1, 2, 6))
    assert np.array_equal(plain, pipeline(EMBEDS, **OPTIONS)[0])
    assert not np.allclose(pair, plain) and not np.allclose(far, pair) and np.isfinite(far).all()
    pipeline.scheduler = "dpmpp-2m"  # draws nothing in its steps
    latents = np.random.default_rng(0).standard_normal(plain.shape).astype(np.float32)
    both, second = (pipeline(EMBEDS[rows], latents=latents[rows], cache_interval=2, **OPTIONS)[0] for rows in (slice(0, 2), slice(1, 2)))
    assert np.array_equal(second[0], both[1])
    changing = pipeline(EMBEDS, guidance_interval=(0.3, 0.7), cache_interval=3, **OPTIONS)[0]
    assert np.isfinite(changing).all()


def test_a_request_says_it(bundles):
    pipeline = opened(KandinskyV22CombinedPipeline, bundles("family"))
    request = Request(task="text2image", prompt="a cat", seed=1, cache_interval=2, num_inference_steps=4, height=SIZE[0], width=SIZE[1],
                      prior_num_inference_steps=2)  # fmt: skip
    (made,) = pipeline.make(request)
    assert made.request.cache_interval == 2 and '"cache_interval":2' in made.request.to_json()
    (again,) = pipeline.make(Request.from_json(made.request.to_json()))
    (whole,) = pipeline.make(request.replace(cache_interval=1))
    assert np.array_equal(again.image, made.image) and not np.array_equal(whole.image, made.image)
    assert "unet_shallow" in str(pipeline.check(pipeline.complete(request))[1].plan)


def test_a_bundle_without_shallow_graphs(bundles):
    with pytest.raises(UserError, match="cache_interval is 2, and .* has no unet_shallow: export it again with --shallow"):
        opened(KandinskyV22Pipeline, bundles("narrow"))(EMBEDS, cache_interval=2, **OPTIONS)
    with pytest.raises(UserError, match="cache_interval is 0"):
        opened(KandinskyV22Pipeline, bundles("narrow"))(EMBEDS, cache_interval=0, **OPTIONS)


def test_attentions_at_the_outermost_level_are_refused():
    unet = UNetConfig.from_dict({**CONFIGURATIONS["unet"]["shift"], "in_channels": 4})
    assert unet.deep_channels == 0
    configs = {"unet": unet, "movq": MoVQConfig.from_dict(CONFIGURATIONS["movq"]["dummy"])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kandinsky_mindir.export.graphs.graph_specs.check_parts", lambda configs: None)
        with pytest.raises(UserError, match="--shallow: the unet's outermost level has attentions"):
            plan(configs, [(16, 16)], shallow=True)
