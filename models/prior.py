"""The diffusion prior: a causal transformer that denoises an image embedding under a text.

Ramesh et al. 2022, arXiv:2204.06125, section 2.2; names and details as in diffusers'
``models/transformers/prior_transformer.py`` (PriorTransformer).

Its sequence is the text's hidden states, the text embedding, the timestep, the noisy image embedding and a final query
token ("prd") where the prediction is read. Attention is causal: the text side never sees the timestep or the noisy
embedding, so its keys and values are constants of the prompt. PriorContext computes them once; Prior, a step, runs the
last three tokens against them. Together they are the reference, token for token.
"""

import numpy as np
from mindspore import Tensor, nn, ops

from .clip import MASKED, causal_mask
from .config import PriorConfig
from .layers import constant, parameter
from .targets import (
    ACTIVATIONS,
    Attention,
    HeadMask,
    JoinedTokens,
    LayerNorm,
    Linear,
    MergedHeads,
    SplitHeads,
    StoredHeads,
)

STEP_TOKENS = 3  # timestep, noisy image embedding, prd


class KeyValueProjection(nn.Cell):
    """The half of an attention that other tokens look at."""

    def __init__(self, config):
        super().__init__()
        self.to_k = Linear(config.inner_dim, config.inner_dim)
        self.to_v = Linear(config.inner_dim, config.inner_dim)
        self.split = SplitHeads(config.num_attention_heads)

    def construct(self, x):
        return self.split(self.to_k(x)), self.split(self.to_v(x))


class PriorAttention(KeyValueProjection):
    """Attention of `x` over given keys and values, each as `split` makes them."""

    def __init__(self, config):
        super().__init__(config)
        self.to_q = Linear(config.inner_dim, config.inner_dim)
        self.to_out = nn.CellList([Linear(config.inner_dim, config.inner_dim)])
        self.attention = Attention(config.attention_head_dim, config.num_attention_heads)
        self.merged = MergedHeads(config.num_attention_heads)

    def attend(self, x, keys, values, mask):
        q = self.split(self.to_q(x))
        return self.to_out[0](self.merged(self.attention(q, keys, values, mask)))


class Projected(nn.Cell):
    """A linear layer and its GELU; the layer is called ``proj`` in the checkpoints."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.proj = Linear(in_features, out_features)
        self.activation = ACTIVATIONS["gelu"]()

    def construct(self, x):
        return self.activation(self.proj(x))


class FeedForward(nn.Cell):
    """Width to four times the width and back; the identity keeps the place of the checkpoints' dropout."""

    def __init__(self, width):
        super().__init__()
        self.net = nn.SequentialCell(Projected(width, 4 * width), nn.Identity(), Linear(4 * width, width))

    def construct(self, x):
        return self.net(x)


class LastContextBlock(nn.Cell):
    """What the text side needs of the last block: its keys and values, but no output."""

    def __init__(self, config):
        super().__init__()
        self.norm1 = LayerNorm(config.inner_dim)
        self.attn1 = KeyValueProjection(config)

    def construct(self, x):
        return self.attn1(self.norm1(x))


