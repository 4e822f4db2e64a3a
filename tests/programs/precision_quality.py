"""Prints what narrower types cost in pictures: of weights at rest (export --weights) and of computing (--precision), beside
diffusers in the same types.

    python tests/programs/precision_quality.py BUNDLE... [--precision float32 bfloat16] [--emulated FOLDER]

BUNDLE: the trained checkpoint, exported with one of --weights. Every row draws the same emoji by name, each from a seed of its
own, with torch's random numbers and DPM-Solver++ 2M. PSNR: of all pictures to those of diffusers in float32, before they are
rounded to 8 bits. Right: the nearest of all training pictures is the one asked for, as in test_retrieval.py.
"""

import argparse
import json
import tempfile
from pathlib import Path

import support_path  # noqa: F401

# isort: split
import aarch64
import checkpoints
import diffusers
import emoji_pictures
import numpy as np
import torch
from emoji import DATA, training_pictures
from emoji_pictures import GUIDANCE, PRIOR_STEPS, STEPS
from kandinsky_mindir.runner.bundle.opened import Bundle
from psnr import psnr

PROCESSOR = "cortex-a76"  # in QEMU: it has float16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def emulated(work: Path, bundle: Path, texts: list[str]) -> np.ndarray:
    """Pictures in float16, which Lite computes on aarch64 alone: on an emulated processor, in the root in that folder."""
    aarch64.install(work, PROCESSOR)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        (Path(folder) / "texts.json").write_text(json.dumps(texts))
        command = ["/venv/bin/python", "/program/emoji_pictures.py", "/bundle", "float16", "/out/texts.json", "/out/pictures.npy"]
        aarch64.in_root(work, PROCESSOR, command, bundle=bundle, program=Path(__file__).parent, out=Path(folder)).check()
        return np.load(Path(folder) / "pictures.npy")


def theirs(dtype: str, prompts: list[str]) -> np.ndarray:
    """The same by diffusers."""
    prior, decoder = (pipeline.to(DTYPES[dtype]) for pipeline in checkpoints.pipelines.__wrapped__("micro"))
    config = {key: value for key, value in decoder.scheduler.config.items() if key != "variance_type"}
    decoder.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config)
    drawn = []
    for seed, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(seed)
        embeds = prior(prompt, num_inference_steps=PRIOR_STEPS, guidance_scale=GUIDANCE, generator=generator).to_tuple()
        drawn.append(decoder(*embeds, height=64, width=64, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
                             generator=generator, output_type="np").images[0])
    return np.stack(drawn)


class Judge:
    """`count` emoji, evenly spread, by name."""

    def __init__(self, count: int):
        prompts = json.loads((DATA / "emoji.json").read_text())
        self.known = training_pictures(len(prompts))
        self.asked = [i * len(prompts) // count for i in range(count)]
        self.prompts = [prompts[i] for i in self.asked]
        self.reference = theirs("float32", self.prompts)

    def row(self, name: str, size: int | None, drawn: np.ndarray) -> tuple[float, int]:
        """Print a row; PSNR in dB, and how many are right."""
        distances = ((drawn[:, None] - self.known[None]) ** 2).mean((2, 3, 4))
        right, decibels = int((distances.argmin(axis=1) == self.asked).sum()), float(psnr(drawn, self.reference))
        disk = f"{size / 1e6:.1f}" if size else ""
        print(f"| {name} | {disk} | {decibels:.1f} | {right} of {len(self.asked)} |", flush=True)
        return decibels, right


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, int]]:
    """PSNR in dB and how many are right, by the names of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="the trained checkpoint, exported")
    parser.add_argument("--precision", nargs="+", default=["float32"], help="to compute in (default float32)")
    parser.add_argument("--peers", nargs="*", default=["bfloat16"], choices=list(DTYPES), help="of diffusers (default bfloat16)")
    parser.add_argument("--emulated", type=Path, metavar="FOLDER", help="float16, too, on an emulated processor: aarch64.py's --work")
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
            found[name] = judge.row(name, size, emoji_pictures.pictures(path, precision, judge.prompts))
        if args.emulated:
            name = f"{' and '.join(types)}, float16"
            found[name] = judge.row(name, size, emulated(args.emulated, path, judge.prompts))
    return found


if __name__ == "__main__":
    main()
