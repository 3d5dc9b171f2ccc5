# SPDX-License-Identifier: Apache-2.0
"""Queries from one sequence, keys and values from the same or another one: attention out."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from t5tasks.models import positions as position_functions
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import Linear


class Attention(nn.Module):
    """Multi-head attention with grouped keys and values (arxiv.org/abs/2305.13245)."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        self.query = Linear("BTD,DNH->BTNH", (c.width, c.heads, c.head_size), c)
        self.key = Linear("BSD,DKH->BSKH", (c.width, c.kv_heads, c.head_size), c)
        self.value = Linear("BSD,DKH->BSKH", (c.width, c.kv_heads, c.head_size), c)
        self.out = Linear("BTNH,NHD->BTD", (c.heads, c.head_size, c.width), c, outputs=1)

    def project(self, source: jax.Array, positions: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Keys and values float[B, S, K, H] of source float[B, S, D]."""
        return self._turn(self.key(source), positions), self.value(source)

    def attend(self, x: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array,
               positions: jax.Array | None = None, bias: jax.Array | None = None) -> jax.Array:
        """What x looks for among keys and values.

        Args:
          x: float[B, T, D]. keys, values: float[B, S, K, H]. mask: bool[B, T, S].
          positions: int32[B or 1, T], for rotary models. bias: float[B or 1, N, T, S].

        Returns:
          float[B, T, D].
        """
        queries = self._turn(self.query(x), positions)
        mixed = jax.nn.dot_product_attention(
            queries, keys.astype(queries.dtype), values.astype(queries.dtype), bias=bias,
            mask=mask[:, None], scale=None if self.config.scaled_attention else 1.0)
        return self.out(mixed)

    def _turn(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        if positions is None or self.config.positions != "rotary":
            return x
        return position_functions.rotate(x, positions, self.config.rotary_base)


class RelativeBias(nn.Module):
    """T5's learned scalar per head and bucket of distance, shared by the layers of a stack."""

    config: ModelConfig
    bidirectional: bool

    @nn.compact
    def __call__(self, query_slots: jax.Array, key_slots: jax.Array) -> jax.Array:
        """float[B or 1, N, T, S] from int32[B or 1, T] and int32[B or 1, S]."""
        c = self.config
        table = self.param("embedding", nn.initializers.normal(c.width**-0.5),
                           (c.relative_buckets, c.heads), jnp.float32)
        buckets = position_functions.relative_buckets(
            query_slots, key_slots, c.relative_buckets, c.relative_distance, self.bidirectional)
        return jnp.moveaxis(table[buckets], -1, 1)
