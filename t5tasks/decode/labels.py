# SPDX-License-Identifier: Apache-2.0
"""From prompts and a set of label strings, as tokens, to the probability of each label."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.decode.contract import Score, Step, check_request, known
from t5tasks.decode.prefill import prefill


def log_probabilities(step: Step, score: Score, params: Any, prompt: jax.Array,
                      prompt_lengths: jax.Array, cache: Any, labels: jax.Array,
                      label_lengths: jax.Array, *, prefill_chunk: int = 0) -> jax.Array:
    """f32[B, L]: the log-probability of every label's tokens after every prompt, summed.

    The prompts are read once, at batch B, and give every label's first token; the other tokens are
    scored in one pass over B x L rows of the cache.

        labels        = [[31,  7],     "entail ment"     out[b] = [log p(31) + log p(7 | 31),
                         [12,  0]]     "neutral"                   log p(12)]
        label_lengths = [2, 1]

    Args:
      step, score: see `contract`; hashable, the same objects from call to call.
      prompt: int32[B, T], padded on the right; prompt_lengths: int32[B], each 1 .. T.
      cache: B rows with room for T + M.
      labels: int32[L, M], padded on the right; label_lengths: int32[L], each 1 .. M.
      prefill_chunk: as `prefill` has it.

    Raises: ValueError where shapes disagree or the cache is too small.
    """
    if np.ndim(labels) != 2 or np.shape(label_lengths) != np.shape(labels)[:1]:
        raise ValueError(f"labels have shape {np.shape(labels)} and label_lengths "
                         f"{np.shape(label_lengths)}, expected [L, M] and [L].")
    lengths, width = known(label_lengths), np.shape(labels)[1]
    if lengths is not None and lengths.size and (lengths.min() < 1 or lengths.max() > width):
        row = int(np.argmax((lengths < 1) | (lengths > width)))
        raise ValueError(f"label {row} has {lengths[row]} tokens, expected 1 to {width} "
                         "(the labels' width); an empty label has no probability.")
    check_request(prompt, prompt_lengths, cache, width, prefill_chunk)
    return _log_probabilities(step, score, params, prompt, prompt_lengths, cache, labels,
                              label_lengths, prefill_chunk=prefill_chunk)


@partial(jax.jit, static_argnames=("step", "score", "prefill_chunk"))
def _log_probabilities(step: Step, score: Score, params: Any, prompt: jax.Array,
                       prompt_lengths: jax.Array, cache: Any, labels: jax.Array,
                       label_lengths: jax.Array, *, prefill_chunk: int) -> jax.Array:
    labels, label_lengths = jnp.asarray(labels, jnp.int32), jnp.asarray(label_lengths, jnp.int32)
    batch, (count, width) = prompt.shape[0], labels.shape
    logits, cache = prefill(step, params, prompt, prompt_lengths, cache, prefill_chunk)
    # An id outside the vocabulary gives NaN: indexing would clamp it to another token.
    first = jnp.take(logits, labels[:, 0], axis=1, mode="fill", fill_value=jnp.nan)
    sums = first - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    if width == 1:
        return sums
    cache = cache.take(jnp.repeat(jnp.arange(batch, dtype=jnp.int32), count))
    every = jnp.tile(labels, (batch, 1))
    remaining = jnp.tile(label_lengths - 1, batch)
    logprobs, _ = score(params, every[:, :-1], remaining, every[:, 1:], cache)
    inside = jnp.arange(width - 1) < remaining[:, None]
    rest = jnp.sum(jnp.where(inside, logprobs.astype(jnp.float32), 0), axis=-1)
    return sums + rest.reshape(batch, count)


def normalise(sums: jax.Array | np.ndarray, label_lengths: jax.Array, by_length: bool,
              prior: jax.Array | np.ndarray | None = None) -> jax.Array:
    """f32[B, L]: probabilities over the labels, from their sums f32[B, L]; pure arithmetic.

    by_length compares log-probabilities a token (label_lengths int32[L]), which a long label would
    otherwise lose. prior f32[L] holds the labels' sums after a prompt without content; subtracting
    it leaves the pointwise mutual information of label and prompt, so that a label frequent
    anywhere gains nothing (Holtzman et al. 2021, arXiv:2104.08315, section 3).
    """
    if prior is not None:
        sums = sums - prior
    if by_length:
        sums = sums / jnp.asarray(label_lengths).astype(jnp.float32)
    return jax.nn.softmax(sums, axis=-1)
