"""Prints how good the shipped inpainting and depth checkpoints are, with the sampler and steps of their
generation_defaults.json: by diffusers on torch, or by this project on a bundle of them.

    python tests/programs/task_quality.py
    python tests/programs/task_quality.py --bundle artifacts/demo/bundle
    python tests/programs/task_quality.py --emoji 8 --tasks inpaint --sheets .

Inpainting: each emoji is asked by name over the left half of another one's picture; the right half is repainted, the left
half pasted back. Right: the repainted half is nearest to that of the emoji asked for, of all training pictures. Kept: no
pixel of the left half is off by more than 1 of 255.

Depth: each emoji is asked by name, with the height map of its silhouette in another place and size, half of them mirrored.
Covers: the silhouette of the picture and the hint's overlap by 0.7 or more. Right: nearest to the emoji asked for, of all
training pictures moved in that way.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import support_path  # noqa: F401

# isort: split
import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    KandinskyV22ControlnetPipeline,
    KandinskyV22InpaintPipeline,
    KandinskyV22PriorPipeline,
)
from emoji import DATA, SIDE, training_pictures
from hints import height_map, moved, overlap, silhouette
from kandinsky_mindir import runner as ours
from PIL import Image

MICRO = Path(__file__).parents[2] / "artifacts" / "micro"
HALF, ENOUGH = SIDE // 2, 0.7
HINT_FACTOR = 8  # the hint block makes one latent of 8 x 8 pixels of a hint, whatever the MoVQ makes of a picture


class Diffusers:
    """The checkpoint in diffusers, float32."""

    def prior(self, prompts: list[str], seed: int) -> list:
        defaults = json.loads((MICRO / "prior" / "generation_defaults.json").read_text())
        prior = self._opened(KandinskyV22PriorPipeline, "prior")
        embeds = prior(prompts, generator=torch.Generator().manual_seed(seed), **defaults)
        return list(zip(embeds.image_embeds.split(1), embeds.negative_image_embeds.split(1)))

    def inpaint(self, embeds, seed: int, picture: Image.Image, mask: np.ndarray) -> Image.Image:
        made = self._draw(KandinskyV22InpaintPipeline, "decoder-inpaint", embeds, seed, image=picture, mask_image=mask)
        made.paste(picture, (0, 0), Image.fromarray(np.uint8(255 * (mask < 0.5))))
        return made

    def depth(self, embeds, seed: int, hint: Image.Image) -> Image.Image:
        large = hint.resize([HINT_FACTOR * SIDE // 4] * 2, Image.Resampling.BICUBIC)  # of the MoVQ's latents, SIDE / 4
        values = torch.from_numpy(np.asarray(large, np.float32) / 255).expand(1, 3, -1, -1)
        return self._draw(KandinskyV22ControlnetPipeline, "decoder-depth", embeds, seed, hint=values)

    def _draw(self, pipeline, folder: str, embeds, seed: int, **options) -> Image.Image:
        found, defaults = self._opened(pipeline, folder), json.loads((MICRO / folder / "generation_defaults.json").read_text())
        assert defaults.pop("scheduler") == "dpmpp-2m-karras"
        found.scheduler = DPMSolverMultistepScheduler.from_config(found.scheduler.config, use_karras_sigmas=True, variance_type=None)
        return found(image_embeds=embeds[0], negative_image_embeds=embeds[1], generator=torch.Generator().manual_seed(seed),
                     **defaults, **options).images[0]

    @staticmethod
    @cache
    def _opened(pipeline, folder: str):
        found = pipeline.from_pretrained(MICRO / folder, torch_dtype=torch.float32)
        found.set_progress_bar_config(disable=True)
        return found


class Lite:
    """A bundle of the checkpoint on MindSpore Lite, with the same noise."""

    def __init__(self, bundle: Path):
        self._combined = ours.KandinskyV22CombinedPipeline.from_pretrained(bundle)
        self._inpaint = ours.KandinskyV22InpaintPipeline.from_pipe(self._combined)
        self._depth = ours.KandinskyV22ControlnetPipeline.from_pipe(self._combined)
        for pipeline in (self._combined, self._inpaint, self._depth):
            pipeline.set_progress_bar_config(disable=True)

    def prior(self, prompts: list[str], seed: int) -> list:
        embeds, negatives = self._combined.prior_pipe(prompts, generator=ours.TorchGenerator(seed)).to_tuple()
        return [(embeds[row : row + 1], negatives[row : row + 1]) for row in range(len(prompts))]

    def inpaint(self, embeds, seed: int, picture: Image.Image, mask: np.ndarray) -> Image.Image:
        return self._inpaint(embeds[0], picture, mask, embeds[1], generator=ours.TorchGenerator(seed), paste=True).images[0]

    def depth(self, embeds, seed: int, hint: Image.Image) -> Image.Image:
        return self._depth(*embeds, hint=hint, generator=ours.TorchGenerator(seed)).images[0]


class Asked:
    """`count` of the training pictures, drawn by `seed`, with the prior's embeddings of their names. maker: draws."""

    def __init__(self, count: int, seed: int, maker: Diffusers | Lite):
        prompts = json.loads((DATA / "emoji.json").read_text())
        levels = np.round(255 * training_pictures(len(prompts))).astype(np.uint8)
        self.pictures = [Image.fromarray(picture) for picture in levels]
        self.random, self.maker = random.Random(seed), maker
        self.chosen = self.random.sample(range(len(prompts)), count)
        self.names = [re.sub("^an? ", "", prompts[i]) for i in self.chosen]
        self.embeds = maker.prior([prompts[i] for i in self.chosen], seed)


