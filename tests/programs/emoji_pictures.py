"""Draws pictures of a checkpoint's texts, each from a seed of its own, into a NumPy file: a program that needs nothing but the runner.

    python emoji_pictures.py BUNDLE PRECISION TEXTS.json PICTURES.npy
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, TorchGenerator

PRIOR_STEPS, STEPS, GUIDANCE = 25, 20, 4.0


def pictures(bundle: Path, precision: str, texts: Sequence[str]) -> np.ndarray:
    """(N, height, width, 3) from 0 to 1, with torch's random numbers and DPM-Solver++ 2M."""
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, precision=precision, scheduler="dpmpp-2m", keep_loaded=True)
    pipeline.set_progress_bar_config(disable=True)
    drawn = []
    for seed, text in enumerate(texts):
        generator = TorchGenerator(seed)
        embeds = pipeline.prior_pipe(text, num_inference_steps=PRIOR_STEPS, guidance_scale=GUIDANCE, generator=generator)
        drawn.append(pipeline.decoder_pipe(*embeds, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator,
                                           output_type="np").images[0])  # fmt: skip
    pipeline.unload()
    return np.stack(drawn)


if __name__ == "__main__":
    np.save(sys.argv[4], pictures(Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())))
