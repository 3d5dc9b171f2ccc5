# SPDX-License-Identifier: Apache-2.0
"""The one block of every stack: a residual stream in, the same stream one layer further out."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from t5tasks.models import cache as cache_functions
from t5tasks.models.attention import Attention, RelativeBias
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import Dropout, FeedForward, Norm
from t5tasks.models.placement import by_rows
from t5tasks.models.positions import Rotation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sight:
    """Where a layer's self-attention may look, and how positions turn what it sees."""

    mask: jax.Array  # bool[B, T, S]
    rotation: Rotation | None = None  # two of f32[B or 1, T, 1, R / 2], rotary models only


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What all layers of a stack share."""

    whole: Sight
    near: Sight | None = None  # of the layers that slide
    bias: jax.Array | None = None  # f32[B or 1, N, T, S]
    buckets: jax.Array | None = None  # int32[B or 1, T, S], where each layer has a bias of its own
    memory: jax.Array | None = None  # float[B, S, D], the encoder's output
    memory_mask: jax.Array | None = None  # bool[B, T, S]
    write_starts: jax.Array | None = None  # int32[B], first free slot of each row's cache

    def sight(self, slides: bool | jax.Array) -> Sight:
        """A layer's; `slides` is bool[] where one program runs all layers."""
        if self.near is None or slides is False:
            return self.whole
        if slides is True:
            return self.near
        return jax.tree.map(lambda near, whole: jnp.where(slides, near, whole), self.near, self.whole)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """One layer's part of the cache; memory is None in a decoder without cross-attention."""

    keys: jax.Array  # float[B, K, capacity, H]
    values: jax.Array  # float[B, K, capacity, H]
    memory_keys: jax.Array | None = None  # float[B, K, S, H]
    memory_values: jax.Array | None = None


class Block(nn.Module):
    """Attention, cross-attention where asked for, feed-forward; each behind a residual sum."""

    config: ModelConfig
    cross: bool = False
    first: bool = False

    def setup(self) -> None:
        c = self.config
        self.attention = Attention(c)
        if c.first_norm or not self.first:
            self.attention_norm = Norm(c)
        if c.norm_placement == "sandwich":
            self.attention_output_norm, self.feed_forward_output_norm = Norm(c), Norm(c)
        if c.positions == "relative" and c.relative_per_layer:
            self.relative_bias = RelativeBias(c)
        if self.cross:
            self.cross_attention, self.cross_attention_norm = Attention(c), Norm(c)
        self.feed_forward, self.feed_forward_norm = FeedForward(c), Norm(c)
        if c.layer_scale:
            self.attention_scale, self.feed_forward_scale = (
                self.param(f"{name}_scale", nn.initializers.ones, (c.width,), jnp.float32)
                for name in ("attention", "feed_forward"))
        self.dropout = Dropout(c.dropout)

    def __call__(self, x: jax.Array, around: Surroundings, slides: bool | jax.Array = False,
                 cached: LayerCache | None = None) -> tuple[jax.Array, LayerCache | None]:
        """float[B, T, D] and this layer's cache in, both one layer further out."""
        c, sight, x = self.config, around.sight(slides), by_rows(x)
        bias = around.bias if around.buckets is None else self.relative_bias(around.buckets).astype(x.dtype)

        def attend(y: jax.Array) -> jax.Array:
            nonlocal cached
            keys, values = self.attention.project(y, sight.rotation)
            if cached is not None and around.write_starts is not None:
                keys = cache_functions.write(cached.keys, keys, around.write_starts)
                values = cache_functions.write(cached.values, values, around.write_starts)
                cached = dataclasses.replace(cached, keys=keys, values=values)
            attended = self.attention.attend(y, keys, values, sight.mask, sight.rotation, bias, cached is not None)
            return attended * self.attention_scale.astype(y.dtype) if c.layer_scale else attended

        def feed(y: jax.Array) -> jax.Array:
            fed = self.feed_forward(y)
            return fed * self.feed_forward_scale.astype(y.dtype) if c.layer_scale else fed

        def attend_across(y: jax.Array) -> jax.Array:
            assert around.memory_mask is not None
            if cached is not None and cached.memory_keys is not None and cached.memory_values is not None:
                keys, values = cached.memory_keys, cached.memory_values
            else:
                assert around.memory is not None
                keys, values = self.project_memory(around.memory)
            return self.cross_attention.attend(y, keys, values, around.memory_mask, cached=cached is not None)

        if c.parallel:
            attended, fed = attend(self.attention_norm(x)), feed(self.feed_forward_norm(x))
            return x + self.dropout(attended) + self.dropout(fed), cached
        sandwich = c.norm_placement == "sandwich"
        x = self._residual(x, attend, self.attention_norm if c.first_norm or not self.first else None,
                           self.attention_output_norm if sandwich else None)
        if self.cross:
            x = self._residual(x, attend_across, self.cross_attention_norm)
        return self._residual(x, feed, self.feed_forward_norm,
                              self.feed_forward_output_norm if sandwich else None), cached

    def project_memory(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """This layer's cross-attention keys and values of the encoder's output float[B, S, D]."""
        return self.cross_attention.project(memory, None)

    def _residual(self, x: jax.Array, sublayer: Callable[[jax.Array], jax.Array], norm: Norm | None,
                  output_norm: Norm | None = None) -> jax.Array:
        def normalised(y: jax.Array, by: Norm | None) -> jax.Array:
            return y if by is None else by(y)

        if self.config.norm_placement == "post":
            return normalised(x + self.dropout(sublayer(x)), norm)
        if self.config.norm_placement == "output":
            return x + self.dropout(normalised(sublayer(x), norm))
        return x + self.dropout(normalised(sublayer(normalised(x, norm)), output_norm))
