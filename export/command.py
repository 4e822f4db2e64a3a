"""Compile a Kandinsky 2.2 checkpoint to MindIR graphs and write them as a bundle that MindSpore Lite runs.

  kandinsky-mindir export --prior kandinsky-2-2-prior --decoder kandinsky-2-2-decoder --output bundle --size 512x512
  kandinsky-mindir export ... --size 512x512 --size 768x768      two sizes, one copy of the weights
  kandinsky-mindir export --output bundle --decoder kandinsky-2-2-decoder --add-size 768x768
                                                                 a size more for a bundle that is there
  kandinsky-mindir export ... --lora style.safetensors:0.8        with a LoRA of the prior or the UNet in the weights
  kandinsky-mindir export ... --decoder kandinsky-2-2-decoder-inpaint        inpainting, too, beside the same prior
  kandinsky-mindir export ... --no-image-encoder                 smaller: texts only, no pictures as input
  kandinsky-mindir export ... --target ascend                    with graphs for Ascend beside those for a CPU
  kandinsky-mindir export ... --shallow                          for generate --cache-interval N

The folders are in the diffusers layout, with safetensors weights.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

from ..runner.commands.arguments import size
from ..runner.common.errors import UserError

HELP = "compile a checkpoint to a bundle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", type=Path, metavar="DIR", help="the prior's checkpoint folder")
    parser.add_argument("--decoder", type=Path, action="append", required=True, metavar="DIR",
                        help="the decoder's checkpoint folder: text to image, inpainting or depth; repeated, the bundle holds "
                             "one of each kind")
    parser.add_argument("--output", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument("--size", type=size, action="append", metavar="HxW",
                        help="picture size in pixels, may be repeated (default: the checkpoint's own)")
    parser.add_argument("--add-size", type=size, action="append", metavar="HxW",
                        help="add a picture size to the bundle that is there, may be repeated; --decoder is the checkpoint "
                             "that it was made of")
    parser.add_argument("--lora", action="append", metavar="FILE[:SCALE]",
                        help="add a LoRA to the weights of the prior or the UNet, may be repeated: safetensors, as diffusers, "
                             "peft or kohya's scripts write them")
    parser.add_argument("--target", choices=("cpu", "ascend"), default="cpu",
                        help="ascend: compile the graphs for Ascend, too, of MindSpore's own operators in float16, with files "
                             "for the vendor's converter (default cpu)")
    parser.add_argument("--no-image-encoder", action="store_true", help="leave the image encoder out of the bundle")
    parser.add_argument("--weights", choices=("checkpoint", "float32", "float16", "bfloat16", "int8"),
                        help="the type to store weights in; what narrower types lose is lost; graphs compute in float32 with "
                             "any (default checkpoint: each as the checkpoint has it)")
    parser.add_argument("--shallow", action="store_true",
                        help="with graphs of the UNets' outermost layers, for --cache-interval; they share all weights")
    parser.add_argument("--overwrite", action="store_true", help="replace the bundle that is there")
    parser.add_argument("--engine", choices=("auto", "bridge", "vendor"), default="auto",
                        help="what computes the checkpoint's constants (default auto)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from .requirements import require_exporter

    require_exporter()
    from ..runner.bundle.packed import FOLDER
    from ..runner.common.memory import PeakMemory, as_text
    from .bundle import export_bundle
    from .further_sizes import add_sizes
    from .lora.adapter import Given
    from .staging import real

    others = (args.prior, args.size, args.lora, args.no_image_encoder, args.shallow, args.overwrite, args.weights,
              args.target != "cpu")
    if args.add_size and any(others):
        raise UserError("--add-size takes --output, --decoder, --engine and --quiet alone: the rest stays as the bundle has it")
    if not args.add_size and not args.prior:
        raise UserError("--prior is missing: give the prior's checkpoint folder (only --add-size goes without)")
    started, target = time.monotonic(), real(args.output)
    was_packed = (target / FOLDER).is_dir()
    with PeakMemory() as memory:
        if args.add_size:
            add_sizes(args.output, args.decoder, args.add_size, engine=args.engine, progress=not args.quiet)
        else:
            export_bundle(
                args.prior,
                args.decoder,
                args.output,
                args.size,
                loras=[Given.parse(text) for text in args.lora or ()],
                image_encoder=not args.no_image_encoder,
                target=args.target,
                shallow=args.shallow,
                overwrite=args.overwrite,
                weights=args.weights or "checkpoint",
                engine=args.engine,
                progress=not args.quiet,
            )
    disk = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if was_packed:
        warnings.warn("what was packed suits the bundle of before and is gone: run kandinsky-mindir pack again", stacklevel=2)
    print(f"{args.output}: {disk / 1e6:,.1f} MB in {time.monotonic() - started:.1f} s, peak memory {as_text(memory.peak)}")
