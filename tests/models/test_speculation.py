# SPDX-License-Identifier: Apache-2.0
"""A model of each family and a draft of the same family go in; the greedy text of the full pass comes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode

ROWS, WIDTH, NEW, GUESSES = 3, 5, 14, 3
LENGTHS = np.asarray([5, 1, 3])


@pytest.mark.parametrize(("name", "noise"), [
    ("learned decoder", 0.12), ("sliding decoder", 0.12), ("relative encoder-decoder", 0.02)])
def test_every_token_is_the_best_of_the_full_pass(name, noise, family, inputs_of, quick_jit):
    layers = {"encoder_layers": 1, "decoder_layers": 1} if "encoder" in name else {"decoder_layers": 1}
    made = family(name, **layers)
    random = np.random.RandomState(3)
    near = jax.tree.map(lambda leaf: leaf + noise * random.randn(*leaf.shape).astype(np.float32), made.parameters)
    inputs = inputs_of(made.config, rows=ROWS, length=WIDTH)

    @quick_jit
    def run(parameters, guessing):
        caches = [made.model.start(each, ROWS, WIDTH + NEW + GUESSES, inputs) for each in (parameters, guessing)]
        return decode.speculate(
            made.model.step, made.model.verify, parameters, inputs["tokens"], jnp.asarray(LENGTHS), caches[0],
            decode.ModelDraft(made.model.step, guessing), caches[1], decode.settings(ROWS), decode.keys([0] * ROWS),
            draft_tokens=GUESSES, max_new_tokens=NEW, eos=[], pad=0)

    out, acceptance = jax.device_get(run(made.parameters, near))
    text = np.zeros((ROWS, WIDTH + NEW), np.int32)
    for row, length in enumerate(LENGTHS):
        text[row, :length + NEW] = [*inputs["tokens"][row, :length], *out.tokens[row]]
    logits = np.asarray(made.apply(made.parameters, {**inputs, "tokens": jnp.asarray(text)}))
    for row, length in enumerate(LENGTHS):
        assert logits[row, length - 1:length + NEW - 1].argmax(-1).tolist() == out.tokens[row].tolist()
    assert 0 < acceptance.accepted.sum() < acceptance.drafted.sum()  # right and wrong guesses were read
    assert (acceptance.passes < NEW - 1).any()
