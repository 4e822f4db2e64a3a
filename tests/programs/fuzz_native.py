"""Fuzzes the C++ library under the address and undefined-behavior sanitizers: mutated inputs, kept where they reach new code.

    python tests/programs/fuzz_native.py [--seconds 600] [--seed 1] [--output FOLDER] [PART ...]

PART is one of SEEDS below; each is fuzzed for as long, on one core. Bad input must end in one line of error, whatever it is. An
input with a finding is left in FOLDER, with what was said of it. Exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import support_path  # noqa: F401
from native_leaves import ROOT, SANITIZED, compiled
from picture_files import encoded, picture

TOKENIZER = ROOT / "artifacts" / "micro" / "prior" / "tokenizer" / "tokenizer.json"
# Sources that the parts with a bundle's data need, too.
MORE = ("decoder_kinds", "fields", "files", "items", "manifest", "noise", "options", "recipe", "request", "request_rows")
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "UnCLIPScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
              "EulerAncestralDiscreteScheduler")  # fmt: skip


def small_tokenizer() -> str:
    """The micro checkpoint's tokenizer with few tokens: what is mutated should be seldom a vocabulary's middle."""
    file = json.loads(TOKENIZER.read_text())
    merges = file["model"]["merges"][:20]
    kept = {part for merge in merges for part in (*merge, "".join(merge))}
    names = [token for token in file["model"]["vocab"] if len(token) == 1 or token in kept or token.startswith("<|")]
    file["model"] |= {"vocab": {token: i for i, token in enumerate(names[:80] + names[-2:] + sorted(kept))}, "merges": merges}
    return json.dumps(file)


def schedulers() -> list[str]:
    from kandinsky_mindir.runner.schedulers import SCHEDULERS as CLASSES

    plain = [{"_class_name": name} for name in SCHEDULERS]
    full = [{"_class_name": name, **{key: value for key, value in CLASSES[name].OPTIONS.items() if value not in (None, np.inf, -np.inf)}}
            for name in SCHEDULERS]  # fmt: skip
    more = [{"_class_name": SCHEDULERS[3], "use_karras_sigmas": True, "solver_order": 3},
            {"_class_name": SCHEDULERS[3], "use_exponential_sigmas": True, "algorithm_type": "sde-dpmsolver++"},
            {"_class_name": SCHEDULERS[4], "trained_betas": [0.01, 0.02, 0.3], "num_train_timesteps": 3, "s_churn": 1.0},
            {"_class_name": SCHEDULERS[0], "thresholding": True, "variance_type": "learned_range", "rescale_betas_zero_snr": True}]
    return [json.dumps(config) for config in plain + full + more]


def requests() -> list[str]:
    return [json.dumps(request) for request in (
        {"task": "text2image", "prompt": ["a cat", "a dog"], "negative_prompt": ["", "blur"], "seed": 7, "rng": "torch",
         "scheduler": "ddim", "num_inference_steps": 5, "guidance_scale": 4.0, "guidance_interval": [0.1, 0.9], "height": 64, "width": 96,
         "num_images_per_prompt": 2},
        {"task": "interpolate", "items": [{"weight": 0.3, "text": "a cat"}, {"weight": 0.7, "image": "a.png", "sha256": "0" * 64}],
         "negative_prior_prompt": "x", "scheduler": {"_class_name": "DDIMScheduler", "eta": 0.5}, "prior_num_inference_steps": 4,
         "prior_guidance_scale": 1, "guidance_rescale": 0.2, "row": 0, "rows": 3},
        {"task": "text2image", "prompt": ["a", "b"], "image": [{"image": "a.png"}, {"sha256": "1" * 64}], "strength": 0.6,
         "hint": [{"image": "file:a%20b.png", "sha256": "2" * 64}]},
        {"task": "text2image", "prompt": ["a"], "image": [{"image": "a.png"}], "mask_image": [{"image": "m.png"}], "paste": True,
         "cache_interval": 1},
        {"task": "text2image", "prompt": "a cat", "seed": 2**64 - 1, "rng": "numpy"})] + [
        '{"task": "text2image", "prompt": "a", "scheduler": ' + "[" * 50_000 + "]" * 50_000 + "}"]  # fmt: skip


def manifest() -> str:
    """A small bundle's, sealed."""
    tensors = [{"name": "input_ids", "shape": [1, 77], "dtype": "int32"}]
    files = ["constants.npz", "tokenizer.json", *(f"movq/{name}" for name in ("mindir.zip", "weights.bin", "weights.index.json", "g.ms.layout"))]
    data = {
        "format": 4, "seal": "0" * 64, "sizes": [[64, 64]], "files": {name: {"size": 3, "sha256": "1" * 64} for name in files},
        "graphs": [{"name": "movq_decoder", "part": "movq", "batch": 1, "size": [64, 64], "mindir": "movq/g.mindir",
                    "lite": "movq/g.lite.mindir", "ms": ["movq/g.ms.layout"], "inputs": tensors, "outputs": tensors}],
        "settings": {"movq_scale_factor": 8, "prior_time_proj": {"flip_sin_to_cos": True, "freq_shift": 0},
                     "unet_time_proj": {"flip_sin_to_cos": True, "freq_shift": 0}},
        "schedulers": {"prior": json.loads(schedulers()[2]), "decoder": json.loads(schedulers()[0])},
        "tokenizer": {"max_length": 77, "pad_token_id": 1, "eos_token_id": 1, "vocab_size": 9}, "image_processor": None,
        "defaults": {"prior": {"num_inference_steps": 25, "guidance_scale": 4.0},
                     "decoder": {"num_inference_steps": 20, "guidance_scale": 4.0, "height": 64, "width": 64, "scheduler": "checkpoint"}},
        "source": {"prior": "p", "decoder": "d"}, "versions": {"kandinsky-mindir": "0"},
    }  # fmt: skip
    text = json.dumps(data)
    return text.replace('"seal": "' + "0" * 64, f'"seal": "{hashlib.sha256(text.encode()).hexdigest()}')


