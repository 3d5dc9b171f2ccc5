# SPDX-License-Identifier: Apache-2.0
"""Prompts read in chunks against prompts read at once, in models of every kind, rows of mixed length."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode

WIDTH, CHUNK = 24, 7  # four chunks of six: nothing is left over at the end of the cache
LENGTHS = jnp.asarray([24, 3, 18, 7])


@pytest.mark.parametrize("name", ["rotary decoder", "learned decoder", "sliding decoder",
                                  "relative encoder-decoder"])
def test_logits_and_cache_are_those_of_one_reading(name, family, inputs_of, quick_jit):
    layers = {"encoder_layers": 1, "decoder_layers": 1} if "encoder" in name else {}
    made = family(name, **layers)
    inputs = inputs_of(made.config, rows=4, length=WIDTH)
    empty = made.start(made.parameters, 4, WIDTH, inputs)
    read = quick_jit(partial(decode.prefill, made.model.step), static_argnames="chunk")
    logits, cache = read(made.parameters, inputs["tokens"], LENGTHS, empty, chunk=CHUNK)
    whole, expected = read(made.parameters, inputs["tokens"], LENGTHS, empty, chunk=0)
    np.testing.assert_allclose(logits, whole, atol=1e-5)
    np.testing.assert_array_equal(jnp.argmax(logits, -1), jnp.argmax(whole, -1))
    np.testing.assert_array_equal(cache.lengths, LENGTHS)
    filled = np.arange(WIDTH) < np.asarray(LENGTHS)[:, None]
    for mine, theirs in zip([*cache.keys, *cache.values], [*expected.keys, *expected.values], strict=True):
        np.testing.assert_allclose(np.swapaxes(mine, 1, 2)[filled], np.swapaxes(theirs, 1, 2)[filled], atol=1e-5)


def test_a_chunk_bounds_the_memory(family, inputs_of):
    """Scores of all 512 tokens are 3 MB a row; those of 32 a sixteenth."""
    made = family("rotary decoder", decoder_layers=1)
    tokens = jnp.zeros((4, 512), jnp.int32)
    cache = made.start(made.parameters, 4, 512)

    def temporary(chunk):
        read = jax.jit(partial(decode.prefill, made.model.step, chunk=chunk), donate_argnums=3)
        compiled = read.lower(made.parameters, tokens, jnp.full(4, 512), cache).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(32) < temporary(0) / 6
