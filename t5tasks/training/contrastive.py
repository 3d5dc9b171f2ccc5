# SPDX-License-Identifier: Apache-2.0
"""Questions beside their passages in, the loss of telling each question's own from all passages of the batch out.

    vectors [B, 1 + G, D], of length 1: a question, its right passage, G - 1 wrong ones
    scores  [B, B * G] = questions . passages / temperature,  target of row i: i * G

The batch is that of the whole mesh: every question meets the passages on all devices (in-batch negatives,
arxiv.org/abs/2004.04906, section 3.2), which costs one gather of vectors. A passage that is the same as a question's
own, as where a paragraph has two questions, is no negative of it.

With micro-batches the vectors of a part of the rows are made at a time, and made again in the backward pass, so that
no more activations are held than a part needs, and loss and gradient are those of the whole batch (gradient caching,
arxiv.org/abs/2101.06983).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from t5tasks.models.model import Model
from t5tasks.training import losses

Batch = Mapping[str, jax.Array]
OUTSIDE = -1e9  # the score of what is not compared


def vectors(model: Model, parameters: Any, batch: Batch, dropout_key: jax.Array | None = None) -> jax.Array:
    """f32[B, 1 + G, D]: of each text of each row the mean of its tokens or its first, scaled to length 1.

    Args:
      batch: tokens, texts and positions int32[B, T], names int32[B, G]; see `data.features.windows`.
    """
    texts = batch["texts"]
    inputs = {"tokens": batch["tokens"], "segments": texts, "positions": batch["positions"]}
    hidden = model.hidden(parameters, inputs, dropout_key).astype(jnp.float32)
    own = (texts[:, None] == jnp.arange(1, batch["names"].shape[1] + 2)[:, None]).astype(jnp.float32)  # [B, 1 + G, T]
    if model.config.pooling == "first":
        own = own * (batch["positions"] == 0)[:, None]
    pooled = jnp.einsum("BGT,BTD->BGD", own, hidden)
    # Not by the norm: where there is no text, its gradient is no number.
    return pooled * jax.lax.rsqrt(jnp.maximum(jnp.sum(pooled**2, axis=-1, keepdims=True), 1e-24))


def similarities(model: Model, parameters: Any, batch: Batch) -> jax.Array:
    """f32[B, G]: the cosine of each row's question and its passages; where there is none, OUTSIDE."""
    made = vectors(model, parameters, batch)
    return jnp.where(batch["names"] > 0, jnp.einsum("BD,BGD->BG", made[:, 0], made[:, 1:]), OUTSIDE)


def loss_sums(model: Model, parameters: Any, batch: Batch, settings: Mapping[str, Any],
              dropout_key: jax.Array | None = None, micro_batches: int = 1) -> dict[str, jax.Array]:
    """The sums of `losses.cross_entropy`; a row without weight is compared with, if it has passages, and not graded.

    Args:
      settings: temperature, label_smoothing, z_loss.
      micro_batches: parts whose activations exist one after the other; a divisor of B.

    Raises:
      ValueError: micro_batches does not divide B.
    """
    made = _in_parts(model, parameters, batch, dropout_key, micro_batches)
    names, flat = batch["names"], batch["names"].reshape(-1)
    rows, count = names.shape
    scores = jnp.einsum("BD,PD->BP", made[:, 0], made[:, 1:].reshape(rows * count, -1), precision="highest")
    targets = jnp.arange(rows, dtype=jnp.int32) * count
    target = jnp.arange(rows * count) == targets[:, None]
    compared = target | ((flat > 0) & (flat != names[:, :1]))
    return losses.cross_entropy(jnp.where(compared, scores / settings["temperature"], OUTSIDE), targets,
                                batch["weights"], settings["label_smoothing"], settings["z_loss"])


def _in_parts(model: Model, parameters: Any, batch: Batch, dropout_key: jax.Array | None, parts: int) -> jax.Array:
    """`vectors` of the batch, a part of its rows at a time."""
    if parts == 1:
        return vectors(model, parameters, batch, dropout_key)
    rows = batch["tokens"].shape[0]
    if rows % parts:
        raise ValueError(f"a batch of {rows} rows cannot be split into {parts} micro-batches; make "
                         "batch.size a multiple of batch.micro_batches")
    # Row i goes to part i % parts: every device keeps rows of its own in each part.
    sliced = {name: batch[name].reshape(-1, parts, *batch[name].shape[1:]).swapaxes(0, 1)
              for name in ("tokens", "texts", "positions", "names")}
    keys = None if dropout_key is None else jax.random.split(dropout_key, parts)
    made = jax.lax.map(lambda part: jax.checkpoint(
        lambda tree, each, key: vectors(model, tree, each, key))(parameters, *part), (sliced, keys))
    return made.swapaxes(0, 1).reshape(rows, *made.shape[2:])
