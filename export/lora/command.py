"""Merge LoRAs into a bundle that is there, as another bundle: without its checkpoint, and without compiling.

  kandinsky-mindir merge BUNDLE --lora style.safetensors --output STYLED
  kandinsky-mindir merge BUNDLE --lora style.safetensors:0.7 --lora prior.safetensors:-0.3 --output STYLED

A LoRA is a safetensors file as diffusers, peft or kohya's scripts write it, for the prior or the UNet. Only the weights that
it changes are written: the other files are hard links to those of BUNDLE, where the file system has them. To undo it, remove
the folder. What it computes is sealed and verified anew, as export does it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...runner.common.errors import one_line

HELP = "merge LoRAs into a bundle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("--lora", action="append", required=True, metavar="FILE[:SCALE]",
                        help="a LoRA and how much of it (default 1), may be repeated")
    parser.add_argument("--decoder", action="append", choices=("text", "inpaint", "depth"),
                        help="whose UNet takes a LoRA of the UNet, may be repeated (default text): a style suits all three, "
                        "which were trained from one")
    parser.add_argument("--output", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the bundle that is there")
    parser.add_argument("--engine", choices=("auto", "bridge", "vendor"), default="auto",
                        help="what the merged graphs are verified on (default auto)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from ..requirements import require_exporter

    require_exporter()
    from .adapter import Given
    from .merging import merge_bundle
    from .tensors import summary

    loras = [Given.parse(text) for text in args.lora]
    merged = merge_bundle(args.bundle, loras, args.output, decoders=args.decoder or (), overwrite=args.overwrite,
                          engine=args.engine, progress=not args.quiet)
    for adapter in merged.adapters:
        print(f"{one_line(adapter.path, keep_bytes=True)}: {summary(adapter)}, scale {adapter.given.scale:g}")
    if merged.converted:
        print(f"converted anew: {', '.join(merged.converted)}")
    print(f"{one_line(args.output, keep_bytes=True)}: {merged.changed / 1e6:,.1f} MB of weights changed, "
          f"{merged.written / 1e6:,.1f} MB written; merged in {merged.seconds[0]:.1f} s, sealed and verified in "
          f"{merged.seconds[1]:.1f} s")
