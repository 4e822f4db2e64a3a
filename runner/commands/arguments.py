"""Arguments that several subcommands share. None stands for what the command line leaves open."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ..bundle.checked_files import CHECKS
from ..common.errors import UserError
from ..common.memory import as_bytes
from ..diffusion.noise import GENERATORS
from ..engine import ENGINES
from ..engine.precision import CHOICES
from ..schedulers import SHORT_NAMES


def size(text: str) -> tuple[int, int]:
    """"HxW" in pixels."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not match or 0 in (int(match[1]), int(match[2])):
        raise argparse.ArgumentTypeError(f"size {text!r} is not HEIGHTxWIDTH, for example 512x768")
    return int(match[1]), int(match[2])


def memory(text: str) -> int:
    """An amount of memory in bytes."""
    try:
        return as_bytes(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Like(argparse.Action):
    """The file of a recipe, which makes up for the arguments in `instead_of` that are left out."""

    def __init__(self, *, instead_of: tuple[argparse.Action, ...], **options):
        super().__init__(**options)
        self.instead_of = instead_of

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)
        for argument in self.instead_of:
            argument.required = False


def add_like(parser: argparse.ArgumentParser, *instead_of: argparse.Action) -> None:
    parser.add_argument(
        "--like", type=Path, action=Like, instead_of=instead_of, metavar="FILE",
        help="make the picture in FILE again, from the recipe that this program wrote into it (PNG alone holds one); "
        "options given here replace its own, and with --images N a new batch is drawn from its seed",
    )
    parser.add_argument(
        "--trust-recipe", action="store_true",
        help="with --like, open whatever the recipe names, addresses too, without asking: it does so by itself only for "
        "a bundle and for pictures that lie on this machine and are unchanged",
    )


def add_sampling(parser: argparse.ArgumentParser, images: bool = True) -> None:
    """images: whether the command makes several pictures of a prompt."""
    group = parser.add_argument_group("sampling (defaults travel in the bundle)")
    group.add_argument("--steps", type=int, metavar="N", help="denoising steps of the decoder")
    group.add_argument("--prior-steps", type=int, metavar="N", help="denoising steps of the prior")
    group.add_argument("--guidance-scale", type=float, metavar="X", help="guidance of the decoder; 1 switches it off")
    group.add_argument("--prior-guidance-scale", type=float, metavar="X", help="guidance of the prior")
    group.add_argument("--guidance-rescale", type=float, metavar="X",
                       help="0 to 1: how far to take back the glare of a high guidance scale (default 0; 0.7 is usual)")
    group.add_argument("--guidance-interval", type=float, nargs=2, metavar=("START", "STOP"),
                       help="guide only this share of the decoder's steps, for example 0.2 0.8; the others take half "
                       "the time (default 0 1)")
    group.add_argument("--cache-interval", type=int, metavar="N",
                       help="run the UNet whole in one of N steps, in the others its outermost layers alone (default 1: all "
                       "whole; for a bundle that was exported with --shallow)")
    group.add_argument("--scheduler", metavar="NAME",
                       help="sampler of the decoder: checkpoint for the checkpoint's own, a class name of diffusers, or "
                       f"one of {', '.join(SHORT_NAMES)}")
    if images:
        group.add_argument("--images", type=int, metavar="N", help="pictures of each prompt (default 1)")
    group.add_argument("--seed", type=int, metavar="N", help="seed of the noise; without it one is drawn")
    group.add_argument("--rng", choices=tuple(GENERATORS),
                       help="what makes noise of the seed (default numpy); torch: the noise of "
                       "torch.Generator().manual_seed(seed) on a CPU, for the same picture as in diffusers")
    group.add_argument("--size", type=size, metavar="HxW", help="pixels, one of the bundle's sizes")


