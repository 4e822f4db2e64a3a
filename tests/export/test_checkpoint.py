"""Checkpoint folders: what diffusers and transformers save is read to the last bit, what is damaged is named."""

import copy
import json
import os
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import transformers
from bad_inputs import put
from damage import assert_one_line, cut, edit_header, edit_json
from kandinsky_mindir.export.checkpoint.folder import KINDS, Checkpoint
from kandinsky_mindir.export.contents.constants import check_statistics
from kandinsky_mindir.runner import schedulers
from kandinsky_mindir.runner.common.errors import UserError

MICRO = Path(__file__).parents[2] / "artifacts" / "micro"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def tiny_prior():
    clip = dict(hidden_size=16, intermediate_size=24, projection_dim=16, num_hidden_layers=2, num_attention_heads=2)
    text = transformers.CLIPTextConfig(vocab_size=1914, bos_token_id=1912, eos_token_id=1913, pad_token_id=1913, **clip)
    vision = transformers.CLIPVisionConfig(image_size=16, patch_size=8, **clip)
    return diffusers.KandinskyV22PriorPipeline(
        prior=diffusers.PriorTransformer(2, 8, 2, embedding_dim=16),
        image_encoder=transformers.CLIPVisionModelWithProjection(vision),
        text_encoder=transformers.CLIPTextModelWithProjection(text),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(str(MICRO / "prior" / "tokenizer")),
        scheduler=diffusers.UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
        image_processor=transformers.CLIPImageProcessor(crop_size={"height": 16, "width": 16}),
    )


