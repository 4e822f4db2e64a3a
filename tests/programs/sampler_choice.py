"""Prints what the decoder's default sampler and its steps are chosen from: how many emoji the trained checkpoint draws
right with each candidate, how near they are to their training pictures and to the pictures of very many steps, and seconds
a picture.

    python tests/programs/sampler_choice.py --bundle artifacts/demo/bundle --emoji 24
    python tests/programs/sampler_choice.py --bundle artifacts/demo/bundle dpmpp-2m-karras:20 ddpm:100
    python tests/programs/sampler_choice.py --bundle artifacts/demo/bundle --grids

Right: the nearest of all training pictures is the one asked for, as in test_retrieval.py. Distance: root mean
square to it, in gray levels of 255. PSNR: of all pictures to those of --reference, before they are rounded to 8 bits;
samplers that draw noise in their steps have no such limit. All candidates start from the same embeddings and the same noise.
"""

import argparse
import json
import time
from pathlib import Path

import support_path  # noqa: F401

# isort: split
import numpy as np
from emoji import DATA, training_pictures
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline

SCREENED = (
    "ddpm:100", "ddpm:25", "ddim:20", "dpmpp-2m:20", "dpmpp-2m:15", "dpmpp-2m:10", "dpmpp-2m-karras:20",
    "dpmpp-2m-karras:15", "dpmpp-2m-karras:10", "dpmpp-2m-sde:20", "dpmpp-2s:20", "unipc:15", "unipc-karras:15",
    "deis:15", "deis-karras:15", "sa:20",
)  # fmt: skip
GRIDS = tuple(f"dpmpp-2m-{grid}:{steps}" for steps in (20, 15, 12, 10, 8, 6) for grid in ("karras", "exponential"))


class Emoji:
    """`count` of the training pictures, evenly spread, with the prior's embeddings of their names."""

    def __init__(self, bundle: Path, count: int, threads: int | None):
        prompts = json.loads((DATA / "emoji.json").read_text())
        self.known = training_pictures(len(prompts))
        self.asked = [i * len(prompts) // count for i in range(count)]
        self.pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, threads=threads)
        self.pipeline.set_progress_bar_config(disable=True)
        started = time.monotonic()
        self.embeds = self.pipeline.prior_pipe([prompts[i] for i in self.asked], generator=0)
        self.prior_seconds = (time.monotonic() - started) / count

    def draw(self, candidate: str, **options) -> np.ndarray:
        """Pictures (N, height, width, 3) from 0 to 1 by SAMPLER:STEPS."""
        sampler, steps = candidate.split(":")
        self.pipeline.decoder_pipe.scheduler = sampler
        return self.pipeline.decoder_pipe(*self.embeds, num_inference_steps=int(steps), generator=0, output_type="np",
                                          **options).images

    def judge(self, candidate: str, limit: np.ndarray) -> tuple[int, float, float, float]:
        """(number right, mean distance, PSNR to `limit`, seconds a picture with its share of the prior)."""
        started = time.monotonic()
        pictures = self.draw(candidate)
        seconds = (time.monotonic() - started) / len(self.asked) + self.prior_seconds
        distances = np.sqrt(((pictures[:, None] - self.known[None]) ** 2).mean((2, 3, 4)))
        right = int((distances.argmin(axis=1) == self.asked).sum())
        psnr = -10 * float(np.log10(np.square(pictures - limit, dtype=np.float64).mean()))
        return right, 255 * float(distances[range(len(self.asked)), self.asked].mean()), psnr, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="*", metavar="SAMPLER:STEPS", help="candidates")
    parser.add_argument("--grids", action="store_true", help="the Karras and the exponential grid, instead")
    parser.add_argument("--reference", default="dpmpp-2m-karras:200", metavar="SAMPLER:STEPS",
                        help="whose pictures PSNR is to (default dpmpp-2m-karras:200)")
    parser.add_argument("--bundle", type=Path, required=True, help="the trained checkpoint, exported")
    parser.add_argument("--emoji", type=int, default=60, help="how many (default 60)")
    parser.add_argument("--threads", type=int, help="of the engine (default: one on each CPU)")
    args = parser.parse_args()
    emoji = Emoji(args.bundle, args.emoji, args.threads)
    limit = emoji.draw(args.reference)
    print(f"| sampler | steps | right of {args.emoji} | distance | PSNR, dB | seconds a picture |")
    print("| --- | --- | --- | --- | --- | --- |")
    for candidate in args.candidates or (GRIDS if args.grids else SCREENED):
        right, distance, psnr, seconds = emoji.judge(candidate, limit)
        row = " | ".join([*candidate.split(":"), str(right), f"{distance:.2f}", f"{psnr:.1f}", f"{seconds:.2f}"])
        print(f"| {row} |", flush=True)


if __name__ == "__main__":
    main()
