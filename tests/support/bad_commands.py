"""Bad command lines: unknown words, values that do not parse, places that cannot be written."""

import shlex

from bad_inputs import Case

SIZES = ["64", "64x", "x64", "axb", "64x64x64", "64 x 64", "1.5x2", "0x64", "64x0", "00x64", "9999999x64", ""]

COMMANDS = [
    ("", "required: COMMAND"),
    ("paint", "invalid choice: 'paint' (choose from ... generate"),
    ("--frobnicate", "required: COMMAND"),
    ("generate", "required: BUNDLE, PROMPT"),
    ("generate {bundle}", "required: PROMPT"),
    ("generate {bundle} cat --frobnicate", "unrecognized arguments: --frobnicate"),
    ("generate {bundle} cat '--two\nlines'", "unrecognized arguments: --two lines"),
    ("generate {bundle} cat --prior 3", "ambiguous option: --prior could match --prior-steps"),
    ("generate {bundle} cat --steps", "--steps: expected one argument"),
    ("generate {bundle} cat --quiet=yes", "--quiet: ignored explicit argument 'yes'"),
    ("generate {bundle} cat --device tpu", "--device: invalid choice: 'tpu' (choose from ... ascend"),
    ("generate {bundle} cat --engine cuda", "--engine: invalid choice: 'cuda'"),
    ("generate {bundle} cat --engine vendor", "the engine 'vendor' needs the mindspore_lite package"),
    ("generate {bundle} cat --scheduler magic", "scheduler 'magic' is not known; choose one of ... ddpm"),
    ("generate {bundle} cat --scheduler unclip", "UnCLIPScheduler: beta_schedule is 'linear'"),
    ("generate {bundle} cat --size 24x24", "no size 24x24 (it has 16x16, 16x24)"),
    ("generate {bundle} cat --size 24x16", "no size 24x16 (it has 16x16, 16x24): choose one"),
    ("generate {bundle} cat --size 17x16", "no size 20x16"),
    ("generate {bundle} cat --size 999999x999999", "no size 1000000x1000000"),
    ("interpolate", "required: BUNDLE"),
    ("interpolate {bundle}", "nothing to mix: give at least one --text TEXT WEIGHT"),
    ("interpolate {bundle} cat", "unrecognized arguments: cat"),
    ("interpolate {bundle} --text cat", "--text: expected 2 arguments"),
    ("interpolate {bundle} --text cat 1 dog", "unrecognized arguments: dog"),
    ("interpolate {bundle} --image cat.png", "--image: expected 2 arguments"),
    ("interpolate {bundle} --text cat much", "the weight 'much' is not a number"),
    ("interpolate {bundle} --image missing.png x", "the weight 'x' is not a number"),
    ("interpolate {bundle} --text cat nan", "weight is nan: it must be a finite number"),
    ("interpolate {bundle} --text cat 1 --text dog inf", "weight is inf: it must be a finite number"),
    ("interpolate {bundle} --text cat 1e39", "weight is 1e+39: it must be a finite number"),
    ("interpolate {bundle} --text cat 0", "weights are all zero"),
    ("interpolate {bundle} --text cat 0 --text dog -0.0", "weights are all zero"),
    ("interpolate {bundle} --image missing.png 1", "missing.png cannot be read: it is not there"),
    ("interpolate {bundle} --image {bundle} 1", "cannot be read: it is not a file"),
    ("interpolate {bundle} --image /dev/zero 1", "/dev/zero cannot be read: it is not a file"),
    ("interpolate {bundle} --image http://127.0.0.1:9/cat.png 1", "http://127.0.0.1:9/cat.png cannot be fetched"),
    ("interpolate {bundle} --image http:// 1", "cannot be fetched"),
    ("interpolate {bundle} --image http://[::1/cat.png 1", "cannot be fetched"),
    ("interpolate {bundle} --image ftp://127.0.0.1/cat.png 1", "is not there; give a picture's path or its http(s)"),
    ("interpolate {bundle} --image '' 1", "cannot be read: it is not a file"),
    ("generate --like missing.png", "missing.png"),
    ("generate --like {bundle}", "bundle"),
    ("generate --like {bundle}/tokenizer.json", "tokenizer.json"),
    ("generate {bundle} cat --images 1031 --grid --output grid.webp", "16x16496 pixels is too large for WEBP, which has at most"),
    ("generate {bundle} cat dog --output " + "c" * 251 + ".png", "c-1.png cannot be written (File name too long): choose"),
    ("generate {bundle} cat --output /dev/full", "/dev/full ends in no known picture format"),
    ("generate {bundle} cat --output /proc/cat.png", "/proc takes no files"),
    ("generate {bundle} cat$\udcea", "prompt must be Unicode text"),
    ("generate {bundle} cat --negative-prompt \udcea", "negative_prompt must be Unicode text"),
    ("interpolate {bundle} --text \udcea 1", "text must be Unicode text"),
    ("interpolate {bundle} --image \udcea 1", "is not there"),
    ("interpolate {bundle} --image file:///cat.png 1", "is not there; give a picture's path or its http(s)"),
    ("film", "required: BUNDLE, --key"),
    ("film {bundle} --key cat", "one key gives a film whose frames are all the same: give another key"),
    ("film {bundle} --key cat --key dog --output film.avi", "film.avi ends in no known film format: use one of .gif"),
    ("film {bundle} --key cat --key dog --images 2 --output film.gif", "unrecognized arguments: --images 2"),
    ("film {bundle} --key cat --key dog --fps 60 --output film.gif", "fps is 60: GIF takes more than 0 and at most 50"),
    ("film {bundle} --key cat --key dog --frames 1 --output film.gif", "1 frames do not show 2 keys"),
    ("film {bundle} --key cat --key missing.png --output film.gif", "missing.png cannot be read: it is not there"),
    ("film {bundle} --key cat --key dog --size 24x24 --output film.gif", "no size 24x24 (it has 16x16, 16x24)"),
    ("film {bundle} --key cat --key dog --output missing/film.gif", "the folder missing does not exist"),
    ("film missing --key cat --key dog --output film.gif", "missing is not a bundle"),
    ("merge", "required: BUNDLE, --lora, --output"),
    ("merge missing --lora style.safetensors --output merged", "missing is not a bundle"),
    ("merge {bundle} --lora missing.safetensors --output merged", "missing.safetensors is not there: give a LoRA's file"),
    ("merge {bundle} --lora style.safetensors:0 --output merged", "the scale must be a number other than 0"),
    ("merge {bundle} --lora {bundle}/tokenizer.json --output merged", "is not a safetensors file, or is cut or damaged"),
    ("merge {bundle} --lora {bundle} --output merged", "is a folder with none of pytorch_lora_weights.safetensors and"),
    ("merge {bundle} --lora style.safetensors --output {bundle}", "exists: choose another --output, or say --overwrite"),
    ("export --add-size 8x8 --lora style.safetensors --decoder {decoder} --output {bundle}", "--add-size takes --output, --decoder"),
    ("inspect", "required: BUNDLE"),
    ("inspect missing", "missing is not a bundle (no manifest.json): make one with kandinsky-mindir export"),
    ("inspect {prior}", "is not a bundle (no manifest.json)"),
    ("inspect {bundle}/manifest.json", "manifest.json is not a bundle"),
    ("inspect {bundle} more", "unrecognized arguments: more"),
    ("generate missing cat", "missing is not a bundle"),
    ("interpolate missing --text cat 1", "missing is not a bundle"),
    ("pack", "required: BUNDLE"),
    ("pack missing", "missing is not a bundle"),
    ("pack {bundle} --threads 0", "threads is 0"),
    ("pack {bundle} --threads x", "--threads: invalid int value: 'x'"),
    ("verify", "required: BUNDLE"),
    ("verify missing", "missing is not a bundle"),
    ("verify {bundle} --tolerance 0", "--tolerance must be above 0, not 0"),
    ("verify {bundle} --tolerance nan", "--tolerance must be above 0, not nan"),
    ("verify {bundle} --part magic", "has no part 'magic': it has text_encoder"),
    ("verify {bundle} --threads 0", "threads is 0"),
    ("verify {bundle} --device tpu", "--device: invalid choice: 'tpu'"),
    ("runtime", "required: ACTION"),
    ("runtime remove", "invalid choice: 'remove' (choose from ... install"),
    ("runtime install --wheel", "--wheel: expected one argument"),
    ("demo --seed x", "--seed: invalid int value: 'x'"),
    ("demo --seed -1", "seed -1 does not suit"),
    ("demo --checkpoint missing --output demo", "missing does not hold the folders prior and decoder"),
    ("export", "required: --decoder, --output"),
    ("export --prior {prior} --output b", "required: --decoder"),
    ("export --prior {prior} --decoder {decoder}", "required: --output"),
    ("export --prior missing --decoder {decoder} --output b", "missing is not a folder: download the prior"),
    ("export --prior {prior} --decoder missing --output b", "missing is not a folder: download the decoder"),
    ("export --prior {prior}/model_index.json --decoder {decoder} --output b", "model_index.json is not a folder"),
    ("export --prior {decoder} --decoder {prior} --output b", "are the two folders swapped?"),
    ("export --prior {prior}/prior --decoder {decoder} --output b", "no model_index.json: give the folder of the whole"),
    ("export --prior {prior} --decoder {decoder} --output no/b", "no does not exist: make it first"),
    ("export --prior {prior} --decoder {decoder} --output {bundle}", "exists: choose another --output, or say --overwrite"),
    ("export --prior {prior} --decoder {decoder} --output {prior} --overwrite", "is not a bundle: it is not overwritten"),
    ("export --prior {prior} --decoder {decoder} --output b --engine cuda", "--engine: invalid choice: 'cuda'"),
    ("export --prior {prior} --decoder {decoder} --output b --engine vendor", "the engine 'vendor' needs"),
    ("export --prior {prior} --decoder {decoder} --output b --size 17x16", "multiples of 4; the next size up is 20x16"),
    ("export --prior {prior} --decoder {decoder} --output b --size 16x16 --size 16x18", "the next size up is 16x20"),
    ("export --prior {prior} --decoder {decoder} --output b --size 400000x400000", "size 400000x400000: pictures have from 1 to"),
]

