"""Edits by mask, in both senses of masks and through both clients: what is kept is kept, what is repainted is the pipeline's."""

import base64
import io
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import openai
import pytest
import webuiapi
from emoji import DATA, SIDE, training_pictures
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, Request
from kandinsky_mindir.runner.pictures.images import pixels_sha256
from kandinsky_mindir.runner.service.drawing.errors import ApiError
from kandinsky_mindir.runner.service.drawing.images import decode_mask
from kandinsky_mindir.runner.service.drawing.overlay import around
from kandinsky_mindir.runner.tasks import InputPicture
from PIL import Image, ImageOps
from served import served

HEIGHT, WIDTH = 16, 24
STEPS = {"steps": 4, "prior_steps": 2}
REQUEST = {"num_inference_steps": 4, "prior_num_inference_steps": 2, "height": HEIGHT, "width": WIDTH}
MASKED = {"task": "text2image", "prompt": "a cat", "seed": 7, "paste": True, **REQUEST}


def clients(server):
    host, port = server.host.split(":")
    return SimpleNamespace(
        openai=openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60),
        a1111=webuiapi.WebUIApi(host=host, port=int(port)), served=server)


@pytest.fixture(scope="module")
def family(bundles):
    """Clients of a server whose bundle has decoders for masks and for depth."""
    with served(bundles("family")) as server:
        yield clients(server)


@pytest.fixture(scope="module")
def pipeline(bundles):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("family"), threads=1)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def start(width=WIDTH, height=HEIGHT):
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    return Image.fromarray(ramp.astype(np.uint8))


