"""Write checkpoints of the real Kandinsky 2.2's configuration with random weights: ``full_size.py OUT --dtype float16``.

OUT/prior and OUT/decoder get the real folder layout: sharded safetensors with an index, configurations, schedulers.
Tokenizer and image processor are those of the micro checkpoint (the vocabulary is declared at its real size). One tensor
is in memory at a time. Weights are scaled so that activations stay of order one through all layers.
"""

import argparse
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, VQModel
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

MICRO = Path(__file__).resolve().parents[2] / "artifacts" / "micro"
SHARD = 2 * 10**9  # bytes
DTYPES = {"float32": ("F32", np.float32), "float16": ("F16", np.float16)}

TEXT_ENCODER = dict(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280,
    hidden_act="gelu", vocab_size=49408, max_position_embeddings=77, bos_token_id=0, eos_token_id=2, pad_token_id=1,
)
IMAGE_ENCODER = dict(
    hidden_size=1664, intermediate_size=8192, num_hidden_layers=48, num_attention_heads=16, projection_dim=1280,
    hidden_act="gelu", image_size=224, patch_size=14,
)
PRIOR = dict(
    num_attention_heads=32, attention_head_dim=64, num_layers=20, embedding_dim=1280, num_embeddings=77,
    additional_embeddings=4,
)
UNET = dict(
    sample_size=64, in_channels=4, out_channels=8, block_out_channels=(384, 768, 1152, 1536), layers_per_block=3,
    attention_head_dim=64, cross_attention_dim=768, encoder_hid_dim=1280, encoder_hid_dim_type="image_proj",
    addition_embed_type="image", resnet_time_scale_shift="scale_shift",
    down_block_types=("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
    mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    up_block_types=("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
)
MOVQ = dict(
    sample_size=32, latent_channels=4, block_out_channels=(128, 256, 256, 512), layers_per_block=2, norm_type="spatial",
    num_vq_embeddings=16384, vq_embed_dim=4,
    down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
    up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
)
# part -> (folder, weight files' stem, module on the meta device)
PARTS = {
    "text_encoder": ("prior", "model", lambda: CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_ENCODER))),
    "image_encoder": ("prior", "model", lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE_ENCODER))),
    "prior": ("prior", "diffusion_pytorch_model", lambda: PriorTransformer(**PRIOR)),
    "unet": ("decoder", "diffusion_pytorch_model", lambda: UNet2DConditionModel(**UNET)),
    "movq": ("decoder", "diffusion_pytorch_model", lambda: VQModel(**MOVQ)),
}
SCHEDULERS = {
    "prior": {
        "_class_name": "UnCLIPScheduler", "_diffusers_version": "0.17.0.dev0", "clip_sample": True,
        "clip_sample_range": 5.0, "num_train_timesteps": 1000, "prediction_type": "sample",
        "variance_type": "fixed_small_log",
    },
    "decoder": {
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.17.0.dev0", "beta_end": 0.012, "beta_schedule": "linear",
        "beta_start": 0.00085, "clip_sample": False, "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "steps_offset": 1,
        "thresholding": False, "timestep_spacing": "leading", "trained_betas": None, "variance_type": "fixed_small",
    },
}  # fmt: skip

# The last layer of a residual branch: scaled down, so that the sum over all branches stays of order one.
BRANCH_END = re.compile(r"\.(conv2|to_out\.0|out_proj|fc2|ff\.net\.2)\.weight$")
BRANCHES = 64


def random_tensor(name, shape, random):
    """Values of a parameter: matrices and filters keep the size of what passes, norms scale by about one."""
    values = random.standard_normal(shape, np.float32)
    if name == "clip_std" or (len(shape) == 1 and name.endswith("weight")):
        return 1 + 0.1 * values
    if len(shape) < 2 or ("embed" in name.rsplit(".", 2)[-2 if name.endswith("weight") else -1] and len(shape) == 2 \
            and "linear" not in name):
        return 0.1 * values
    scale = 1 / math.sqrt(math.prod(shape[1:]))
    return values * np.float32(scale / math.sqrt(BRANCHES) if BRANCH_END.search(name) else scale)


def shards(shapes, itemsize):
    """Names in order, a list for each file."""
    files, size = [[]], 0
    for name, shape in shapes.items():
        size += math.prod(shape) * itemsize
        if size > SHARD and files[-1]:
            files.append([])
            size = math.prod(shape) * itemsize
        files[-1].append(name)
    return files


def write_safetensors(path, names, shapes, dtype, random, bar):
    code, kind = DTYPES[dtype]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        end = offset + math.prod(shapes[name]) * np.dtype(kind).itemsize
        header[name] = {"dtype": code, "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            data = np.ascontiguousarray(random_tensor(name, shapes[name], random), kind)
            file.write(data.data)
            bar.update(data.nbytes)


def write_part(root, part, dtype):
    kind, stem, make = PARTS[part]
    folder = root / kind / part
    folder.mkdir(parents=True)
    with torch.device("meta"):
        module = make()
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if hasattr(module, "save_config"):
        module.save_config(folder)
    else:
        module.config.architectures = [type(module).__name__]
        module.config.save_pretrained(folder)
    itemsize = np.dtype(DTYPES[dtype][1]).itemsize
    total = sum(math.prod(shape) for shape in shapes.values()) * itemsize
    files = shards(shapes, itemsize)
    random, index = np.random.default_rng(sum(map(ord, part))), {}
    with tqdm(total=total, desc=part, unit="B", unit_scale=True) as bar:
        for number, names in enumerate(files, 1):
            count = f"-{number:05d}-of-{len(files):05d}" if len(files) > 1 else ""
            file = f"{stem}{count}.safetensors"
            write_safetensors(folder / file, names, shapes, dtype, random, bar)
            index |= dict.fromkeys(names, file)
    if len(files) > 1:
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
        (folder / f"{stem}.safetensors.index.json").write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    for kind, scheduler in SCHEDULERS.items():
        folder = arguments.output / kind
        (folder / "scheduler").mkdir(parents=True, exist_ok=True)
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2))
        shutil.copy(MICRO / kind / "model_index.json", folder)
    for name in ("tokenizer", "image_processor"):
        shutil.copytree(MICRO / "prior" / name, arguments.output / "prior" / name, dirs_exist_ok=True)
    processor = arguments.output / "prior" / "image_processor" / "preprocessor_config.json"
    side = IMAGE_ENCODER["image_size"]
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    processor.write_text(json.dumps(json.loads(processor.read_text()) | sizes, indent=2))
    for part in arguments.parts:
        write_part(arguments.output, part, arguments.dtype)


if __name__ == "__main__":
    main()
