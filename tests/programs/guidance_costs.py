"""Prints what the guidance options cost: seconds a picture, and the arithmetic of a step alone at 512x512.

    python tests/programs/guidance_costs.py --bundle artifacts/demo/bundle
"""

import argparse
import time
from pathlib import Path

import numpy as np
from kandinsky_mindir.runner import KandinskyV22Pipeline
from kandinsky_mindir.runner.diffusion.guidance import Guidance

SCALE, STEPS = 4.0, 20
OPTIONS = {
    "guided": {},
    "guidance_rescale 0.7": {"guidance_rescale": 0.7},
    "guidance_interval 0.2 0.8": {"guidance_interval": (0.2, 0.8)},
    "guidance_interval 0 0.5": {"guidance_interval": (0.0, 0.5)},
    "not guided (scale 1)": {"guidance_scale": 1.0},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True, help="the trained checkpoint, exported")
    parser.add_argument("--rounds", type=int, default=5, help="the best of so many is shown (default 5)")
    args = parser.parse_args()
    pipeline = KandinskyV22Pipeline.from_pretrained(args.bundle)
    pipeline.set_progress_bar_config(disable=True)
    embeds = np.random.default_rng(0).standard_normal(pipeline.bundle.constants["zero_image_embeds"].shape)

    def picture(**options):
        pipeline(embeds, num_inference_steps=STEPS, generator=0, **{"guidance_scale": SCALE, **options})

    for options in OPTIONS.values():
        picture(**options)  # loads the models
    best = dict.fromkeys(OPTIONS, np.inf)
    for _ in range(args.rounds):  # all in turn, so that a busy minute falls on all of them
        for name, options in OPTIONS.items():
            best[name] = min(best[name], seconds(lambda: picture(**options)))
    print(f"| option | seconds a picture, {STEPS} steps | of guided |\n| --- | --- | --- |")
    for name, value in best.items():
        print(f"| {name} | {value:.3f} | {value / best['guided']:.2f} |")
    halves = np.random.default_rng(0).standard_normal((2, 1, 4, 64, 64)).astype(np.float32)
    plain, rescaled = (
        min(seconds(lambda: Guidance(SCALE, rescale).combine(*halves)) for _ in range(200)) for rescale in (0.0, 0.7)
    )
    print(f"\nA step's arithmetic at 512x512: {1e3 * plain:.2f} ms, rescaled {1e3 * rescaled:.2f} ms")


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