# Options that take a value, and values that they must not take.
OPTIONS = {
    "--steps": [("0", "num_inference_steps is 0: it must be a whole number of at least 1"), ("-1", "is -1"),
                ("1001", "num_inference_steps is 1001 ... from 1 to 1000"), ("x", "invalid int value: 'x'"),
                ("1.5", "invalid int value: '1.5'"), ("", "invalid int value: ''"), ("9" * 30, "num_inference_steps is")],
    "--prior-steps": [("0", "num_inference_steps is 0"), ("1001", "from 1 to 1000"),
                      ("x", "invalid int value: 'x'")],
    "--guidance-scale": [("nan", "guidance_scale is nan: it must be a finite number"), ("inf", "is inf"),
                         ("-1", "guidance_scale is -1.0: it must not be negative"), ("1e39", "is 1e+39"),
                         ("x", "invalid float value: 'x'")],
    "--prior-guidance-scale": [("nan", "guidance_scale is nan"), ("-inf", "expected one argument"),
                               ("=-inf", "guidance_scale is -inf"), ("-0.5", "must not be negative"),
                               ("x", "invalid float value: 'x'")],
    "--guidance-rescale": [("-0.1", "guidance_rescale is -0.1: it must be from 0 (off) to 1"), ("1.1", "is 1.1"),
                           ("nan", "guidance_rescale is nan"), ("x", "invalid float value: 'x'")],
    "--cache-interval": [("0", "cache_interval is 0: it must be a whole number of at least 1"), ("x", "invalid int value: 'x'"),
                         ("2", "cache_interval is 2, and ... has no unet_shallow: export it again with --shallow")],
    "--guidance-interval": [("0.5", "expected 2 arguments"), ("0.8 0.2", "guidance_interval is (0.8, 0.2)"),
                            ("0 2", "guidance_interval is (0, 2)"), ("nan 1", "guidance_interval is nan"),
                            ("a b", "invalid float value: 'a'")],
    "--rng": [("jax", "--rng: invalid choice: 'jax'")],
    "--images": [("0", "num_images_per_prompt is 0: it must be a whole number"), ("-3", "is -3"),
                 ("x", "invalid int value: 'x'"), ("9999999999", "num_images_per_prompt is 9999999999")],
    "--seed": [("-1", "seed -1 does not suit the generator"), ("x", "invalid int value: 'x'"),
               ("1.5", "invalid int value: '1.5'")],
    "--threads": [("0", "threads is 0: it must be a whole number of at least 1"), ("-1", "threads is -1"),
                  ("x", "invalid int value: 'x'")],
    "--output": [("picture.xyz", "picture.xyz ends in no known picture format: use one of .png"),
                 ("picture", "ends in no known picture format"), ("", "ends in no known picture format"),
                 ("no/picture.png", "the folder no does not exist: make it"),
                 ("/dev/null/picture.png", "the folder /dev/null does not exist"),
                 ("{folder}/here/../is.png", "is a folder")],
}


def cases():
    for line, words in COMMANDS:
        yield Case(f"kandinsky-mindir {line}".strip(), words, _command(line))
    for start in ("generate {bundle} cat", "interpolate {bundle} --text cat 1"):
        for option, values in OPTIONS.items():
            for value, words in values:
                joined = f"{option}{value}" if value.startswith("=") else f"{option} {value if ' ' in value else shlex.quote(value)}"
                yield Case(f"{start} {joined}", words, _command(f"{start} {joined}"))
    for start in ("generate {bundle} cat", "export --prior {prior} --decoder {decoder} --output b"):
        for size in SIZES:
            line = f"{start} --size {shlex.quote(size)}"
            yield Case(line, "is not HEIGHTxWIDTH, for example 512x768", _command(line))


def _command(line):
    def act(place):
        (place.folder / "is.png").mkdir()
        return place.command(*(word.format(**vars(place)) for word in shlex.split(line)))

    return act
