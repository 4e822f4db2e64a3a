"""Every decoder against diffusers where that is right, against single correct runs of it where it is not."""

import checkpoints
import diffusers
import numpy as np
import pytest
import torch
from family import SAMPLERS, TASKS, Family, judged
from kandinsky_mindir import runner
from psnr import LEAST_PSNR

NAMES = ("family", *(pytest.param(name, marks=pytest.mark.slow) for name in ("wide", "mixed", "micro-family")))
COMBINED = {
    "text2img": (runner.KandinskyV22CombinedPipeline, diffusers.KandinskyV22CombinedPipeline),
    "img2img": (runner.KandinskyV22Img2ImgCombinedPipeline, diffusers.KandinskyV22Img2ImgCombinedPipeline),
    "inpaint": (runner.KandinskyV22InpaintCombinedPipeline, diffusers.KandinskyV22InpaintCombinedPipeline),
}


@pytest.fixture(scope="module")
def families(bundles):
    opened = {}

    def family(name):
        if name not in opened:
            opened[name] = Family(name, bundles(name))
        return opened[name]

    return family


def slow_but(quick, values):
    """`values` as parameters, of which all but `quick` are slow."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize("guidance_scale", slow_but((4.0,), (1.0, 4.0)))
@pytest.mark.parametrize("sampler", slow_but(("checkpoint", "dpmpp-2m"), SAMPLERS))
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", NAMES)
def test_as_diffusers(name, task, sampler, guidance_scale, families):
    """One picture, of another size than is asked for; as many draws as there, of the same shapes."""
    found = families(name).compare(task, sampler, guidance_scale=guidance_scale)
    assert found >= LEAST_PSNR, f"{found:.1f} dB"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", NAMES)
def test_two_of_each(name, task, families):
    """Two pictures of one embedding: with guidance diffusers makes these, too."""
    found = families(name).compare(task, "checkpoint", guidance_scale=4.0, num_images_per_prompt=2)
    assert found >= LEAST_PSNR, f"{found:.1f} dB"


@pytest.mark.parametrize("task", slow_but(("inpaint",), TASKS))
@pytest.mark.parametrize("name", NAMES)
def test_two_pictures_are_those_of_two_runs(name, task, families):
    """Each row has its own embeddings, picture, mask, hint and generator; diffusers mixes them up, its single runs do not."""
    family, row = families(name), TASKS[task]
    given = family.embeds(2), family.embeds(2, 5)
    sides = [family.brought(row, seed) for seed in range(2)]
    together = {key: [ours[key] for ours, _ in sides] for key in row.takes}
    own, other = ([torch.Generator().manual_seed(seed) for seed in range(2)] for _ in range(2))
    actual = family.actual(row, "checkpoint", given, together, own, guidance_scale=4.0)
    for index, (_, theirs) in enumerate(sides):
        alone = tuple(side[index : index + 1] for side in given)
        expected = family.expected(row, "checkpoint", alone, theirs, other[index], guidance_scale=4.0)
        assert judged(actual[index : index + 1], expected) >= LEAST_PSNR, f"picture {index}"
        assert torch.equal(own[index].get_state(), other[index].get_state()), "the draws differ"


@pytest.mark.parametrize("negative_prompt", slow_but(("a dog",), (None, "a dog")))
@pytest.mark.parametrize("task", slow_but(("inpaint",), COMBINED))
@pytest.mark.parametrize("name", NAMES)
def test_texts(name, task, negative_prompt, families):
    """From a text, with and without a negative one, by the combined pipelines; prior and decoder draw from one generator."""
    family, row = families(name), TASKS[task]
    prior = {f"prior_{part}": value for part, value in checkpoints.pipelines(family.name)[0].components.items()}
    ours, theirs = family.brought(row)
    options = {"negative_prompt": negative_prompt, "num_inference_steps": 6, "prior_num_inference_steps": 4, "output_type": "np",
               "guidance_scale": 4.0, "prior_guidance_scale": 4.0}  # a bundle's own are not diffusers'
    generators = [torch.Generator().manual_seed(9) for _ in range(2)]
    size = family.size[::-1] if row.turned else family.size
    expected = family.theirs(COMBINED[task][1], row.kind, **prior)(
        "a cat", **theirs, **options, **row.options, height=size[0], width=size[1], generator=generators[0]).images
    actual = family.ours(COMBINED[task][0])("a cat", **ours, **options, **row.options, height=family.size[0], width=family.size[1],
                                            generator=generators[1]).images
    assert torch.equal(*(generator.get_state() for generator in generators)), "the draws differ"
    found = judged(np.asarray(actual), np.asarray(expected))
    assert found >= LEAST_PSNR, f"{found:.1f} dB"
