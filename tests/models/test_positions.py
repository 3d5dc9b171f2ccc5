# SPDX-License-Identifier: Apache-2.0
"""Rotations against complex numbers, buckets against a table by hand and exact integer arithmetic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks.models.config import ModelConfig
from t5tasks.models.positions import frequencies, relative_buckets, rotate, rotation

BUCKETS = functools.partial(jax.jit, static_argnums=(2, 3, 4))(relative_buckets)


def _buckets(distances, buckets, distance, bidirectional):
    """The bucket of each key that stands `distances` after its query."""
    slots = jnp.asarray(distances)[None] + 500
    return np.asarray(BUCKETS(jnp.asarray([[500]]), slots, buckets, distance, bidirectional))[0, 0]


def test_buckets_of_t5_by_hand():
    """32 buckets up to 128: each bucket's first distance, as tabulated for T5's encoder."""
    firsts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
    lasts = [first - 1 for first in firsts[1:]] + [499]
    for ends in (firsts, lasts):
        assert list(_buckets([-end for end in ends], 32, 128, True)) == list(range(16))
        assert list(_buckets(ends[1:], 32, 128, True)) == list(range(17, 32))


def test_a_causal_stack_spends_all_buckets_on_the_past():
    assert list(_buckets([40, 1, 0, -1, -15, -16, -18, -19, -127, -400], 32, 128, False)) == [
        0, 0, 0, 1, 15, 16, 16, 17, 31, 31]


def _exact(ahead: int, buckets: int, distance: int, bidirectional: bool) -> int:
    """log(away / half) / log(distance / half) * rest >= k, as a comparison of whole numbers."""
    start = 0
    if bidirectional:
        buckets //= 2
        start = buckets if ahead > 0 else 0
    away = abs(ahead) if bidirectional else max(-ahead, 0)
    half = buckets // 2
    rest = buckets - half
    if away < half:
        return start + away
    reached = [k for k in range(rest) if away**rest * half**k >= distance**k * half**rest]
    return start + half + max(reached)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (7, 20), (9, 33), (12, 40), (6, 100), (64, 256)])
def test_buckets_by_exact_arithmetic(buckets, distance, bidirectional):
    distances = range(-300, 301)
    expected = [_exact(ahead, buckets, distance, bidirectional) for ahead in distances]
    assert list(_buckets(list(distances), buckets, distance, bidirectional)) == expected


def test_rotation_is_multiplication_by_a_complex_number():
    random = np.random.RandomState(0)
    x = random.randn(2, 5, 3, 8).astype(np.float32)
    positions = np.asarray([[0, 1, 2, 3, 4], [7, 0, 100, 3, 199]])
    as_complex = x[..., :4].astype(np.float64) + 1j * x[..., 4:]
    angles = positions[..., None] * 50.0 ** (-np.arange(4) / 4)
    turned = as_complex * np.exp(1j * angles)[:, :, None, :]
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    turns = frequencies(ModelConfig(head_size=8, rotary_base=50.0))
    turn = jax.jit(lambda x, positions: rotate(x, rotation(positions, turns, 1.0)))
    np.testing.assert_allclose(turn(jnp.asarray(x), jnp.asarray(positions)), expected, atol=1e-4)
    np.testing.assert_array_equal(turn(jnp.asarray(x), jnp.zeros((1, 5), jnp.int32)), x)


def test_a_rotated_product_depends_on_the_distance_alone():
    random = np.random.RandomState(1)
    query, key = (jnp.tile(jnp.asarray(random.randn(1, 1, 1, 6), jnp.float32), (1, 3, 1, 1)) for _ in range(2))
    turns = frequencies(ModelConfig(head_size=6))
    queries = rotate(query, rotation(jnp.asarray([[9, 105, 9]]), turns, 1.0))
    keys = rotate(key, rotation(jnp.asarray([[4, 100, 5]]), turns, 1.0))
    products = np.sum(np.asarray(queries) * np.asarray(keys), axis=(0, 2, 3))
    assert products[0] == pytest.approx(products[1], abs=1e-4)
    assert abs(products[0] - products[2]) > 1e-2
