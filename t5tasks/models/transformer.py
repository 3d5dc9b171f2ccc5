# SPDX-License-Identifier: Apache-2.0
"""Tokens or images in, hidden states and logits out: the three architectures and their heads in Linen.

The rest of the project meets these modules only as the pure functions of `models.model`.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from t5tasks.models.block import LayerCache
from t5tasks.models.cache import Cache
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import ACTIVATIONS, Dropout, Linear, Norm, Rows, capped, compute_dtype
from t5tasks.models.pooling import Inputs, Pooling
from t5tasks.models.stack import Stack
from t5tasks.models.vision import PatchEmbedding, Projector, merged, tower_config


class Transformer(nn.Module):
    """An encoder, a decoder, or both, over one embedding table and under one head.

    An encoder of images has patches in place of the table; a text model that sees images holds such
    an encoder as its `vision`.
    """

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        normal = nn.initializers.normal(c.initializer_range or c.width**-0.5)
        if c.patches is None:
            held: Any = self.get_variable("params", "embedding")
            self.embedding: jax.Array | Rows = held if isinstance(held, Rows) else self.param(
                "embedding", normal, (c.vocabulary, c.width), jnp.float32)
        else:
            self.patches = PatchEmbedding(c)
        if c.vision is not None:
            self.vision = Transformer(tower_config(c))
            if c.vision.projector != "none":
                self.projector = Projector(c)
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
        if self.config.patches is not None:
            return self.encoder(self.patches(inputs["images"]))[0]
        x = self._embed(inputs["tokens"], self.see(inputs))
        segments, positions = inputs.get("segments"), inputs.get("positions")
        if self.config.architecture == "encoder":
            return self.encoder(x, segments, positions, inputs.get("token_types"))[0]
        if self.config.architecture == "decoder":
            return self.decoder(x, segments, positions, prefix=inputs.get("prefix"))[0]
        return self.decoder(x, segments, positions, memory=self.encode(inputs),
                            memory_segments=_source_segments(inputs))[0]

    def encode(self, inputs: Inputs) -> jax.Array:
        """float[B, S, D]: the encoded source of an encoder-decoder."""
        x = self._embed(inputs["source_tokens"])
        return self.encoder(x, segments=_source_segments(inputs),
                            positions=inputs.get("source_positions"))[0]

    def extend(self, tokens: jax.Array, cache: Cache) -> tuple[jax.Array, tuple[LayerCache, ...]]:
        """float[B, T, D] of tokens int32[B, T] that continue the cache's rows."""
        x = self._embed(tokens, cache.image_features, cache.image_features_used)
        return self.decoder(x, cache=cache)

    def see(self, inputs: Inputs) -> jax.Array | None:
        """float[B, I * P, D], what stands in the places of image tokens; None where there is nothing to see."""
        vision, images = self.config.vision, inputs.get("images")
        if vision is None or vision.projector == "none" or images is None:
            return None
        features = self.vision.hidden({"images": images.reshape(-1, *images.shape[2:])})
        tower = vision.tower.patches
        if tower is not None and tower.class_token and not vision.class_feature:
            features = features[:, 1:]
        features = self.projector(features)
        return features.reshape(images.shape[0], -1, features.shape[-1])

    def logits(self, hidden: jax.Array, inputs: Inputs | None = None) -> jax.Array:
        """The head's answer to hidden float[B, T, D]."""
        inputs = inputs or {}
        images = self.vision({"images": inputs["images"]}) if self.config.head == "match" else None
        return self.head(hidden, self.embedding if self.config.patches is None else None, inputs, images)

    def _embed(self, tokens: jax.Array, features: jax.Array | None = None,
               features_used: jax.Array | None = None) -> jax.Array:
        c = self.config
        # An image token may lie past the vocabulary; its row, whichever it is, gives way.
        known = tokens if c.vision is None else jnp.where(tokens < c.vocabulary, tokens, 0)
        dtype, table = compute_dtype(c), self.embedding
        x = table.take(known).astype(dtype) if isinstance(table, Rows) else table.astype(dtype)[known]
        x = x * jnp.asarray(c.width**0.5, x.dtype) if c.scaled_embedding else x
        if c.vision is None or features is None:
            return x
        return merged(x, tokens, features, c.vision.image_token, features_used)


