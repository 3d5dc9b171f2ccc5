# SPDX-License-Identifier: Apache-2.0
"""A state and a batch in, the next state and the sums that describe the step out."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from t5tasks.models.model import Model
from t5tasks.training import contrastive, losses
from t5tasks.training.partition import ALL, Partition
from t5tasks.training.state import TrainState

Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]
LABELS = ("targets", "weights")


def loss_sums(model: Model, parameters: Any, batch: Batch, settings: Mapping[str, Any],
              dropout_key: jax.Array | None = None, micro_batches: int = 1) -> Sums:
    """The weighted sums of `losses.cross_entropy` over one batch.

    Args:
      batch: the model's inputs, and targets int32, weights f32 in the shape its head needs.
      settings: label_smoothing, z_loss, chunk_tokens, temperature.
      dropout_key: without one there is no dropout.
      micro_batches: parts of the batch, for a loss that must see the whole of it (head none).
    """
    if model.config.head == "none":
        return contrastive.loss_sums(model, parameters, batch, settings, dropout_key, micro_batches)
    inputs = {name: array for name, array in batch.items() if name not in LABELS}
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    hidden = model.hidden(parameters, inputs, keys[0])
    targets, weights = batch["targets"], batch["weights"]
    if model.config.head == "lm":
        return losses.head_cross_entropy(
            lambda part: model.logits(parameters, part), model.config.vocabulary, hidden, targets,
            weights, settings["label_smoothing"], settings["z_loss"], settings["chunk_tokens"])
    logits = model.logits(parameters, hidden, inputs, keys[1])
    if model.config.head == "cls" and targets.ndim == logits.ndim:
        logits, weights = losses.yes_or_no(logits, weights)
    return losses.cross_entropy(logits, targets, weights, settings["label_smoothing"], settings["z_loss"])


def make_train_step(model: Model, optimizer: optax.GradientTransformation, settings: Mapping[str, Any],
                    micro_batches: int = 1, partition: Partition = ALL
                    ) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """The pure step function; jit it with the state donated.

    Gradients of micro-batches are summed, then divided once by the summed weight, so that
    splitting a batch changes neither the loss nor the step. What the partition keeps has none. A loss that compares
    the rows of a batch (head none) is split within (`contrastive`), to the same end.

    Returns:
      A function (state, batch[B, ...]) → (state, sums), sums as `loss_sums` with `gradient_norm`
      and `finite` (bool[], loss and gradient are numbers; if not, the state's arrays are the old ones).
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

        def summed(trained: Any, part: Batch, part_key: jax.Array) -> tuple[jax.Array, Sums]:
            sums = loss_sums(model, partition.join(trained, state.kept), part, settings,
                             part_key if model.config.drops else None, micro_batches)
            return sums["loss"], sums

        gradient_of = jax.grad(summed, has_aux=True)
        if micro_batches == 1 or model.config.head == "none":
            gradients, sums = gradient_of(state.parameters, batch, key)
        else:
            gradients, sums = _accumulate(gradient_of, state.parameters, batch, key, micro_batches)
        scale = 1 / jnp.maximum(sums["weight"], 1e-6)
        gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(norm) & jnp.isfinite(sums["loss"])
        updates, moments = optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old),
                            (parameters, moments), (state.parameters, state.optimizer))
        state = dataclasses.replace(state, step=state.step + 1, parameters=kept[0], optimizer=kept[1])
        return state, sums | {"gradient_norm": norm, "finite": finite}

    return step


def _accumulate(gradient_of: Callable[..., tuple[Any, Sums]], parameters: Any, batch: Batch,
                key: jax.Array, parts: int) -> tuple[Any, Sums]:
    """Gradients and sums added up over `parts` slices of the batch, one after the other."""
    rows = batch["tokens"].shape[0]
    if rows % parts:
        raise ValueError(f"a batch of {rows} rows cannot be split into {parts} micro-batches; make "
                         "batch.size a multiple of batch.micro_batches")
    # Row i goes to part i % parts: every device keeps rows of its own in each part.
    sliced = jax.tree.map(
        lambda array: array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1), batch)

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient_of(parameters, *part)), None

    keys = jax.random.split(key, parts)
    first = jax.tree.map(lambda array: array[0], sliced)
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype),
                         jax.eval_shape(gradient_of, parameters, first, keys[0]))
    return jax.lax.scan(add, zeros, (sliced, keys))[0]