def right_half(mode="L", ground=0, paint=255, size=(WIDTH, HEIGHT)):
    mask = Image.new(mode, size, ground)
    mask.paste(paint, (size[0] // 2, 0, *size))
    return mask


def file(image, name="image.png"):
    data = io.BytesIO()
    image.save(data, "PNG")
    return name, data.getvalue(), "image/png"


def as_text(image):
    return base64.b64encode(file(image)[1]).decode()


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def expected(pipeline, **changes):
    request = Request(**{**MASKED, **changes, "image": (InputPicture(sha256=pixels_sha256(start())),),
                         "mask_image": (InputPicture(sha256="0" * 64),)})
    mask = right_half().convert("RGB")
    request = request.replace(mask_image=(InputPicture(sha256=pixels_sha256(mask)),))
    (found,) = pipeline.make(request, brought={"image": start(), "mask_image": mask})
    return found.image


def check_halves(image):
    """The left half is that of the picture, pixel by pixel, the right half is another."""
    found, given = np.asarray(image, int), np.asarray(start(), int)
    assert np.array_equal(found[:, : WIDTH // 2], given[:, : WIDTH // 2])
    assert abs(found[:, WIDTH // 2 :] - given[:, WIDTH // 2 :]).mean() > 5


WHITE, CLEAR = (255, 255, 255, 255), (255, 255, 255, 0)


@pytest.mark.parametrize("mask", [right_half("RGBA", WHITE, CLEAR), right_half(), right_half("RGBA", (0, 0, 0, 255), WHITE)],
                         ids=["transparent", "white", "white-opaque"])
def test_openai_edits(mask, family, pipeline):
    answer = family.openai.images.edit(image=file(start()), mask=file(mask), prompt="a cat", size=f"{WIDTH}x{HEIGHT}",
                                       extra_body={"seed": "7", **STEPS})
    found = opened(answer.data[0].b64_json)
    assert found.tobytes() == expected(pipeline).tobytes()
    check_halves(found)


def test_an_edit_is_streamed(family, pipeline):
    events = list(family.openai.images.edit(image=file(start()), mask=file(right_half()), prompt="a cat", stream=True, partial_images=1,
                                            extra_body={"seed": "7", **STEPS}))
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert opened(events[1].b64_json).tobytes() == expected(pipeline).tobytes()


def test_what_is_kept_goes_through_the_movq_if_it_is_not_pasted(family, pipeline):
    answer = family.openai.images.edit(image=file(start()), mask=file(right_half()), prompt="a cat",
                                       extra_body={"seed": "7", "paste": "false", **STEPS})
    assert opened(answer.data[0].b64_json).tobytes() == expected(pipeline, paste=False).tobytes()


@pytest.mark.parametrize("mask, invert", [(right_half(), 0), (ImageOps.invert(right_half()), 1), (right_half("RGBA", CLEAR, WHITE), 0)],
                         ids=["white", "inverted", "opaque"])
def test_a1111_edits(mask, invert, family, pipeline):
    answer = painted(family, mask, inpainting_mask_invert=invert, denoising_strength=0.75)
    assert answer.image.convert("RGB").tobytes() == expected(pipeline, **AS_ASKED).tobytes()
    check_halves(answer.image)
    assert "denoising_strength: no meaning with a mask" in answer.info["warnings"][0]


# As `painted` asks for it; what it leaves open is as webui has it.
AS_ASKED = {"scheduler": "euler-a", "guidance_scale": 3.0, "prior_num_inference_steps": None}


def painted(family, mask, image=None, **fields):
    """What A1111's client gets, without a soft edge unless `fields` say so."""
    return family.a1111.img2img(**{
        "images": [image or start()], "mask_image": mask, "prompt": "a cat", "seed": 7, "steps": 4, "sampler_name": "Euler a",
        "cfg_scale": 3, "width": WIDTH, "height": HEIGHT, "mask_blur": 0, "inpaint_full_res": False, "denoising_strength": 1, **fields})


def test_a_soft_edge(family, pipeline):
    """Outside of what is white: twice the mask that a Gaussian of that deviation blurs, as webui has it."""
    deviation = 2
    found = np.asarray(painted(family, right_half(), mask_blur=deviation).image.convert("RGB"), float)
    drawn, below = (np.asarray(image, float) for image in (expected(pipeline, paste=False, **AS_ASKED), start()))
    blurred = [(1 + math.erf((x + 0.5 - WIDTH // 2) / deviation / 2**0.5)) / 2 for x in range(WIDTH)]
    share = np.minimum(2 * np.array(blurred), 1)[:, None]
    assert np.array_equal(found[:, WIDTH // 2 :], drawn[:, WIDTH // 2 :])
    # Pillow adds up three boxes, which are off a Gaussian by at most 0.02 of its step; twice that, of 255, and roundings
    assert np.abs(found - (share * drawn + (1 - share) * below)).max() <= 2 * 0.02 * 255 + 1
    assert np.abs(found - np.where(np.arange(WIDTH)[:, None] < WIDTH // 2, below, drawn)).max() > 20, "the edge is soft"


def test_the_surroundings_of_a_mask(family, pipeline):
    """What is white and 2 pixels around it, 14 x 10, becomes 15 x 10, as 24 x 16 is; all else stays as it is."""
    image, box = start(48, 32), (28, 6, 43, 16)
    mask = Image.new("L", image.size)
    mask.paste(255, (30, 8, 40, 14))
    answer = painted(family, mask, image, inpaint_full_res=True, inpaint_full_res_padding=2)
    found = np.asarray(answer.image.convert("RGB"))
    shown = {"image": image.crop(box), "mask_image": mask.convert("RGB").crop(box)}
    request = Request(**{**MASKED, **AS_ASKED, "paste": False},
                      **{name: (InputPicture(sha256=pixels_sha256(picture)),) for name, picture in shown.items()})
    (made,) = pipeline.make(request, brought=shown)
    right = image.copy()
    right.paste(made.image.resize((15, 10), Image.Resampling.LANCZOS).crop((2, 2, 12, 8)), (30, 8))
    assert found.shape == (32, 48, 3) and np.array_equal(found, np.asarray(right))
    assert not np.array_equal(right, image) and answer.info["warnings"] == []
    assert answer.image.info == {}, "the request alone does not make that picture, so the file says none"


@pytest.mark.parametrize("white, padding, size, expected", [
    ((10, 10, 20, 20), 0, (64, 64), (10, 10, 20, 20)),
    ((10, 10, 20, 20), 5, (64, 64), (5, 5, 25, 25)),
    ((10, 10, 20, 20), 0, (128, 64), (5, 10, 25, 20)),
    ((10, 10, 20, 20), 0, (64, 128), (10, 5, 20, 25)),
    ((0, 10, 10, 20), 0, (128, 64), (0, 10, 20, 20)),  # no room on the left
    ((90, 40, 100, 50), 3, (64, 128), (87, 24, 100, 50)),  # nor below
    ((0, 0, 100, 50), 8, (64, 64), (0, 0, 100, 50)),  # it is all of the picture, 100 x 50
])  # fmt: skip
def test_surroundings(white, padding, size, expected):
    mask = Image.new("L", (100, 50))
    mask.paste(255, white)
    assert around(mask, mask, 0, size, padding).box == expected


def test_what_lies_under_a_mask_is_noise(family):
    """All of webui's ways to fill it come to the same; the one that promises to look at it is remarked on."""
    answers = [painted(family, right_half(), inpainting_fill=fill) for fill in range(4)]
    assert len({answer.image.tobytes() for answer in answers}) == 1
    assert [answer.info["warnings"] for answer in answers] == [
        [], ["inpainting_fill: no meaning with a mask here; all that the mask shows is painted anew, of noise"], [], []]


@pytest.mark.parametrize("fields, message", [
    ({"mask_blur": -1}, "mask_blur must be from 0 to 256"), ({"mask_blur": 1000}, "mask_blur must be from 0 to 256"),
    ({"mask_blur": 0.5}, "mask_blur must be a whole number"), ({"mask_blur_x": 3}, "mask_blur_x must be mask_blur"),
    ({"inpainting_fill": 4}, "0 (fill), 1 (original), 2 (latent noise), 3 (latent nothing)"),
    ({"inpaint_full_res": "maybe"}, "inpaint_full_res must be true or false"),
    ({"inpaint_full_res_padding": -1}, "inpaint_full_res_padding 0 or more"), ({"width": 0}, "width and height must be above 0"),
    ({"mask": "small"}, "mask has another size than the picture"),
], ids=str)  # fmt: skip
def test_masks_that_a1111_clients_cannot_have(fields, message, family):
    mask = right_half(size=(10, 10)) if "mask" in fields else right_half()
    body = {"init_images": [as_text(start())], "prompt": "a cat", "width": WIDTH, "height": HEIGHT, **fields, "mask": as_text(mask)}
    status, answer, _ = family.served.call("/sdapi/v1/img2img", body)
    assert status == 400 and message in answer["detail"]


def test_a_depth_to_follow(family, pipeline):
    hint = start(48, 32)
    answer = family.openai.images.generate(prompt="a cat", extra_body={"hint": as_text(hint), "seed": 7, **STEPS})
    request = Request(**{**MASKED, "paste": False}, hint=(InputPicture(sha256=pixels_sha256(hint)),))
    (found,) = pipeline.make(request, brought={"hint": hint})
    assert opened(answer.data[0].b64_json).tobytes() == found.image.tobytes()
    assert family.served.call("/v1/capabilities")[1]["pictures"] == ["image", "mask", "hint", "items"]


REFUSED = [
    ({}, right_half("L", 0, 0), "nothing to repaint", "mask"),
    ({}, right_half("RGBA", WHITE, (0, 0, 0, 200)), "nothing to repaint", "mask"),
    ({}, right_half(size=(10, 10)), "mask has another size than image", "mask"),
    ({"strength": "0.5"}, right_half(), "strength has no meaning with a mask", "strength"),
    ({"hint": file(start())}, right_half(), "cannot draw from that together", "image"),
]


@pytest.mark.parametrize("fields, mask, message, param", REFUSED, ids=[row[2] for row in REFUSED])
def test_what_cannot_be_is_refused(fields, mask, message, param, family):
    files = {name: fields[name] for name in fields if name == "hint"}
    body = {"image": as_text(start()), "mask": as_text(mask), "prompt": "a cat", **fields, **{name: as_text(start()) for name in files}}
    status, answer, _ = family.served.call("/v1/images/generations", body)
    assert status == 400 and message in answer["error"]["message"] and answer["error"]["param"] == param


def test_a_bundle_that_cannot_repaint_says_so(bundles):
    with served(bundles("narrow")) as server:
        found = clients(server)
        with pytest.raises(openai.BadRequestError, match="the server's bundle has no inpaint decoder: export it again") as caught:
            found.openai.images.edit(image=file(start()), mask=file(right_half()), prompt="a cat")
        assert str(bundles("narrow")) not in str(caught.value)
        with pytest.raises(RuntimeError, match="has no inpaint decoder") as refused:
            found.a1111.img2img(images=[start()], mask_image=right_half(), prompt="a cat", width=WIDTH, height=HEIGHT)
        assert refused.value.args[0] == 400 and json.loads(re.search(r"{.*}", refused.value.args[1])[0])["detail"]
        assert server.call("/v1/capabilities")[1]["pictures"] == ["image", "items"]
        assert server.call("/v1/images/generations", {"prompt": "a cat", "hint": as_text(start())})[0] == 400
        with pytest.raises(RuntimeError, match="asks for ControlNet: this server runs no scripts"):
            found.a1111.txt2img(prompt="a cat", controlnet_units=[webuiapi.ControlNetUnit(image=start())], width=24, height=16,
                                alwayson_scripts={})  # the package puts the units into what is its default for all later calls, too


@pytest.mark.parametrize("clear, invert, painted", [(True, False, "clear"), (True, True, "opaque"), (False, False, "opaque"),
                                                    (False, True, "clear")])
def test_both_senses_of_transparency(clear, invert, painted):
    """Of two pixels, one transparent and one opaque: whichever way, the colours below mean nothing."""
    for colour in ((0, 0, 0), (255, 255, 255)):
        mask = Image.new("RGBA", (2, 1), (*colour, 255))
        mask.putpixel((1, 0), (*colour, 0))
        found = decode_mask(as_text(mask), "mask", 100, clear=clear, invert=invert)
        assert [found.getpixel((x, 0))[0] for x in range(2)] == ([0, 255] if painted == "clear" else [255, 0])


def test_a_palette_may_be_transparent():
    mask = right_half("P", 1, 2)
    mask.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9])
    data = io.BytesIO()
    mask.save(data, "PNG", transparency=2)
    found = decode_mask(data.getvalue(), "mask", 1000, clear=True)
    assert found.tobytes() == right_half().convert("RGB").tobytes()
    with pytest.raises(ApiError, match="nothing to repaint"):
        decode_mask(as_text(mask), "mask", 1000, clear=True)


@pytest.mark.slow
def test_the_shipped_checkpoint_repaints_what_is_asked_for(bundles):
    """The right half becomes that of the emoji asked for: no other training picture's is as near."""
    prompts = json.loads((DATA / "emoji.json").read_text())
    pictures = np.round(255 * training_pictures(len(prompts))).astype(np.uint8)
    with served(bundles("micro-family")) as server:
        found = clients(server)
        for asked, ground in (("a tiger", "a rocket"), ("a rocket", "a red heart")):
            given = Image.fromarray(pictures[prompts.index(ground)])
            mask = right_half("RGBA", WHITE, CLEAR, (SIDE, SIDE))
            answer = found.openai.images.edit(image=file(given), mask=file(mask), prompt=asked, extra_body={"seed": "1"})
            made = np.asarray(opened(answer.data[0].b64_json), int)
            assert np.array_equal(made[:, : SIDE // 2], np.asarray(given)[:, : SIDE // 2])
            distances = np.square(pictures[:, :, SIDE // 2 :].astype(int) - made[:, SIDE // 2 :]).mean((1, 2, 3))
            assert prompts[int(np.argmin(distances))] == asked
