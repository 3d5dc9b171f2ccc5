# SPDX-License-Identifier: Apache-2.0
"""The one block of every stack: a residual stream in, the same stream one layer further out."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax

from t5tasks.models import cache as cache_functions
from t5tasks.models.attention import Attention
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import FeedForward, Norm


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What all layers of a stack share."""

    mask: jax.Array  # bool[B, T, S]
    positions: jax.Array  # int32[B or 1, T]
    bias: jax.Array | None = None  # f32[B or 1, N, T, S]
    memory: jax.Array | None = None  # float[B, S, D], the encoder's output
    memory_mask: jax.Array | None = None  # bool[B, T, S]
    write_starts: jax.Array | None = None  # int32[B], first free slot of each row's cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """One layer's part of the cache; memory is None in a decoder without cross-attention."""

    keys: jax.Array  # float[B, capacity, K, H]
    values: jax.Array  # float[B, capacity, K, H]
    memory_keys: jax.Array | None = None  # float[B, S, K, H]
    memory_values: jax.Array | None = None


class Block(nn.Module):
    """Attention, cross-attention where asked for, feed-forward; each behind a residual sum."""

    config: ModelConfig
    cross: bool = False

    def setup(self) -> None:
        c = self.config
        self.attention, self.attention_norm = Attention(c), Norm(c)
        if self.cross:
            self.cross_attention, self.cross_attention_norm = Attention(c), Norm(c)
        self.feed_forward, self.feed_forward_norm = FeedForward(c), Norm(c)
        self.dropout = nn.Dropout(c.dropout)

    def __call__(self, x: jax.Array, around: Surroundings, cached: LayerCache | None = None
                 ) -> tuple[jax.Array, LayerCache | None]:
        """float[B, T, D] and this layer's cache in, both one layer further out."""

        def attend(y: jax.Array) -> jax.Array:
            nonlocal cached
            keys, values = self.attention.project(y, around.positions)
            if cached is not None and around.write_starts is not None:
                keys = cache_functions.write(cached.keys, keys, around.write_starts)
                values = cache_functions.write(cached.values, values, around.write_starts)
                cached = dataclasses.replace(cached, keys=keys, values=values)
            return self.attention.attend(y, keys, values, around.mask, around.positions, around.bias)

        def attend_across(y: jax.Array) -> jax.Array:
            assert around.memory_mask is not None
            if cached is not None and cached.memory_keys is not None and cached.memory_values is not None:
                keys, values = cached.memory_keys, cached.memory_values
            else:
                assert around.memory is not None
                keys, values = self.project_memory(around.memory)
            return self.cross_attention.attend(y, keys, values, around.memory_mask)

        x = self._residual(x, attend, self.attention_norm)
        if self.cross:
            x = self._residual(x, attend_across, self.cross_attention_norm)
        return self._residual(x, self.feed_forward, self.feed_forward_norm), cached

    def project_memory(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """This layer's cross-attention keys and values of the encoder's output float[B, S, D]."""
        return self.cross_attention.project(memory, None)

    def _residual(self, x: jax.Array, sublayer: Callable[[jax.Array], jax.Array], norm: Norm) -> jax.Array:
        still = not self.has_rng("dropout")
        if self.config.norm_placement == "post":
            return norm(x + self.dropout(sublayer(x), deterministic=still))
        return x + self.dropout(sublayer(norm(x)), deterministic=still)
