# SPDX-License-Identifier: Apache-2.0
"""Prompts through `generate` give the tokens that a loop in plain Python gives, row by row."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.decode.choose import draw, first_largest, largest

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
EOS, PAD, NEW = 1, 0, 12
SOURCES = [0, 1, 2, 3]


def run(model, prompts, sources, settings, seeds, pad_right, width=None, eos=EOS, new=NEW):
    tokens, lengths = pad_right(prompts, width)
    return jax.device_get(decode.generate(
        model.step, model.params, tokens, lengths, model.empty(sources, 40), settings,
        decode.keys(seeds), max_new_tokens=new, eos=eos, pad=PAD))


def rollout(model, prompt, source, new=NEW, eos=(EOS,), min_new=0):
    """Greedy decoding without cache, batch or JAX: (tokens, their log-probabilities)."""
    tokens, logprobs = list(prompt), []
    while len(logprobs) < new:
        logits = model.logits(tokens, source)
        allowed = [-np.inf if token in eos and len(logprobs) < min_new else value
                   for token, value in enumerate(logits)]
        token = int(np.argmax(allowed))
        logprobs.append(logits[token] - np.log(np.exp(logits).sum()))
        tokens.append(token)
        if token in eos:
            break
    return tokens[len(prompt):], logprobs


@pytest.mark.parametrize(("eos", "min_new"), [
    ([EOS], 0), ([EOS, 6, -1], 0), ([EOS, 6, 6], 5), ([], 0)])
def test_greedy_is_the_rollout_of_the_best_token(recency, pad_right, eos, min_new):
    settings = decode.settings(4, min_new=min_new)
    out = run(recency, recency.prompts, SOURCES, settings, SOURCES, pad_right, eos=eos)
    for row, (prompt, source) in enumerate(zip(recency.prompts, SOURCES, strict=True)):
        tokens, logprobs = rollout(recency, prompt, source, eos=eos, min_new=min_new)
        assert out.lengths[row] == len(tokens)
        assert out.tokens[row].tolist() == tokens + [PAD] * (NEW - len(tokens))
        np.testing.assert_allclose(out.logprobs[row, :len(tokens)], logprobs, atol=1e-5)
        assert not out.logprobs[row, len(tokens):].any()


def test_the_toy_ends_some_texts_early_and_some_not(recency):
    """Else the test above would not see what happens at an end."""
    lengths = [len(rollout(recency, prompt, source, eos=(EOS, 6))[0])
               for prompt, source in zip(recency.prompts, SOURCES, strict=True)]
    assert min(lengths) < NEW and len(set(lengths)) > 1


def test_greedy_is_that_of_transformers(markov):
    stored = json.loads((FIXTURES / "greedy.json").read_text())
    prompt = np.array(stored["prompts"], np.int32)
    for case in stored["cases"]:
        tables = markov.tables(case["seed"], 1, case["vocabulary"])
        out = decode.generate(
            markov.step, jax.tree.map(jnp.asarray, tables), prompt, np.full(3, 2, np.int32),
            markov.empty([0, 0, 0], 20), decode.settings(3, min_new=case["min_new"]),
            decode.keys([0, 1, 2]), max_new_tokens=case["max_new_tokens"],
            eos=[*case["eos"], -1][:2], pad=case["pad"])
        for row, expected in zip(out.tokens.tolist(), case["tokens"], strict=True):
            known = [token for token in expected if token is not None]
            assert row == known + [case["pad"]] * (len(row) - len(known))


def test_batch_mates_do_not_matter(recency, pad_right):
    given = {"temperature": [0.0, 1.0, 0.8, 1.5], "top_k": [0, 5, 0, 0], "top_p": [1, 1, 0.9, 1],
             "min_new": [0, 0, 2, 9], "max_new": [12, 12, 5, 12]}
    seeds = [11, 12, 13, 12]
    together = run(recency, recency.prompts, SOURCES, decode.settings(4, **given), seeds, pad_right)
    for row in range(4):
        alone = run(recency, [recency.prompts[row]], [SOURCES[row]],
                    decode.settings(1, **{name: value[row] for name, value in given.items()}),
                    [seeds[row]], pad_right, width=4)
        assert alone.tokens[0].tolist() == together.tokens[row].tolist()
        assert alone.lengths[0] == together.lengths[row]
        np.testing.assert_allclose(alone.logprobs[0], together.logprobs[row], atol=1e-5)


def test_more_padding_and_a_larger_batch_change_nothing(recency, pad_right):
    settings = decode.settings(4, temperature=1.0)
    plain = run(recency, recency.prompts, SOURCES, settings, [5, 6, 7, 8], pad_right)
    wide = run(recency, recency.prompts[::-1], SOURCES[::-1], settings, [8, 7, 6, 5], pad_right, 9)
    assert np.array_equal(plain.tokens, wide.tokens[::-1])


def test_a_seed_names_a_text(recency, pad_right):
    settings = decode.settings(4, temperature=1.5)
    out = run(recency, [[3, 4]] * 4, [0] * 4, settings, [1, 2, 1, 3], pad_right, 4, eos=[])
    assert out.tokens[0].tolist() == out.tokens[2].tolist() != out.tokens[1].tolist()


def test_each_token_is_drawn_afresh(recency, pad_right):
    """Almost flat: neighbours agree one time in eleven; a key used twice would make all agree."""
    settings = decode.settings(4, temperature=1e6)
    texts = [run(recency, [[3, 4]] * 4, [0] * 4, settings, np.arange(first, first + 4), pad_right,
                 4, []) for first in range(0, 20, 4)]
    tokens = np.concatenate([text.tokens for text in texts])
    assert 0.03 < np.mean(tokens[:, 1:] == tokens[:, :-1]) < 0.17  # 220 pairs, 4 deviations
    assert 0.03 < np.mean(tokens[1:] == tokens[:-1]) < 0.17


def test_an_ended_row_is_fed_nothing_more(recency, pad_right):
    fed = []

    def step(params, tokens, counts, cache):
        jax.debug.callback(lambda counts: fed.append(np.array(counts)), counts, ordered=True)
        return recency.step(params, tokens, counts, cache)

    tokens, lengths = pad_right(recency.prompts)
    out = decode.generate(step, recency.params, tokens, lengths, recency.empty(SOURCES, 40),
                          decode.settings(4, max_new=[1, 5, 3, 12]), decode.keys(SOURCES),
                          max_new_tokens=NEW, eos=[EOS, 6, -1], pad=PAD)
    jax.effects_barrier()
    assert np.array_equal(fed[0], lengths) and len(fed) == out.lengths.max()  # no step in vain
    assert np.array_equal(np.sum(fed[1:], axis=0), out.lengths - 1)  # the last token is never fed


@pytest.mark.parametrize("setting", [{"top_k": 1}, {"top_p": 0.0}, {"top_p": 1e-7},
                                     {"temperature": 1e-6}, {"temperature": 1e-38}])
def test_the_narrowest_sampling_is_greedy(recency, pad_right, setting):
    narrow = decode.settings(4, **{"temperature": 1.3, **setting})
    greedy = run(recency, recency.prompts, SOURCES, decode.settings(4), SOURCES, pad_right)
    out = run(recency, recency.prompts, SOURCES, narrow, SOURCES, pad_right)
    assert np.array_equal(out.tokens, greedy.tokens)


def test_min_new_and_max_new_bind_each_row(recency, pad_right):
    settings = decode.settings(4, temperature=2.0, min_new=[0, 6, 12, 0], max_new=[1, 8, 50, 3])
    for seed in range(10):
        out = run(recency, recency.prompts, SOURCES, settings, [seed] * 4, pad_right,
                  eos=[EOS, 6, -1])
        assert np.all(out.lengths >= [1, 6, 12, 1]) and np.all(out.lengths <= [1, 8, 12, 3])
        for row, length in zip(out.tokens, out.lengths, strict=True):
            ends = np.isin(row[:length], [EOS, 6])
            assert not ends[:-1].any()  # a text has no EOS but its last token
            assert not row[length:].any()


def test_a_second_turn_continues_the_cache_of_the_first(recency):
    """Two turns through one cache are the one turn of the joined prompt."""
    step, params = recency.step, recency.params
    first, second = np.array([[4, 5, 6, 7]], np.int32), np.array([[8, 2]], np.int32)
    _, held = step(params, first, np.array([4]), recency.empty([1], 40))
    request = {"max_new_tokens": 6, "eos": [EOS], "pad": PAD}
    settings, keys = decode.settings(1), decode.keys([0])
    continued = decode.generate(step, params, second, np.array([2]), held, settings, keys,
                                keep_cache=True, **request)
    joined = decode.generate(step, params, np.concatenate([first, second], 1), np.array([6]),
                             recency.empty([1], 40), settings, keys, **request)
    assert continued.tokens.tolist() == joined.tokens.tolist()
    with pytest.raises(ValueError, match="already holds up to 4 tokens a row and would need 41"):
        decode.generate(step, params, second, np.array([2]), held, settings, keys,
                        **{**request, "max_new_tokens": 35})


@pytest.mark.parametrize("setting", [
    {"temperature": 1.0}, {"temperature": 1.6, "top_k": 6}, {"temperature": 1.5, "top_p": 0.85},
    {"temperature": 1.7, "min_p": 0.1}, {"temperature": 1.7, "typical_p": 0.8},
    {"temperature": 1.9, "top_k": 9, "top_p": 0.97, "min_p": 0.01, "typical_p": 0.95,
     "repetition_penalty": 1.6, "bad_words": [[5], [4, 7], [3, 4, 2]]}])
def test_draws_follow_the_warped_distribution(recency, setting):
    draws = 100_000
    settings = decode.settings(draws, **setting)
    out = decode.generate(
        recency.step, recency.params, np.tile(np.array([[3, 4]], np.int32), (draws, 1)),
        np.full(draws, 2, np.int32), recency.empty(np.zeros(draws), 4), settings,
        decode.keys(np.arange(draws)), max_new_tokens=1, eos=[EOS], pad=PAD)
    logits, one = recency.logits([3, 4], 0)[None].astype(np.float32), decode.settings(1, **setting)
    processed = decode.process(logits, one, np.array([[3, 4]]), np.zeros((1, 1), np.int32), np.zeros(1, np.int32),
                               np.array([EOS]))
    expected = np.asarray(jax.nn.softmax(decode.warp(processed, one)[0])) * draws
    counts = np.bincount(out.tokens[:, 0], minlength=len(expected))
    assert not counts[expected == 0].any()
    likely = expected > 5
    chi_square = np.sum((counts - expected)[likely] ** 2 / expected[likely])
    freedom = likely.sum() - 1
    # Wilson and Hilferty's approximation; 3.1 standard deviations: one run in a thousand exceeds it
    limit = freedom * (1 - 2 / (9 * freedom) + 3.1 * np.sqrt(2 / (9 * freedom))) ** 3
    assert freedom >= 2 and chi_square < limit


def test_draw_inverts_the_cumulative_sum_over_many_chunks():
    weights = np.zeros((4, 1000), np.float32)
    weights[0, [3, 400, 999]] = 0.25, 0.5, 0.25
    weights[1:, 517] = 1e-30, 1.0, 1e30
    uniforms = jnp.array([[0.5, 0.0], [0.0, 0.0], [0.999999, 0.999999], [0.3, 0.7]])
    assert draw(jnp.asarray(weights), uniforms).tolist() == [400, 517, 517, 517]
    edges = jnp.array([[0.0, 0], [0.2499, 0], [0.25, 0], [0.75, 0]])
    assert draw(jnp.tile(weights[:1], (4, 1)), edges).tolist() == [3, 3, 400, 999]
    uniforms = jax.random.uniform(jax.random.key(0), (20_000, 2))
    many = jax.jit(draw)(jnp.tile(weights[:1], (20_000, 1)), uniforms)
    counts = np.bincount(many, minlength=1000)
    assert counts.sum() == counts[[3, 400, 999]].sum()
    assert np.all(np.abs(counts[[3, 400, 999]] - [5000, 10000, 5000]) < 300)  # 4 deviations


@pytest.mark.parametrize("vocabulary", [3, 128, 129, 1000])
def test_the_largest_are_those_of_a_sort_and_equals_keep_their_order(vocabulary):
    random = np.random.RandomState(0)
    logits = np.round(random.randn(3, 4, vocabulary) * 3).astype(np.float32)  # many ties
    shifts = np.zeros((3, 4), np.float32)
    sums = np.array([[0, -1, -2, -np.inf]] * 3, np.float32)
    values, beams, tokens = largest(jnp.asarray(logits), shifts, sums, 16)
    flat = (logits + sums[..., None]).reshape(3, -1)
    order = np.argsort(-flat, axis=-1, kind="stable")[:, :16]
    found = flat[np.arange(3)[:, None], order]
    exists = found > -np.inf
    assert np.array_equal(values[:, :order.shape[1]], found)
    assert np.all(np.asarray(values)[:, order.shape[1]:] == -np.inf)
    assert np.array_equal((beams * vocabulary + tokens)[:, :order.shape[1]][exists], order[exists])
    assert np.array_equal(first_largest(logits[:, 0]), logits[:, 0].argmax(-1))


def test_nothing_compiles_again_when_settings_change(recency, pad_right):
    def request(settings, seeds, eos):
        run(recency, recency.prompts, SOURCES, settings, seeds, pad_right, eos=eos)

    request(decode.settings(4), SOURCES, [EOS])
    traces = recency.traces
    random = np.random.RandomState(0)
    for _ in range(20):
        request(decode.settings(4, temperature=random.rand(4) * 2, top_k=random.randint(0, 9, 4),
                                top_p=random.rand(4), min_new=random.randint(0, 4, 4),
                                max_new=random.randint(4, 13, 4)),
                random.randint(0, 1000, 4), [random.randint(11)])
    assert recency.traces == traces


def test_works_inside_a_jit_that_takes_the_cache_over(recency, pad_right):
    tokens, lengths = pad_right(recency.prompts)
    whole = jax.jit(lambda cache, tokens, lengths: decode.generate(
        recency.step, recency.params, tokens, lengths, cache, decode.settings(4),
        decode.keys(SOURCES), max_new_tokens=NEW, eos=[EOS], pad=PAD).tokens)
    plain = run(recency, recency.prompts, SOURCES, decode.settings(4), SOURCES, pad_right)
    assert np.array_equal(whole(recency.empty(SOURCES, 40), tokens, lengths), plain.tokens)
    with pytest.raises(ValueError, match="16 slots, the cache has 15"):
        whole(recency.empty(SOURCES, 15), tokens, lengths)


@pytest.mark.parametrize(("change", "said"), [
    ({"prompt_lengths": np.array([1, 5])}, "prompt_lengths[1] is 5, expected 1 to 4"),
    ({"prompt_lengths": np.array([0, 4])}, "prompt_lengths[0] is 0"),
    ({"prompt_lengths": np.array([4])}, "prompt_lengths has shape (1,), expected [2]"),
    ({"prompt": np.zeros(4, np.int32)}, "prompt has shape (4,), expected [B, T]"),
    ({"max_new_tokens": 37}, "a prompt of 4 and 37 new tokens need 41 slots, the cache has 40"),
    ({"max_new_tokens": 0}, "0 new tokens"),
    ({"settings": decode.settings(3)}, "settings are for (3,) sequences"),
    ({"keys": np.zeros((2, 3), np.uint32)}, "keys have shape (2, 3)"),
])
def test_a_request_that_does_not_fit_is_refused(recency, change, said):
    request = {"prompt": np.full((2, 4), 3, np.int32), "prompt_lengths": np.array([4, 4]),
               "settings": decode.settings(2), "keys": np.zeros((2, 2), np.uint32),
               "max_new_tokens": 5, **change}
    with pytest.raises(ValueError) as error:
        decode.generate(recency.step, recency.params, cache=recency.empty([0, 1], 40), eos=[EOS],
                        pad=PAD, **request)
    assert said in str(error.value)
