# SPDX-License-Identifier: Apache-2.0
"""Logits through `process` and `warp` are what transformers' processors and plain NumPy make of them."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.decode.prompts import at_the_end, history

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SETTINGS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram",
            "bad_words", "min_new", "forced", "forced_eos")
NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0,
           "repetition_penalty": 1.0, "no_repeat_ngram": 0, "bad_words": [], "min_new": 0, "forced": [],
           "forced_eos": -1}


def stored():
    """The fixtures as one batch: (told, cases a row, logits, prompts, tokens, lengths, outputs)."""
    with np.load(FIXTURES / "process.npz") as file:
        told, outputs = json.loads(str(file["told"])), file["outputs"]
    cases, logits, prompts, tokens, lengths = [], [], [], [], []
    for number, case in enumerate(told["cases"]):
        random = np.random.RandomState(number)
        logits.append((random.randn(told["rows"], told["vocabulary"]) * 2.5).astype(np.float32))
        prompt, new = case.get("prompt", told["prompt"]), case.get("new", told["new"])
        ids = random.randint(0, 10, (told["rows"], prompt + new))
        prompts += ids[:, :prompt].tolist()
        tokens += ids[:, prompt:].tolist()
        lengths += [new] * told["rows"]
        cases += [case] * told["rows"]
    return (told, cases, np.concatenate(logits), prompts,
            [row + [10] * (told["limit"] - len(row)) for row in tokens], np.array(lengths, np.int32),
            outputs.reshape(len(cases), -1))


def test_every_processor_and_filter_and_their_order_are_those_of_transformers(pad_right):
    """All cases stand in one batch, so each row has its own settings."""
    told, cases, logits, prompts, tokens, lengths, expected = stored()
    rows = decode.settings(len(cases), **{
        name: [case.get(name, NEUTRAL[name]) for case in cases] for name in SETTINGS})
    prompt = at_the_end(*map(jnp.asarray, pad_right(prompts)))
    out = np.asarray(jax.jit(decode.process)(logits, rows, prompt, np.array(tokens, np.int32), lengths,
                                             np.array(told["eos"])))
    filtered = np.asarray(jax.jit(decode.warp)(out, rows))
    for row, case in enumerate(cases):
        if not case["filtered"]:
            assert np.array_equal(out[row] == -np.inf, expected[row] == -np.inf), case
            np.testing.assert_allclose(out[row], expected[row], rtol=1e-6, atol=1e-6, err_msg=str(case))
            continue
        ours, theirs = (np.exp(x - x.max()) / np.exp(x - x.max()).sum()
                        for x in (filtered[row].astype(np.float64), expected[row].astype(np.float64)))
        assert np.array_equal(ours > 0, theirs > 0), case
        np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=str(case))


def test_the_fixtures_ban_force_and_filter():
    """Else the test above would not see them."""
    _, cases, logits, _, _, _, expected = stored()
    for name in SETTINGS:
        mine = [row for row, case in enumerate(cases) if name in case]
        assert any(not np.allclose(expected[row], logits[row]) for row in mine), name


def plain_penalties(logits, tokens, presence, frequency):
    out = logits.astype(np.float64).copy()
    for token in set(tokens):
        out[token] -= presence + frequency * tokens.count(token)
    return out


def test_presence_and_frequency_count_new_tokens_alone():
    random = np.random.RandomState(0)
    logits = random.randn(6, 40).astype(np.float32)
    prompt = jnp.asarray(random.randint(0, 10, (6, 5)), jnp.int32)
    tokens, lengths = random.randint(0, 6, (6, 12)).astype(np.int32), np.array([12, 7, 1, 0, 9, 12])
    presence, frequency = [0.5, 0, 1.5, 2, -0.5, 0], [0, 0.25, 0.5, 1, 0.1, 0]
    rows = decode.settings(6, presence_penalty=presence, frequency_penalty=frequency)
    out = np.asarray(decode.process(logits, rows, prompt, tokens, lengths, np.array([1])))
    for row in range(6):
        expected = plain_penalties(logits[row], tokens[row, :lengths[row]].tolist(), presence[row],
                                   frequency[row])
        np.testing.assert_allclose(out[row], expected, atol=1e-6)
    assert np.array_equal(out[[3, 5]], logits[[3, 5]])


def test_rows_that_ask_for_nothing_keep_their_bits(pad_right):
    _, cases, logits, prompts, tokens, lengths, _ = stored()
    prompt = at_the_end(*map(jnp.asarray, pad_right(prompts)))
    quiet = np.arange(len(cases)) % 2 == 0
    rows = decode.settings(
        len(cases), repetition_penalty=np.where(quiet, 1, 1.5), no_repeat_ngram=np.where(quiet, 0, 2),
        presence_penalty=np.where(quiet, 0, 1), frequency_penalty=np.where(quiet, 0, 0.5),
        bad_words=[[] if still else [[3], [4, 2]] for still in quiet], min_new=np.where(quiet, 0, 9),
        forced_eos=np.where(quiet, -1, 1), top_p=np.where(quiet, 1, 0.5),
        min_p=np.where(quiet, 0, 0.5), typical_p=np.where(quiet, 1, 0.5), temperature=1.0)
    arguments = (prompt, np.array(tokens, np.int32), lengths, np.array([1]))
    out = np.asarray(jax.jit(decode.process)(logits, rows, *arguments))
    assert np.array_equal(out[quiet], logits[quiet]) and not np.array_equal(out[~quiet], logits[~quiet])
    warped = np.asarray(jax.jit(decode.warp)(logits, rows))
    assert np.array_equal(warped[quiet], (logits - logits.max(-1, keepdims=True))[quiet])


def test_padding_on_either_side_is_never_seen():
    """The filler is a token that would be penalised, banned and matched."""
    right = np.array([[4, 2, 9, 9, 9], [9, 9, 3, 4, 2], [5, 9, 9, 9, 9]], np.int32)
    mask = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])
    tokens, lengths = decode.from_padded(right, mask)
    assert lengths.tolist() == [2, 3, 1]
    assert [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)] == [[4, 2], [3, 4, 2], [5]]
    prompt = at_the_end(jnp.asarray(tokens), jnp.asarray(lengths))
    assert prompt.tolist() == [[-1, -1, -1, 4, 2], [-1, -1, 3, 4, 2], [-1, -1, -1, -1, 5]]
    new, written = jnp.array([[7, 9], [9, 9], [6, 8]]), jnp.array([1, 0, 2])
    assert history(prompt, new, written).tolist() == [
        [-1, -1, -1, 4, 2, 7, -1], [-1, -1, 3, 4, 2, -1, -1], [-1, -1, -1, -1, 5, 6, 8]]
    rows = decode.settings(3, repetition_penalty=2.0, no_repeat_ngram=1, bad_words=[[9, 0], [2, 1]])
    out = decode.process(jnp.ones((3, 12)), rows, prompt, new, written, jnp.array([11]))
    banned = [np.flatnonzero(row == -np.inf).tolist() for row in np.asarray(out)]
    assert banned == [[2, 4, 7], [1, 2, 3, 4], [5, 6, 8]] and np.all(np.asarray(out)[:, 9] == 1)
    with pytest.raises(ValueError, match="row 1 of the mask marks no token"):
        decode.from_padded(right[:2], [[1, 1, 0, 0, 0], [0] * 5])


def test_no_sort_is_compiled():
    rows, logits = decode.settings(2), jnp.zeros((2, 500))
    prompt, tokens = jnp.zeros((2, 4), jnp.int32), jnp.zeros((2, 6), jnp.int32)

    def both(logits, rows):
        return decode.warp(decode.process(logits, rows, prompt, tokens, jnp.array([2, 3]), jnp.array([1])), rows)

    text = jax.jit(both).lower(logits, rows).compile().as_text()
    assert " sort(" not in text and "TopK" not in text


@pytest.mark.parametrize(("given", "said"), [
    ({"min_p": 1.5}, "min_p is 1.5, expected a number from 0 to 1"),
    ({"typical_p": 0}, "typical_p is 0"),
    ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
    ({"presence_penalty": np.nan}, "presence_penalty is nan"),
    ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
    ({"bad_words": [[3], [-2]]}, "bad_words has -2, expected token ids, whole numbers from 0"),
    ({"bad_words": [[[3]], [[2]], []]}, "bad_words has 3 lists, expected one for all or 2"),
    ({"bad_words": [[0] * 65]}, "the number of tokens of a bad word is 65, expected at most 64"),
    ({"bad_words": [3]}, "bad_words has 3, expected a list of token ids"),
    ({"forced": [1, 2.5]}, "forced has 2.5"),
    ({"forced": [1, 70], "vocabulary": 70}, "forced has the id 70, expected ids below 70"),
    ({"forced": 3}, "forced is 3, expected a list"),
    ({"stop": [""]}, "stop has '', expected strings that are not empty"),
    ({"stop": ["a" * 2049]}, "stop strings is 2049, expected at most 2048"),
    ({"forced_eos": -2}, "forced_eos is -2"),
])
def test_settings_out_of_range_are_refused(given, said):
    with pytest.raises(ValueError) as error:
        decode.settings(2, **given)
    assert said in str(error.value)


def test_lists_are_one_for_all_or_one_a_sequence():
    made = decode.settings(2, bad_words=[[[7], [4, 5]], []], forced=[[], [3, -1, 2]], stop=["ab", "é"])
    assert made.bad_words[:, :2].tolist() == [[[-1, -1, -1, 7], [-1, -1, 4, 5]], [[-1] * 4] * 2]
    assert made.forced.tolist() == [[-1] * 4, [3, -1, 2, -1]]
    assert made.stop_bytes[1, :5].tolist() == [97, 98, 195, 169, -1]
    assert made.stop_ends[0, :5].tolist() == [False, True, False, True, False]
    shared = decode.settings(2, bad_words=[[7], [4, 5]], forced=(3,), stop=[["x"], None])
    assert shared.bad_words[1, 1].tolist() == [-1, -1, 4, 5] and shared.forced[1].tolist() == [3, -1, -1, -1]
    assert shared.stop_ends.sum(1).tolist() == [1, 0]
    assert {array.shape for array in (shared.bad_words, made.bad_words)} == {(2, 8, 4)}
