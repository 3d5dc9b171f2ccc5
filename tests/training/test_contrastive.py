# SPDX-License-Identifier: Apache-2.0
"""Texts side by side = each alone; every question against all passages; cached = whole, eight devices = one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5tasks import sharding
from t5tasks.data import batches
from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model
from t5tasks.training import contrastive
from t5tasks.training import step as steps
from t5tasks.training.state import TrainState

SETTINGS = {"temperature": 0.2, "label_smoothing": 0.0, "z_loss": 0.0}
ROWS, COUNT = 16, 2
CONFIG = ModelConfig(architecture="encoder", head="none", vocabulary=40, max_length=12, width=16, heads=2, kv_heads=2,
                     head_size=8, feed_forward=24, encoder_layers=2, decoder_layers=0, positions="learned",
                     pooling="mean")


@pytest.fixture(scope="module")
def texts():
    """Of each row a question and two passages of 3 to 7 tokens; row 5 has one passage alone."""
    random = np.random.RandomState(0)
    rows = [[random.randint(1, 40, random.randint(3, 8)).astype(np.int32) for _ in range(1 + COUNT)]
            for _ in range(ROWS)]
    rows[5].pop()
    return rows


@pytest.fixture(scope="module")
def batch(texts):
    """Row 3's passage is row 2's too, row 7 is not graded."""
    names = 1 + np.arange(ROWS * COUNT, dtype=np.int32).reshape(ROWS, COUNT)
    names[3, 0], names[5, 1] = names[2, 0], 0
    rows = [{"tokens": np.concatenate(row), "names": names[number], "targets": np.int32(0),
             "texts": np.repeat(np.arange(1, len(row) + 1), [len(text) for text in row]).astype(np.int32),
             "positions": np.concatenate([np.arange(len(text)) for text in row]).astype(np.int32),
             "weights": np.float32(number != 7)} for number, row in enumerate(texts)]
    return batches.padded(rows, batches.Shape(ROWS, 24))


@functools.cache
def _parameters(model):
    random = np.random.RandomState(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: ((leaf.ndim < 2) + 0.3 * random.randn(*leaf.shape)).astype(np.float32), shapes)


def _alone(model, text):
    hidden = np.asarray(model.hidden(_parameters(model), {"tokens": text[None]}))[0]
    pooled = hidden.mean(0) if model.config.pooling == "mean" else hidden[0]
    return pooled / np.linalg.norm(pooled)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_texts_vector_is_that_of_the_text_alone(texts, batch, pooling, quick_jit):
    model = Model(ModelConfig(**{**CONFIG.__dict__, "pooling": pooling}))
    found = np.asarray(quick_jit(contrastive.vectors, static_argnums=0)(model, _parameters(model), batch))
    for row in (0, 5, 9):
        for place, text in enumerate(texts[row]):
            np.testing.assert_allclose(found[row, place], _alone(model, text), atol=2e-6)
    near = np.asarray(quick_jit(contrastive.similarities, static_argnums=0)(model, _parameters(model), batch))
    np.testing.assert_allclose(near[0], found[0, 1:] @ found[0, 0], atol=1e-6)
    assert near[5, 1] == contrastive.OUTSIDE


@pytest.fixture(scope="module")
def gradients(batch, quick_jit):
    """gradients(micro_batches, devices): the sums of the loss, and its gradient."""
    model = Model(CONFIG)

    @functools.cache
    def made(parts, devices):
        mesh = sharding.make_mesh(devices=jax.devices()[:devices])

        def loss(parameters, rows):
            sums = contrastive.loss_sums(model, parameters, rows, SETTINGS, micro_batches=parts)
            return sums["loss"], sums

        return jax.device_get(quick_jit(jax.grad(loss, has_aux=True))(
            _parameters(model), sharding.global_batch(batch, mesh)))[::-1]

    return made


def test_a_question_is_compared_with_all_passages_but_its_own_again(batch, gradients, quick_jit):
    model = Model(CONFIG)
    made = np.asarray(quick_jit(contrastive.vectors, static_argnums=0)(model, _parameters(model), batch), np.float64)
    names, passages = batch["names"].ravel(), made[:, 1:].reshape(ROWS * COUNT, -1)
    losses, hits = [], 0
    for row in range(ROWS):
        own = row * COUNT
        others = [place for place in range(ROWS * COUNT)
                  if place != own and names[place] > 0 and names[place] != names[own]]
        scores = passages[[own, *others]] @ made[row, 0] / SETTINGS["temperature"]
        assert len(others) == ROWS * COUNT - 2 - (row in (2, 3))
        if batch["weights"][row]:
            losses.append(np.log(np.exp(scores).sum()) - scores[0])
            hits += scores[0] == scores.max()
    sums = gradients(1, 1)[0]
    assert sums["loss"] == pytest.approx(sum(losses), rel=1e-5) and sums["weight"] == ROWS - 1
    assert sums["correct"] == hits


@pytest.mark.parametrize(("parts", "devices"), [(4, 1), (1, 8), (2, 8)])
def test_parts_and_devices_change_neither_loss_nor_gradient(gradients, same_arrays, parts, devices):
    (sums, whole), (other, split) = gradients(1, 1), gradients(parts, devices)
    same_arrays(sums, other, rtol=1e-5)
    largest = max(abs(leaf).max() for leaf in jax.tree.leaves(whole))
    assert largest > 0.1
    same_arrays(whole, split, rtol=1e-5, atol=5e-5)


def test_a_part_holds_fewer_activations(batch, quick_jit):
    model = Model(CONFIG)
    many = {name: np.concatenate([rows] * 16) for name, rows in batch.items()}

    def memory(parts):
        def loss(parameters):
            return contrastive.loss_sums(model, parameters, many, SETTINGS, micro_batches=parts)["loss"]

        return quick_jit(jax.grad(loss)).lower(_parameters(model)).compile().memory_analysis().temp_size_in_bytes

    assert memory(8) < memory(1) / 2


def test_the_step_splits_such_a_batch_within(batch, gradients, same_arrays, quick_jit):
    model = Model(CONFIG)
    with pytest.raises(ValueError, match="a batch of 16 rows cannot be split into 3 micro-batches"):
        contrastive.loss_sums(model, _parameters(model), batch, SETTINGS, micro_batches=3)
    optimizer = optax.sgd(0.1)
    state = TrainState(jnp.zeros((), jnp.int32), _parameters(model), optimizer.init(_parameters(model)),
                       jax.random.key_data(jax.random.key(0)))
    step = quick_jit(steps.make_train_step(model, optimizer, SETTINGS, micro_batches=4))
    sums, gradient = gradients(4, 1)
    after, told = step(state, batch)
    assert float(told["loss"]) == pytest.approx(float(sums["loss"]), rel=1e-6) and told["finite"]
    moved = jax.tree.map(lambda leaf, change: leaf - 0.1 * change / (ROWS - 1), _parameters(model), gradient)
    same_arrays(jax.device_get(after.parameters), moved, atol=1e-6)