def sampling_fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a Request that the options of `add_sampling` give; those that are left out are not there."""
    height, width = args.size or (None, None)
    fields = {
        "num_inference_steps": args.steps,
        "prior_num_inference_steps": args.prior_steps,
        "guidance_scale": args.guidance_scale,
        "prior_guidance_scale": args.prior_guidance_scale,
        "guidance_rescale": args.guidance_rescale,
        "guidance_interval": args.guidance_interval and tuple(args.guidance_interval),
        "cache_interval": args.cache_interval,
        "scheduler": args.scheduler,
        "num_images_per_prompt": getattr(args, "images", None),
        "seed": args.seed,
        "rng": args.rng,
        "height": height,
        "width": width,
    }
    return {name: value for name, value in fields.items() if value is not None}


def add_pictures(parser: argparse.ArgumentParser, *also: str) -> None:
    """Options for what a request brings beside its subject. also: other names of --init-image."""
    group = parser.add_argument_group("pictures to start from (files or addresses)")
    group.add_argument("--init-image", *also, dest="image", metavar="FILE", help="the picture that the diffusion starts from")
    group.add_argument("--mask", dest="mask_image", metavar="FILE",
                       help="paint that picture anew where the mask is white and keep the rest (needs an inpainting decoder)")
    group.add_argument("--paste", action="store_true", default=None,
                       help="with --mask, put the pixels of what is kept back as they were")
    group.add_argument("--hint", metavar="FILE", help="a picture of the depth, near bright (needs a depth decoder)")
    group.add_argument("--strength", type=float, metavar="X",
                       help="above 0 to 1: how much of it is made anew, as a share of the steps (default 0.3)")


def picture_fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a Request that the options of `add_pictures` give."""
    from ..pictures.provenance import as_text
    from ..tasks import PICTURES, InputPicture

    fields: dict[str, Any] = {name: (InputPicture(image=as_text(getattr(args, name))),)
                              for name in PICTURES if getattr(args, name) is not None}
    for name in ("strength", "paste"):
        if getattr(args, name) is not None:
            fields[name] = getattr(args, name)
    return fields


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, default=Path(default), metavar="FILE",
                       help=f"picture file, its ending gives the format (default {default}); several are numbered")
    group.add_argument("--grid", action="store_true", default=None, help="put all pictures into one file")
    group.add_argument("--quiet", action="store_true", help="no progress bars")


def add_threads(parser) -> None:
    """The option --threads, for a parser or a group of one."""
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the engine (default: one on each CPU)")


def add_precision(parser) -> None:
    """The option --precision, for a parser or a group of one."""
    parser.add_argument("--precision", choices=CHOICES,
                        help="in which graphs are computed (default float32, or with --like what the picture was made in): "
                        "bfloat16 (x86_64) and float16 (aarch64) are faster on processors that have them, and change "
                        "pictures a little; auto: the one that the processor has")


def add_engine(parser: argparse.ArgumentParser, plans: bool = True) -> None:
    """plans: whether the command can stop at a plan of its memory, and verify the bundle first."""
    group = parser.add_argument_group("engine")
    group.add_argument("--engine", choices=ENGINES, default="auto",
                       help="bridge: Lite's C++ libraries, fetched when first needed; vendor: the mindspore_lite package; "
                       "mindspore: MindSpore itself (default auto: bridge)")
    group.add_argument("--device", choices=("cpu", "ascend"), default="cpu", help="where graphs run (default cpu)")
    add_threads(group)
    add_precision(group)
    group.add_argument("--keep-loaded", action="store_true", default=None,
                       help="keep all models in memory between stages, or refuse (default: they stay with up to 1 GiB of "
                       "weights, or with --memory, if they fit)")
    group.add_argument("--memory", type=memory, metavar="SIZE",
                       help="stay below SIZE, for example 12GB (a bare number is bytes): models stay loaded between stages "
                       "if that fits, else one is in memory at a time, and what cannot fit is refused (default: what "
                       "the machine has left)")
    group.add_argument("--check", choices=CHECKS, default="once",
                       help="when to hash files of the bundle that are loaded: once (default), until a file changes; always; "
                       "never")
    if plans:
        group.add_argument("--plan", action="store_true", help="only say what memory each stage would need")
        group.add_argument("--verify", action="store_true", help="first check that the bundle computes what it should here")


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the options of `add_engine` say to from_pretrained."""
    return {name: getattr(args, name) for name in ("engine", "device", "threads", "precision", "keep_loaded", "memory", "check")}
