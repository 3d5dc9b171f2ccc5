# SPDX-License-Identifier: Apache-2.0
"""Tokens in, hidden states and logits out: the three architectures and their heads in Linen.

The rest of the project meets these modules only as the pure functions of `models.model`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from t5tasks.models.block import LayerCache
from t5tasks.models.cache import Cache
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import ACTIVATIONS, Linear, Norm, capped, compute_dtype
from t5tasks.models.stack import Stack

Inputs = dict[str, jax.Array]


class Transformer(nn.Module):
    """An encoder, a decoder, or both, over one embedding table and under one head."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        normal = nn.initializers.normal(c.initializer_range or c.width**-0.5)
        self.embedding = self.param("embedding", normal, (c.vocabulary, c.width), jnp.float32)
        if c.encoder_layers:
            self.encoder = Stack(c, c.encoder_layers, causal=False)
        if c.decoder_layers:
            self.decoder = Stack(c, c.decoder_layers, causal=True, cross=c.encoder_layers > 0)
        self.head = Head(c)

    def __call__(self, inputs: Inputs) -> jax.Array:
        """The logits; shapes as in `models.model.Model.apply`."""
        return self.logits(self.hidden(inputs), inputs)

    def hidden(self, inputs: Inputs) -> jax.Array:
        """float[B, T, D] of the stack that the head reads."""
        x = self._embed(inputs["tokens"])
        segments, positions = inputs.get("segments"), inputs.get("positions")
        if self.config.architecture == "encoder":
            return self.encoder(x, segments, positions, inputs.get("token_types"))[0]
        if self.config.architecture == "decoder":
            return self.decoder(x, segments, positions)[0]
        return self.decoder(x, segments, positions, memory=self.encode(inputs),
                            memory_segments=_source_segments(inputs))[0]

    def encode(self, inputs: Inputs) -> jax.Array:
        """float[B, S, D]: the encoded source of an encoder-decoder."""
        x = self._embed(inputs["source_tokens"])
        return self.encoder(x, segments=_source_segments(inputs),
                            positions=inputs.get("source_positions"))[0]

    def extend(self, tokens: jax.Array, cache: Cache) -> tuple[jax.Array, tuple[LayerCache, ...]]:
        """float[B, T, D] of tokens int32[B, T] that continue the cache's rows."""
        return self.decoder(self._embed(tokens), cache=cache)

    def logits(self, hidden: jax.Array, inputs: Inputs | None = None) -> jax.Array:
        """The head's answer to hidden float[B, T, D]."""
        return self.head(hidden, self.embedding, (inputs or {}).get("segments"))

    def _embed(self, tokens: jax.Array) -> jax.Array:
        x = self.embedding.astype(compute_dtype(self.config))[tokens]
        return x * jnp.asarray(self.config.width**0.5, x.dtype) if self.config.scaled_embedding else x


def _source_segments(inputs: Inputs) -> jax.Array:
    segments = inputs.get("source_segments")
    return jnp.ones_like(inputs["source_tokens"]) if segments is None else segments


def _mean(x: jax.Array, segments: jax.Array | None) -> jax.Array:
    """float[B, D], the mean of x float[B, T, D] over the tokens that are not padding."""
    real = jnp.ones(x.shape[:2], bool) if segments is None else segments > 0
    return jnp.mean(x, axis=1, where=real[..., None] | ~jnp.any(real, axis=1)[:, None, None])


class Head(nn.Module):
    """What the model answers with; each kind has the shape that the one loss expects."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, segments: jax.Array | None) -> jax.Array:
        """Logits of x float[B, T, D].

        lm: f32[B, T, V], over the vocabulary, also where the rest computes in bf16. cls: [B, C], of
        the first token or the mean. token: [B, T, C].
        span: [B, 2, T], start and end over positions, padding out of reach. none: x itself.
        """
        c = self.config
        still = not self.has_rng("dropout")
        if c.head == "none":
            return x
        if c.head == "cls":
            x = _mean(x, segments) if c.pooling == "mean" else x[:, 0]
        if c.head_transform:
            x = Linear("...D,DE->...E", (c.width, c.width), c, name="transform")(x)
            x = Norm(c, name="transform_norm")(ACTIVATIONS[c.activation](x))
        if c.head == "lm":
            return self._words(x, embedding)
        if c.head == "cls" and c.pooler != "none":
            x = Linear("BD,DE->BE", (c.width, c.width), c, biases=True, name="pooler")(x)
            x = jnp.tanh(x) if c.pooler == "tanh" else ACTIVATIONS[c.pooler](x)
        classes = 2 if c.head == "span" else c.classes
        x = nn.Dropout(c.dropout)(x, deterministic=still)
        logits = Linear("...D,DC->...C", (c.width, classes), c, biases=True, name="classifier")(x)
        if c.head != "span":
            return logits
        logits = jnp.swapaxes(logits, 1, 2)
        return logits if segments is None else jnp.where(segments[:, None] > 0, logits, -1e9)

    def _words(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        c = self.config
        x = x * c.width**-0.5 if c.scaled_head else x
        if c.tied_head:
            logits = jnp.einsum("...D,VD->...V", x, embedding.astype(x.dtype), preferred_element_type=jnp.float32)
        else:
            logits = Linear("...D,DV->...V", (c.width, c.vocabulary), c, biases=False, result=jnp.float32,
                            name="words")(x)
        if c.head_bias:
            logits += self.param("bias", nn.initializers.zeros, (c.vocabulary,), jnp.float32)
        return capped(logits, c.logit_cap)
