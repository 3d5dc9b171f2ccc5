# SPDX-License-Identifier: Apache-2.0
"""From a row of numbers over the vocabulary to tokens: the largest, the m largest, one drawn.

Each reads the row once or twice at memory speed. Plain `argmax`, `top_k` and `cumsum` over a
vocabulary cost three to eight times that on a CPU.
"""

import jax
import jax.numpy as jnp

CHUNK = 128  # tokens that share a maximum or a sum; a row of 32,128 makes 251


def first_largest(values: jax.Array) -> jax.Array:
    """int32[B]: argmax over the last axis of [B, V], the lowest index among equals."""
    vocabulary = values.shape[-1]
    equal = values == jnp.max(values, axis=-1, keepdims=True)
    index = jnp.min(jnp.where(equal, jnp.arange(vocabulary, dtype=jnp.int32), vocabulary), axis=-1)
    return jnp.minimum(index, vocabulary - 1)  # a row of NaN has no largest


def draw(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
    """int32[B]: a token of each row, with probability weights[b, v] / sum(weights[b]).

    First a chunk by its sum, then a token within it, each by inverting its cumulative sum: two
    numbers a row instead of V, and 1 / V of a flat distribution is far above their resolution.

    Args: weights f32[B, V] >= 0, not all 0; uniforms f32[B, 2] in [0, 1).
    """
    chunks = _chunked(weights, fill=0)  # [B, C, CHUNK]
    chunk = _invert(jnp.sum(chunks, axis=-1), uniforms[:, 0])
    within = jnp.take_along_axis(chunks, chunk[:, None, None], axis=1)[:, 0]
    return chunk * chunks.shape[-1] + _invert(within, uniforms[:, 1])


def largest(logits: jax.Array, shifts: jax.Array, sums: jax.Array,
            count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` largest of (logits - shifts) + sums over a row's beams and vocabulary.

    The m largest lie in the m chunks of the largest maxima, and a shift per beam keeps the order
    within a beam: so only those chunks are shifted and ranked. Among equals the lower beam, then
    the lower token comes first.

    Args: logits f32[B, K, V]; shifts, sums f32[B, K].
    Returns: (values f32[B, count] descending, beams int32[B, count], tokens int32[B, count]);
      what does not exist is -inf, beam 0, token 0.
    """
    batch, beams, _ = logits.shape
    chunks = _chunked(logits, fill=-jnp.inf)  # [B, K, C, CHUNK]
    per_beam, size = chunks.shape[2:]
    maxima = (jnp.max(chunks, axis=-1) - shifts[..., None]) + sums[..., None]
    kept = min(count, beams * per_beam)
    _, which = jax.lax.top_k(maxima.reshape(batch, -1), kept)
    which = jnp.sort(which, axis=-1)  # the order of ids, so that equals rank as in the whole row
    beam = which // per_beam
    candidates = jnp.take_along_axis(chunks.reshape(batch, -1, size), which[..., None], axis=1)
    shift, total = (jnp.take_along_axis(array, beam, axis=1)[..., None] for array in (shifts, sums))
    values, index = jax.lax.top_k(((candidates - shift) + total).reshape(batch, -1),
                                  min(count, kept * size))
    which = jnp.take_along_axis(which, index // size, axis=1)
    tokens = which % per_beam * size + index % size
    missing = ((0, 0), (0, count - values.shape[1]))
    values = jnp.pad(values, missing, constant_values=-jnp.inf)
    exists = values > -jnp.inf
    return (values, jnp.where(exists, jnp.pad(which // per_beam, missing), 0),
            jnp.where(exists, jnp.pad(tokens, missing), 0))


def _chunked(values: jax.Array, fill: float) -> jax.Array:
    """[..., V] as [..., C, CHUNK], filled up at the end."""
    vocabulary = values.shape[-1]
    size = min(CHUNK, vocabulary)
    padding = [(0, 0)] * (values.ndim - 1) + [(0, -vocabulary % size)]
    return jnp.pad(values, padding, constant_values=fill).reshape(*values.shape[:-1], -1, size)


def _invert(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
    """int32[B]: the first index where the cumulative sum of f32[B, N] exceeds uniforms[b] of it."""
    cumulative = jnp.cumsum(weights, axis=-1)
    # Rounding may make the sums step down, so a weight of 0 has to be excluded by itself.
    beyond = (cumulative > uniforms[:, None] * cumulative[:, -1:]) & (weights > 0)
    return jnp.where(jnp.any(beyond, axis=-1), jnp.argmax(beyond, axis=-1),
                     jnp.argmax(weights, axis=-1)).astype(jnp.int32)
