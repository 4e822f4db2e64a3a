"""State belongs to a call: callbacks that change its guidance or end it, samplers changed meanwhile, calls in two threads."""

import threading

import numpy as np
import pytest
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, UserError, schedulers

OPTIONS = {"height": 16, "width": 16, "num_inference_steps": 4, "output_type": "latent"}
EMBEDS = np.random.default_rng(1).standard_normal((2, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def pipeline(bundles):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = "checkpoint"  # DDPM, which remembers nothing of earlier steps
    return pipeline


@pytest.fixture
def decoder(pipeline):
    return pipeline.decoder_pipe


@pytest.fixture
def prior(pipeline):
    return pipeline.prior_pipe


def trajectory(call, act=lambda pipe, index: None, **options):
    """The latents after each step of a call whose callback does `act`."""
    latents = []

    def callback(pipe, index, timestep, tensors):
        latents.append(tensors["latents"])
        act(pipe, index)
        return tensors

    call(generator=0, callback_on_step_end=callback, **options)
    return latents


def same(actual, expected):
    return len(actual) == len(expected) and all(map(np.array_equal, actual, expected))


def test_guidance_that_a_callback_switches_off(decoder):
    """As diffusers' guide to callbacks does it: from the next step on there is none, to the last bit."""

    def off(pipe, index):
        if index == 1:
            assert pipe.guidance_scale == 4.0 and pipe.do_classifier_free_guidance
            pipe._guidance_scale = 0.0
            assert pipe.guidance_scale == 0.0 and not pipe.do_classifier_free_guidance

    options = {**OPTIONS, "image_embeds": EMBEDS, "guidance_scale": 4.0}
    found = trajectory(decoder, off, **options)
    half = trajectory(decoder, guidance_interval=(0.0, 0.5), **options)
    assert same(found, half)
    assert not same(found, trajectory(decoder, **options)), "the next call is guided again"


def test_guidance_that_a_callback_changes(decoder, prior):
    def change(pipe, index):
        if index == 0:
            pipe._guidance_scale = np.float32(2)

    for call, options in ((decoder, {**OPTIONS, "image_embeds": EMBEDS}), (prior, {"prompt": "a cat", "num_inference_steps": 4})):
        first = trajectory(call, guidance_scale=4.0, **options)
        found = trajectory(call, change, guidance_scale=4.0, **options)
        assert np.array_equal(found[0], first[0]) and not np.array_equal(found[1], first[1])


def test_guidance_of_the_prior_switched_off(prior):
    """The conditional half of the guided graph is what the graph without guidance gives, but for rounding."""

    def off(pipe, index):
        pipe._guidance_scale = 1.0

    options = {"prompt": "a cat", "num_inference_steps": 4}
    found = trajectory(prior, off, guidance_scale=4.0, **options)
    guided = trajectory(prior, guidance_scale=4.0, **options)
    assert np.array_equal(found[0], guided[0]) and not np.array_equal(found[1], guided[1])


def test_a_callback_that_interrupts(decoder, prior):
    def stop(pipe, index):
        pipe._interrupt = index == 1

    for call, options in ((decoder, {**OPTIONS, "image_embeds": EMBEDS}), (prior, {"prompt": "a cat", "num_inference_steps": 4})):
        whole = trajectory(call, **options)
        assert same(trajectory(call, stop, **options), whole[:2])
        assert len(trajectory(call, **options)) == 4, "the next call runs to its end"
    latents = decoder(EMBEDS, generator=0, callback_on_step_end=lambda pipe, *_: setattr(pipe, "_interrupt", True), **OPTIONS)[0]
    assert np.array_equal(latents, trajectory(decoder, image_embeds=EMBEDS, **OPTIONS)[0]), "the latents as they are"


def test_what_a_callback_can_read_and_leave(decoder):
    seen = []

    def look(pipe, index, timestep, tensors):
        seen.append((pipe.num_timesteps, pipe._num_timesteps, pipe.interrupt, pipe.scheduler is decoder.scheduler))
        pipe.remark = index
        return {}

    decoder(EMBEDS, generator=0, callback_on_step_end=look, **OPTIONS)
    assert seen == [(4, 4, False, True)] * 4 and decoder.remark == 3


@pytest.mark.parametrize("name, value, words", [
    ("_guidance_scale", "4", "_guidance_scale is '4'"), ("_guidance_scale", float("nan"), "_guidance_scale is nan"),
    ("_guidance_scale", -1, "must not be negative"), ("_interrupt", 1, "_interrupt is 1: it must be True or False"),
    ("_num_timesteps", 7, "a callback cannot set _num_timesteps"), ("guidance_scale", 7, "a callback cannot set guidance_scale"),
])  # fmt: skip
def test_what_a_callback_cannot_set(name, value, words, decoder):
    with pytest.raises(UserError, match=words):
        trajectory(decoder, lambda pipe, index: setattr(pipe, name, value), image_embeds=EMBEDS, **OPTIONS)


def test_guidance_cannot_begin_in_the_middle(decoder):
    with pytest.raises(UserError, match="the call began without guidance"):
        trajectory(decoder, lambda pipe, index: setattr(pipe, "_guidance_scale", 4.0), image_embeds=EMBEDS, guidance_scale=1.0,
                   **OPTIONS)  # fmt: skip


@pytest.mark.parametrize("name", ("_guidance_scale", "_interrupt", "_num_timesteps"))
def test_a_pipeline_has_no_state_of_calls(name, decoder, pipeline):
    """Set there, as closures over the pipeline do, it would mean nothing, or belong to another call."""
    for each in (decoder, pipeline):
        with pytest.raises(UserError, match=f"{name} belongs to a call: set it on what callback_on_step_end is given"):
            setattr(each, name, 1)
        with pytest.raises(AttributeError, match=f"{name} belongs to a call: read it of what"):
            getattr(each, name)


def test_a_call_goes_on_with_the_sampler_that_it_began_with(pipeline):
    """Whoever puts another one there meanwhile: a callback of the prior, of the decoder, or another thread."""
    options = {"prior_num_inference_steps": 2, "generator": 3, **OPTIONS}
    expected = pipeline("a cat", **options).images

    def change(pipe, *_):
        pipeline.scheduler = "euler"
        return {}

    try:
        found = pipeline("a cat", prior_callback_on_step_end=change, callback_on_step_end=change, **options).images
        assert pipeline.scheduler.name == "EulerDiscreteScheduler"
    finally:
        pipeline.scheduler = "checkpoint"
    assert np.array_equal(found, expected)


def test_two_threads_with_two_samplers_on_one_pipeline(pipeline):
    """Each sets its sampler and calls with its own options, again and again: every picture is one of those made alone."""
    names, options = ("ddim", "dpmpp-2m"), {"prior_num_inference_steps": 2, **OPTIONS}
    alone = {}
    for name in names:
        pipeline.scheduler = name
        for scale in (1.0, 3.0):
            alone[name, scale] = pipeline("a cat", generator=3, guidance_scale=scale, **options).images
    assert len({latents.tobytes() for latents in alone.values()}) == 4
    wrong = []

    def work(name, scale):
        for _ in range(6):
            pipeline.scheduler = name
            found = pipeline("a cat", generator=3, guidance_scale=scale, **options).images
            if not any(np.array_equal(found, alone[other, scale]) for other in names):
                wrong.append((name, scale))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(names, (1.0, 3.0))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        pipeline.scheduler = "checkpoint"
    assert not wrong


def test_numbers_of_numpy(decoder):
    """Eight and sixteen bits are not what they are computed with."""
    expected = decoder(EMBEDS, generator=200, guidance_scale=4.0, num_images_per_prompt=2, **OPTIONS)[0]
    options = {name: np.uint8(value) if isinstance(value, int) else value for name, value in OPTIONS.items()}
    found = decoder(EMBEDS, generator=np.uint8(200), guidance_scale=np.float16(4), num_images_per_prompt=np.int8(2),
                    guidance_interval=np.float32([0, 1]), guidance_rescale=np.float16(0), **options)[0]  # fmt: skip
    assert np.array_equal(found, expected)


def test_schedulers_are_known_by_name_and_by_options(decoder):
    decoder.scheduler = {"_class_name": "DDIMScheduler", "beta_end": 0.012}
    try:
        assert isinstance(decoder.scheduler, schedulers.DDIMScheduler) and decoder.scheduler.config.beta_end == 0.012
    finally:
        decoder.scheduler = "checkpoint"