def _source_segments(inputs: Inputs) -> jax.Array:
    segments = inputs.get("source_segments")
    return jnp.ones_like(inputs["source_tokens"]) if segments is None else segments


class Head(nn.Module):
    """What the model answers with; each kind has the shape that the one loss expects."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array | Rows | None, inputs: Inputs,
                 images: jax.Array | None = None) -> jax.Array:
        """Logits of x float[B, T, D], and of images float[M, E] where the head compares them with texts.

        lm: f32[B, T, V], over the vocabulary, also where the rest computes in bf16. cls: [B, C], of
        the first token or the mean. token: [B, T, C].
        span: [B, 2, T], start and end over positions, padding out of reach. none: x itself. pooled:
        float[B, E], one vector of each text or image. match: f32[M, B], how each image fits each text.
        """
        c = self.config
        if c.head == "none":
            return x
        if c.head in ("cls", "pooled", "match"):
            x = Pooling(c, name="pooling")(x, inputs)
        if c.head_transform:
            x = Linear("...D,DE->...E", (c.width, c.width), c, name="transform")(x)
            x = Norm(c, name="transform_norm")(ACTIVATIONS[c.activation](x))
        if c.head == "lm":
            assert embedding is not None  # only an encoder of images has none
            return self._words(x, embedding)
        if c.head in ("cls", "pooled") and c.pooler != "none":
            x = Linear("BD,DE->BE", (c.width, c.width), c, biases=True, name="pooler")(x)
            x = jnp.tanh(x) if c.pooler == "tanh" else ACTIVATIONS[c.pooler](x)
        if c.projection and c.head in ("pooled", "match"):
            x = Linear("BD,DE->BE", (c.width, c.projection), c, biases=c.head_bias, name="projection")(x)
        if images is not None:
            return self._match(x, images)
        if c.head == "pooled":
            return x
        classes, segments = 2 if c.head == "span" else c.classes, inputs.get("segments")
        x = Dropout(c.dropout)(x)
        logits = Linear("...D,DC->...C", (x.shape[-1], classes), c, biases=True, name="classifier")(x)
        if c.head != "span":
            return logits
        logits = jnp.swapaxes(logits, 1, 2)
        return logits if segments is None else jnp.where(segments[:, None] > 0, logits, -1e9)

    def _match(self, texts: jax.Array, images: jax.Array) -> jax.Array:
        """f32[M, B] of texts float[B, E] and images float[M, E]: scaled cosines (arxiv.org/abs/2103.00020,
        figure 3), with a bias also arxiv.org/abs/2303.15343, section 3.2."""
        texts, images = (x / jnp.linalg.norm(x, axis=-1, keepdims=True)
                         for x in (texts.astype(jnp.float32), images.astype(jnp.float32)))
        begin = math.log(10) if self.config.head_bias else math.log(1 / 0.07)  # SigLIP's, CLIP's
        scale = self.param("match_scale", nn.initializers.constant(begin), (), jnp.float32)
        logits = jnp.exp(scale) * jnp.einsum("ME,BE->MB", images, texts)
        if self.config.head_bias:
            logits += self.param("match_bias", nn.initializers.constant(-10.0), (), jnp.float32)
        return logits

    def _words(self, x: jax.Array, embedding: jax.Array | Rows) -> jax.Array:
        c = self.config
        x = x * c.width**-0.5 if c.scaled_head else x
        if c.tied_head and isinstance(embedding, Rows):
            logits = embedding.product(x, jnp.float32)
        elif c.tied_head:
            assert isinstance(embedding, jax.Array)
            logits = jnp.einsum("...D,VD->...V", x, embedding.astype(x.dtype), preferred_element_type=jnp.float32)
        else:
            logits = Linear("...D,DV->...V", (c.width, c.vocabulary), c, biases=False, result=jnp.float32,
                            name="words")(x)
        if c.head_bias:
            logits += self.param("bias", nn.initializers.zeros, (c.vocabulary,), jnp.float32)
        return capped(logits, c.logit_cap)
