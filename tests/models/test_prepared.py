# SPDX-License-Identifier: Apache-2.0
"""Prepared parameters against the plain ones they come from, in both weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks.models.layers import Rows
from t5tasks.models.model import Model
from t5tasks.models.prepared import prepared

ROWS, PROMPT = 3, 6
FAMILIES = ["rotary decoder", "learned decoder", "relative encoder-decoder"]


def answers(model, parameters, inputs):
    """Logits after a prompt and after one token more."""
    cache = model.start(parameters, ROWS, PROMPT + 1, inputs)
    counts = jnp.full(ROWS, PROMPT)
    first, cache = model.step(parameters, inputs["tokens"][:, :PROMPT], counts, cache)
    second, _ = model.step(parameters, inputs["tokens"][:, PROMPT:PROMPT + 1], counts // PROMPT, cache)
    return jnp.stack([first, second])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_logits_are_those_of_the_plain_parameters(name, family, inputs_of, quick_jit):
    made = family(name)
    inputs = inputs_of(made.config, rows=ROWS, length=PROMPT + 1)
    run = quick_jit(lambda parameters, inputs: answers(made.model, parameters, inputs))
    expected = run(made.parameters, inputs)
    spread = np.std(expected)
    for rows in (1, 4):
        ready = made.model.prepared(made.parameters, rows)
        assert any(isinstance(node, Rows) for node in jax.tree.leaves(
            ready, is_leaf=lambda node: isinstance(node, Rows)))
        np.testing.assert_allclose(run(ready, inputs), expected, atol=2e-5)
    rounded = run(made.model.prepared(made.parameters, 4, "int8"), inputs)
    # Each of two roundings adds a relative error of about 1 / (127 * sqrt(12)) * 3 to every product.
    assert 1e-4 < np.sqrt(np.mean((rounded - expected) ** 2)) / spread < 0.05


def test_int8_takes_a_quarter_of_the_memory_and_is_off_by_half_a_step_at_most(family):
    made = family("rotary decoder")
    matrix = made.parameters["decoder"]["layer_0"]["feed_forward"]["up"]["kernel"]
    held = made.model.prepared(made.parameters, 1, "int8")["decoder"]["layer_0"]["feed_forward"]["up"]["kernel"]
    assert held.weights.dtype == jnp.int8 and held.weights.shape == matrix.shape[::-1]
    restored = held.weights * held.scales[:, None]
    assert np.all(np.abs(restored - matrix.T) <= held.scales[:, None] / 2 * (1 + 1e-5))
    np.testing.assert_allclose(held.scales * 127, np.abs(matrix).max(axis=0), rtol=1e-6)


def test_consumed_parameters_are_freed_and_others_kept(family):
    made = family("rotary decoder")
    copy = jax.tree.map(jnp.copy, made.parameters)
    prepared(made.config, copy, 4, "int8", consume=True)
    assert copy["embedding"].is_deleted()
    assert not copy["decoder"]["final_norm"]["scale"].is_deleted()


def test_an_unknown_form_is_refused(family):
    made = family("rotary decoder")
    with pytest.raises(ValueError, match="weights is 'int4', expected one of full, int8"):
        made.model.prepared(made.parameters, 1, "int4")


def test_stacked_layers_are_taken_apart_for_decoding(family, inputs_of):
    made = family("rotary decoder")
    inputs = inputs_of(made.config, rows=ROWS, length=PROMPT + 1)
    scanned = Model(dataclasses.replace(made.config, layer_loop="scan"))
    parameters = scanned.running_form(made.parameters)
    ready = scanned.prepared(parameters, 4)
    assert "layer_0" in ready["decoder"]
    np.testing.assert_allclose(answers(scanned, ready, inputs), answers(made.model, made.parameters, inputs),
                               atol=2e-5)
