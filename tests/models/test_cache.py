# SPDX-License-Identifier: Apache-2.0
"""Decoding token by token and in chunks against the full forward pass, rows of mixed length."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks.models import cache as cache_functions

ROWS, LENGTH, CHUNK = 3, 128, 7
CAPACITY = LENGTH + CHUNK  # a chunk is written whole, its padding included


@pytest.fixture(scope="module", params=["rotary decoder", "learned decoder", "relative decoder",
                                        "sliding decoder", "parallel decoder",
                                        "rotary encoder-decoder", "relative encoder-decoder"])
def full(request, family, inputs_of):
    """A model, its inputs (sources padded) and the logits of the full forward pass."""
    layers = {"encoder_layers": 1, "decoder_layers": 1} if "encoder" in request.param else {}
    made = family(request.param, **layers)
    inputs = inputs_of(made.config, rows=ROWS, length=LENGTH)
    if "source_tokens" in inputs:
        lengths = jnp.asarray([130, 50, 1])[:, None]
        inputs["source_segments"] = (jnp.arange(130) < lengths).astype(jnp.int32)
    return made, inputs, np.asarray(made.apply(made.parameters, inputs))


def _chunk(tokens, cache, counts):
    """The next CHUNK tokens of each row, of which counts are valid and the rest filler."""
    places = cache.lengths[:, None] + jnp.arange(CHUNK)
    valid = jnp.arange(CHUNK) < jnp.asarray(counts)[:, None]
    return jnp.where(valid, jnp.take_along_axis(tokens, jnp.minimum(places, LENGTH - 1), axis=1), 3)


def _expect(logits, cache, counts, expected):
    """Rows that went on have the logits of their last token."""
    for row in np.flatnonzero(np.asarray(counts)):
        np.testing.assert_allclose(logits[row], expected[row, int(cache.lengths[row]) - 1], atol=1e-4)


def test_one_by_one_and_in_chunks_equal_the_full_pass(full, quick_jit):
    made, inputs, expected = full
    tokens, random = inputs["tokens"], np.random.RandomState(0)
    cache = made.start(made.parameters, ROWS, CAPACITY, inputs)
    assert cache.capacity == CAPACITY

    counts = jnp.asarray([CHUNK, 4, 1])  # prompts of mixed lengths
    logits, cache = made.step(made.parameters, _chunk(tokens, cache, counts), counts, cache)
    _expect(logits, cache, counts, expected)
    prompts = cache

    @quick_jit
    def one_by_one(parameters, cache):
        def go(cache, number):
            rests = (number + jnp.arange(ROWS)) % 5 == 0  # each row pauses now and then
            counts = jnp.where(rests | (cache.lengths == LENGTH), 0, 1)
            token = jnp.take_along_axis(tokens, jnp.minimum(cache.lengths, LENGTH - 1)[:, None], axis=1)
            logits, cache = made.model.step(parameters, token, counts, cache)
            return cache, (logits, cache.lengths, counts)
        return jax.lax.scan(go, cache, jnp.arange(LENGTH * 5 // 4 + 2))

    cache, (logits, lengths, counts) = jax.device_get(one_by_one(made.parameters, prompts))
    assert (cache.lengths == LENGTH).all()
    for row in range(ROWS):
        went = counts[:, row] > 0
        assert list(lengths[went, row]) == list(range(int(prompts.lengths[row]) + 1, LENGTH + 1))
        np.testing.assert_allclose(logits[went, row], expected[row, lengths[went, row] - 1], atol=1e-4)

    cache, calls = prompts, 0
    while int(cache.lengths.min()) < LENGTH:
        counts = np.minimum(random.randint(0, CHUNK + 1, size=ROWS), LENGTH - np.asarray(cache.lengths))
        logits, cache = made.step(made.parameters, _chunk(tokens, cache, counts), jnp.asarray(counts), cache)
        _expect(np.asarray(logits), cache, counts, expected)
        calls += 1
    assert calls > LENGTH / CHUNK


def test_scores_are_the_log_probabilities_of_the_full_pass(full, quick_jit):
    made, inputs, expected = full
    cache = made.start(made.parameters, ROWS, CAPACITY, inputs)
    tokens, targets = inputs["tokens"][:, :CHUNK], inputs["tokens"][:, 1:CHUNK + 1]
    scores, after = quick_jit(made.model.score)(made.parameters, tokens, jnp.full(ROWS, CHUNK), targets, cache)
    wanted = np.take_along_axis(np.asarray(jax.nn.log_softmax(expected[:, :CHUNK])),
                                np.asarray(targets)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(scores, wanted, atol=1e-4)
    assert list(after.lengths) == [CHUNK] * ROWS


def test_a_rewound_cache_is_one_that_never_read_on(full, quick_jit):
    """Wrong tokens are read and taken back, to another length in each row; the right ones follow."""
    made, inputs, expected = full
    verify, counts = quick_jit(made.model.verify), jnp.full(ROWS, CHUNK)
    cache = made.start(made.parameters, ROWS, CAPACITY, inputs)
    wrong = (inputs["tokens"][:, CHUNK:2 * CHUNK] + 5) % made.config.vocabulary
    cache = verify(made.parameters, inputs["tokens"][:, :CHUNK], counts, cache)[1]
    cache = verify(made.parameters, wrong, counts, cache)[1]
    assert list(cache.lengths) == [2 * CHUNK] * ROWS
    cache = cache.rewind(jnp.asarray([CHUNK, 3, 0]))
    logits, cache = verify(made.parameters, _chunk(inputs["tokens"], cache, counts), counts, cache)
    for row, begun in enumerate((CHUNK, 3, 0)):
        np.testing.assert_allclose(logits[row], expected[row, begun:begun + CHUNK], atol=1e-4)
        assert cache.lengths[row] == begun + CHUNK


def test_taken_rows_go_on_as_the_rows_they_were(full):
    made, inputs, expected = full
    counts = jnp.asarray([CHUNK, 4, 2])
    cache = made.start(made.parameters, ROWS, CAPACITY, inputs)
    cache = made.step(made.parameters, _chunk(inputs["tokens"], cache, counts), counts, cache)[1]
    rows = np.asarray([2, 0, 0])
    taken = cache.take(jnp.asarray(rows))
    assert list(taken.lengths) == [2, CHUNK, CHUNK]
    logits, taken = made.step(made.parameters, _chunk(inputs["tokens"][rows], taken, counts), counts, taken)
    for row, (origin, length) in enumerate(zip(rows, taken.lengths, strict=True)):
        np.testing.assert_allclose(logits[row], expected[origin, int(length) - 1], atol=1e-4)


def test_reordering_moves_what_differs_between_beams_and_leaves_the_source():
    random = np.random.RandomState(0)

    def arrays():
        return tuple(jnp.asarray(random.randn(4, 5, 1, 2), jnp.float32) for _ in range(2))

    memory = jnp.repeat(jnp.asarray(random.randn(2, 3, 1, 2), jnp.float32), 2, axis=0)  # two beams each
    cache = cache_functions.Cache(arrays(), arrays(), jnp.asarray([1, 2, 3, 4]), (memory,), (memory + 1,),
                                  jnp.asarray([[1, 1, 0]] * 2 + [[1, 1, 1]] * 2))
    rows = jnp.asarray([1, 1, 3, 2])
    reordered, taken = cache.reorder(rows), cache.take(rows)
    jax.tree.map(np.testing.assert_array_equal, reordered, taken)
    np.testing.assert_array_equal(reordered.keys[1], np.asarray(cache.keys[1])[[1, 1, 3, 2]])
    assert list(taken.take(jnp.asarray([0, 0, 0, 1, 2])).lengths) == [2, 2, 2, 2, 4]
    apart = dataclasses.replace(cache, memory_keys=(memory + jnp.arange(4.0)[:, None, None, None],))
    assert apart.reorder(rows).memory_keys is apart.memory_keys


def test_rewinding_leaves_source_prefix_and_images(family, inputs_of):
    made = family("rotary encoder-decoder", encoder_layers=1, decoder_layers=1)
    cache = made.start(made.parameters, 2, 4, inputs_of(made.config))
    cache = dataclasses.replace(cache, image_features=jnp.ones((2, 3, 24)), lengths=jnp.asarray([4, 3]),
                                image_features_used=jnp.asarray([2, 3]), prefix_lengths=jnp.asarray([1, 2]))
    rewound = cache.rewind(jnp.asarray([2, 3]))
    assert list(rewound.lengths) == [2, 3]
    for field in dataclasses.fields(cache):
        if field.name != "lengths":
            jax.tree.map(np.testing.assert_array_equal, getattr(rewound, field.name), getattr(cache, field.name))


def test_beams_that_share_their_rows_go_on_as_rows_of_their_own(full, quick_jit):
    """Prompts of mixed lengths, three beams each, five random reorderings; one example rests at the end."""
    made, inputs, _ = full
    beams, steps, counts = 3, 6, jnp.asarray([CHUNK, 4, 2])
    cache = made.start(made.parameters, ROWS, CHUNK + steps, inputs)
    cache = made.step(made.parameters, _chunk(inputs["tokens"], cache, counts), counts, cache)[1]
    random, step = np.random.RandomState(0), quick_jit(made.model.step)
    apart, shared = cache.take(jnp.repeat(jnp.arange(ROWS), beams)), cache.expand(beams, steps)
    assert shared.keys[0].shape[0] == ROWS
    for number in range(steps):
        tokens = jnp.asarray(random.randint(0, made.config.vocabulary, size=(ROWS * beams, 1)))
        ones = jnp.repeat(jnp.asarray([1, 1, int(number < 4)]), beams)
        (expected, apart), (logits, shared) = (
            step(made.parameters, tokens, ones, held) for held in (apart, shared))
        live = np.asarray(ones) > 0
        np.testing.assert_allclose(logits[live], expected[live], atol=1e-5)
        rows = random.randint(0, beams, size=(ROWS, beams)) + np.arange(ROWS)[:, None] * beams
        apart, shared = (held.reorder(jnp.asarray(rows.reshape(-1), jnp.int32)) for held in (apart, shared))
        np.testing.assert_array_equal(apart.lengths, shared.lengths)


def test_a_single_token_past_the_end_is_dropped():
    stored = jnp.arange(6.0).reshape(2, 1, 3, 1)
    new = jnp.full((2, 1, 1, 1), 9.0)
    written = cache_functions.write(stored, new, jnp.asarray([3, 1]))
    assert np.asarray(written).ravel().tolist() == [0, 1, 2, 3, 9, 5]


def test_a_step_or_score_past_the_end_is_refused(family):
    made = family("rotary decoder")
    cache = made.start(made.parameters, 2, 4)
    full = dataclasses.replace(cache, lengths=jnp.asarray([4, 3]))
    cache_functions.check_room(full, 1, jnp.asarray([0, 1]))  # a row that rests may be full
    for width, counts, held, said in ((1, [1, 0], full, "a step of 1 tokens needs 5 slots, the cache has 4"),
                                      (2, [0, 1], full, "a step of 2 tokens needs 6 slots"),
                                      (5, [1, 1], cache, "a step of 5 tokens needs 5 slots")):
        counts, step = jnp.asarray(counts), jnp.ones((2, width), jnp.int32)
        with pytest.raises(ValueError, match=said):
            made.model.step(made.parameters, step, counts, held)
        with pytest.raises(ValueError, match=said):
            made.model.score(made.parameters, step, counts, step, held)
    with pytest.raises(ValueError, match="a step of 5 tokens"):  # known from the shapes
        jax.eval_shape(made.model.step, made.parameters, jnp.ones((2, 5), jnp.int32), jnp.asarray([1, 1]), cache)