class Block(nn.Cell):
    """Attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, config):
        super().__init__()
        self.norm1 = LayerNorm(config.inner_dim)
        self.attn1 = PriorAttention(config)
        self.norm3 = LayerNorm(config.inner_dim)
        self.ff = FeedForward(config.inner_dim)
        self.joined = JoinedTokens()

    def construct(self, x, mask, before=None):
        """`x` after the block, with its own keys and values; `before` are the keys and values of earlier tokens."""
        normed = self.norm1(x)
        own = self.attn1(normed)
        keys, values = own
        if before is not None:
            keys, values = self.joined(before[0], keys), self.joined(before[1], values)
        x = x + self.attn1.attend(normed, keys, values, mask)
        return x + self.ff(self.norm3(x)), own


class PriorContext(nn.Cell):
    """Keys and values of a prompt's text side in every block, once a prompt.

    Inputs: text_embeds (1, text_embed_dim); text_hidden_states (1, num_embeddings, embedding_dim); text_mask
    (1, num_embeddings) float32, 1 where a token counts.
    Output: context (2 * num_layers, heads, (num_embeddings + 1) * attention_head_dim): by block, keys, then values.
    """

    def __init__(self, config: PriorConfig):
        super().__init__()
        tokens = config.num_embeddings + 1
        self.inner_dim, self.tokens = config.inner_dim, tokens
        self.row = (1, config.num_attention_heads, tokens * config.attention_head_dim)
        self.embedding_proj = Linear(config.text_embed_dim, config.inner_dim)
        self.encoder_hidden_states_proj = Linear(config.embedding_dim, config.inner_dim)
        self.positional_embedding = parameter(1, tokens + STEP_TOKENS, config.inner_dim)
        self.transformer_blocks = nn.CellList(
            [Block(config) for _ in range(config.num_layers - 1)] + [LastContextBlock(config)]
        )
        self.causal = Tensor(causal_mask(tokens))
        self.one, self.masked = constant(1.0), constant(MASKED)
        self.kept = Tensor(np.ones((1, 1), np.float32))  # the text embedding's place in the mask

    def construct(self, text_embeds, text_hidden_states, text_mask):
        pooled = ops.reshape(self.embedding_proj(text_embeds), (1, 1, self.inner_dim))
        x = ops.concat((self.encoder_hidden_states_proj(text_hidden_states), pooled), 1)
        x = x + ops.slice(self.positional_embedding, (0, 0, 0), (1, self.tokens, self.inner_dim))
        keep = ops.concat((text_mask, self.kept), 1)
        # No token reads a hidden one. Zeroing them makes the context a function of the visible text alone, and keeps
        # text_mask an input where the only block is the last one: Lite drops inputs that nothing reads.
        x = x * ops.reshape(keep, (1, self.tokens, 1))
        mask = self.causal + ops.reshape((self.one - keep) * self.masked, (1, 1, self.tokens))
        rows = ()
        for block in self.transformer_blocks[:-1]:
            x, (keys, values) = block(x, mask)
            rows += (ops.reshape(keys, self.row), ops.reshape(values, self.row))
        keys, values = self.transformer_blocks[-1](x)
        return ops.concat(rows + (ops.reshape(keys, self.row), ops.reshape(values, self.row)), 0)


class TimeEmbedding(nn.Cell):
    """A sinusoid to the time token, by two layers."""

    def __init__(self, config):
        super().__init__()
        self.linear_1 = Linear(config.inner_dim, config.time_hidden_dim)
        self.activation = ACTIVATIONS[config.time_embed_act_fn]()
        self.linear_2 = Linear(config.time_hidden_dim, config.inner_dim)

    def construct(self, sinusoid):
        return self.linear_2(self.activation(self.linear_1(sinusoid)))


class Prior(nn.Cell):
    """One denoising step.

    Inputs: latents (batch, embedding_dim), the noisy image embeddings; time_proj (1, inner_dim), the timestep's
    sinusoid (cosines first, frequency shift 0); context (2 * num_layers, batch * heads, (num_embeddings + 1) *
    attention_head_dim), PriorContext's outputs joined along the second axis; text_mask (batch, num_embeddings).
    Output: predicted_image_embedding (batch, embedding_dim).
    """

    def __init__(self, config: PriorConfig):
        super().__init__()
        tokens = config.num_embeddings + 1 + STEP_TOKENS
        self.inner_dim, self.tokens = config.inner_dim, tokens
        self.stored = StoredHeads(config.num_attention_heads, config.attention_head_dim)
        self.head_mask = HeadMask(config.num_attention_heads)
        self.time_embedding = TimeEmbedding(config)
        self.proj_in = Linear(config.embedding_dim, config.inner_dim)
        self.prd_embedding = parameter(1, 1, config.inner_dim)
        self.positional_embedding = parameter(1, tokens, config.inner_dim)
        self.transformer_blocks = nn.CellList([Block(config) for _ in range(config.num_layers)])
        self.norm_out = LayerNorm(config.inner_dim)
        self.proj_to_clip_embeddings = Linear(config.inner_dim, config.embedding_dim)
        self.causal = Tensor(causal_mask(tokens)[:, -STEP_TOKENS:])
        self.one, self.masked = constant(1.0), constant(MASKED)
        self.kept = Tensor(np.ones((1, 1 + STEP_TOKENS), np.float32))  # all but the text's hidden states

    def construct(self, latents, time_proj, context, text_mask):
        batch, width = latents.shape[0], self.inner_dim
        time = ops.broadcast_to(ops.reshape(self.time_embedding(time_proj), (1, 1, width)), (batch, 1, width))
        noisy = ops.reshape(self.proj_in(latents), (batch, 1, width))
        x = ops.concat((time, noisy, ops.broadcast_to(self.prd_embedding, (batch, 1, width))), 1)
        x = x + ops.slice(self.positional_embedding, (0, self.tokens - STEP_TOKENS, 0), (1, STEP_TOKENS, width))

        mask = self.mask(text_mask)
        for index, block in enumerate(self.transformer_blocks):
            x, _ = block(x, mask, (self.row(context, 2 * index, batch), self.row(context, 2 * index + 1, batch)))
        prediction = ops.slice(x, (0, STEP_TOKENS - 1, 0), (batch, 1, width))
        return self.proj_to_clip_embeddings(self.norm_out(ops.reshape(prediction, (batch, width))))

    def mask(self, text_mask):
        """What to add to the scores of STEP_TOKENS queries over all tokens."""
        batch = text_mask.shape[0]
        keep = ops.concat((text_mask, ops.broadcast_to(self.kept, (batch, 1 + STEP_TOKENS))), 1)
        mask = self.causal + ops.reshape((self.one - keep) * self.masked, (batch, 1, 1, self.tokens))
        return self.head_mask(mask)

    def row(self, context, index, batch):
        """Keys or values of num_embeddings + 1 tokens, of one block's text side."""
        return self.stored(ops.slice(context, (index, 0, 0), (1, *context.shape[1:])), batch)
