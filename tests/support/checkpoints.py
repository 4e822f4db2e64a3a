"""Whole checkpoints for the tests: diffusers pipelines of small random parts that belong together, and the trained one."""

import shutil
from functools import cache

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    KandinskyV22ControlnetPipeline,
    KandinskyV22InpaintPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from references import CONFIGURATIONS, MICRO, randomize
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

TOKENIZER = MICRO / "prior" / "tokenizer"
SIZES = {"micro": [(64, 64)], "narrow": [(16, 16), (16, 24)], "wide": [(64, 128)], "mixed": [(16, 24)],
         "family": [(16, 24)], "micro-family": [(64, 64)]}  # fmt: skip
# Bundles that have decoders for inpainting and depth beside the one for texts -> the checkpoint that these belong to.
FAMILIES = {"family": "narrow", "wide": "wide", "mixed": "mixed", "micro-family": "micro"}
SHALLOW = ("family", "micro-family")  # those with graphs of the UNets' outermost layers
KINDS = {"inpaint": "decoder-inpaint", "controlnet": "decoder-depth"}  # kind of such a decoder -> the trained one's folder
RANDOM = {
    # width of the image embedding, of the text embedding, picture side, prior, UNet and MoVQ of references.py, schedulers
    "narrow": (32, 32, 24, "dummy", "dummy", "dummy", "ddpm"),
    "wide": (48, 40, 32, "wide", "levels", "levels", "ddim"),
    "mixed": (40, 24, 24, "deep", "shift", "plain", "fixed"),
}
# A random network does not predict the noise: with "epsilon" its latents grow to 20 and more, where float32 itself is only
# good for 61 dB (torch against its own float64). With these prediction types latents stay of order one, as trained
# networks keep them; the micro checkpoint covers "epsilon".
SCHEDULERS = {
    "ddpm": DDPMScheduler(beta_start=0.00085, beta_end=0.012, variance_type="learned_range", clip_sample=False,
                          prediction_type="sample"),
    "ddim": DDIMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                          set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction"),
    "fixed": DDPMScheduler(beta_start=0.00085, beta_end=0.012, variance_type="fixed_small", clip_sample=False,
                           prediction_type="v_prediction"),
}


@cache
def pipelines(name):
    """(prior pipeline, decoder pipeline) of diffusers, float32, quiet."""
    if name == "micro":
        prior = KandinskyV22PriorPipeline.from_pretrained(str(MICRO / "prior"), torch_dtype=torch.float32)
        decoder = KandinskyV22Pipeline.from_pretrained(str(MICRO / "decoder"), torch_dtype=torch.float32)
    else:
        prior, decoder = _random(*RANDOM[name])
    for pipeline in (prior, decoder):
        pipeline.set_progress_bar_config(disable=True)
    return prior, decoder


def save(name, folder):
    """Write the checkpoint's two folders below `folder` as diffusers saves them; returns (prior, decoder)."""
    prior, decoder = folder / "prior", folder / "decoder"
    if name == "micro":
        shutil.copytree(MICRO / "prior", prior)
        shutil.copytree(MICRO / "decoder", decoder)
    else:
        for pipeline, path in zip(pipelines(name), (prior, decoder)):
            pipeline.save_pretrained(str(path))
    return prior, decoder


def save_family(name, folder):
    """Write all decoders of the family `name`, a key of FAMILIES, below `folder`; returns (prior, [decoder, ...])."""
    prior, decoder = save(FAMILIES[name], folder)
    return prior, [decoder, *(save_conditioned(kind, folder, FAMILIES[name]) for kind in KINDS)]


@cache
def conditioned(kind, name="narrow"):
    """The parts (unet, movq, scheduler) of a decoder that is shown more than latents: "inpaint" or "controlnet", with the MoVQ
    of the checkpoint `name`."""
    decoder = pipelines(name)[1]
    options = {"inpaint": {"in_channels": 9}, "controlnet": {"in_channels": 8, "addition_embed_type": "image_hint"}}[kind]
    if name == "micro":
        unet = UNet2DConditionModel.from_pretrained(str(MICRO / KINDS[kind] / "unet"), torch_dtype=torch.float32)
    else:
        unet = UNet2DConditionModel(**{**dict(decoder.unet.config), **options})
        randomize(unet, seed=sum(kind.encode()))
    return {"unet": unet.eval().requires_grad_(False), "movq": decoder.movq, "scheduler": decoder.scheduler}


def save_conditioned(kind, folder, name="narrow"):
    """Write that decoder's folder below `folder` as diffusers saves it; returns its path."""
    if name == "micro":
        return shutil.copytree(MICRO / KINDS[kind], folder / kind)
    cls = {"inpaint": KandinskyV22InpaintPipeline, "controlnet": KandinskyV22ControlnetPipeline}[kind]
    cls(**conditioned(kind, name)).save_pretrained(str(folder / kind))
    return folder / kind


def _random(width, text_width, picture, prior_name, unet_name, movq_name, scheduler):
    tokenizer = CLIPTokenizer.from_pretrained(str(TOKENIZER))
    text = CLIPTextConfig(hidden_size=width, projection_dim=text_width, num_hidden_layers=2, num_attention_heads=4,
                          intermediate_size=50, vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id,
                          eos_token_id=tokenizer.eos_token_id)
    vision = CLIPVisionConfig(hidden_size=40, projection_dim=width, num_hidden_layers=2, num_attention_heads=5,
                              intermediate_size=60, image_size=picture, patch_size=8)
    prior = CONFIGURATIONS["prior"][prior_name] | {"embedding_dim": width, "embedding_proj_dim": text_width,
                                                   "clip_embed_dim": width, "num_embeddings": 77}
    modules = {
        "text_encoder": CLIPTextModelWithProjection(text),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "prior": PriorTransformer(**prior),
        "unet": UNet2DConditionModel(**CONFIGURATIONS["unet"][unet_name]
                                     | {"encoder_hid_dim": width, "in_channels": 4, "out_channels": 8}),
        "movq": VQModel(**CONFIGURATIONS["movq"][movq_name] | {"latent_channels": 4, "vq_embed_dim": 4}),
    }
    for seed, module in enumerate(modules.values()):
        randomize(module, seed)
        module.eval().requires_grad_(False)
    unet, movq = modules.pop("unet"), modules.pop("movq")
    processor = CLIPImageProcessor(size={"shortest_edge": picture}, crop_size={"height": picture, "width": picture})
    uncliped = UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0,
                               num_train_timesteps=1000)
    return (
        KandinskyV22PriorPipeline(**modules, tokenizer=tokenizer, scheduler=uncliped, image_processor=processor),
        KandinskyV22Pipeline(unet=unet, movq=movq, scheduler=SCHEDULERS[scheduler]),
    )
