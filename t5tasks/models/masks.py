# SPDX-License-Identifier: Apache-2.0
"""Segments and positions in, the boolean attention mask out: one rule for every attention.

A query may look at a key of its own segment (0 is padding) that does not lie after it, or that
is marked as visible to all:

    segments = [1, 1, 1, 2, 2, 0], causal       the same, prefix = [1, 1, 0, 0, 0, 0]

      1 . . . . .                                 1 1 . . . .
      1 1 . . . .                                 1 1 . . . .
      1 1 1 . . .                                 1 1 1 . . .
      . . . 1 . .                                 . . . 1 . .
      . . . 1 1 .                                 . . . 1 1 .
      . . . . . .                                 . . . . . .

A sliding window of w keeps the keys that are less than w places away.
"""

import jax
import jax.numpy as jnp


def attention_mask(
    query_segments: jax.Array,
    key_segments: jax.Array,
    query_slots: jax.Array | None = None,
    key_slots: jax.Array | None = None,
    prefix: jax.Array | None = None,
) -> jax.Array:
    """Who may look at whom.

    Args:
      query_segments: int32[B, T], 0 where padding.
      key_segments: int32[B, S], 0 where padding.
      query_slots, key_slots: int32[B or 1, T], int32[B or 1, S], where in the sequence each
        stands; both None means every key of the segment is visible (bidirectional, cross).
      prefix: bool[B, S], keys that all queries of their segment see, also earlier ones
        (a prefix language model's prompt, an image before its caption).

    Returns:
      bool[B, T, S]. The row of a padded query is all False; what it computes is never used.
    """
    same = query_segments[:, :, None] == key_segments[:, None, :]
    allowed = same & (key_segments[:, None, :] > 0)
    if query_slots is None or key_slots is None:
        return allowed
    visible = key_slots[:, None, :] <= query_slots[:, :, None]
    if prefix is not None:
        visible |= prefix[:, None, :]
    return allowed & visible


def near(query_slots: jax.Array, key_slots: jax.Array, window: int) -> jax.Array:
    """bool[B or 1, T, S]: pairs of int32[B or 1, T] and int32[B or 1, S] less than `window` apart."""
    return jnp.abs(query_slots[:, :, None] - key_slots[:, None, :]) < window
