# SPDX-License-Identifier: Apache-2.0
"""The one loss against its formulas in NumPy, whole and in chunks, and what its mask leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks.training.losses import cross_entropy, head_cross_entropy, yes_or_no

CLASSES = 11


def _draw(shape, classes=CLASSES):
    random = np.random.RandomState(0)
    return (random.randn(*shape, classes).astype(np.float32) * 2, random.randint(classes, size=shape),
            random.choice([0, 0.5, 1], size=shape).astype(np.float32))


@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.3, 1e-3)])
@pytest.mark.parametrize("shape", [(3, 5), (4,), (2, 2)], ids=["tokens", "cls", "span"])
def test_sums_are_those_of_the_formula(shape, smoothing, z_loss):
    """Smoothing is the cross-entropy against (1 - e) one-hot + e / C; z-loss adds z log(Z)^2."""
    logits, targets, weights = _draw(shape)
    sums = cross_entropy(jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights), smoothing, z_loss)
    log_z = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    log_probabilities = logits - log_z[..., None]
    wanted = (1 - smoothing) * np.eye(CLASSES)[targets] + smoothing / CLASSES
    loss = -(wanted * log_probabilities).sum(-1) + z_loss * log_z**2
    nll = -np.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(sums["loss"], (loss * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["nll"], (nll * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["correct"], ((logits.argmax(-1) == targets) * weights).sum())
    np.testing.assert_allclose(sums["weight"], weights.sum())


def test_sets_of_labels_are_graded_by_the_mean_binary_cross_entropy():
    random = np.random.RandomState(1)
    logits, holds = random.randn(4, 3).astype(np.float32) * 3, random.randint(2, size=(4, 3))
    weights = np.asarray([1, 0, 2, 1], np.float32)
    each, shares = yes_or_no(jnp.asarray(logits), jnp.asarray(weights))
    sums = cross_entropy(each, jnp.asarray(holds), shares)
    chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
    binary = -(holds * np.log(chance) + (1 - holds) * np.log(1 - chance)).mean(axis=1)
    np.testing.assert_allclose(sums["loss"], (binary * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["correct"], (((logits > 0) == holds).mean(axis=1) * weights).sum(), rtol=1e-6)
    np.testing.assert_allclose(sums["weight"], weights.sum(), rtol=1e-6)


def test_half_precision_logits_are_summed_in_full():
    logits, targets, weights = _draw((64, 64))
    half = jnp.asarray(logits, jnp.bfloat16)
    sums = cross_entropy(half, jnp.asarray(targets), jnp.asarray(weights))
    full = cross_entropy(half.astype(jnp.float32), jnp.asarray(targets), jnp.asarray(weights))
    assert sums["loss"].dtype == jnp.float32
    assert float(sums["loss"]) == float(full["loss"])


@pytest.mark.parametrize("chunk_tokens", [5, 20])
def test_in_chunks_as_in_one(quick_jit, chunk_tokens):
    """Values and gradients, also where chunks do not divide the 3 x 7 tokens."""
    _, targets, weights = _draw((3, 7))
    random = np.random.RandomState(1)
    hidden, kernel = (jnp.asarray(random.randn(*shape), jnp.float32) for shape in ((3, 7, 6), (6, CLASSES)))

    def sums(hidden, kernel, chunk):
        return head_cross_entropy(lambda part: part @ kernel, CLASSES, hidden, jnp.asarray(targets),
                                  jnp.asarray(weights), 0.1, 1e-2, chunk)

    def loss_and_all(hidden, kernel, chunk):
        result = sums(hidden, kernel, chunk)
        return result["loss"], result

    both = quick_jit(jax.value_and_grad(loss_and_all, argnums=(0, 1), has_aux=True), static_argnums=2)
    whole, chunked = both(hidden, kernel, 21), both(hidden, kernel, chunk_tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, chunked)


@pytest.mark.parametrize("chunk_tokens", [0, 4])
def test_a_masked_target_changes_nothing(quick_jit, chunk_tokens):
    """Exactly: neither loss nor gradient nor accuracy, whatever stands there."""
    _, targets, weights = _draw((3, 7))
    hidden, kernel = jnp.asarray(_draw((3, 7), 6)[0]), jnp.asarray(_draw((6,))[0])
    other = np.where(weights == 0, (targets + 1 + np.arange(7)) % CLASSES, targets)
    assert (other != targets).sum() > 4

    @quick_jit
    def graded(targets):
        def loss(hidden, kernel):
            sums = head_cross_entropy(lambda part: part @ kernel, CLASSES, hidden, targets, jnp.asarray(weights),
                                      0.1, 1e-2, chunk_tokens)
            return sums["loss"], sums
        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(hidden, kernel)

    jax.tree.map(np.testing.assert_array_equal, graded(jnp.asarray(targets)), graded(jnp.asarray(other)))
