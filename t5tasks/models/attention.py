# SPDX-License-Identifier: Apache-2.0
"""Queries from one sequence, keys and values from the same or another one: attention out."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from t5tasks.models import positions as position_functions
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import Dropout, Linear, Norm, capped
from t5tasks.models.positions import Rotation


class Attention(nn.Module):
    """Multi-head attention with grouped keys and values (arxiv.org/abs/2305.13245)."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        biases = c.biases or c.qkv_biases
        self.query = Linear("BTD,DNH->BTNH", (c.width, c.heads, c.head_size), c, biases=biases)
        self.key = Linear("BSD,DKH->BSKH", (c.width, c.kv_heads, c.head_size), c, biases=biases)
        self.value = Linear("BSD,DKH->BSKH", (c.width, c.kv_heads, c.head_size), c, biases=biases)
        self.out = Linear("BTNH,NHD->BTD", (c.heads, c.head_size, c.width), c, outputs=1)
        if c.query_key_norm != "none":
            self.query_norm, self.key_norm = Norm(c), Norm(c)
        self.dropout = Dropout(c.attention_dropout)

    def project(self, source: jax.Array, rotation: Rotation | None) -> tuple[jax.Array, jax.Array]:
        """Keys and values float[B, S, K, H] of source float[B, S, D]."""
        keys = self.key(source)
        if self.config.query_key_norm != "none":
            keys = self._normalised(keys, self.key_norm)
        return _turn(keys, rotation), self.value(source)

    def attend(self, x: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array,
               rotation: Rotation | None = None, bias: jax.Array | None = None, cached: bool = False) -> jax.Array:
        """What x looks for among keys and values.

        Args:
          x: float[B, T, D]. keys, values: float[B, S, K, H]. mask: bool[B, T, S].
          rotation: of x's positions, for rotary models. bias: float[B or 1, N, T, S].
          cached: keys and values lie as in a cache, float[B, K, S, H].

        Returns:
          float[B, T, D].
        """
        c = self.config
        queries = self.query(x)
        if c.query_key_norm != "none":
            queries = self._normalised(queries, self.query_norm)
        queries = _turn(queries, rotation)
        scale = (c.query_scale or c.head_size) ** -0.5 if c.scaled_attention else 1.0
        keys, values = keys.astype(queries.dtype), values.astype(queries.dtype)
        if cached:
            mixed = _cached_attention(queries * scale, keys, values, mask, bias, c.attention_cap)
        elif c.attention_cap or (c.attention_dropout and self.has_rng("dropout")):
            mixed = _plain_attention(queries * scale, keys, values, mask, bias, c.attention_cap, self.dropout)
        else:
            mixed = jax.nn.dot_product_attention(queries, keys, values, bias=bias, mask=mask[:, None], scale=scale)
        return self.out(mixed)

    def _normalised(self, x: jax.Array, norm: Norm) -> jax.Array:
        if self.config.query_key_norm == "head":
            return norm(x)
        return norm(x.reshape(*x.shape[:2], -1)).reshape(x.shape)


def _turn(x: jax.Array, rotation: Rotation | None) -> jax.Array:
    return x if rotation is None else position_functions.rotate(x, rotation)


def _plain_attention(queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, bias: jax.Array | None,
                     cap: float, dropout: Dropout) -> jax.Array:
    """float[B, T, N, H]; `jax.nn.dot_product_attention` with capped scores and dropped weights, softmax in f32."""
    batch, length, heads, size = queries.shape
    groups = queries.reshape(batch, length, keys.shape[2], -1, size)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", groups, keys, preferred_element_type=jnp.float32)
    scores = capped(scores, cap)
    if bias is not None:
        scores += bias.reshape(bias.shape[0], keys.shape[2], -1, *bias.shape[2:])
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(scores.dtype).min)
    weights = dropout(jax.nn.softmax(scores, axis=-1).astype(values.dtype))
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, values).reshape(batch, length, heads, size)


def _cached_attention(queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array,
                      bias: jax.Array | None, cap: float) -> jax.Array:
    """float[B * J, T, N, H] of queries float[B * J, T, N, H] among keys and values float[B, K, S, H].

    Rows of beams lie side by side. What all queries of a key head ask is one matrix product, softmax in f32.

    Args:
      mask: bool[B, 1, S] or bool[B * J, T, S]. bias: float[1 or B, N, 1 or J * T, S].
    """
    (rows, length, heads, size), (batch, kv_heads, slots, _) = queries.shape, keys.shape
    groups, length = heads // kv_heads, rows * length // batch
    mask = mask.reshape(batch, -1, slots)
    asked = queries.reshape(batch, length, kv_heads, groups, size).swapaxes(1, 2)  # BKTGH
    scores = _scores(asked.reshape(batch, kv_heads, length * groups, size), keys)
    scores = capped(scores.reshape(batch, kv_heads, length, groups, slots), cap)
    if bias is not None:
        scores += bias.reshape(bias.shape[0], kv_heads, groups, -1, slots).swapaxes(2, 3)
    scores = jnp.where(mask[:, None, :, None], scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    mixed = jnp.einsum("BKMS,BKSH->BKMH", weights.reshape(batch, kv_heads, length * groups, slots), values)
    return mixed.reshape(batch, kv_heads, length, groups, size).swapaxes(1, 2).reshape(queries.shape)


def _scores(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """f32[B, K, M, S] of float[B, K, M, H] and float[B, K, S, H]."""
    if 1 < queries.shape[2] <= 16 and jax.default_backend() == "cpu":
        # The keys as the left operand, which XLA does not repack: 0.73 ms against 1.38 ms (B 16, K 8, M 4, S 256).
        return jnp.swapaxes(jax.lax.optimization_barrier(jnp.einsum(
            "BKSH,BKMH->BKSM", keys, queries, preferred_element_type=jnp.float32)), 2, 3)
    return jnp.einsum("BKMH,BKSH->BKMS", queries, keys, preferred_element_type=jnp.float32)


class RelativeBias(nn.Module):
    """T5's learned scalar per head and bucket of distance."""

    config: ModelConfig

    @nn.compact
    def __call__(self, buckets: jax.Array) -> jax.Array:
        """f32[B or 1, N, T, S] from int32[B or 1, T, S]."""
        c = self.config
        table = self.param("embedding", nn.initializers.normal(c.width**-0.5),
                           (c.relative_buckets, c.heads), jnp.float32)
        return jnp.moveaxis(table[buckets], -1, 1)
