"""Configurations of the five parts, checked against what the cells implement.

Each class mirrors one component's ``config.json``: fields keep the checkpoint's names and the defaults that the reference
(diffusers 0.42.1, transformers 4 and 5) gives to missing ones. fields.py tells what `accepted`, `fixed`, `ignored` mean.
"""

from dataclasses import dataclass
from typing import ClassVar

from .decoder_kind import DecoderKind
from .fields import Config, ConfigError, names

__all__ = ["ConfigError", "ImageEncoderConfig", "MoVQConfig", "PriorConfig", "TextEncoderConfig", "UNetConfig"]

IMAGE_TOKENS = 32  # context tokens made of one image embedding: diffusers' ImageProjection has it as a default

# Keys that change nothing of what a model computes, by the reason.
_TRAINING = "how it was trained or initialised"
_EMA = "numbers of the moving average of its weights, which diffusers' EMAModel.save_pretrained adds"
_TYPE = "the type that its weights are stored in: each tensor says its own"
_REPORT = "what else its library makes of it, names or reports"
_TEXT_GENERATION = "how to write text with it"
_SIZE = "the size of pictures that it was made for"
_OTHER_BLOCKS = "options of blocks or embeddings other than those that are implemented"

_TRANSFORMERS = {
    _TRAINING: "attention_dropout dropout initializer_factor initializer_range gradient_checkpointing finetuning_task "
               "problem_type tf_legacy_loss",
    _TYPE: "dtype torch_dtype mindspore_dtype use_bfloat16",
    _REPORT: "architectures attn_implementation auto_map id2label label2id num_labels output_attentions "
             "output_hidden_states return_dict torchscript transformers_version use_cache use_return_dict tokenizer_class "
             "chunk_size_feed_forward tie_encoder_decoder tie_word_embeddings",
    _TEXT_GENERATION: "bos_token_id pad_token_id sep_token_id decoder_start_token_id prefix task_specific_params "
                      "bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping "
                      "encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id "
                      "forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups "
                      "num_beams num_return_sequences output_scores remove_invalid_values repetition_penalty "
                      "return_dict_in_generate suppress_tokens temperature top_k top_p typical_p",
}
_DIFFUSERS = {
    _TRAINING: "dropout gradient_checkpointing",
    _EMA: "decay inv_gamma min_decay optimization_step power update_after_step use_ema_warmup",
    _TYPE: "dtype torch_dtype mindspore_dtype"}
_UNUSED_TRANSFORMERS_OPTIONS: dict[str, tuple] = {
    **dict.fromkeys(("add_cross_attention", "is_decoder", "is_encoder_decoder"), (False,)),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({}, None),
}


