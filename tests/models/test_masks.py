# SPDX-License-Identifier: Apache-2.0
"""The pictures of `models.masks` as arrays, and what they imply."""

import jax.numpy as jnp
import numpy as np

from t5tasks.models.masks import attention_mask

SEGMENTS = jnp.asarray([[1, 1, 1, 2, 2, 0]])
SLOTS = jnp.arange(6)[None]


def _picture(mask) -> list[str]:
    return ["".join("1" if seen else "." for seen in row) for row in np.asarray(mask)[0]]


def test_causal_within_segments():
    assert _picture(attention_mask(SEGMENTS, SEGMENTS, SLOTS, SLOTS)) == [
        "1.....",
        "11....",
        "111...",
        "...1..",
        "...11.",
        "......"]


def test_a_prefix_is_seen_by_its_whole_segment_only():
    prefix = jnp.asarray([[1, 1, 0, 0, 0, 0]], bool)
    assert _picture(attention_mask(SEGMENTS, SEGMENTS, SLOTS, SLOTS, prefix)) == [
        "11....",
        "11....",
        "111...",
        "...1..",
        "...11.",
        "......"]


def test_a_prefix_of_everything_is_bidirectional_and_of_nothing_causal():
    both = attention_mask(SEGMENTS, SEGMENTS)
    whole, none = (attention_mask(SEGMENTS, SEGMENTS, SLOTS, SLOTS, jnp.full((1, 6), value))
                   for value in (True, False))
    np.testing.assert_array_equal(whole, both)
    np.testing.assert_array_equal(none, attention_mask(SEGMENTS, SEGMENTS, SLOTS, SLOTS))
    assert _picture(both) == ["111...", "111...", "111...", "...11.", "...11.", "......"]


def test_queries_and_keys_of_different_length():
    """Cross-attention: each packed target sees its own source."""
    queries, keys = jnp.asarray([[1, 2, 2]]), jnp.asarray([[1, 1, 2, 0]])
    assert _picture(attention_mask(queries, keys)) == ["11..", "..1.", "..1."]


def test_slots_place_queries_among_keys():
    """Decoding: two new tokens at slots 2 and 3 of a cache of five."""
    ones = jnp.ones((1, 2), jnp.int32), jnp.ones((1, 5), jnp.int32)
    mask = attention_mask(*ones, jnp.asarray([[2, 3]]), jnp.arange(5)[None])
    assert _picture(mask) == ["111..", "1111."]
