"""The two pages that mindone's users start from, text to image and interpolation, run as printed: the lines that import and the
names on a hub are others, and the size is one that the tests' bundle has."""

import numpy as np
import pytest
from PIL import Image

IMPORTS = """
from kandinsky_mindir.runner import KandinskyV22PriorPipeline, KandinskyV22Pipeline, load_image, make_image_grid
import numpy as ms
"""
TEXT_TO_IMAGE = """
prior_pipeline = KandinskyV22PriorPipeline.from_pretrained("{bundle}", mindspore=ms.float16)
pipeline = KandinskyV22Pipeline.from_pretrained("{bundle}", mindspore_dtype=ms.float16)

prompt = "A alien cheeseburger creature eating itself, claymation, cinematic, moody lighting"
negative_prompt = "low quality, bad quality" # optional to include a negative prompt, but results are usually better
image_embeds, negative_image_embeds = prior_pipeline(prompt, guidance_scale=1.0)
image = pipeline(image_embeds=image_embeds, negative_image_embeds=negative_image_embeds, height={side}, width={side})[0][0]
"""
INTERPOLATION = """
prior_pipeline = KandinskyV22PriorPipeline.from_pretrained("{bundle}", mindspore_dtype=ms.float16, use_safetensors=True)
img_1 = load_image("{picture}")
img_2 = load_image("{picture}")
make_image_grid([img_1.resize((512,512)), img_2.resize((512,512))], rows=1, cols=2)
images_texts = ["a cat", img_1, img_2]
weights = [0.3, 0.3, 0.4]
prompt = ""
image_embeds, negative_image_embeds = prior_pipeline.interpolate(images_texts, weights)

pipeline = KandinskyV22Pipeline.from_pretrained("{bundle}", mindspore_dtype=ms.float16, use_safetensors=True)

image = pipeline(image_embeds=image_embeds, negative_image_embeds=negative_image_embeds, height={side}, width={side})[0][0]
"""


@pytest.mark.filterwarnings("ignore:mindspore")
@pytest.mark.parametrize("snippet", (TEXT_TO_IMAGE, INTERPOLATION), ids=("text-to-image", "interpolation"))
def test_pages(snippet, bundles, tmp_path):
    picture, names = tmp_path / "cat.png", {}
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)).save(picture)
    exec(IMPORTS + snippet.format(bundle=bundles("narrow"), picture=picture, side=16), names)
    assert names["image"].size == (16, 16) and names["image"].mode == "RGB"