@dataclass(frozen=True)
class TextEncoderConfig(Config):
    """transformers' CLIPTextModelWithProjection."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407  # 2, in old checkpoints, means: the end token is the highest id

    component = "text_encoder"
    accepted = {"hidden_act": ("gelu", "quick_gelu")}
    fixed = {"model_type": ("clip_text_model",), **_UNUSED_TRANSFORMERS_OPTIONS}
    ignored = names(_TRANSFORMERS)

    def _check(self):
        self._check_multiple("hidden_size", "num_attention_heads", self.num_attention_heads)


@dataclass(frozen=True)
class ImageEncoderConfig(Config):
    """transformers' CLIPVisionModelWithProjection."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    component = "image_encoder"
    accepted = {"hidden_act": ("gelu", "quick_gelu"), "num_channels": (3,)}
    fixed = {"model_type": ("clip_vision_model",), **_UNUSED_TRANSFORMERS_OPTIONS}
    ignored = names(_TRANSFORMERS, {_TEXT_GENERATION: "eos_token_id"})

    def _check(self):
        self._check_multiple("hidden_size", "num_attention_heads", self.num_attention_heads)
        self._require(self.patch_size <= self.image_size, "patch_size", self.patch_size, "at most image_size")

    @property
    def num_patches(self) -> int:
        """Patches of a picture; a border narrower than a patch is left out, as a strided convolution does."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class PriorConfig(Config):
    """diffusers' PriorTransformer."""

    num_attention_heads: int = 32
    attention_head_dim: int = 64
    num_layers: int = 20
    embedding_dim: int = 768
    num_embeddings: int = 77
    time_embed_act_fn: str = "silu"
    time_embed_dim: int | None = None
    embedding_proj_dim: int | None = None
    clip_embed_dim: int | None = None

    component = "prior"
    accepted = {"time_embed_act_fn": ("silu", "swish", "gelu")}
    fixed = {
        "_class_name": ("PriorTransformer",),
        "additional_embeddings": (4,),  # text embedding, timestep, noisy image embedding, prd
        "added_emb_type": ("prd",),
        "encoder_hid_proj_type": ("linear",),
        "embedding_proj_norm_type": (None,),
        "norm_in_type": (None,),
    }
    ignored = names(_DIFFUSERS)

    def _check(self):
        # What the prior predicts is denoised in the place of its input.
        self._require(self.clip_embed_dim in (None, self.embedding_dim), "clip_embed_dim", self.clip_embed_dim,
                      f"embedding_dim = {self.embedding_dim}")

    @property
    def inner_dim(self) -> int:
        """Width of the transformer, and of the sinusoid of the timestep."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def time_hidden_dim(self) -> int:
        """Width between the two layers of the time embedding."""
        return self.time_embed_dim or self.inner_dim

    @property
    def text_embed_dim(self) -> int:
        """Width of the pooled, projected text embedding."""
        return self.embedding_proj_dim or self.embedding_dim


@dataclass(frozen=True)
class UNetConfig(DecoderKind, Config):
    """diffusers' UNet2DConditionModel as Kandinsky 2.2 configures it."""

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    mid_block_type: str = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    attention_head_dim: int = 8  # in SimpleCrossAttn blocks truly the width of a head, not the number of heads
    cross_attention_dim: int = 1280
    encoder_hid_dim: int | None = None  # width of the image embedding
    encoder_hid_dim_type: str | None = None
    addition_embed_type: str | None = None
    resnet_time_scale_shift: str = "default"
    act_fn: str = "silu"
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0

    component = "unet"
    accepted = {
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "mid_block_type": ("UNetMidBlock2DSimpleCrossAttn",),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "encoder_hid_dim_type": ("image_proj",),
        "addition_embed_type": ("image", "image_hint"),
        "resnet_time_scale_shift": ("default", "scale_shift"),
        "act_fn": ("silu", "swish"),
    }
    fixed = {
        "_class_name": ("UNet2DConditionModel",),
        "attention_type": ("default",),
        "center_input_sample": (False,),
        "class_embed_type": (None,),
        "class_embeddings_concat": (False,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "cross_attention_norm": (None,),
        "mid_block_only_cross_attention": (None, False),
        "mid_block_scale_factor": (1,),
        "num_attention_heads": (None,),
        "num_class_embeds": (None,),
        "only_cross_attention": (False,),
        "resnet_out_scale_factor": (1.0,),
        "resnet_skip_time_act": (False,),
        "time_cond_proj_dim": (None,),
        "time_embedding_act_fn": (None,),
        "time_embedding_dim": (None,),
        "time_embedding_type": ("positional",),
        "timestep_post_act": (None,),
    }
    ignored = names(_DIFFUSERS, {
        _SIZE: "sample_size",
        _OTHER_BLOCKS: "addition_embed_type_num_heads addition_time_embed_dim downsample_padding dual_cross_attention "
                       "projection_class_embeddings_input_dim reverse_transformer_layers_per_block "
                       "transformer_layers_per_block upcast_attention use_linear_projection",
    })

    def _check(self):
        self._check_length("down_block_types", "block_out_channels")
        self._check_length("up_block_types", "block_out_channels")
        self._require(self.encoder_hid_dim is not None, "encoder_hid_dim", None, "the width of the image embedding")
        self._check_multiple("block_out_channels", "norm_num_groups", self.norm_num_groups)
        attended = self.block_out_channels[-1:] + tuple(
            channels for down, up, channels in zip(
                self.down_block_types, reversed(self.up_block_types), self.block_out_channels
            ) if "CrossAttn" in down + up
        )
        self._require(
            all(channels % self.attention_head_dim == 0 for channels in attended),
            "attention_head_dim", self.attention_head_dim, f"a divisor of the attended channels {attended}",
        )

    @property
    def time_embed_dim(self) -> int:
        """Width of the time embedding: four times that of its sinusoid, ``block_out_channels[0]``."""
        return 4 * self.block_out_channels[0]

    @property
    def attention_channels(self) -> tuple:
        """Channels of every attention in order of execution: (one tuple a down block, the middle's, one a up block)."""
        def block(kind, channels, layers):
            return (channels,) * layers if kind.startswith("SimpleCrossAttn") else ()

        channels, layers = self.block_out_channels, self.layers_per_block
        down = [block(kind, width, layers) for kind, width in zip(self.down_block_types, channels)]
        up = [block(kind, width, layers + 1) for kind, width in zip(self.up_block_types, reversed(channels))]
        return down, channels[-1:], up

    @property
    def added_kv_size(self) -> int:
        """Numbers in a row of `added_kv`: keys and values of the image tokens in every attention."""
        down, mid, up = self.attention_channels
        return 2 * IMAGE_TOKENS * sum(sum(block) for block in [*down, mid, *up])


@dataclass(frozen=True)
class MoVQConfig(Config):
    """diffusers' VQModel with spatial norm; the quantizer is left out, since Kandinsky decodes with it switched off."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 3
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    norm_type: str = "group"
    mid_block_add_attention: bool = True

    component = "movq"
    accepted = {
        "in_channels": (3,),
        "out_channels": (3,),
        "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
        "act_fn": ("silu", "swish"),
        "norm_type": ("spatial",),
    }
    fixed = {"_class_name": ("VQModel",), "lookup_from_codebook": (False,)}
    ignored = names(_DIFFUSERS, {
        _SIZE: "sample_size",
        "how half precision decodes": "force_upcast",
        "the codebook, which Kandinsky decodes without": "num_vq_embeddings",
        "a factor that Kandinsky's pipelines do not apply": "scaling_factor",
    })

    SPATIAL_NORM_GROUPS: ClassVar[int] = 32  # diffusers' SpatialNorm has it as a literal

    def _check(self):
        self._check_length("down_block_types", "block_out_channels")
        self._check_length("up_block_types", "block_out_channels")
        self._check_multiple("block_out_channels", "norm_num_groups", self.norm_num_groups)
        self._check_multiple("block_out_channels", "the spatial norm's groups", self.SPATIAL_NORM_GROUPS)
        # The spatial norm is sized by the latent channels and fed the embedded ones.
        self._require(self.vq_embed_dim in (None, self.latent_channels), "vq_embed_dim", self.vq_embed_dim,
                      f"latent_channels = {self.latent_channels}")

    @property
    def scale_factor(self) -> int:
        """Pixels along one side of a latent."""
        return 2 ** (len(self.block_out_channels) - 1)
