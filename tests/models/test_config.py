"""Configurations: what the reference saves is read, its defaults are ours, and everything else is refused by name."""

import dataclasses
import inspect

import pytest
import references
from diffusers import PriorTransformer, UNet2DConditionModel, VQModel
from diffusers.training_utils import EMAModel
from kandinsky_mindir.models.config import (
    ConfigError,
    ImageEncoderConfig,
    MoVQConfig,
    PriorConfig,
    TextEncoderConfig,
    UNetConfig,
)
from transformers import CLIPTextConfig, CLIPVisionConfig

CONFIGS = {
    "text_encoder": TextEncoderConfig, "image_encoder": ImageEncoderConfig, "prior": PriorConfig,
    "unet": UNetConfig, "movq": MoVQConfig,
}

KANDINSKY_2_2 = {
    "text_encoder": dict(
        _name_or_path="x", architectures=["CLIPTextModelWithProjection"], attention_dropout=0.0, bos_token_id=0,
        dropout=0.0, eos_token_id=2, hidden_act="gelu", hidden_size=1280, initializer_factor=1.0,
        initializer_range=0.02, intermediate_size=5120, layer_norm_eps=1e-05, max_position_embeddings=77,
        model_type="clip_text_model", num_attention_heads=20, num_hidden_layers=32, pad_token_id=1,
        projection_dim=1280, torch_dtype="float32", transformers_version="4.29.0", vocab_size=49408),
    "image_encoder": dict(
        hidden_act="gelu", hidden_size=1664, image_size=224, intermediate_size=8192, model_type="clip_vision_model",
        num_attention_heads=16, num_channels=3, num_hidden_layers=48, patch_size=14, projection_dim=1280),
    "prior": dict(
        _class_name="PriorTransformer", additional_embeddings=4, attention_head_dim=64, dropout=0.0,
        embedding_dim=1280, num_attention_heads=32, num_embeddings=77, num_layers=20),
    "unet": references.CONFIGURATIONS["unet"]["dummy"] | dict(
        block_out_channels=[384, 768, 1152, 1536], layers_per_block=3, attention_head_dim=64, cross_attention_dim=768,
        encoder_hid_dim=1280, down_block_types=["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
        up_block_types=["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"]),
    "movq": dict(
        _class_name="VQModel", norm_type="spatial", block_out_channels=[128, 256, 256, 512], layers_per_block=2,
        latent_channels=4, vq_embed_dim=4, num_vq_embeddings=16384, scaling_factor=0.18215, sample_size=32,
        down_block_types=["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3),
}


def reference_defaults(part):
    """Field -> default, as the reference fills in what a config.json leaves out."""
    cls = {"prior": PriorTransformer, "unet": UNet2DConditionModel, "movq": VQModel}.get(part)
    if cls is None:
        config = {"text_encoder": CLIPTextConfig, "image_encoder": CLIPVisionConfig}[part]()
        return config.to_dict()
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name != "self"}


@pytest.mark.parametrize("part", CONFIGS)
def test_what_the_reference_saves_is_read_field_by_field(part):
    for name in references.names(part):
        saved = references.config_of(references.build(part, name))
        config = CONFIGS[part].from_dict(saved)
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            assert (list(value) if isinstance(value, tuple) else value) == saved[field.name], (name, field.name)


@pytest.mark.parametrize("part", CONFIGS)
def test_missing_fields_have_the_references_defaults(part):
    defaults = reference_defaults(part)
    for field in dataclasses.fields(CONFIGS[part]):
        assert field.default == defaults[field.name], field.name


@pytest.mark.parametrize("part", CONFIGS)
def test_every_field_of_the_reference_is_known_and_fixed_ones_stand_at_its_default(part):
    cls, defaults = CONFIGS[part], reference_defaults(part)
    fields = {field.name for field in dataclasses.fields(cls)}
    assert not fields & set(cls.fixed) and not (fields | set(cls.fixed)) & cls.ignored.keys()
    for name, default in defaults.items():
        if not name.startswith("_"):
            assert name in fields or name in cls.ignored or cls.fixed[name][0] == default, name


@pytest.mark.parametrize("part", CONFIGS)
def test_the_published_checkpoints_are_accepted(part):
    config = CONFIGS[part].from_dict(KANDINSKY_2_2[part])
    assert hash(config) == hash(CONFIGS[part].from_dict(KANDINSKY_2_2[part]))


def test_a_sinusoid_or_a_projection_without_a_width_of_its_own_takes_the_transformers():
    config = PriorConfig.from_dict(KANDINSKY_2_2["prior"])
    assert (config.inner_dim, config.time_hidden_dim, config.text_embed_dim) == (2048, 2048, 1280)
    config = PriorConfig.from_dict(KANDINSKY_2_2["prior"] | {"time_embed_dim": 100, "embedding_proj_dim": 640})
    assert (config.time_hidden_dim, config.text_embed_dim) == (100, 640)


BAD = {
    "text_encoder": [
        ("hidden_act", "relu"), ("hidden_size", 1281), ("vocab_size", "many"), ("num_hidden_layers", 0),
        ("eos_token_id", [2, 3]), ("rope_theta", 10000.0), ("model_type", "clip"), ("is_decoder", True),
        ("projection_dim", None),
    ],
    "image_encoder": [
        ("patch_size", [14, 14]), ("patch_size", 225), ("num_channels", 4), ("layer_norm_eps", float("nan")),
        ("model_type", "clip_text_model"),
    ],
    "prior": [
        ("added_emb_type", None), ("additional_embeddings", 3), ("norm_in_type", "layer"),
        ("encoder_hid_proj_type", None), ("embedding_proj_norm_type", "layer"), ("clip_embed_dim", 7),
        ("time_embed_act_fn", "mish"), ("_class_name", "UNet2DConditionModel"), ("num_layers", True),
    ],
    "unet": [
        ("addition_embed_type", "text_image"), ("addition_embed_type", None), ("encoder_hid_dim", None),
        ("encoder_hid_dim_type", "text_proj"), ("mid_block_type", "UNetMidBlock2DCrossAttn"),
        ("down_block_types", ["DownBlock2D"] * 4), ("up_block_types", ["ResnetUpsampleBlock2D"] * 3),
        ("block_out_channels", [384, 768, 1152, 1540]), ("block_out_channels", []),
        ("attention_head_dim", [64, 64, 64, 64]), ("attention_head_dim", 100), ("act_fn", "mish"),
        ("layers_per_block", [3, 3, 3, 3]), ("resnet_time_scale_shift", "spatial"), ("resnet_skip_time_act", True),
        ("resnet_out_scale_factor", 1.4), ("only_cross_attention", True), ("class_embed_type", "projection"),
        ("time_embedding_type", "fourier"), ("norm_num_groups", None), ("conv_in_kernel", 5), ("unheard_of", 1),
        ("cross_attention_norm", "group_norm"),
    ],
    "movq": [
        ("norm_type", "group"), ("vq_embed_dim", 8), ("lookup_from_codebook", True),
        ("block_out_channels", [48, 96, 96, 192]), ("mid_block_add_attention", 1), ("act_fn", "relu"),
        ("up_block_types", ["UpBlock2D"] * 4), ("down_block_types", ["DownEncoderBlock2D"]),
    ],
}


@pytest.mark.parametrize("part, field, value", [(part, *case) for part, cases in BAD.items() for case in cases])
def test_what_is_not_implemented_is_refused_in_one_line_with_field_and_value(part, field, value):
    with pytest.raises(ConfigError) as error:
        CONFIGS[part].from_dict(KANDINSKY_2_2[part] | {field: value})
    message = str(error.value)
    shown = tuple(value) if isinstance(value, list) else value
    assert message.startswith(f"{part} configuration: ") and "\n" not in message
    assert f"{field} = {shown!r}" in message


def ema_numbers():
    """What diffusers' training scripts leave in config.json, from the class that does it."""
    numbers = EMAModel([]).state_dict()
    del numbers["shadow_params"]  # the weights
    return numbers


@pytest.mark.parametrize("part", ["prior", "unet", "movq"])
def test_what_a_moving_average_adds_is_ignored(part):
    published = KANDINSKY_2_2[part]
    assert len(ema_numbers()) == 7
    assert CONFIGS[part].from_dict(published | ema_numbers()) == CONFIGS[part].from_dict(published)


# Keys that libraries of all ages write: where and when a file was made, of which type it is.
@pytest.mark.parametrize("part", CONFIGS)
@pytest.mark.parametrize("key, value", [
    ("_diffusers_version", "0.99"), ("_name_or_path", "../unet_ema"), ("_commit_hash", "a1"), ("torch_dtype", "float16"),
    ("dtype", "bfloat16"), ("mindspore_dtype", "float16"), ("gradient_checkpointing", True), ("quantization_config", None),
    ("dropout", 0.1), ("_use_default_values", ["surprise"]),
])  # fmt: skip
def test_what_says_nothing_of_the_model_is_ignored(part, key, value):
    assert CONFIGS[part].from_dict(KANDINSKY_2_2[part] | {key: value}) == CONFIGS[part].from_dict(KANDINSKY_2_2[part])


@pytest.mark.parametrize("part", CONFIGS)
def test_transformers_keys_mean_nothing_elsewhere(part):
    published = KANDINSKY_2_2[part] | {"id2label": {"0": "LABEL_0"}, "architectures": ["X"], "temperature": 1.0}
    if part.endswith("encoder"):
        assert CONFIGS[part].from_dict(published) == CONFIGS[part].from_dict(KANDINSKY_2_2[part])
    else:
        with pytest.raises(ConfigError, match="field id2label = "):
            CONFIGS[part].from_dict(published)


@pytest.mark.parametrize("part", CONFIGS)
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_quantized_weights_are_refused_by_name(part, key):
    with pytest.raises(ConfigError, match=f"^{part} configuration: it has a {key}: its weights are [a-z]+: [a-z].*again"):
        CONFIGS[part].from_dict(KANDINSKY_2_2[part] | {key: {"quant_method": "bitsandbytes", "load_in_4bit": True}})


def test_every_ignored_key_has_a_reason():
    for config in CONFIGS.values():
        assert all(len(reason.split()) >= 3 for reason in config.ignored.values())


def test_default_values_of_diffusers():
    """A key that _use_default_values lists is taken from the class (configuration_utils.py: extract_init_dict)."""
    values = KANDINSKY_2_2["unet"] | {"norm_eps": 0.5, "layers_per_block": 7, "_use_default_values": ["norm_eps"]}
    config = UNetConfig.from_dict(values)
    reference = UNet2DConditionModel.extract_init_dict(values)[0]
    assert "norm_eps" not in reference and reference["layers_per_block"] == 7
    assert (config.norm_eps, config.layers_per_block) == (1e-5, 7)
    with pytest.raises(ConfigError, match="_use_default_values = 7 is not supported; expected a list of names"):
        UNetConfig.from_dict(values | {"_use_default_values": 7})


@pytest.mark.parametrize("missing", ["norm_type", "latent_channels"])
def test_a_missing_field_whose_default_is_not_implemented_is_refused_too(missing):
    with pytest.raises(ConfigError):
        MoVQConfig.from_dict({name: value for name, value in KANDINSKY_2_2["movq"].items() if name != missing})


def test_a_configuration_that_is_no_dictionary():
    with pytest.raises(ConfigError, match="dictionary"):
        PriorConfig.from_dict(["num_layers", 20])
