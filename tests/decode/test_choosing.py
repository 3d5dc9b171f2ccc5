# SPDX-License-Identifier: Apache-2.0
"""Requests with penalties, bans, forced tokens, samples and alternatives give what plain loops give."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
EOS, PAD, NEW = 1, 0, 12
SOURCES = [0, 1, 2, 3]
MIXED = {  # one value a row: every setting there is, in one batch
    "temperature": [0.0, 1.3, 0.9, 1.6], "top_k": [0, 8, 0, 0], "top_p": [1, 0.95, 0.9, 1],
    "min_p": [0, 0, 0.02, 0.05], "typical_p": [1, 1, 0.95, 0.9],
    "repetition_penalty": [1.4, 1, 0.8, 1.2], "presence_penalty": [0.3, 0, -0.2, 1],
    "frequency_penalty": [0.2, 0, 0.4, 0], "no_repeat_ngram": [2, 0, 3, 0], "min_new": [4, 0, 2, 0],
    "max_new": [9, 12, 50, 7], "bad_words": [[[9], [2, 8]], [], [[4, 4]], [[1, 3]]],
    "forced": [[5], [], [-1, 7], []], "forced_eos": [6, -1, 1, -1]}


def run(model, prompts, sources, settings, seeds, pad_right, width=None, **options):
    tokens, lengths = pad_right(prompts, width)
    return jax.device_get(decode.generate(
        model.step, model.params, tokens, lengths, model.empty(sources, 40), settings,
        decode.keys(seeds), **{"max_new_tokens": NEW, "eos": [EOS, 6], "pad": PAD, **options}))


def rules_of(row):
    return {name: values[row] for name, values in MIXED.items()}


def allowed(logits, prompt, new, rules, limit):
    """The processors by their definitions, on one row with Python lists."""
    out, seen = np.array(logits, np.float64), [*prompt, *new]
    for token in set(seen):
        penalty = rules["repetition_penalty"]
        out[token] = out[token] * penalty if out[token] < 0 else out[token] / penalty
    for token in set(new):
        out[token] -= rules["presence_penalty"] + rules["frequency_penalty"] * new.count(token)
    size = rules["no_repeat_ngram"]
    for at in range(len(seen) - size + 1 if size else 0):
        if seen[at:at + size - 1] == seen[len(seen) - size + 1:]:
            out[seen[at + size - 1]] = -np.inf
    for word in rules["bad_words"]:
        if word not in ([EOS], [6]) and seen[len(seen) - len(word) + 1:] == word[:-1]:
            out[word[-1]] = -np.inf
    if len(new) < rules["min_new"]:
        out[[EOS, 6]] = -np.inf
    forced = rules["forced"][len(new)] if len(new) < len(rules["forced"]) else -1
    forced = rules["forced_eos"] if len(new) == limit - 1 and rules["forced_eos"] >= 0 else forced
    if forced >= 0:
        out[:] = -np.inf
        out[forced] = 0
    return out


def test_greedy_under_every_setting_is_a_plain_loop(recency, pad_right):
    out = run(recency, recency.prompts, SOURCES, decode.settings(4, **{**MIXED, "temperature": 0}),
              SOURCES, pad_right)
    plain = run(recency, recency.prompts, SOURCES, decode.settings(4), SOURCES, pad_right)
    for row, prompt in enumerate(recency.prompts):
        rules, new = rules_of(row), []
        limit = min(rules["max_new"], NEW)
        while len(new) < limit and not set(new[-1:]) & {EOS, 6}:
            logits = recency.logits(prompt + new, row)
            new.append(int(np.argmax(allowed(logits, prompt, new, rules, limit))))
            logprob = logits[new[-1]] - np.log(np.exp(logits).sum())
            assert abs(out.logprobs[row, len(new) - 1] - logprob) < 1e-5  # the model's own
        assert out.tokens[row, :out.lengths[row]].tolist() == new
        expected = decode.AT_EOS if new[-1] in (EOS, 6) else decode.AT_LIMIT
        assert out.reasons[row] == expected
    assert not np.array_equal(out.tokens, plain.tokens)


def test_batch_mates_do_not_matter_bit_for_bit(recency, pad_right):
    """Every setting in one batch; then each row with other mates, and alone."""
    settings = decode.settings(4, **MIXED)
    together = run(recency, recency.prompts, SOURCES, settings, [11, 12, 13, 14], pad_right)
    quiet = decode.settings(4)
    for row, prompt in enumerate(recency.prompts):
        mixed = jax.tree.map(lambda ours, other, row=row: other.at[2].set(ours[row]), settings, quiet)
        other = run(recency, [[7], [2, 9], prompt, [3, 3, 3]], [3, 1, row, 0], mixed, [5, 6, 11 + row, 7],
                    pad_right, width=4)
        alone = run(recency, [prompt], [row], jax.tree.map(lambda array, row=row: array[row:row + 1], settings),
                    [11 + row], pad_right, width=4)
        assert other.tokens[2].tolist() == together.tokens[row].tolist() == alone.tokens[0].tolist()
        assert other.logprobs[2].tobytes() == together.logprobs[row].tobytes()
        np.testing.assert_allclose(alone.logprobs[0], together.logprobs[row], atol=1e-6)


def test_padding_on_the_left_or_the_right_is_one_by_one_decoding(recency, pad_right):
    settings = decode.settings(4, **MIXED)
    width = max(map(len, recency.prompts)) + 1
    for side in ("left", "right"):
        tokens, mask = np.full((4, width), 10), np.zeros((4, width), int)
        for row, prompt in enumerate(recency.prompts):
            part = slice(width - len(prompt), None) if side == "left" else slice(len(prompt))
            tokens[row, part], mask[row, part] = prompt, 1
        out = jax.device_get(decode.generate(
            recency.step, recency.params, *decode.from_padded(tokens, mask), recency.empty(SOURCES, 40), settings,
            decode.keys(SOURCES), max_new_tokens=NEW, eos=[EOS, 6], pad=PAD))
        for row, prompt in enumerate(recency.prompts):
            alone = run(recency, [prompt], [row], jax.tree.map(lambda array, row=row: array[row:row + 1], settings),
                        [row], pad_right)
            assert alone.tokens[0].tolist() == out.tokens[row].tolist()


def test_a_minimum_of_all_the_best_has_is_greedy(recency, pad_right):
    greedy = run(recency, recency.prompts, SOURCES, decode.settings(4), SOURCES, pad_right)
    narrow = run(recency, recency.prompts, SOURCES, decode.settings(4, temperature=1.7, min_p=1.0),
                 SOURCES, pad_right)
    assert np.array_equal(greedy.tokens, narrow.tokens)


def test_samples_of_a_prompt_are_requests_with_the_same_keys(recency, pad_right):
    tokens, lengths = pad_right(recency.prompts)
    settings = jax.tree.map(lambda array: jnp.repeat(array, 3, axis=0),
                            decode.settings(4, **{**MIXED, "temperature": 1.5, "forced": None}))
    keys = decode.keys([5, 6, 7, 8], samples=3)
    out = jax.device_get(decode.generate(
        recency.step, recency.params, tokens, lengths, recency.empty(SOURCES, 40), settings, keys,
        max_new_tokens=NEW, eos=[EOS, 6], pad=PAD, samples=3))
    apart = jax.device_get(decode.generate(
        recency.step, recency.params, np.repeat(tokens, 3, 0), np.repeat(lengths, 3),
        recency.empty(np.repeat(SOURCES, 3), 40), settings, keys, max_new_tokens=NEW, eos=[EOS, 6], pad=PAD))
    assert np.array_equal(out.tokens, apart.tokens) and np.array_equal(out.lengths, apart.lengths)
    np.testing.assert_allclose(out.logprobs, apart.logprobs, atol=1e-6)
    assert len({tuple(row) for row in out.tokens[:3].tolist()}) > 1
    assert np.array_equal(keys[::3], decode.keys([5, 6, 7, 8]))  # more samples keep the first
    assert len({tuple(key) for key in keys.tolist()}) == 12


def test_alternatives_are_the_most_probable_of_the_model(recency, pad_right):
    out = run(recency, recency.prompts, SOURCES, decode.settings(4, **MIXED), SOURCES, pad_right, alternatives=3)
    for row, prompt in enumerate(recency.prompts):
        new = out.tokens[row, :out.lengths[row]].tolist()
        for place in range(len(new)):
            logits = recency.logits(prompt + new[:place], row)
            logprobs = logits - np.log(np.exp(logits).sum())
            best = np.argsort(-logprobs)[:3]
            assert out.top_tokens[row, place].tolist() == best.tolist()
            np.testing.assert_allclose(out.top_logprobs[row, place], logprobs[best], atol=1e-5)
        assert not out.top_logprobs[row, len(new):].any()


def test_where_nothing_is_allowed_the_text_ends_without_a_token(recency, pad_right):
    """Every token but 3 and 4 is banned, and each may come once; EOS stays banned."""
    settings = decode.settings(4, temperature=[0, 1, 0, 1], no_repeat_ngram=[1, 1, 1, 0], min_new=12,
                               bad_words=[[token] for token in range(11) if token not in (3, 4, EOS, 6)])
    out = run(recency, [[5], [5, 5], [3], [8]], SOURCES, settings, SOURCES, pad_right)
    assert out.lengths.tolist() == [2, 2, 1, 12]
    assert out.reasons.tolist() == [decode.FORBIDDEN] * 3 + [decode.AT_LIMIT]
    assert [sorted(row[:2]) for row in out.tokens.tolist()[:3]] == [[3, 4], [3, 4], [PAD, 4]]


def test_searches_under_settings_equal_transformers(markov):
    cases = json.loads((FIXTURES / "searches.json").read_text())["cases"]
    for case in cases:
        params = jax.tree.map(jnp.asarray, markov.tables(case["seed"], 1, 9))
        prompts = np.array(case["prompts"], np.int32)
        settings = decode.settings(3, **case["settings"])
        request = (markov.step, params, prompts, np.full(3, prompts.shape[1], np.int32), markov.empty([0] * 3, 30))
        if case["beams"] == 1:
            out = decode.generate(*request, settings, decode.keys(SOURCES[:3]), max_new_tokens=10, eos=[1], pad=0)
            found = out.tokens
        else:
            out = decode.search(*request, beams=case["beams"], num_return=case["beams"], max_new_tokens=10, eos=[1],
                                pad=0, length_penalty=case["length_penalty"],
                                early_stopping=case["early_stopping"], settings=settings)
            found = out.tokens.reshape(-1, 10)
            np.testing.assert_allclose(out.scores.reshape(-1), case["scores"], rtol=1e-5, atol=1e-5,
                                       err_msg=str(case))
        for row, expected in zip(np.asarray(found).tolist(), case["tokens"], strict=True):
            assert row[:len(expected)] == expected, case


def test_beams_obey_the_limit_of_each_row(markov):
    params = jax.tree.map(jnp.asarray, markov.tables(3, 1, 9))
    prompts, lengths = np.array([[2, 3]] * 3, np.int32), np.full(3, 2, np.int32)
    options = {"beams": 3, "length_penalty": 1.0, "early_stopping": False, "eos": [1], "pad": 0}
    out = decode.search(markov.step, params, prompts, lengths, markov.empty([0] * 3, 30), max_new_tokens=10,
                        settings=decode.settings(3, max_new=[2, 5, 50]), **options)
    for row, limit in enumerate((2, 5, 10)):
        alone = decode.search(markov.step, params, prompts, lengths, markov.empty([0] * 3, 30),
                              max_new_tokens=limit, **options)
        length = int(alone.lengths[0, 0])
        assert out.lengths[row, 0] == length <= limit
        assert out.tokens[row, 0, :length].tolist() == alone.tokens[0, 0, :length].tolist()
        np.testing.assert_allclose(out.scores[row], alone.scores[0], atol=1e-6)


@pytest.mark.parametrize(("change", "said"), [
    ({"samples": 2}, "settings are for (4,) sequences, the request has 8"),
    ({"samples": 0}, "samples is 0 and alternatives 0"),
    ({"settings": decode.settings(4, stop="x")}, "settings have stop strings, which need the bytes"),
])
def test_a_request_that_does_not_fit_is_refused(recency, pad_right, change, said):
    settings = change.pop("settings", None) or decode.settings(4)
    with pytest.raises(ValueError) as error:
        run(recency, recency.prompts, SOURCES, settings, SOURCES, pad_right, **change)
    assert said in str(error.value)


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"stop": ["x"]}])
def test_beams_refuse_what_they_do_not_know(markov, change):
    with pytest.raises(ValueError, match="settings have a temperature or stop strings"):
        decode.search(markov.step, {}, np.array([[2, 3]]), np.array([2]), markov.empty([0], 30), beams=2,
                      max_new_tokens=3, length_penalty=1.0, early_stopping=False, eos=[1], pad=0,
                      settings=decode.settings(1, **change))
