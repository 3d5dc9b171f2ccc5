# SPDX-License-Identifier: Apache-2.0
"""Positions in, what attention adds of them out: rotations (RoPE) and T5's relative buckets."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.models.config import ModelConfig

Rotation = tuple[jax.Array, jax.Array]


def frequencies(config: ModelConfig, local: bool = False) -> np.ndarray:
    """Radians a position for each turned pair of a head (arxiv.org/abs/2104.09864).

    Stretched, for sequences longer than the model was trained on, by rotary_factor s:
    linear: all by 1 / s (arxiv.org/abs/2306.15595); llama3: low ones by 1 / s, high ones not at
    all, those between in part (arxiv.org/abs/2407.21783, section 3.4.2); yarn: the same between
    rotary_fast and rotary_slow turns in the original length (arxiv.org/abs/2309.00071, section 3.2).

    Args:
      local: of the sliding layers; with a base of their own, they are not stretched.

    Returns:
      f32[R / 2], R = config.rotary_size.
    """
    c, size = config, config.rotary_size
    own = local and c.local_rotary_base > 0
    base = c.local_rotary_base if own else c.rotary_base
    # Rounded where the reference, which computes in f32, rounds: far from the start one bit shows.
    powers = np.power(base, (np.arange(0, size, 2) / size).astype(np.float32), dtype=np.float64).astype(np.float32)
    plain = 1 / powers
    if own or c.rotary_scaling == "none":
        return plain
    if c.rotary_scaling == "linear":
        kept = np.zeros_like(plain)
    elif c.rotary_scaling == "llama3":
        turns = c.rotary_original_length * plain / (2 * math.pi)
        kept = (turns - c.rotary_low_frequency) / (c.rotary_high_frequency - c.rotary_low_frequency)
    else:
        # The pair that makes this many turns in the original length.
        first, last = (size * math.log(c.rotary_original_length / (turns * 2 * math.pi)) / (2 * math.log(base))
                       for turns in (c.rotary_fast, c.rotary_slow))
        first, last = max(math.floor(first), 0), min(math.ceil(last), size - 1)
        kept = 1 - (np.arange(size // 2) - first) / (last - first or 1e-3)
    kept = np.clip(kept, 0, 1)
    return (plain * kept + plain / c.rotary_factor * (1 - kept)).astype(np.float32)


def rotation(positions: jax.Array, turns: np.ndarray, amplitude: float) -> Rotation:
    """Sine and cosine f32[B or 1, T, 1, R / 2] of positions int32[B or 1, T] times turns f32[R / 2]."""
    angles = positions[:, :, None, None].astype(jnp.float32) * turns
    return jnp.sin(angles) * amplitude, jnp.cos(angles) * amplitude


def rotate(x: jax.Array, turn: Rotation) -> jax.Array:
    """Turns the pairs (i, i + R / 2) of each head of x float[B, T, N, H]; what lies beyond R stays."""
    sine, cosine = turn
    half = sine.shape[-1]
    first, second = x[..., :half].astype(jnp.float32), x[..., half:2 * half].astype(jnp.float32)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate([part.astype(x.dtype) for part in turned] + [x[..., 2 * half:]], axis=-1)


def sinusoids(length: int, width: int) -> np.ndarray:
    """f32[length, width]: sines, then cosines (arxiv.org/abs/1706.03762, section 3.5, not interleaved)."""
    angles = np.arange(length)[:, None] / 10_000 ** (2 * (np.arange(width) // 2) / width)
    return np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1).astype(np.float32)


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
