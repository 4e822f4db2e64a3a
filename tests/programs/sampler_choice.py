"""Prints what the decoder's default sampler and its steps are chosen from: how many emoji the trained checkpoint draws
right with each candidate, how near they are to their training pictures, and seconds a picture.

    python tests/programs/sampler_choice.py --bundle artifacts/demo/bundle --emoji 24
    python tests/programs/sampler_choice.py --bundle artifacts/demo/bundle dpmpp-2m-karras:20 ddpm:100

Right: the nearest of all training pictures is the one asked for, as in test_retrieval.py. Distance: root mean
square to it, in gray levels of 255. All candidates start from the same embeddings and the same noise.
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

    def judge(self, sampler: str, steps: int) -> tuple[int, float, float]:
        """(number right, mean distance, seconds a picture with its share of the prior)."""
        decoder = self.pipeline.decoder_pipe
        decoder.scheduler = sampler
        decoder(*(rows[:1] for rows in self.embeds), num_inference_steps=4, generator=0)  # models are loaded now
        started = time.monotonic()
        pictures = decoder(*self.embeds, num_inference_steps=steps, generator=0, output_type="np").images
        seconds = (time.monotonic() - started) / len(self.asked) + self.prior_seconds
        distances = np.sqrt(((pictures[:, None] - self.known[None]) ** 2).mean((2, 3, 4)))
        right = int((distances.argmin(axis=1) == self.asked).sum())
        return right, 255 * float(distances[range(len(self.asked)), self.asked].mean()), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="*", default=SCREENED, metavar="SAMPLER:STEPS", help="candidates")
    parser.add_argument("--bundle", type=Path, required=True, help="the trained checkpoint, exported")
    parser.add_argument("--emoji", type=int, default=60, help="how many (default 60)")
    parser.add_argument("--threads", type=int, help="of the engine (default: one on each CPU)")
    args = parser.parse_args()
    emoji = Emoji(args.bundle, args.emoji, args.threads)
    print(f"| sampler | steps | right of {args.emoji} | distance | seconds a picture |")
    print("| --- | --- | --- | --- | --- |")
    for candidate in args.candidates:
        sampler, steps = candidate.split(":")
        right, distance, seconds = emoji.judge(sampler, int(steps))
        print(f"| {sampler} | {steps} | {right} | {distance:.2f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
