"""Checkpoints that are damaged, incomplete, of another model, or of parts that do not belong together."""

import json
import shutil

import numpy as np
from bad_inputs import Case, drop, edit_json, put, rewrite, short
from kandinsky_mindir.export.checkpoint.folder import PARTS, Checkpoint
from kandinsky_mindir.export.checkpoint.tensor_names import resolve
from kandinsky_mindir.runner.inputs.tokens import Tokenizer

KIND = {"text_encoder": "prior", "image_encoder": "prior", "prior": "prior", "unet": "decoder", "movq": "decoder"}
WEIGHTS = {part: f"{part}/{PARTS[part].stem}.safetensors" for part in KIND}
NAN = float("nan")

# Where a part's config.json goes wrong beside the tables of models/config.py: field, value.
CONFIGS = {
    "text_encoder": [
        ("hidden_size", 33), ("hidden_size", 0), ("hidden_size", "32"), ("hidden_size", 32.0), ("hidden_size", None),
        ("num_hidden_layers", -1), ("num_hidden_layers", True), ("num_attention_heads", 5), ("projection_dim", None),
        ("layer_norm_eps", NAN), ("layer_norm_eps", "small"), ("eos_token_id", [2, 3]), ("rope_theta", 1e4),
        ("vocab_size", 2.5), ("max_position_embeddings", 0),
    ],
    "image_encoder": [
        ("patch_size", [8, 8]), ("patch_size", 25), ("image_size", 0), ("image_size", [24, 24]), ("hidden_size", 41),
        ("intermediate_size", None), ("surprise", 1),
    ],
    "prior": [
        ("num_layers", 0), ("num_attention_heads", "2"), ("embedding_dim", None), ("clip_embed_dim", 7),
        ("time_embed_dim", -4), ("attention_head_dim", 1.5), ("surprise", {}),
    ],
    "unet": [
        ("block_out_channels", []), ("block_out_channels", [32]), ("block_out_channels", [30, 64]),
        ("block_out_channels", 32), ("block_out_channels", [32, "64"]), ("layers_per_block", [1, 1]),
        ("attention_head_dim", [4, 4]), ("attention_head_dim", 5), ("norm_num_groups", None), ("norm_eps", "x"),
        ("encoder_hid_dim", None), ("in_channels", -4), ("freq_shift", NAN), ("flip_sin_to_cos", 1), ("surprise", []),
    ],
    "movq": [
        ("latent_channels", 0), ("vq_embed_dim", 8), ("norm_num_groups", 7), ("block_out_channels", [48, 96]),
        ("mid_block_add_attention", "yes"), ("layers_per_block", None), ("surprise", 0.5),
    ],
}

# Values that fit their own part and no other.
FAMILY = [
    ("text_encoder", "projection_dim", 64, "projection_dim is 64 and prior embedding_proj_dim is 32"),
    ("text_encoder", "hidden_size", 64, "hidden_size is 64 and prior embedding_dim is 32"),
    ("text_encoder", "max_position_embeddings", 50, "max_position_embeddings is 50 and prior num_embeddings is 77"),
    ("image_encoder", "projection_dim", 48, "image_encoder projection_dim is 48 and prior embedding_dim is 32"),
    ("unet", "encoder_hid_dim", 48, "unet encoder_hid_dim is 48 and prior embedding_dim is 32"),
    ("unet", "in_channels", 5, "unet in_channels is 5 and movq latent_channels is 4"),
    ("unet", "out_channels", 5, "unet out_channels is 5: known are 4 (epsilon) and 8"),
    ("text_encoder", "eos_token_id", 5, "eos_token_id is 5: they do not belong together"),
]