def tiny_decoder():
    unet = diffusers.UNet2DConditionModel(
        in_channels=4, out_channels=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), attention_head_dim=4,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), cross_attention_dim=8,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", encoder_hid_dim=16, encoder_hid_dim_type="image_proj",
        addition_embed_type="image", resnet_time_scale_shift="scale_shift")
    movq = diffusers.VQModel(
        block_out_channels=(32, 32), norm_num_groups=8, norm_type="spatial", latent_channels=4, num_vq_embeddings=8,
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"))
    return diffusers.KandinskyV22Pipeline(unet=unet, movq=movq, scheduler=diffusers.DDPMScheduler())


@pytest.fixture(scope="module")
def pipelines():
    torch.manual_seed(0)
    made = {"prior": tiny_prior(), "decoder": tiny_decoder()}
    torch.nn.init.normal_(made["prior"].prior.clip_mean)  # zeros would hide a tensor that was not read
    return made


@pytest.fixture(scope="module")
def saved(pipelines, tmp_path_factory):
    """Both pipelines in float32, as diffusers saves them."""
    root = tmp_path_factory.mktemp("saved")
    for kind, pipeline in pipelines.items():
        pipeline.save_pretrained(root / kind)
    return root


@pytest.fixture
def folders(saved, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(saved, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def assert_equals_state(files, module):
    state = {name: tensor.float().numpy() for name, tensor in module.state_dict().items()}
    assert files.shapes == {name: array.shape for name, array in state.items()}
    for name, expected in state.items():
        array = files.read(name)
        assert array.dtype == np.float32 and array.flags.writeable
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("shard_size", ["1GB", "5KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_pipeline_is_read_to_the_last_bit(pipelines, tmp_path, kind, dtype, shard_size, variant):
    pipeline = copy.deepcopy(pipelines[kind]).to(dtype=dtype)
    pipeline.save_pretrained(tmp_path, variant=variant, max_shard_size=shard_size)
    checkpoint = Checkpoint(tmp_path, kind)
    for part in KINDS[kind].parts:
        files = checkpoint.tensors(part)
        assert (len(files.files) > 1) == (shard_size == "5KB")
        assert all(("fp16" in file.name) == (variant == "fp16") for file in files.files)
        assert_equals_state(files, getattr(pipeline, part))


def test_components_and_defaults_of_a_saved_pipeline(saved, pipelines):
    prior, decoder = (Checkpoint(saved / kind, kind) for kind in ("prior", "decoder"))
    assert prior.config("text_encoder").hidden_size == 16 and prior.config("image_encoder").patch_size == 8
    assert prior.config("prior").num_layers == 2 and decoder.config("unet").block_out_channels == (8, 16)
    assert decoder.config("movq").norm_num_groups == 8
    assert prior.scheduler["variance_type"] == "fixed_small_log" and decoder.scheduler["_class_name"] == "DDPMScheduler"
    assert prior.image_processor["crop_size"] == {"height": 16, "width": 16}
    assert prior.tokenizer.pad_token_id == 1913
    assert prior.generation_defaults == {"num_inference_steps": 25, "guidance_scale": 4.0}
    assert decoder.generation_defaults == {
        "num_inference_steps": 20, "guidance_scale": 4.0, "height": 512, "width": 512, "scheduler": "dpmpp-2m-karras"}


@pytest.mark.parametrize("given, own, expected", [
    ({"num_inference_steps": 50}, {}, ("checkpoint", 50)),  # steps that someone chose for the checkpoint's own sampler
    ({"scheduler": "ddim", "num_inference_steps": 30}, {}, ("ddim", 30)),
    ({"scheduler": "checkpoint"}, {}, ("checkpoint", 100)),
    ({"height": 64}, {"_class_name": "EulerDiscreteScheduler"}, ("checkpoint", 100)),  # chosen by who saved it
    ({}, {"beta_schedule": "sigmoid"}, ("checkpoint", 100)),  # which the faster sampler does not have
    ({}, {"_class_name": "DDIMScheduler"}, ("dpmpp-2m-karras", 20)),
])
def test_the_default_sampler(given, own, expected, folders):
    decoder, config = folders / "decoder", folders / "decoder" / "scheduler" / "scheduler_config.json"
    (decoder / "generation_defaults.json").write_text(json.dumps(given))
    config.write_text(json.dumps({"_class_name": "DDPMScheduler", **own}))
    edit_json(decoder / "model_index.json", put("scheduler", ["diffusers", own.get("_class_name", "DDPMScheduler")]))
    defaults = Checkpoint(decoder, "decoder").generation_defaults
    assert (defaults["scheduler"], defaults["num_inference_steps"]) == expected


def test_micro_checkpoint_carries_its_own_defaults():
    assert Checkpoint(MICRO / "prior", "prior").generation_defaults == {
        "num_inference_steps": 25, "guidance_scale": 2.0}
    assert Checkpoint(MICRO / "decoder", "decoder").generation_defaults == {
        "num_inference_steps": 20, "guidance_scale": 2.0, "height": 64, "width": 64, "scheduler": "dpmpp-2m-karras"}


def test_combined_pipeline_serves_as_both(pipelines, tmp_path):
    prior, decoder = pipelines["prior"].components, pipelines["decoder"].components
    diffusers.KandinskyV22CombinedPipeline(
        **decoder, **{f"prior_{name}": component for name, component in prior.items()}).save_pretrained(tmp_path)
    for kind, pipeline in pipelines.items():
        for part in KINDS[kind].parts:
            assert_equals_state(Checkpoint(tmp_path, kind).tensors(part), getattr(pipeline, part))


CLASSES = ("DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler",
           "LCMScheduler", "PNDMScheduler")


@pytest.mark.parametrize("saved_as", CLASSES)
@pytest.mark.parametrize("kind, prefix", [("decoder", ""), ("prior", ""), ("prior", "prior_")])
def test_the_scheduler_is_of_the_class_that_the_index_names(folders, saved_as, kind, prefix):
    """As DiffusionPipeline.from_pretrained makes it: that class, with what it takes of the saved options."""
    folder = folders / kind
    getattr(diffusers, saved_as)(beta_start=0.0007, beta_schedule="scaled_linear", prediction_type="v_prediction",
                                 ).save_pretrained(folder / f"{prefix}scheduler")
    if prefix:
        edit_json(folder / "model_index.json", lambda index: index.update(
            {f"{prefix}{name}": index[name] for name in list(index) if name[0] != "_"}, _class_name="KandinskyV22CombinedPipeline"))
        for part in list(folder.iterdir()):
            if part.is_dir() and part.name != f"{prefix}scheduler":
                shutil.copytree(part, folder / f"{prefix}{part.name}", dirs_exist_ok=True,
                                ignore=lambda *_: [] if part.name != "scheduler" else ["scheduler_config.json"])
    for named in CLASSES:
        edit_json(folder / "model_index.json", put(f"{prefix}scheduler", ["diffusers", named]))
        if (saved_as, named) == ("DPMSolverMultistepScheduler", "DDPMScheduler"):  # its variance_type is null
            with pytest.raises(UserError, match="variance_type is None; it must be one of"):
                schedulers.create(Checkpoint(folder, kind).scheduler)
            continue
        found = schedulers.create(Checkpoint(folder, kind).scheduler)
        expected = getattr(diffusers, named).from_pretrained(folder / f"{prefix}scheduler").config
        assert found.name == named
        shared = [name for name in found.OPTIONS if name in expected]
        assert len(shared) > 5
        for name in shared:
            value = found.config[name]
            assert (list(value) if isinstance(value, tuple) else value) == expected[name], (named, name)


@pytest.mark.parametrize("change, message", [
    (put("scheduler", ["diffusers", "MagicScheduler"]), "scheduler is a MagicScheduler, known are DDPMScheduler, "),
    (put("scheduler", ["diffusers", "ScoreSdeVeScheduler"]), "scheduler is a ScoreSdeVeScheduler, known are "),
    (put("scheduler", [None, None]), "has null for scheduler: load the pipeline with a scheduler and save it again"),
    (put("scheduler", None), "has null for scheduler"),
    (put("scheduler", ["my_scheduler", "DDPMScheduler"]), "scheduler is of the library 'my_scheduler', which is not known"),
    (put("unet", ["unet_2d", "UNet2DConditionModel"]), "unet is of the library 'unet_2d', which is not known"),
    (put("movq", [None, None]), "has null for movq"),
])  # fmt: skip
def test_components_that_cannot_be_what_the_index_says(folders, change, message):
    edit_json(folders / "decoder" / "model_index.json", change)
    assert_one_line(message, lambda: Checkpoint(folders / "decoder", "decoder"))


def test_names_of_flax_are_taken_for_diffusers_own(folders):
    edit_json(folders / "decoder" / "model_index.json", put("scheduler", ["diffusers", "FlaxDDIMScheduler"]))
    assert Checkpoint(folders / "decoder", "decoder").scheduler["_class_name"] == "DDIMScheduler"


@pytest.mark.parametrize("change, message", [
    (put("tokenizer", ["transformers", "T5Tokenizer"]), "tokenizer is a T5Tokenizer, known are CLIPTokenizer"),
    (put("image_processor", ["transformers", "ViTImageProcessor"]), "image_processor is a ViTImageProcessor, known are CLIP"),
])
def test_components_of_other_models(folders, change, message):
    edit_json(folders / "prior" / "model_index.json", change)
    assert_one_line(message, lambda: Checkpoint(folders / "prior", "prior"))


def test_tokens_that_the_text_encoder_has_no_row_for(folders):
    """Added and never resized: torch raises an IndexError, Lite computes something."""
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folders / "prior" / "tokenizer")
    assert tokenizer.add_tokens(["<my-dog>", "<my-cat>"]) == 2
    tokenizer.save_pretrained(folders / "prior" / "tokenizer")
    assert_one_line("'<my-dog>' has the id 1914, and so have 1 more, but the text encoder's vocab_size is 1914: resize",
                    lambda: Checkpoint(folders / "prior", "prior").tokenizer)
    edit_json(folders / "prior" / "text_encoder" / "config.json", put("vocab_size", 1916))
    assert Checkpoint(folders / "prior", "prior").tokenizer.pad_token_id == 1913


def test_a_tokenizer_of_another_length(folders):
    edit_json(folders / "prior" / "tokenizer" / "tokenizer_config.json", put("model_max_length", 64))
    assert_one_line("tokenizer makes 64 tokens of a text and the text_encoder takes 77: these do not belong together",
                    lambda: Checkpoint(folders / "prior", "prior").tokenizer)


@pytest.mark.parametrize("name", ["clip_mean", "clip_std"])
@pytest.mark.parametrize("change, message", [
    (lambda entry: entry.update(shape=[16, 1]), r"holds '.*' of shape \[16, 1\]; config.json asks for \[1, 16\]"),
    (lambda entry: entry.update(dtype="I32"), "is of type I32; weights must be"),
    (None, "lacks tensor '.*'; config.json asks for"),
])  # fmt: skip
def test_statistics_of_image_embeddings(folders, name, change, message):
    """They are needed when all is compiled, and judged before."""
    def edit(header):
        if change:
            change(header[name])
        else:
            header[f"{name}_old"] = header.pop(name)
        return header

    path = folders / "prior" / "prior" / WEIGHTS
    check_statistics(Checkpoint(folders / "prior", "prior").tensors("prior"), 16)
    edit_header(path, edit)
    assert_one_line(message, lambda: check_statistics(Checkpoint(folders / "prior", "prior").tensors("prior"), 16))


# Damage. Each entry: what happens to the copied folders, and the words that the one-line error must hold.

def pickle_instead(folder):
    os.rename(folder / WEIGHTS, folder / "diffusion_pytorch_model.bin")


FOLDER_DAMAGE = {
    "no such folder": (lambda f: shutil.rmtree(f), "not a folder"),
    "a component's folder": (lambda f: os.remove(f / "model_index.json"), "no model_index.json"),
    "index cut": (lambda f: cut(f / "model_index.json", 20), r"model_index\.json is not valid JSON"),
    "index not an object": (lambda f: (f / "model_index.json").write_text("[]"), "must hold a JSON object"),
    "index in UTF-16": (lambda f: (f / "model_index.json").write_bytes(b"\xff\xfe{\0}\0"), "is not valid JSON"),
    "another pipeline": (
        lambda f: edit_json(f / "model_index.json", lambda c: c.update(_class_name="StableDiffusionPipeline")),
        "'StableDiffusionPipeline' is no Kandinsky 2.2 decoder"),
    "prior as decoder": (
        lambda f: edit_json(f / "model_index.json", lambda c: c.update(_class_name="KandinskyV22PriorPipeline")),
        r"is a prior checkpoint \(KandinskyV22PriorPipeline\), given as the decoder: are the two folders swapped"),
    "component not named": (lambda f: edit_json(f / "model_index.json", lambda c: c.pop("movq")), "names no movq"),
    "component null": (
        lambda f: edit_json(f / "model_index.json", lambda c: c.update(unet=[None, None])), "has null for unet"),
    "component of another class": (
        lambda f: edit_json(f / "model_index.json", lambda c: c.update(movq=["diffusers", "AutoencoderKL"])),
        "movq is a AutoencoderKL, expected VQModel"),
    "component folder missing": (lambda f: shutil.rmtree(f / "movq"), r"movq.config\.json is missing"),
    "config missing": (lambda f: os.remove(f / "unet" / "config.json"), r"unet.config\.json is missing"),
    "scheduler missing": (lambda f: shutil.rmtree(f / "scheduler"), r"scheduler_config\.json is missing"),
    "weights missing": (lambda f: os.remove(f / "unet" / WEIGHTS), f"unet has no weights: expected {WEIGHTS}"),
    "weights as pickle": (lambda f: pickle_instead(f / "unet"), r"model\.bin is a pickle.*safe_serialization=True"),
}


@pytest.mark.parametrize("damage, message", FOLDER_DAMAGE.values(), ids=FOLDER_DAMAGE)
def test_damaged_folder_is_refused(folders, damage, message):
    damage(folders / "decoder")
    assert_one_line(message, lambda: Checkpoint(folders / "decoder", "decoder"))


def test_prior_folder_needs_tokenizer_and_image_processor(folders):
    for component in ("image_processor", "tokenizer"):
        os.rename(folders / "prior" / component, folders / component)
        assert_one_line(f"prior.{component}.* is missing", lambda: Checkpoint(folders / "prior", "prior"))
        os.rename(folders / component, folders / "prior" / component)
    Checkpoint(folders / "prior", "prior")


def test_config_error_names_the_file_and_the_field(folders):
    edit_json(folders / "decoder" / "unet" / "config.json", lambda c: c.update(act_fn="tanhshrink"))
    checkpoint = Checkpoint(folders / "decoder", "decoder")
    assert_one_line(r"unet.config\.json: .*act_fn.*tanhshrink", lambda: checkpoint.config("unet"))


@pytest.mark.parametrize("content, message", [
    ({"steps": 20}, "'steps' is none of"),
    ({"num_inference_steps": 0}, "num_inference_steps must be a whole number above zero, not 0"),
    ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number above zero, not 2.5"),
    ({"width": True}, "width must be a number of at least 0, not True"),
    ({"guidance_scale": "4"}, "guidance_scale must be a number of at least 0, not '4'"),
    ({"guidance_scale": -1}, "guidance_scale must be a number of at least 0, not -1"),
    ({"guidance_scale": float("nan")}, "guidance_scale must be a number of at least 0, not nan"),
    ({"scheduler": "magic"}, "scheduler 'magic' is not known; choose one of checkpoint, ddim, ddpm"),
    ({"scheduler": ["ddpm"]}, r"scheduler must be the name of a sampler, not \['ddpm'\]"),
])
def test_generation_defaults_are_checked(folders, content, message):
    (folders / "decoder" / "generation_defaults.json").write_text(json.dumps(content))
    assert_one_line(message, lambda: Checkpoint(folders / "decoder", "decoder").generation_defaults)
