# SPDX-License-Identifier: Apache-2.0
"""Logits, targets and weights in, a weighted sum of cross-entropies out: the one loss of every head.

    language model  logits [B, T, V]  targets [B, T]   [CLS] head  logits [B, C]     targets [B]
    token head      logits [B, T, C]  targets [B, T]   span head   logits [B, 2, T]  targets [B, 2]
    sets of labels  logits [B, C, 2]  targets [B, C]

The weights are the loss mask. Sums and the sum of weights are returned apart, so that they add up
over devices, micro-batches and hosts before the one division.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Above this many logits (1 GiB in f32) the language-model loss goes through them in chunks.
WHOLE_LOGITS = 2**28


def cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array,
                  label_smoothing: float = 0.0, z_loss: float = 0.0) -> dict[str, jax.Array]:
    """Sums of weighted cross-entropy, in f32.

    Args:
      logits: float[..., C]. targets: int32[...], in [0, C) where weights float[...], the loss mask, are not 0.
      label_smoothing: epsilon, spread as epsilon / C over all classes (as PyTorch does, the
        target's own share included; arxiv.org/abs/1512.00567, section 7).
      z_loss: factor of log(Z) ** 2, which keeps logits near normalised
        (arxiv.org/abs/2204.02311, section 5).

    Returns:
      f32[] sums: `loss` with all its terms, `nll` without smoothing and z-loss, `correct`
      (weight of targets that had the largest logit), `weight`.
    """
    logits, weights = logits.astype(jnp.float32), weights.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # Clipped, as an image's token may lie past the vocabulary: it weighs nothing, but nothing times NaN is NaN.
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1, mode="clip")[..., 0]
    nll = log_z - chosen
    loss = nll
    if label_smoothing:
        loss = log_z - (1 - label_smoothing) * chosen - label_smoothing * jnp.mean(logits, axis=-1)
    if z_loss:
        loss = loss + z_loss * jnp.square(log_z)
    correct = chosen >= jnp.max(logits, axis=-1)
    return {"loss": jnp.sum(loss * weights), "nll": jnp.sum(nll * weights),
            "correct": jnp.sum(correct * weights), "weight": jnp.sum(weights)}


def yes_or_no(logits: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What `cross_entropy` needs to be the mean over C classes of binary cross-entropy.

        softmax(0, z) = (1 - sigmoid(z), sigmoid(z))

    Args:
      logits: float[B, C], of each class for itself. weights: float[B].

    Returns:
      float[B, C, 2], the logits that a class does not hold and that it does, and f32[B, C], which sum to the weights.
    """
    classes = logits.shape[-1]
    shares = jnp.broadcast_to(weights[:, None] / classes, logits.shape)
    return jnp.stack([jnp.zeros_like(logits), logits], axis=-1), shares


def head_cross_entropy(head: Callable[[jax.Array], jax.Array], classes: int, hidden: jax.Array,
                       targets: jax.Array, weights: jax.Array, label_smoothing: float = 0.0,
                       z_loss: float = 0.0, chunk_tokens: int = 0) -> dict[str, jax.Array]:
    """`cross_entropy` of head(hidden), never holding all logits where they would be large.

    Args:
      head: float[1, N, D] → logits [1, N, V].
      classes: V.
      hidden: float[B, T, D]; targets, weights: [B, T].
      chunk_tokens: tokens whose logits exist at a time, recomputed in the backward pass; 0 takes
        all at once up to 2**28 logits and chunks of 2**25 beyond.

    Returns:
      The sums of `cross_entropy`.
    """
    tokens = targets.size
    if not chunk_tokens:
        chunk_tokens = tokens if tokens * classes <= WHOLE_LOGITS else max(2**25 // classes, 1)
    if chunk_tokens >= tokens:
        return cross_entropy(head(hidden), targets, weights, label_smoothing, z_loss)
    chunks = -(-tokens // chunk_tokens)

    def split(array: jax.Array) -> jax.Array:
        flat = array.reshape(tokens, *array.shape[2:])
        padding = [(0, chunks * chunk_tokens - tokens)] + [(0, 0)] * (flat.ndim - 1)
        return jnp.pad(flat, padding).reshape(chunks, 1, chunk_tokens, *array.shape[2:])

    @jax.checkpoint
    def add(sums: dict[str, jax.Array], chunk: tuple[jax.Array, ...]) -> tuple[dict[str, jax.Array], None]:
        part, part_targets, part_weights = chunk
        new = cross_entropy(head(part), part_targets, part_weights, label_smoothing, z_loss)
        return jax.tree.map(jnp.add, sums, new), None

    zeros = dict.fromkeys(("loss", "nll", "correct", "weight"), jnp.zeros((), jnp.float32))
    return jax.lax.scan(add, zeros, (split(hidden), split(targets), split(weights)))[0]
