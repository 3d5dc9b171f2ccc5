# SPDX-License-Identifier: Apache-2.0
"""One step: split into micro-batches, with nothing graded, and with a loss that is no number."""

import dataclasses

import jax
import numpy as np
import pytest

SGD = (("name", "sgd"), ("learning_rate", 0.1), ("warmup", 0))


def test_four_micro_batches_are_one_batch(run, batch_of, same_arrays):
    """Rows of 3 to 16 tokens: the mean is over the batch's tokens, not over the parts' means."""
    whole, split = (run(optimizer=SGD, micro_batches=parts, dropout=0.0) for parts in (1, 4))
    batch = whole.place(batch_of(8))
    graded = np.asarray(batch["weights"]).sum(1)
    assert len(set(graded)) > 4
    state, other = whole.first, split.first
    for _ in range(2):
        state, sums = whole.step(state, batch)
        other, other_sums = split.step(other, batch)
        same_arrays(sums, other_sums, rtol=1e-5)
    same_arrays(state, other, rtol=1e-5, atol=1e-5)
    moved = jax.tree.map(lambda new, old: float(abs(new - old).max()), state.parameters, whole.first.parameters)
    assert max(jax.tree.leaves(moved)) > 1e-2


def test_micro_batches_must_divide_the_batch(run, batch_of):
    split = run(optimizer=SGD, micro_batches=4, dropout=0.0)
    with pytest.raises(ValueError, match="6 rows.*4 micro-batches"):
        split.step(split.first, split.place(batch_of(6)))


def test_a_masked_target_changes_no_bit_of_the_step(run, batch_of, same_arrays):
    made = run()
    batch = batch_of(8)
    other = batch | {"targets": np.where(batch["weights"] == 0, 31 - batch["targets"], batch["targets"])}
    assert (other["targets"] != batch["targets"]).any()
    same_arrays(made.step(made.first, made.place(batch)), made.step(made.first, made.place(other)))


def test_the_loss_is_lower_after_a_few_steps_on_the_same_batch(run, batch_of):
    made = run()
    batch, state, losses = made.place(batch_of(8)), made.first, []
    for _ in range(16):
        state, sums = made.step(state, batch)
        losses.append(float(sums["nll"] / sums["weight"]))
    assert losses[-1] < losses[1] - 0.2  # the first step's learning rate is 0
    assert int(state.step) == 16


def test_dropout_depends_on_the_step_and_the_runs_key(run, batch_of):
    made = run()
    batch = made.place(batch_of(8))
    other_key = dataclasses.replace(made.first, key=made.first.key + 1)
    later = dataclasses.replace(made.first, step=made.first.step + 1)
    losses = [float(made.step(state, batch)[1]["loss"]) for state in (made.first, made.first, other_key, later)]
    assert losses[0] == losses[1] and len(set(losses)) == 3


def test_a_batch_without_graded_tokens_leaves_no_mark(run, batch_of):
    made = run()
    batch = batch_of(8)
    batch["weights"] = np.zeros_like(batch["weights"])
    state, sums = made.step(made.first, made.place(batch))
    assert float(sums["loss"]) == float(sums["gradient_norm"]) == 0 and bool(sums["finite"])
    adam = state.optimizer[1][0]
    assert all((np.asarray(moment) == 0).all() for moment in jax.tree.leaves((adam.mu, adam.nu)))
    jax.tree.map(np.testing.assert_array_equal, state.parameters, made.first.parameters)


def test_what_is_not_finite_is_not_taken_in(run, batch_of, same_arrays):
    made = run()
    batch = batch_of(8)
    batch["weights"][3, 4] = np.nan
    state, sums = made.step(made.first, made.place(batch))
    assert not bool(sums["finite"]) and not np.isfinite(sums["loss"])
    same_arrays(dataclasses.replace(state, step=made.first.step), made.first)
    assert int(state.step) == 1
