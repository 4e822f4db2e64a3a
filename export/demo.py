"""Pictures from the checkpoint that ships with the project: export it, run it on MindSpore Lite, draw three sheets.

  kandinsky-mindir demo
  kandinsky-mindir demo --output my_demo
  kandinsky-mindir demo --tasks              with the decoders for inpainting and depth, too: near twice as long

Writes the bundle, a sheet of prompts, a sheet of interpolations (two texts; a text and a picture) and a sheet of pictures
made of a text and a picture (started from it; with --tasks also inpainted, and with the depth that it shows), and says how
long each stage took.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runner.common.errors import UserError

HELP = "make pictures from the checkpoint that ships with the project"
CHECKPOINT = Path("artifacts", "micro")
OUTPUT = Path("artifacts", "demo")

PROMPTS = (
    ("a cat", "a dog", "a panda", "a fox", "a frog", "an elephant", "a penguin", "a butterfly"),
    ("a pizza", "a hamburger", "an apple", "a banana", "a strawberry", "a watermelon", "a donut", "an ice cream"),
    ("a car", "a rocket", "an airplane", "a sailboat", "the sun", "a moon", "a rainbow", "a snowman"),
)
WEIGHTS = (0.0, 0.17, 0.33, 0.5, 0.67, 0.83, 1.0)
TEXT_PAIRS = (("a red heart", "a blue heart"), ("an apple", "an orange"))
DECODERS = ("decoder", "decoder-inpaint", "decoder-depth")  # folders beside prior, of which a checkpoint has the first
HINT = Path("decoder-depth", "hint.png")  # a depth picture that the checkpoint has with it
STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8)
STARTED = "a lion"
REPAINTED = ("a lion", "a panda", "a frog", "a robot")
FORMED = ("a cat", "a fox", "a lion", "a tiger", "a panda")
TEXT_AND_PICTURE = ("a yellow heart", "a green heart")  # the second is a picture, made from that prompt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, metavar="DIR",
                        help=f"folder with prior/ and decoder/ (default: the project's {CHECKPOINT})")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help=f"where to write (default {OUTPUT})")
    parser.add_argument("--tasks", action="store_true",
                        help="with the decoders for inpainting and depth, and with shallow graphs (--cache-interval)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise (default 0)")


def run(args: argparse.Namespace) -> None:
    from .requirements import require_exporter

    require_exporter()
    checkpoint = args.checkpoint or find_checkpoint()
    if not (checkpoint / "prior").is_dir() or not (checkpoint / "decoder").is_dir():
        raise UserError(f"{checkpoint} does not hold the folders prior and decoder: give the folder that does")
    from ..runner.diffusion import noise
    from ..runner.pictures.contact_sheet import labelled_sheet
    from ..runner.pictures.images import load_image
    from ..runner.pictures.saving import save_image
    from ..runner.pipelines import KandinskyV22CombinedPipeline
    from .bundle import export_bundle

    decoders = [checkpoint / name for name in (DECODERS if args.tasks else DECODERS[:1])]
    lacking = [path for path in (*decoders, checkpoint / HINT) if args.tasks and not path.exists()]
    if lacking:
        raise UserError(f"{lacking[0]} is not there, which --tasks needs: leave it out")
    noise.source(args.seed)  # an error now, not after the export
    args.output.mkdir(parents=True, exist_ok=True)
    with timed("export: checkpoint to MindIR graphs"):
        bundle = export_bundle(checkpoint / "prior", decoders, args.output / "bundle", shallow=args.tasks, overwrite=True)
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle)
    pipeline.set_progress_bar_config(leave=False, disable=None)  # only on a terminal
    sheets = {}
    prompts = [prompt for row in PROMPTS for prompt in row]
    with timed(f"{len(prompts)} pictures from prompts"):
        pictures = pipeline(prompts, generator=args.seed).images
        labelled = iter(zip(pictures, prompts))
        sheets["prompts.png"] = labelled_sheet([[next(labelled) for _ in row] for row in PROMPTS])
    with timed(f"{3 * len(WEIGHTS)} pictures from mixes"):
        picture = pipeline(TEXT_AND_PICTURE[1], generator=args.seed).images[0]
        rows = [strip(pipeline, *pair, pair[1], args.seed) for pair in TEXT_PAIRS]
        rows.append(strip(pipeline, TEXT_AND_PICTURE[0], picture, "picture", args.seed))
        sheets["interpolations.png"] = labelled_sheet(rows)
    with timed(f"{15 if args.tasks else len(STRENGTHS)} pictures from a text and a picture"):
        hint = load_image(checkpoint / HINT) if args.tasks else None
        sheets["tasks.png"] = labelled_sheet(list(task_rows(pipeline, pictures[prompts.index("a cat")], hint, args.seed)))
    for name, sheet in sheets.items():
        save_image(sheet, args.output / name)
        print(f"wrote {args.output / name}")
    print(f'the bundle is {bundle}; try: kandinsky-mindir generate {bundle} "a tiger" --output tiger.png')


def strip(pipeline, first, second, second_name: str, seed: int) -> list:
    """Pictures on the way from `first` to `second`, each with a label. Both are embedded once, then mixed."""
    row, embeddings = [], pipeline.prior_pipe.embed([first, second], generator=seed)
    for weight in WEIGHTS:
        embeds = pipeline.prior_pipe.mix(embeddings, [1 - weight, weight])
        picture = pipeline.decoder_pipe(*embeds, generator=seed).images[0]
        label = {0.0: first, 1.0: second_name}.get(weight, f"{1 - weight:.2f} + {weight:.2f}")
        row.append((picture, label))
    return row


def task_rows(pipeline, start, hint, seed: int) -> Iterator[list]:
    """A row of pictures, each with a label, of each task that is brought a picture: the picture first. hint: None, if the
    bundle starts from pictures alone."""
    from PIL import Image

    from ..runner.pipelines import KandinskyV22ControlnetPipeline, KandinskyV22Img2ImgPipeline, KandinskyV22InpaintPipeline

    def opened(cls):
        made = cls.from_pipe(pipeline)
        made.progress = pipeline.decoder_pipe.progress
        return made

    mask = Image.new("L", start.size)
    mask.paste(255, (start.width // 2, 0, start.width, start.height))

    def embedded(prompts):
        return [[side[None] for side in pair] for pair in zip(*pipeline.prior_pipe(list(prompts), generator=seed).to_tuple())]

    img2img, (embeds,) = opened(KandinskyV22Img2ImgPipeline), embedded([STARTED])
    started = [(img2img(embeds[0], start, embeds[1], strength=strength, generator=seed).images[0], f"{STARTED}, {strength:g}")
               for strength in STRENGTHS]
    yield [(start, "picture"), *started]
    if hint is None:
        return
    inpaint, controlnet = opened(KandinskyV22InpaintPipeline), opened(KandinskyV22ControlnetPipeline)
    repainted = [(inpaint(embeds[0], start, mask, embeds[1], generator=seed, paste=True).images[0], prompt)
                 for prompt, embeds in zip(REPAINTED, embedded(REPAINTED))]
    yield [(start, "picture"), (mask.convert("RGB"), "mask"), *repainted]
    formed = [(controlnet(*embeds, hint=hint, generator=seed).images[0], prompt)
              for prompt, embeds in zip(FORMED, embedded(FORMED))]
    yield [(hint.resize(start.size), "depth"), *formed]


def find_checkpoint() -> Path:
    """The shipped checkpoint: beside the sources, or below the working folder."""
    for root in (Path(__file__).resolve().parents[1], Path.cwd()):
        if (root / CHECKPOINT / "prior").is_dir():
            return root / CHECKPOINT
    raise UserError(f"{CHECKPOINT} is not here: run the demo in a clone of the project, or give --checkpoint")


@contextmanager
def timed(stage: str):
    started = time.monotonic()
    yield
    print(f"{stage}: {time.monotonic() - started:.1f} s", flush=True)
