"""Prints what whole steps cost that are left out: how near pictures stay to those of very many whole steps, and how many steps
of the real UNet they take.

    python tests/programs/cache_costs.py --bundle bundle        the trained checkpoint, exported with --shallow

PSNR: of all pictures to those of 200 whole steps, before they are rounded to 8 bits. Steps: of the real UNet at 512x512, of
which the outermost layers are SHARE. All start from the same embeddings and the same noise.
"""

import argparse
import time
from pathlib import Path

import support_path  # noqa: F401

# isort: split
from psnr import psnr
from sampler_choice import Emoji

# conv_in, down_blocks.0.resnets.0, up_blocks.3.resnets.2 and 3, conv_out: torch's FlopCounterMode, the real configuration.
SHARE = 0.108
REFERENCE = "dpmpp-2m-karras:200"
CANDIDATES = tuple(f"dpmpp-2m-{grid}:{steps}:{interval}" for grid in ("karras", "exponential") for steps, interval in
                   ((20, 1), (20, 2), (20, 3), (15, 1), (15, 2), (15, 3), (12, 1), (12, 2), (10, 1), (8, 1)))  # fmt: skip


def real_steps(steps: int, interval: int) -> float:
    """What `steps` steps take, of which one in `interval` is whole, in whole steps of the real UNet."""
    whole = -(-steps // interval)
    return whole + SHARE * (steps - whole)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="*", metavar="SAMPLER:STEPS:INTERVAL", help="candidates")
    parser.add_argument("--bundle", type=Path, required=True, help="the trained checkpoint, exported with --shallow")
    parser.add_argument("--emoji", type=int, default=24, help="how many (default 24)")
    parser.add_argument("--threads", type=int, help="of the engine (default: one on each CPU)")
    args = parser.parse_args()
    emoji = Emoji(args.bundle, args.emoji, args.threads)
    limit = emoji.draw(REFERENCE)
    print("| sampler | steps | cache_interval | steps of the real UNet | PSNR, dB | seconds a picture |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for candidate in args.candidates or CANDIDATES:
        sampler, steps, interval = candidate.split(":")
        started = time.monotonic()
        pictures = emoji.draw(f"{sampler}:{steps}", cache_interval=int(interval))
        seconds = (time.monotonic() - started) / args.emoji
        print(f"| {sampler} | {steps} | {interval} | {real_steps(int(steps), int(interval)):.1f} | {psnr(pictures, limit):.1f} | "
              f"{seconds:.3f} |", flush=True)


if __name__ == "__main__":
    main()
