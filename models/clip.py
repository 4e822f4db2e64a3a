"""The two CLIP towers: pre-norm transformers over text tokens and over image patches.

Radford et al. 2021, arXiv:2103.00020; names and details as in transformers' ``models/clip/modeling_clip.py``
(CLIPTextModelWithProjection, CLIPVisionModelWithProjection), so that a cell's parameters bear the tensors' names.
"""

import numpy as np
from mindspore import Tensor, nn, ops

from .config import ImageEncoderConfig, TextEncoderConfig
from .layers import parameter
from .targets import ACTIVATIONS, Attention, Conv2d, Inside, LayerNorm, Linear, MergedHeads, SplitHeads, Tokens

# Added to a score that must not count: its softmax is an exact zero in float32, and float16 can still hold it.
MASKED = -10000.0


def causal_mask(tokens):
    """(1, tokens, tokens) scores to add: MASKED where a token would look at a later one."""
    return np.triu(np.full((1, tokens, tokens), MASKED, np.float32), k=1)


class Embedding(nn.Cell):
    """A row of the table for every id; ids are int32 of any shape."""

    def __init__(self, rows, width):
        super().__init__()
        self.weight = parameter(rows, width)

    def construct(self, ids):
        return ops.gather(self.weight, ids, 0)


class SelfAttention(nn.Cell):
    """Multi-head attention of (batch, tokens, width) over itself; `mask` is added to the scores."""

    def __init__(self, config):
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.q_proj, self.k_proj = Linear(width, width), Linear(width, width)
        self.v_proj, self.out_proj = Linear(width, width), Linear(width, width)
        self.attention = Attention(width // heads, heads)
        self.split, self.merged = SplitHeads(heads), MergedHeads(heads)

    def construct(self, x, mask=None):
        q, k, v = self.split(self.q_proj(x)), self.split(self.k_proj(x)), self.split(self.v_proj(x))
        return self.out_proj(self.merged(self.attention(q, k, v, mask)))


class MLP(nn.Cell):
    """Two layers with the configuration's activation between them."""

    def __init__(self, config):
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]()
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def construct(self, x):
        return self.fc2(self.activation(self.fc1(x)))


class EncoderLayer(nn.Cell):
    """Attention, then the two-layer perceptron, each behind a norm and beside a residual."""

    def __init__(self, config):
        super().__init__()
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = SelfAttention(config)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)

    def construct(self, x, mask=None):
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Cell):
    """A stack of layers."""

    def __init__(self, config):
        super().__init__()
        self.layers = nn.CellList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])

    def construct(self, x, mask=None):
        for layer in self.layers:
            x = layer(x, mask)
        return x


class TextEmbeddings(nn.Cell):
    """Token plus position; always the whole of ``max_position_embeddings`` tokens."""

    def __init__(self, config):
        super().__init__()
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = Embedding(config.max_position_embeddings, config.hidden_size)

    def construct(self, input_ids):
        return self.token_embedding(input_ids) + self.position_embedding.weight


class TextTransformer(nn.Cell):
    """(1, tokens) ids -> (1, tokens, hidden_size): every token sees itself and those before it."""

    def __init__(self, config):
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mask = Tensor(causal_mask(config.max_position_embeddings))

    def construct(self, input_ids):
        return self.final_layer_norm(self.encoder(self.embeddings(input_ids), self.mask))


class TextEncoder(nn.Cell):
    """Ids of one prompt to its pooled embedding and its hidden states.

    Inputs: input_ids (1, tokens) int32; end_position (1,) int32, where the end token stands.
    Outputs: text_embeds (1, projection_dim); last_hidden_state (1, tokens, hidden_size).
    """

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.width = config.hidden_size
        self.text_model = TextTransformer(config)
        self.text_projection = Linear(config.hidden_size, config.projection_dim, bias=False)

    def construct(self, input_ids, end_position):
        hidden = self.text_model(input_ids)
        pooled = ops.gather(ops.reshape(hidden, (-1, self.width)), end_position, 0)
        return self.text_projection(pooled), hidden


class PatchEmbeddings(nn.Cell):
    """(batch, channels, size, size) -> (batch, 1 + patches, hidden_size): class token, then patches by rows."""

    def __init__(self, config):
        super().__init__()
        self.width = config.hidden_size
        self.class_embedding = parameter(config.hidden_size)
        self.patch_embedding = Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size, bias=False
        )
        self.position_embedding = Embedding(1 + config.num_patches, config.hidden_size)
        self.inside, self.tokens = Inside(), Tokens()

    def construct(self, pixel_values):
        batch = pixel_values.shape[0]
        patches = self.tokens(self.patch_embedding(self.inside(pixel_values)))
        first = ops.broadcast_to(ops.reshape(self.class_embedding, (1, 1, -1)), (batch, 1, self.width))
        return ops.concat((first, patches), 1) + self.position_embedding.weight


class VisionTransformer(nn.Cell):
    """(batch, channels, size, size) pixels -> (batch, hidden_size): the normed class token."""

    def __init__(self, config):
        super().__init__()
        self.width = config.hidden_size
        self.embeddings = PatchEmbeddings(config)
        self.pre_layrnorm = LayerNorm(config.hidden_size, config.layer_norm_eps)  # the checkpoints' own spelling
        self.encoder = Encoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, pixel_values):
        x = self.encoder(self.pre_layrnorm(self.embeddings(pixel_values)))
        first = ops.slice(x, (0, 0, 0), (x.shape[0], 1, self.width))
        return self.post_layernorm(ops.reshape(first, (-1, self.width)))


class ImageEncoder(nn.Cell):
    """Preprocessed pictures to their embeddings.

    Input: pixel_values (batch, 3, image_size, image_size). Output: image_embeds (batch, projection_dim).
    """

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.vision_model = VisionTransformer(config)
        self.visual_projection = Linear(config.hidden_size, config.projection_dim, bias=False)

    def construct(self, pixel_values):
        return self.visual_projection(self.vision_model(pixel_values))