# What is done to model_index.json: folder, change, words.
INDEX = [
    ("prior", drop("_class_name"), "is no Kandinsky 2.2 prior, as one of KandinskyV22PriorPipeline"),
    ("prior", put("_class_name", "StableDiffusionPipeline"), "'StableDiffusionPipeline' is no Kandinsky 2.2 prior"),
    ("prior", put("_class_name", "KandinskyPriorPipeline"), "'KandinskyPriorPipeline' is no Kandinsky 2.2 prior"),
    ("prior", put("_class_name", ["KandinskyV22PriorPipeline"]), "is no Kandinsky 2.2 prior"),
    ("prior", drop("image_encoder"), "names no image_encoder: a prior checkpoint must have one"),
    ("prior", put("text_encoder", [None, None]), "has null for text_encoder: load the pipeline with a text_encoder"),
    ("prior", put("text_encoder", "CLIP"), "names no text_encoder"),
    ("prior", put("text_encoder", ["transformers", "T5EncoderModel"]), "is a T5EncoderModel, expected CLIPTextModel"),
    ("prior", drop("tokenizer"), "names no tokenizer"),
    ("prior", drop("scheduler"), "names no scheduler"),
    ("prior", drop("image_processor"), "names no image_processor"),
    ("decoder", put("_class_name", "KandinskyPipeline"), "is no Kandinsky 2.2 decoder"),
    ("decoder", put("_class_name", "KandinskyV22PriorPipeline"), "given as the decoder: are the two folders swapped?"),
    ("decoder", drop("movq"), "names no movq"),
    ("decoder", put("movq", ["diffusers", "AutoencoderKL"]), "movq is a AutoencoderKL, expected VQModel"),
    ("decoder", put("scheduler", ["diffusers", "MagicScheduler"]), "scheduler is a MagicScheduler, known are "),
    ("decoder", put("scheduler", None), "has null for scheduler: load the pipeline with a scheduler"),
    ("decoder", put("unet", ["diffusers"]), "names no unet"),
    ("decoder", lambda index: [], "must hold a JSON object"),
]

# Other JSON files: folder, file, change, words.
OPTIONS = [
    ("decoder", "scheduler/scheduler_config.json", put("_class_name", 7), "_class_name is 7: it must be the name"),
    ("decoder", "scheduler/scheduler_config.json", put("surprise", 1), "DDPMScheduler has no option surprise"),
    ("decoder", "scheduler/scheduler_config.json", put("beta_schedule", "quadratic"), "beta_schedule is 'quadratic'"),
    ("decoder", "scheduler/scheduler_config.json", put("num_train_timesteps", 0), "num_train_timesteps is 0"),
    ("decoder", "scheduler/scheduler_config.json", put("beta_end", NAN), "beta_end is nan"),
    ("prior", "scheduler/scheduler_config.json", put("prediction_type", "v_prediction"), "prediction_type is"),
    ("prior", "scheduler/scheduler_config.json", put("variance_type", None), "variance_type is None"),
    ("prior", "scheduler/scheduler_config.json", lambda config: 7, "must hold a JSON object"),
    *[("prior", "image_processor/preprocessor_config.json", put(key, value), f"the image processor's {key} is")
      for key, value in [
        ("image_processor_type", "ViTImageProcessor"), ("feature_extractor_type", "DPTFeatureExtractor"),
        ("do_pad", True), ("do_resize", "yes"), ("sharpen", 2), ("size", {"longest_edge": 24}), ("size", {}),
        ("size", 0), ("size", 10**9), ("size", "224"), ("crop_size", {"height": 24}), ("crop_size", [24, 2.5]),
        ("resample", 7), ("resample", [3]), ("resample", "bicubic"), ("rescale_factor", "1/255"),
        ("rescale_factor", NAN), ("rescale_factor", 0), ("image_mean", [0.5, 0.5]), ("image_mean", "gray"),
        ("image_std", [0.5, 0, 0.5]), ("image_std", [0.5, None, 0.5]), ("image_std", NAN)]],
    ("prior", "image_processor/preprocessor_config.json", put("crop_size", 25),
     "makes pictures of 25x25 pixels and the image_encoder takes 24x24"),
    ("prior", "image_processor/preprocessor_config.json", put("do_center_crop", False), "makes pictures of no fixed size"),
    ("prior", "tokenizer/tokenizer.json", put("model", {}), "is not a CLIP tokenizer"),
    ("prior", "tokenizer/tokenizer.json", lambda tokenizer: {}, "is not a CLIP tokenizer"),
    ("prior", "tokenizer/tokenizer.json", lambda tokenizer: [], "must hold a JSON object"),
]

DEFAULTS = [
    ("decoder", {"steps": 5}, "'steps' is none of num_inference_steps, guidance_scale, height, width"),
    ("decoder", {"height": 0}, "height must be a whole number above zero, not 0"),
    ("decoder", {"height": 16.5}, "height must be a whole number above zero, not 16.5"),
    ("decoder", {"width": "16"}, "width must be a number of at least 0, not '16'"),
    ("decoder", {"height": 18}, "both sides must be multiples of 4"),
    ("prior", {"height": 16}, "'height' is none of num_inference_steps, guidance_scale"),
    ("prior", {"guidance_scale": -1}, "guidance_scale must be a number of at least 0, not -1"),
    ("prior", {"guidance_scale": NAN}, "guidance_scale must be a number of at least 0, not nan"),
    ("prior", {"num_inference_steps": True}, "num_inference_steps must be a number"),
    ("prior", [], "must hold a JSON object"),
]

