"""Prints what narrower types cost in pictures: of weights at rest (export --weights) and of computing (--precision), beside
diffusers in the same types.

    python tests/programs/precision_quality.py BUNDLE... [--precision float32 bfloat16] [--emoji 60]

BUNDLE: the trained checkpoint, exported with one of --weights. Every row draws the same emoji by name, each from a seed of its
own, with torch's random numbers and DPM-Solver++ 2M. PSNR: of all pictures to those of diffusers in float32, before they are
rounded to 8 bits. Right: the nearest of all training pictures is the one asked for, as in test_retrieval.py.
"""

import argparse
import json
from pathlib import Path

import support_path  # noqa: F401

# isort: split
import checkpoints
import diffusers
import numpy as np
import torch
from emoji import DATA, training_pictures
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, TorchGenerator
from kandinsky_mindir.runner.bundle.opened import Bundle
from psnr import psnr

PRIOR_STEPS, STEPS, GUIDANCE = 25, 20, 4.0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def ours(bundle: Path, precision: str, prompts: list[str]) -> np.ndarray:
    """Pictures (N, height, width, 3) from 0 to 1."""
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, precision=precision, scheduler="dpmpp-2m", keep_loaded=True)
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for seed, prompt in enumerate(prompts):
        generator = TorchGenerator(seed)
        embeds = pipeline.prior_pipe(prompt, num_inference_steps=PRIOR_STEPS, guidance_scale=GUIDANCE, generator=generator)
        pictures.append(pipeline.decoder_pipe(*embeds, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator,
                                              output_type="np").images[0])  # fmt: skip
    pipeline.unload()
    return np.stack(pictures)


def theirs(dtype: str, prompts: list[str]) -> np.ndarray:
    """The same by diffusers."""
    prior, decoder = (pipeline.to(DTYPES[dtype]) for pipeline in checkpoints.pipelines.__wrapped__("micro"))
    config = {key: value for key, value in decoder.scheduler.config.items() if key != "variance_type"}
    decoder.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config)
    pictures = []
    for seed, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(seed)
        embeds = prior(prompt, num_inference_steps=PRIOR_STEPS, guidance_scale=GUIDANCE, generator=generator).to_tuple()
        pictures.append(decoder(*embeds, height=64, width=64, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
                                generator=generator, output_type="np").images[0])
    return np.stack(pictures)


class Judge:
    """`count` emoji, evenly spread, by name."""

    def __init__(self, count: int):
        prompts = json.loads((DATA / "emoji.json").read_text())
        self.known = training_pictures(len(prompts))
        self.asked = [i * len(prompts) // count for i in range(count)]
        self.prompts = [prompts[i] for i in self.asked]
        self.reference = theirs("float32", self.prompts)

    def row(self, name: str, size: int | None, pictures: np.ndarray) -> tuple[float, int]:
        """Print a row; PSNR in dB, and how many are right."""
        distances = ((pictures[:, None] - self.known[None]) ** 2).mean((2, 3, 4))
        right, decibels = int((distances.argmin(axis=1) == self.asked).sum()), float(psnr(pictures, self.reference))
        disk = f"{size / 1e6:.1f}" if size else ""
        print(f"| {name} | {disk} | {decibels:.1f} | {right} of {len(self.asked)} |", flush=True)
        return decibels, right


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, int]]:
    """PSNR in dB and how many are right, by the names of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="the trained checkpoint, exported")
    parser.add_argument("--precision", nargs="+", default=["float32"], help="to compute in (default float32)")
    parser.add_argument("--peers", nargs="*", default=["bfloat16"], choices=list(DTYPES), help="of diffusers (default bfloat16)")
    parser.add_argument("--emoji", type=int, default=60, help="how many (default 60)")
    args = parser.parse_args(arguments)
    judge, found = Judge(args.emoji), {}
    print("| weights, computed in | MB on disk | PSNR, dB | right |")
    print("| --- | --- | --- | --- |")
    judge.row("diffusers, float32", None, judge.reference)
    for dtype in args.peers:
        name = f"diffusers, {dtype}"
        found[name] = judge.row(name, None, theirs(dtype, judge.prompts))
    for path in args.bundles:
        bundle = Bundle(path)
        size = sum(info.size for info in bundle.manifest.files.values())
        types = sorted({tensor.dtype for graph in bundle.manifest.graphs for tensor in bundle.tensors(graph.part).values()})
        for precision in args.precision:
            name = f"{' and '.join(types)}, {precision}"
            found[name] = judge.row(name, size, ours(path, precision, judge.prompts))
    return found


if __name__ == "__main__":
    main()