def pngs() -> list[bytes]:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("kandinsky-mindir", "{}", zip=True)
    info.add_itxt("XML:com.adobe.xmp", 'tiff:Orientation="6"')
    info.add_text("kandinsky-mindir", "x" * 20, zip=True)
    modes = [encoded(image=picture(9, 7, mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") if mode != "I;16"]
    return [*modes, encoded(image=picture(9, 7), pnginfo=info, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")]


def jpegs() -> list[bytes]:
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
    return [encoded("JPEG", picture(19, 17, mode), quality=40, progressive=progressive, exif=exif)
            for mode in ("L", "RGB", "CMYK") for progressive in (False, True)]  # fmt: skip


# What is fuzzed, and what the mutations begin with.
SEEDS = {
    "tokenizer": lambda: [small_tokenizer()],
    "text": lambda: ["a photo of the cat's 12 dogs!", "Ночь, naïve 猫 e\u0301 🐈\u200d⬛", "<|startoftext|>x<|endoftext|>", " \t\x00 don't"],
    "request": requests,
    "manifest": lambda: [manifest()],
    "scheduler": schedulers,
    "processor": lambda: ["{}", json.dumps({
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 20},
        "resample": 2, "image_mean": [0.4, 0.5, 0.6], "do_rescale": False})],
    "png": pngs,
    "jpeg": jpegs,
    "png_text": pngs,
    "seed": lambda: ["7", "-1", "340282366920938463463374607431768211455"],
    "line": lambda: ["two\nlines", "\x1b[31m naïve 'x' \u2028"],
}  # fmt: skip


def fuzz(program: Path, part: str, seconds: float, seed: int, output: Path) -> bool:
    """Whether nothing was found."""
    with tempfile.TemporaryDirectory() as folder:
        for i, content in enumerate(SEEDS[part]()):
            (Path(folder) / f"{i:02}").write_bytes(content if isinstance(content, bytes) else content.encode())
        finding = output / f"{part}.finding"
        environment = {**os.environ, "FUZZ_TOKENIZER": str(TOKENIZER),
                       "ASAN_OPTIONS": "handle_abort=1:hard_rss_limit_mb=4000:detect_leaks=1"}  # fmt: skip
        result = subprocess.run([program, part, folder, str(seconds), str(seed), finding], env=environment, text=True,
                                errors="replace", capture_output=True)
    print(f"{part}: {result.stdout.strip() or 'a finding'}", flush=True)
    if result.returncode:
        (said := finding.with_suffix(".txt")).write_text(result.stderr)
        print(f"  status {result.returncode}; the input is {finding}, the report {said}: {result.stderr[:400]}", flush=True)
    return result.returncode == 0


def build(cache: Path) -> Path:
    return compiled("fuzz", cache, more=MORE, **SANITIZED)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*SEEDS, []], help="all if none is given")
    parser.add_argument("--seconds", type=float, default=600, help="of each part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(tempfile.gettempdir()) / "fuzz_native")
    parser.add_argument("--cache", type=Path, default=ROOT / ".pytest_cache" / "d" / "native")
    options = parser.parse_args(arguments)
    for folder in (options.output, options.cache):
        folder.mkdir(parents=True, exist_ok=True)
    program = build(options.cache)
    good = [fuzz(program, part, options.seconds, options.seed, options.output) for part in options.parts or SEEDS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