JSON_FILES = ["model_index.json", "scheduler/scheduler_config.json"]
JSON_TEXTS = [(b"", "is not valid JSON"), (b"{", "is not valid JSON"), (b"\xff\xfe", "is not valid JSON"),
              (b"null", "must hold a JSON object"), (b"[" * 100_000, "JSON")]

MISSING = [
    ("prior", "model_index.json", "has no model_index.json: give the folder of the whole prior pipeline"),
    ("prior", "text_encoder", "text_encoder/config.json is missing: download the checkpoint again"),
    ("prior", "image_encoder/config.json", "image_encoder/config.json is missing"),
    ("prior", "prior", "prior/config.json is missing"),
    ("prior", "tokenizer", "tokenizer is missing"),
    ("prior", "tokenizer/tokenizer.json", "has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt"),
    ("prior", "scheduler", "scheduler_config.json is missing"),
    ("prior", "image_processor/preprocessor_config.json", "preprocessor_config.json is missing"),
    ("prior", WEIGHTS["text_encoder"], "has no weights: expected model.safetensors or model.safetensors.index.json"),
    ("prior", WEIGHTS["prior"], "has no weights: expected diffusion_pytorch_model.safetensors"),
    ("decoder", "unet", "unet/config.json is missing"),
    ("decoder", "movq/config.json", "movq/config.json is missing"),
    ("decoder", "scheduler", "scheduler_config.json is missing"),
    ("decoder", WEIGHTS["unet"], "has no weights"),
    ("decoder", WEIGHTS["movq"], "has no weights"),
]

TOKENIZER_CUTS = 6


