# SPDX-License-Identifier: Apache-2.0
"""Positions in, what attention adds of them out: rotations (RoPE) and T5's relative buckets."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def rotate(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Rotary position embedding on the two halves of each head (arxiv.org/abs/2104.09864).

    Args:
      x: float[B, T, N, H], H even.
      positions: int32[B or 1, T].
      base: the longest wavelength is 2 pi * base ** ((H - 2) / H).

    Returns:
      float[B, T, N, H] of x's dtype; angles are computed in f32.
    """
    half = x.shape[-1] // 2
    wavelengths = base ** (jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, :, None].astype(jnp.float32) / wavelengths
    sine, cosine = jnp.sin(angles)[:, :, None, :], jnp.cos(angles)[:, :, None, :]
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def relative_buckets(
    query_slots: jax.Array, key_slots: jax.Array, buckets: int, distance: int, bidirectional: bool
) -> jax.Array:
    """T5's bucket of each query-key distance (arxiv.org/abs/1910.10683, section 2.1).

    Half of the buckets are single distances, the rest grow logarithmically up to `distance`;
    a bidirectional stack gives one half to keys before the query, the other to keys after it.

    Args:
      query_slots, key_slots: int32[B or 1, T], int32[B or 1, S].

    Returns:
      int32[B or 1, T, S] in [0, buckets).
    """
    ahead = key_slots[:, None, :] - query_slots[:, :, None]
    start = jnp.zeros_like(ahead)
    if bidirectional:
        buckets //= 2
        start = jnp.where(ahead > 0, buckets, 0)
        away = jnp.abs(ahead)
    else:
        away = jnp.maximum(-ahead, 0)
    return start + jnp.asarray(_buckets_by_distance(buckets, distance))[jnp.minimum(away, distance)]


def _buckets_by_distance(buckets: int, distance: int) -> np.ndarray:
    """int32[distance + 1]: a table, since f32 logarithms differ between devices at the edges."""
    exact = buckets // 2
    away = np.arange(distance + 1, dtype=np.float32)
    logarithm = np.log(np.maximum(away, 1) / np.float32(exact))
    far = exact + (logarithm / np.float32(math.log(distance / exact)) * (buckets - exact)).astype(np.int32)
    return np.where(away < exact, away, np.minimum(far, buckets - 1)).astype(np.int32)