def nearest(picture: Image.Image, known: list[Image.Image], box: tuple[int, int, int, int]) -> tuple[int, list[float]]:
    """(the number of the known picture that is nearest within the box, root mean square distances in gray levels)."""
    part = np.asarray(picture.crop(box), np.float32)
    distances = [float(np.sqrt(np.square(np.asarray(other.crop(box), np.float32) - part).mean())) for other in known]
    return int(np.argmin(distances)), distances


def inpaint(asked: Asked) -> Iterator[tuple[dict[str, float], list[Image.Image]]]:
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[:, HALF:] = 1
    for row, (i, embeds) in enumerate(zip(asked.chosen, asked.embeds)):
        other = asked.pictures[asked.random.choice([j for j in range(len(asked.pictures)) if j != i])]
        picture = asked.maker.inpaint(embeds, row, other, mask)
        kept = np.asarray(picture, int)[:, :HALF] - np.asarray(other, int)[:, :HALF]
        found, distances = nearest(picture, asked.pictures, (HALF, 0, SIDE, SIDE))
        yield {"kept": np.abs(kept).max() <= 1, "right": found == i, "distance": distances[i]}, [other, picture]


def depth(asked: Asked) -> Iterator[tuple[dict[str, float], list[Image.Image]]]:
    for row, (i, embeds) in enumerate(zip(asked.chosen, asked.embeds)):
        place = asked.random.uniform(0.5, 1), asked.random.random(), asked.random.random(), row % 2 == 1
        known = [moved(picture, *place) for picture in asked.pictures]
        inside = silhouette(known[i])
        hint = height_map(inside)
        picture = asked.maker.depth(embeds, row, hint)
        found, distances = nearest(picture, known, (0, 0, SIDE, SIDE))
        covered = overlap(silhouette(picture), inside)
        result = {"covers": covered >= ENOUGH, "overlap": covered, "right": found == i, "distance": distances[i]}
        yield result, [hint, picture]


TASKS = {"inpaint": inpaint, "depth": depth}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a bundle of the three decoders, which draws instead of diffusers")
    parser.add_argument("--emoji", type=int, default=40, help="how many (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="which, and where (default 0)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="write what was given and what came of it there")
    args = parser.parse_args()
    maker = Lite(args.bundle) if args.bundle else Diffusers()
    for task in args.tasks:
        asked = Asked(args.emoji, args.seed, maker)
        results, sheet = [], Image.new("RGB", (16 * SIDE, -(-args.emoji // 8) * SIDE), "white")
        for row, (result, pictures) in enumerate(TASKS[task](asked)):
            results.append(result)
            for column, picture in enumerate(pictures):
                sheet.paste(picture, ((row % 8 * 2 + column) * SIDE, row // 8 * SIDE))
            if not (result["right"] and result.get("covers", True)):
                print(f"{task}: {asked.names[row]}: {', '.join(f'{name} {value:.4g}' for name, value in result.items())}")
        columns = {name: [result[name] for result in results] for name in results[0]}
        counts = [f"{name} {sum(columns[name])} of {args.emoji}" for name in ("kept", "covers", "right") if name in columns]
        means = [f"mean {name} {np.mean(columns[name]):.3g}" for name in ("overlap", "distance") if name in columns]
        print(f"{task}: {', '.join(counts + means)}", flush=True)
        if args.sheets:
            sheet.save(args.sheets / f"{task}.png")


if __name__ == "__main__":
    main()
