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

from t5tasks.models import placement

# Above this many logits on a device (1 GiB in f32) the language-model loss goes through them in chunks.
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
      head: float[B, N, D] → logits [B, N, V].
      classes: V.
      hidden: float[B, T, D]; targets, weights: [B, T].
      chunk_tokens: tokens whose logits exist at a time, recomputed in the backward pass, the same number of each row
        and one at least, so that rows stay where they lie; 0 takes all at once up to 2**28 logits a device. Beyond, it
        takes chunks of as many where the head's weights may have to be gathered for each, on one device of 2**25.

    Returns:
      The sums of `cross_entropy`.
    """
    rows, length = targets.shape
    if not chunk_tokens:
        devices = placement.devices()
        whole = targets.size * classes <= WHOLE_LOGITS * devices
        chunk_tokens = targets.size if whole else (WHOLE_LOGITS * devices if devices > 1 else 2**25) // classes
    columns = max(chunk_tokens // rows, 1)
    if columns >= length:
        return cross_entropy(head(hidden), targets, weights, label_smoothing, z_loss)
    chunks = -(-length // columns)

    def split(array: jax.Array) -> jax.Array:
        padding = [(0, 0), (0, chunks * columns - length)] + [(0, 0)] * (array.ndim - 2)
        cut = jnp.pad(array, padding).reshape(rows, chunks, columns, *array.shape[2:])
        return jnp.swapaxes(cut, 0, 1)

    @jax.checkpoint
    def add(sums: dict[str, jax.Array], chunk: tuple[jax.Array, ...]) -> tuple[dict[str, jax.Array], None]:
        part, part_targets, part_weights = chunk
        new = cross_entropy(head(placement.by_rows(part)), part_targets, part_weights, label_smoothing, z_loss)
        return jax.tree.map(jnp.add, sums, new), None

    zeros = dict.fromkeys(("loss", "nll", "correct", "weight"), jnp.zeros((), jnp.float32))
    return jax.lax.scan(add, zeros, (split(hidden), split(targets), split(weights)))[0]
