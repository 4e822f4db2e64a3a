"""Draws two prompts by every sampler (rows) in 5 to 50 steps (columns), each prompt from one embedding and one noise:

    python tests/programs/samplers_sheet.py --bundle artifacts/demo/bundle artifacts/micro/samplers_sheet.png
"""

import argparse
from pathlib import Path

from kandinsky_mindir.runner import KandinskyV22CombinedPipeline
from kandinsky_mindir.runner.schedulers import SHORT_NAMES
from PIL import Image, ImageDraw, ImageFont

PROMPTS, STEPS, SEED = ("a tiger", "a rocket"), (5, 10, 15, 25, 50), 0
# All but the prior's own sampler; of the noise grids those of two solvers.
GRIDS = ("dpmpp-2m-karras", "dpmpp-2m-exponential", "unipc-karras")
SAMPLERS = [
    name for name in SHORT_NAMES if name in GRIDS or not name.endswith(("unclip", "-karras", "-exponential"))
]
CELL, GAP, LABELS, TOP, BETWEEN = 64, 4, 186, 62, 18  # pixels


def pictures(bundle: Path) -> dict[tuple[str, str, int], Image.Image]:
    """(prompt, sampler, steps) -> its picture."""
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle)
    embeds = pipeline.prior_pipe(list(PROMPTS), generator=SEED)
    made = {}
    for sampler in SAMPLERS:
        pipeline.scheduler = sampler
        for steps in STEPS:
            images = pipeline.decoder_pipe(*embeds, num_inference_steps=steps, generator=SEED).images
            made.update({(prompt, sampler, steps): image for prompt, image in zip(PROMPTS, images)})
    return made


def sheet(made: dict[tuple[str, str, int], Image.Image]) -> Image.Image:
    block = len(STEPS) * (CELL + GAP) + BETWEEN
    image = Image.new("RGB", (LABELS + len(PROMPTS) * block, TOP + len(SAMPLERS) * (CELL + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(16)
    lefts = {prompt: LABELS + i * block for i, prompt in enumerate(PROMPTS)}
    for prompt, left in lefts.items():
        draw.text((left, 8), f"{prompt}, number of steps:", "black", font)
        for column, steps in enumerate(STEPS):
            draw.text((left + column * (CELL + GAP) + CELL / 2, TOP - 6), str(steps), "black", font, anchor="ms")
    for row, sampler in enumerate(SAMPLERS):
        y = TOP + row * (CELL + GAP)
        draw.text((LABELS - 12, y + CELL / 2), sampler, "black", font, anchor="rm")
        for prompt, left in lefts.items():
            for column, steps in enumerate(STEPS):
                x = left + column * (CELL + GAP)
                image.paste(made[prompt, sampler, steps], (x, y))
                draw.rectangle((x - 1, y - 1, x + CELL, y + CELL), outline="#d8dee4")
    return image


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True, help="the trained checkpoint, exported")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    sheet(pictures(args.bundle)).quantize(256).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
