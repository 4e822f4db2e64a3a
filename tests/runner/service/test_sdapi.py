"""AUTOMATIC1111's interface, as the package webuiapi speaks it."""

import threading

import pytest
import webuiapi
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, Request
from PIL import Image
from served import held, served, wait

SMALL = {"width": 16, "height": 16, "steps": 3}


@pytest.fixture(scope="module")
def server(bundles):
    with served(bundles("narrow"), key="a-key-of-some-length") as found:
        yield found


@pytest.fixture(scope="module")
def api(server):
    host, port = server.host.split(":")
    return webuiapi.WebUIApi(host=host, port=int(port), username="anyone", password="a-key-of-some-length", sampler="Euler a")


def test_pictures_have_seeds_one_above_the_other(api, bundles):
    answer = api.txt2img(prompt="a cat", negative_prompt="a dog", seed=7, batch_size=2, n_iter=1, cfg_scale=5, **SMALL)
    assert answer.info["all_seeds"] == [7, 8] and answer.info["infotexts"] and answer.parameters["steps"] == 3
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"), threads=1)
    for seed, image in zip((7, 8), answer.images):
        request = Request(task="text2image", prompt="a cat", negative_prompt="a dog", seed=seed, scheduler="euler-a", guidance_scale=5,
                          num_inference_steps=3, height=16, width=16)
        (expected,) = pipeline.make(request)
        assert image.tobytes() == expected.image.tobytes()


def test_a_seed_is_drawn(api):
    first, second = (api.txt2img(prompt="a cat", **SMALL).info["seed"] for _ in range(2))
    assert first != second and first >= 0


def test_progress_and_interrupt(api, server):
    assert api.get_progress()["progress"] == 0
    found = {}
    with held(server) as (reached, _):
        thread = threading.Thread(target=lambda: found.update(answer=api.txt2img(prompt="a cat", batch_size=2, **SMALL)))
        thread.start()
        assert reached.wait(30)
        assert api.get_progress()["state"]["job_count"] == 2
        api.interrupt()
        thread.join(60)
    assert len(found["answer"].images) == 1 and found["answer"].info["interrupted"], "the picture in hand, as far as it is"


def test_progress_shows_the_picture(api, server, monkeypatch):
    worker, follow, reached, go = server.service.worker, server.service.worker._follow, threading.Event(), threading.Event()

    def slow(job, *arguments):
        follow(job, *arguments)
        reached.set()
        go.wait(30)

    monkeypatch.setattr(worker, "_follow", slow)
    thread = threading.Thread(target=lambda: api.txt2img(prompt="a cat", **SMALL))
    thread.start()
    assert reached.wait(30)
    found = api.get_progress()
    assert found["current_image"] and found["state"]["sampling_step"] == 1 and found["progress"] == pytest.approx(1 / 3)
    go.set()
    thread.join(60)


def test_nobody_interrupts_what_came_another_way(api, server):
    with held(server) as (reached, _):
        server.call("/v1/jobs", {"prompt": "a cat", "steps": 3}, {"Authorization": "Bearer a-key-of-some-length"})
        assert reached.wait(30)
        api.interrupt()
        assert not server.service.line.current.interrupted and api.get_progress()["progress"] == 0
    wait(lambda: server.service.line.current is None)


def test_what_clients_ask_for_when_they_connect(api):
    assert {"Euler a", "DPM++ 2M", "dpmpp-2m-karras"} <= set(api.util_get_sampler_names())
    assert "karras" in [found["name"] for found in api.get_schedulers()]
    assert api.util_get_model_names() == ["kandinsky-2-2"] and api.util_get_current_model() == "kandinsky-2-2"
    api.util_set_model("kandinsky-2-2")
    assert api.get_options()["sd_model_checkpoint"] == "kandinsky-2-2" and api.get_memory()["ram"]["free"] > 0
    for name in ("sd_vae", "upscalers", "latent_upscale_modes", "loras", "hypernetworks", "face_restorers", "realesrgan_models",
                 "prompt_styles"):  # fmt: skip
        assert getattr(api, f"get_{name}")() == []
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}} and api.get_cmd_flags() == {} and api.get_scripts()["txt2img"] == []


@pytest.mark.parametrize("change, message", [
    ({"enable_hr": True}, "enable_hr must be false"), ({"tiling": True}, "tiling"), ({"styles": ["oil"]}, "styles"),
    ({"subseed_strength": 0.5}, "subseed_strength"), ({"script_name": "x"}, "script_name"), ({"width": 512}, "size is 512x16"),
    ({"sampler_name": "DPM fast"}, "is not known"), ({"scheduler": "beta"}, "scheduler is 'beta'"), ({"batch_size": 11}, "1 to 10"),
    ({"steps": 151}, "at most 150"), ({"seed": -2}, "seed"), ({"save_images": True}, "save_images"),
    ({"override_settings": {"sd_vae": "x"}}, "override_settings"),
], ids=str)  # fmt: skip
def test_what_cannot_be_done_is_said(change, message, api):
    with pytest.raises(RuntimeError) as caught:
        api.txt2img(**{"prompt": "a cat", **SMALL, **change})
    status, text = caught.value.args
    assert status == 400 and message in text and '"detail"' in text


def test_options_are_not_set(api):
    answer = api.session.post(f"{api.baseurl}/options", json={"sd_vae": "x"})
    assert answer.status_code == 400 and "cannot be set" in answer.json()["detail"]


def test_skip_ends_one_picture(api, server, monkeypatch):
    worker, follow = server.service.worker, server.service.worker._follow

    def skipping(job, call, index, latents):
        if not job.drawn:
            job.skipped = True
        follow(job, call, index, latents)

    monkeypatch.setattr(worker, "_follow", skipping)
    answer = api.txt2img(prompt="a cat", batch_size=2, seed=3, **SMALL)
    assert len(answer.images) == 2
    monkeypatch.undo()
    whole = api.txt2img(prompt="a cat", batch_size=2, seed=3, **SMALL)
    same = [one.tobytes() == other.tobytes() for one, other in zip(answer.images, whole.images)]
    assert same == [False, True]


def test_a_picture_to_start_from(api):
    start = Image.new("RGB", (20, 20), "red")
    first, second = (api.img2img(images=[start], prompt="a cat", seed=3, denoising_strength=strength, **SMALL).images[0] for strength in (0.4, 1.0))
    assert first.size == (16, 16) and first.tobytes() != second.tobytes()
    with pytest.raises(RuntimeError, match="list of one picture"):
        api.img2img(images=[start, start], prompt="a cat", **SMALL)