def edit_header(path, change):
    """A safetensors file with another header, its data as they were."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    changed = change(header)
    header = json.dumps(header if changed is None else changed).encode()
    rewrite(path, len(header).to_bytes(8, "little") + header + data[end:])


def cut(keep):
    return lambda path: rewrite(path, path.read_bytes()[:keep])


def first_entry(**fields):
    def change(header):
        name = min(header.keys() - {"__metadata__"}, key=lambda name: header[name]["data_offsets"])
        header[name].update(fields)

    return lambda path: edit_header(path, change)


def renamed(path):
    def change(header):
        name = min(header.keys() - {"__metadata__"})
        header["renamed"] = header.pop(name)

    edit_header(path, change)


def one_more(path):
    edit_header(path, lambda header: header.update(zzz={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}))


def turned(path):
    def change(header):
        entry = next(entry for entry in header.values() if len(set(entry.get("shape", []))) > 1)
        entry["shape"].reverse()

    edit_header(path, change)


def not_finite(path):
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    rewrite(path, bytes(data))


SAFETENSORS = {
    "with a bottomless header": (lambda p: rewrite(p, (10**5).to_bytes(8, "little") + b"[" * 10**5), "invalid JSON in header"),
    "emptied": (cut(0), "is not a safetensors file, or is cut"),
    "cut in the length": (cut(5), "is not a safetensors file, or is cut"),
    "cut in the header": (cut(100), "invalid header length"),
    "cut in the data": (cut(-8), "file not fully covered"),
    "cut in half": (lambda path: cut(path.stat().st_size // 2)(path), "file not fully covered"),
    "longer than its tensors": (lambda p: rewrite(p, p.read_bytes() + b"12"), "file not fully covered"),
    "of an absurd header": (lambda p: rewrite(p, b"\xff" * 8 + p.read_bytes()[8:]), "header too large"),
    "with an array as header": (lambda p: edit_header(p, lambda header: [1]), "invalid type: sequence"),
    "with a number as tensor": (lambda p: edit_header(p, put("extra", 3)), "invalid type: integer `3`"),
    "of unknown type": (first_entry(dtype="Q4"), "unknown variant `Q4`"),
    "of negative size": (first_entry(shape=[-8]), "invalid value: integer `-8`"),
    "with another shape": (first_entry(shape=[7]), "invalid shape, data type, or offset"),
    "with one offset": (first_entry(data_offsets=[0]), "invalid length 1"),
    "not safetensors": (lambda p: rewrite(p, b"PK\x03\x04" * 100), "is not a safetensors file"),
    "a pickle": (lambda p: p.rename(p.with_suffix(".bin")), "is a pickle ... safe_serialization=True"),
}


def cases():
    for part, config in ((part, PARTS[part].config) for part in KIND):
        rows = [(field, "surprise") for field in config.fixed]
        rows += [(field, ["surprise"] if "types" in field else "surprise") for field in config.accepted]
        for field, value in rows + CONFIGS[part]:
            shown = tuple(value) if isinstance(value, list) else value
            words = f"{part}/config.json: {part} configuration: "
            if (field, value) in rows:
                words += f" ... {field} = {shown!r} is not supported; expected "
            elif field == "surprise":
                words += f"field surprise = {value!r} is not implemented"
            yield _case(KIND[part], f"{part}/config.json", put(field, value), words)
    for part, field, value, words in FAMILY:
        yield _case(KIND[part], f"{part}/config.json", put(field, value), words)
    for kind, change, words in INDEX:
        yield _case(kind, "model_index.json", change, words)
    for kind, file, change, words in OPTIONS:
        yield _case(kind, file, change, words)
    for kind, content, words in DEFAULTS:
        yield Case(f"{kind}/generation_defaults.json holds {content}", words, _defaults(kind, content))
    for kind in ("prior", "decoder"):
        for file in JSON_FILES:
            for text, words in JSON_TEXTS:
                yield Case(f"{kind}/{file} holds {short(text)}", f"{file} ... {words}",
                           _export(kind, lambda copy, file=file, text=text: rewrite(copy / file, text)))
    for kind, file, words in MISSING:
        yield Case(f"{kind}/{file} missing", words, _export(kind, lambda copy, file=file: _remove(copy / file)))
    for i in range(TOKENIZER_CUTS):
        yield Case(f"tokenizer.json cut after {i}/{TOKENIZER_CUTS}", "tokenizer.json is not valid JSON",
                   _export("prior", lambda copy, i=i: _cut_text(copy / "tokenizer/tokenizer.json", i / TOKENIZER_CUTS)))
    for part in KIND:
        for name, (damage, words) in SAFETENSORS.items():
            yield Case(f"{WEIGHTS[part]} {name}", words, _weights(part, damage))
        yield Case(f"{WEIGHTS[part]} without a tensor", "lacks tensor", _resolve(part, renamed))
        yield Case(f"{WEIGHTS[part]} with one more tensor", "holds tensor 'zzz', which", _resolve(part, one_more))
        yield Case(f"{WEIGHTS[part]} with a tensor turned", "config.json asks for [", _resolve(part, turned))
        yield Case(f"{WEIGHTS[part]} with a NaN", "holds NaN or infinite values", _read(part, not_finite))
    for damage, words in ((renamed, "movq/diffusion_pytorch_model.safetensors lacks tensor"), (one_more, "tensor 'zzz'")):
        yield Case(f"export of movq {damage.__name__}", words, _weights("movq", damage))  # the last part: found at once
    yield Case("tokenizer.json of another kind", "is not a tokenizer", _tokenizer("{}"))


def _case(kind, file, change, words):
    from bad_bundles import shown

    return Case(f"{kind}/{file}: {shown(change)}", words, _export(kind, lambda copy: edit_json(copy / file, change)))


def _export(kind, damage):
    """Export with a damaged copy of one of the two folders."""

    def act(place):
        folders = {"prior": place.prior, "decoder": place.decoder}
        folders[kind] = place.copy(kind)
        damage(folders[kind])
        return place.command("export", "--prior", folders["prior"], "--decoder", folders["decoder"], "--output", "out",
                             "--size", "16x16", "--quiet")

    return act


def _defaults(kind, content):
    def act(place):
        def damage(copy):
            (copy / "generation_defaults.json").write_text(json.dumps(content))

        folders = {"prior": place.prior, "decoder": place.decoder, kind: place.copy(kind)}
        damage(folders[kind])
        return place.command("export", "--prior", folders["prior"], "--decoder", folders["decoder"], "--output", "out")

    return act


def _weights(part, damage):
    return _export(KIND[part], lambda copy: damage(copy / WEIGHTS[part]))


def _resolve(part, damage):
    """Match the names of a damaged copy to those of the whole file, as export does before it reads a part's weights."""

    def act(place):
        copy = place.copy(KIND[part])
        damage(copy / WEIGHTS[part])
        shapes = Checkpoint(getattr(place, KIND[part]), KIND[part]).tensors(part).shapes
        return place.call(resolve, part, shapes, Checkpoint(copy, KIND[part]).tensors(part))

    return act


def _read(part, damage):
    def act(place):
        copy = place.copy(KIND[part])
        damage(copy / WEIGHTS[part])
        tensors = Checkpoint(copy, KIND[part]).tensors(part)
        return place.call(lambda: [tensors.read(name) for name in tensors.shapes])

    return act


def _tokenizer(text):
    def act(place):
        path = place.folder / "tokenizer.json"
        path.write_text(text)
        return place.call(Tokenizer, path, pad_token_id=0, eos_token_id=2)

    return act


def _remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cut_text(path, share):
    data = path.read_bytes()
    rewrite(path, data[: int(len(data) * share)])
