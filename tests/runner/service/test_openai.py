"""OpenAI's own client makes, streams and cancels pictures, and parses every error."""

import base64
import io
import threading

import openai
import pytest
from kandinsky_mindir.runner import Item, KandinskyV22CombinedPipeline, Request
from kandinsky_mindir.runner.pictures.images import pixels_sha256
from kandinsky_mindir.runner.pictures.provenance import Provenance
from kandinsky_mindir.runner.tasks import InputPicture
from PIL import Image
from served import STEPS, held, served, wait

REQUEST = {"num_inference_steps": 3, "prior_num_inference_steps": 2, "height": 16, "width": 16}


@pytest.fixture(scope="module")
def pipeline(bundles):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"), threads=1)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def server(bundles):
    with served(bundles("narrow"), queue=2, images=4, steps=50) as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60)


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def red():
    return Image.new("RGB", (24, 24), "red")


def as_text(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_pictures_are_those_of_the_pipeline(client, pipeline):
    """Bit for bit: picture by picture, with progress, is the same as all at once without."""
    answer = client.images.generate(prompt="a cat", n=2, size="16x16", extra_body={"seed": 7, **STEPS})
    expected = [each.image for each in pipeline.make(Request(task="text2image", prompt="a cat", num_images_per_prompt=2, seed=7, **REQUEST))]
    assert [opened(one.b64_json).tobytes() for one in answer.data] == [image.tobytes() for image in expected]
    assert answer._request_id and answer.created and answer.size == "16x16" and answer.data[0].seed == 7
    assert [Request.from_dict(one.request).row for one in answer.data] == [0, 1]


def test_a_picture_carries_how_it_was_made(client, pipeline, tmp_path):
    answer = client.images.generate(prompt="a cat", extra_body={"sampler": "euler-a", **STEPS})
    (tmp_path / "cat.png").write_bytes(base64.b64decode(answer.data[0].b64_json))
    story = Provenance.read(tmp_path / "cat.png")
    (again,) = pipeline.make(story.request)
    assert again.image.tobytes() == Image.open(tmp_path / "cat.png").tobytes()
    assert "/" not in story.bundle, "where the server's files lie is nobody's business"


@pytest.mark.parametrize("form", ("webp", "jpeg"))
def test_other_formats(form, client):
    answer = client.images.generate(prompt="a cat", output_format=form, output_compression=80, extra_body=STEPS)
    assert opened(answer.data[0].b64_json).format == form.upper() and answer.output_format == form


def test_a_mix_keeps_its_embeddings(client, server, pipeline):
    """Other weights run the decoder alone, and give what the pipeline gives."""
    prior = server.service.worker.prior
    before = prior.hits
    for weights, hits in (((0.5, 0.5), 0), ((0.2, 0.8), 1), ((1.0, -0.3), 2)):
        body = {"items": [{"text": "a cat"}, {"image": as_text(red())}], "weights": weights, "seed": 3, **STEPS}
        answer = client.images.generate(prompt="", extra_body=body)
        items = (Item(weights[0], text="a cat"), Item(weights[1], sha256=pixels_sha256(red())))
        (expected,) = pipeline.make(Request(task="interpolate", items=items, seed=3, **REQUEST), pictures=[red()])
        assert opened(answer.data[0].b64_json).tobytes() == expected.image.tobytes()
        assert prior.hits - before == hits


def test_a_stream_has_previews_and_the_picture(client):
    events = list(client.images.generate(prompt="a cat", stream=True, partial_images=2, extra_body={"seed": 7, **STEPS}))
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert opened(events[0].b64_json).size == (16, 16)
    whole = client.images.generate(prompt="a cat", extra_body={"seed": 7, **STEPS})
    assert opened(events[2].b64_json).tobytes() == opened(whole.data[0].b64_json).tobytes()


def test_a_prompt_that_is_cut_is_told(client):
    answer = client.images.generate(prompt="word " * 200, extra_body=STEPS)
    assert "this part was cut" in answer.warnings[0]


REFUSED = [
    ({"n": 5}, "n", "1 to 4 can be asked for"),
    ({"n": 0}, "n", "1 to 4"),
    ({"size": "512x512"}, "size", "choose one of 16x16, 24x16"),
    ({"size": "big"}, "size", "WIDTHxHEIGHT"),
    ({"response_format": "url"}, "response_format", "must be b64_json"),
    ({"background": "transparent"}, "background", "must be auto or opaque"),
    ({"output_format": "gif"}, "output_format", "choose one of png"),
    ({"steps": 51}, "steps", "at most 50"),
    ({"steps": 0}, "steps", "num_inference_steps"),
    ({"steps": "many"}, "steps", "whole number"),
    ({"steps": 2, "num_inference_steps": 3}, "num_inference_steps", "says otherwise"),
    ({"seed": -1}, "seed", "seed"),
    ({"sampler": "magic"}, "sampler", "is not known"),
    ({"guidance": "nan"}, "guidance", "guidance_scale"),
    ({"guidence": 3}, "guidence", "there is no field"),
    ({"partial_images": 4, "stream": True}, "partial_images", "from 0 to 3"),
    ({"items": [{"text": "a"}] * 9, "prompt": None}, "items", "at most 8"),
    ({"items": [{"image": "cat.png"}], "prompt": None}, "items", "base64"),
    ({"items": [{"text": "a"}], "weights": [1, 2], "prompt": None}, "weights", "list of 1 numbers"),
    ({"items": [{"text": "a"}]}, "items", "either a prompt or items"),
    ({"prompt": None}, "prompt", "missing"),
    ({"prompt": "a" * 4001}, "prompt", "more than 4000"),
    ({"prompt": ["a", "b"]}, "prompt", "must be a text"),
]


@pytest.mark.parametrize("change, param, message", REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said(change, param, message, client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a cat", extra_body=change)
    error = caught.value
    assert error.param == param and message in str(error) and error.type == "invalid_request_error" and error.code
    assert error.request_id


def test_models(client):
    assert [model.id for model in client.models.list()] == ["kandinsky-2-2"]


def test_a_full_line_says_when_to_come_back(client, server):
    with held(server) as (reached, _):
        threads = [threading.Thread(target=client.images.generate, kwargs={"prompt": "a cat", "extra_body": STEPS}) for _ in range(3)]
        threads[0].start()
        assert reached.wait(30)
        for thread in threads[1:]:
            thread.start()
        wait(lambda: len(server.service.line) == 2)
        with pytest.raises(openai.RateLimitError) as caught:
            client.images.generate(prompt="a cat")
        assert caught.value.code == "queue_full" and int(caught.value.response.headers["retry-after"]) >= 1
        assert server.call("/health")[0] == 200 and len(server.service.line._turns) == 1
    for thread in threads:
        thread.join(60)
    assert not len(server.service.line)
    retrying = client.with_options(max_retries=2)
    assert retrying.images.generate(prompt="a cat", extra_body=STEPS).data
    assert len(server.service.line._turns) == 0, "the client has shown the ticket that it got"


def test_a_caller_that_goes_away_is_not_drawn_for(client, server):
    with held(server) as (reached, _):
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.5).images.generate(prompt="a cat", extra_body=STEPS)
        assert reached.is_set()
        job = server.service.line.current
        wait(lambda: job.over)
        assert job.state == "cancelled"
    assert client.images.generate(prompt="a cat", extra_body=STEPS).data


def test_a_stream_that_is_closed_is_not_drawn_for(client, server):
    with held(server) as (reached, _):
        stream = client.images.generate(prompt="a cat", stream=True, extra_body=STEPS)
        assert reached.wait(30)
        job = server.service.line.current
        stream.close()
        wait(lambda: job.over)
        assert job.state == "cancelled"


def test_a_job_is_polled(server):
    status, job, headers = server.call("/v1/jobs", {"prompt": "a cat", "n": 2, "seed": 5, **STEPS})
    assert status == 202 and headers["Location"] == job["poll_url"] and job["status"] in ("queued", "generating")
    done = wait(lambda: (found := server.call(job["poll_url"])[1])["status"] == "completed" and found)
    assert done["progress"] == 1 and len(done["result"]["data"]) == 2
    assert server.call("/v1/jobs/job_none")[0] == 404


def test_jobs_are_cancelled(server):
    with held(server) as (reached, _):
        first, second = (server.call("/v1/jobs", {"prompt": "a cat", **STEPS})[1] for _ in range(2))
        assert reached.wait(30)
        assert server.call(second["poll_url"])[1]["queue_position"] == 1
        assert server.call(f"{second['poll_url']}/cancel", {})[1]["status"] == "cancelled"
        server.call(first["poll_url"], method="DELETE")
        wait(lambda: server.call(first["poll_url"])[1]["status"] == "cancelled")


def test_a_stream_of_a_picture_that_fails_says_so(client, server, monkeypatch):
    from kandinsky_mindir.runner import UserError

    def fail(*_, **__):
        raise UserError("the models are gone")

    monkeypatch.setattr(server.service.worker.pipeline, "check", fail)
    with pytest.raises(openai.APIError, match="the models are gone"):
        list(client.images.generate(prompt="a cat", stream=True))
    with pytest.raises(openai.InternalServerError, match="the models are gone"):
        client.images.generate(prompt="a cat")
    monkeypatch.undo()
    assert client.images.generate(prompt="a cat", extra_body=STEPS).data


def test_the_log_and_the_metrics(client, server):
    answer = client.images.generate(prompt="a secret cat", extra_headers={"x-request-id": "mine-1"}, extra_body={"seed": 4, **STEPS})
    assert answer._request_id == "mine-1"
    line = wait(lambda: next((line for line in server.lines if line.get("request_id") == "mine-1"), None))
    assert line["status"] == 200 and line["seeds"] == [4] and line["drew"] > 0 and "secret" not in str(line)
    text = server.call("/metrics")[1]
    assert 'kandinsky_mindir_requests_total{method="POST",path="/v1/images/generations",status="200"}' in text
    assert "kandinsky_mindir_pictures_total" in text and "kandinsky_mindir_queue_length 0.0" in text


def test_a_picture_to_start_from(client, pipeline):
    file = io.BytesIO(base64.b64decode(as_text(red())))
    answer = client.images.edit(image=("red.png", file, "image/png"), prompt="a cat", size="16x16", n=1, extra_body={"seed": 7, "strength": 0.7, **STEPS})
    request = Request(task="text2image", prompt="a cat", image=(InputPicture(sha256=pixels_sha256(red())),),
                      strength=0.7, seed=7, **REQUEST)
    (expected,) = pipeline.make(request, brought={"image": red()})
    assert opened(answer.data[0].b64_json).tobytes() == expected.image.tobytes()


@pytest.mark.parametrize("fields, param, message", [
    ({"strength": "0.01"}, None, "strength"), ({"strength": "much"}, "strength", "must be a number"), ({"seed": "x"}, "seed", "whole"),
])  # fmt: skip
def test_an_edit_that_cannot_be_is_refused(fields, param, message, client):
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        client.images.edit(image=("a.png", base64.b64decode(as_text(red())), "image/png"), prompt="a", extra_body={**STEPS, **fields})
    assert param is None or caught.value.param == param


def test_two_pictures_are_not_one(client):
    picture = ("a.png", base64.b64decode(as_text(red())), "image/png")
    with pytest.raises(openai.BadRequestError, match="twice"):
        client.images.edit(image=[picture, picture], prompt="a")


def test_a_variation_is_a_mix_of_the_picture_alone(client, pipeline):
    answer = client.images.create_variation(image=("red.png", base64.b64decode(as_text(red())), "image/png"), size="16x16", n=1,
                                            extra_body={"seed": "7", **STEPS})
    request = Request(task="interpolate", items=(Item(1.0, sha256=pixels_sha256(red())),), seed=7, **REQUEST)
    (expected,) = pipeline.make(request, pictures=[red()])
    assert opened(answer.data[0].b64_json).tobytes() == expected.image.tobytes()
    with pytest.raises(openai.BadRequestError, match="a picture alone"):
        client.images.create_variation(image=("a.png", base64.b64decode(as_text(red()))), extra_body={"prompt": "a cat"})
