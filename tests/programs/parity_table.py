"""Seed parity: diffusers with torch.Generator().manual_seed(s) against this project with TorchGenerator(s), nothing
else in common. Prints a table of seed x pipeline x sampler in dB (PSNR), for the trained checkpoint:

    python tests/programs/parity_table.py --bundle artifacts/demo/bundle
    python tests/programs/parity_table.py --seeds 3              exports a bundle of its own first
"""

import argparse
import tempfile
from pathlib import Path

import support_path  # noqa: F401

# isort: split
import checkpoints
import diffusers
import torch
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, TorchGenerator
from psnr import LEAST_PSNR, picture, psnr

PROMPT = "a cat"
MIX = (["a cat", picture(), "a red heart"], [0.3, 0.3, 0.4])
PIPELINES = ("text-to-image", "interpolation")
PRIOR_STEPS = 25
# Short name -> diffusers' class (None: what the checkpoint brings) and steps. diffusers' from_config hands on the
# variance_type of DDPM to samplers that have none and then fail on the UNet's variance channels: it is taken out there.
SAMPLERS = {
    "ddpm": (None, 50),
    "ddim": (diffusers.DDIMScheduler, 25),
    "dpmpp-2m": (diffusers.DPMSolverMultistepScheduler, 20),
    "dpmpp-2m-sde": (diffusers.DPMSolverMultistepScheduler, 20),
    "lcm": (diffusers.LCMScheduler, 8),
}


def compare(ours: KandinskyV22CombinedPipeline, pipeline: str, sampler: str, seed: int) -> float:
    """PSNR in dB of our picture against diffusers', each from its own random numbers of `seed`."""
    prior, decoder = checkpoints.pipelines("micro")
    cls, steps = SAMPLERS[sampler]
    own = decoder.scheduler
    ours.scheduler = sampler
    if cls is not None:
        config = {key: value for key, value in own.config.items() if key != "variance_type"}
        options = {"algorithm_type": "sde-dpmsolver++"} if sampler.endswith("-sde") else {}
        decoder.scheduler = cls.from_config(config, **options)
    try:
        expected = _diffusers(prior, decoder, pipeline, steps, torch.Generator().manual_seed(seed))
    finally:
        decoder.scheduler = own
    return psnr(_ours(ours, pipeline, steps, TorchGenerator(seed)), expected)


def _diffusers(prior, decoder, pipeline, steps, generator):
    if pipeline == "text-to-image":
        embeds = prior(PROMPT, num_inference_steps=PRIOR_STEPS, generator=generator)
    else:
        embeds = prior.interpolate(*MIX, num_inference_steps=PRIOR_STEPS, generator=generator)
    return decoder(*embeds.to_tuple(), height=64, width=64, num_inference_steps=steps, guidance_scale=4.0,
                   generator=generator, output_type="np").images


def _ours(ours, pipeline, steps, generator):
    options = {"num_inference_steps": PRIOR_STEPS, "guidance_scale": 4.0, "generator": generator}
    prior = ours.prior_pipe
    embeds = prior(PROMPT, **options) if pipeline == "text-to-image" else prior.interpolate(*MIX, **options)
    return ours.decoder_pipe(*embeds, num_inference_steps=steps, guidance_scale=4.0, generator=generator,
                             output_type="np").images


def open_bundle(bundle: Path) -> KandinskyV22CombinedPipeline:
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the trained checkpoint, exported")
    parser.add_argument("--seeds", type=int, default=20, help="how many, from 0 (default 20)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.bundle or export(Path(folder))
        ours = open_bundle(bundle)
        columns = [(pipeline, sampler) for pipeline in PIPELINES for sampler in SAMPLERS]
        print("| seed |" + "".join(f" {pipeline}, {sampler} |" for pipeline, sampler in columns))
        print("| --- |" + " --- |" * len(columns))
        rows = []
        for seed in range(args.seeds):
            rows.append([compare(ours, pipeline, sampler, seed) for pipeline, sampler in columns])
            print_row(str(seed), rows[-1])
        print_row("worst", worst := [min(column) for column in zip(*rows)])
    if min(worst) < LEAST_PSNR:
        raise SystemExit(f"below {LEAST_PSNR} dB")


def export(folder: Path) -> Path:
    from kandinsky_mindir.export.bundle import export_bundle

    return export_bundle(*checkpoints.save("micro", folder), folder / "bundle", checkpoints.SIZES["micro"])


def print_row(name: str, values: list[float]) -> None:
    print(f"| {name} |" + "".join(f" {value:.1f} |" for value in values), flush=True)


if __name__ == "__main__":
    main()
