# SPDX-License-Identifier: Apache-2.0
"""Prompts through `search` give what enumeration, a plain search and transformers give."""

import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
MODES = [False, True, "never"]


def log_softmax(logits):
    logits = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def next_logprobs(params, source, tokens):
    """The `markov` model in NumPy: float64[V], or [sources, V] for a slice of sources."""
    return log_softmax(params["pairs"][source, tokens[-2], tokens[-1]]
                       + params["places"][source, len(tokens) - 1])


def run(model, params, prompts, sources=None, capacity=30, **options):
    prompts = np.asarray(prompts, np.int32)
    lengths = np.full(len(prompts), prompts.shape[1], np.int32)
    sources = np.arange(len(prompts)) if sources is None else sources
    options = {"early_stopping": False, "length_penalty": 1.0, "eos": [1, -1], "pad": 0, **options}
    options["settings"] = decode.settings(len(prompts), min_new=options.pop("min_new", 0))
    return jax.device_get(decode.search(
        model.step, jax.tree.map(jnp.asarray, params), prompts, lengths,
        model.empty(sources, capacity), **options))


def sequences(out, row):
    return [tokens[:length].tolist() for tokens, length
            in zip(out.tokens[row], out.lengths[row], strict=True) if length]


def plain_search(params, source, prompt, beams, limit, penalty, early_stopping, eos, min_new=0):
    """Beam search over one prompt with Python lists: [(score, tokens)], the best first."""
    running, finished = [(0.0, [])], []
    for count in range(1, limit + 1):
        grown = []
        for total, tokens in running:
            for token, logprob in enumerate(next_logprobs(params, source, prompt + tokens)):
                if not (token in eos and count <= min_new):
                    grown.append((total + logprob, [*tokens, token]))
        grown.sort(key=lambda beam: -beam[0])
        grown = grown[:(1 + len(eos)) * beams]
        running = []
        for rank, (total, tokens) in enumerate(grown):
            if tokens[-1] in eos or count == limit:
                if rank < beams:
                    finished.append((total / count ** penalty, tokens))
            elif len(running) < beams:
                running.append((total, tokens))
        finished = sorted(finished, key=lambda beam: -beam[0])[:beams]
        if not running:
            break
        if len(finished) == beams:
            length = limit if early_stopping == "never" and penalty > 0 else count
            if early_stopping is True or running[0][0] / length ** penalty <= finished[-1][0]:
                break
    return finished


def test_beams_that_cover_the_space_find_every_sequence_in_order(markov):
    """200 models, vocabulary 5, length 4: the whole ranking, not the best alone."""
    models, vocabulary, limit, eos = 200, 5, 4, 1
    params = markov.tables(0, models, vocabulary)
    sums, lengths, names = [], [], []
    for length in range(1, limit + 1):
        for tokens in itertools.product(range(vocabulary), repeat=length):
            if eos in tokens[:-1] or (tokens[-1] != eos and length < limit):
                continue
            sums.append(sum(
                next_logprobs(params, slice(None), [2, 3, *tokens[:place]])[:, tokens[place]]
                for place in range(length)))
            lengths.append(length)
            names.append(list(tokens))
    sums, lengths, beams = np.array(sums), np.array(lengths), len(names)
    assert beams == 1 + 4 + 16 + 64 * 5
    for penalty in (0.0, 1.0, 2.0):
        scores = sums / lengths[:, None] ** penalty
        order = np.argsort(-scores, axis=0)
        out = run(markov, params, [[2, 3]] * models, beams=beams, num_return=beams,
                  max_new_tokens=limit, length_penalty=penalty, early_stopping="never")
        np.testing.assert_allclose(out.scores, np.take_along_axis(scores, order, 0).T, atol=2e-5)
        for row in range(models):
            assert sequences(out, row)[0] == names[order[0, row]]
            found = {tuple(tokens) for tokens in sequences(out, row)}
            assert found == {tuple(name) for name in names}


@pytest.mark.parametrize("beams", [2, 5])
@pytest.mark.parametrize("early_stopping", MODES)
def test_equals_a_plain_search_row_by_row(markov, beams, early_stopping):
    rows, vocabulary, limit = 24, 7, 9
    # With a negative penalty "never" and False differ only where a model is sure of itself.
    for seed, (penalty, eos, min_new, sharpness) in enumerate([
            (1.0, [1], 0, 1), (0.0, [1], 0, 1), (-0.7, [1], 2, 1), (1.7, [1, 4], 0, 1),
            (0.6, [1, 4], 3, 1), (-0.7, [1], 0, 3)]):
        params = jax.tree.map(lambda logits, by=sharpness: logits * by,
                              markov.tables(seed, rows, vocabulary))
        out = run(markov, params, [[2, 3]] * rows, beams=beams, num_return=beams,
                  eos=[*eos, -1][:2], max_new_tokens=limit, length_penalty=penalty,
                  early_stopping=early_stopping, min_new=min_new)
        for row in range(rows):
            expected = plain_search(params, row, [2, 3], beams, limit, penalty, early_stopping, eos,
                                    min_new)
            assert sequences(out, row) == [tokens for _, tokens in expected]
            np.testing.assert_allclose(out.scores[row, :len(expected)],
                                       [score for score, _ in expected], atol=2e-5)


def test_the_modes_of_stopping_differ_on_these_models(markov):
    """Else the test above would not tell them apart."""
    params = markov.tables(0, 24, 7)
    found = [run(markov, params, [[2, 3]] * 24, beams=5, num_return=5, max_new_tokens=9,
                 early_stopping=mode).tokens.tolist() for mode in MODES]
    assert found[0] != found[1] and found[0] != found[2] and found[1] != found[2]


def test_equals_transformers(markov):
    stored = json.loads((FIXTURES / "beam.json").read_text())
    for case in stored["cases"]:
        params = markov.tables(case["seed"], 1, case["vocabulary"])
        out = run(markov, params, stored["prompts"], [0] * 3,
                  **{name: case[name] for name in (
                      "beams", "max_new_tokens", "length_penalty", "early_stopping", "eos", "pad",
                      "min_new", "num_return")})
        np.testing.assert_allclose(out.scores.reshape(-1), case["scores"], rtol=1e-5, atol=1e-5)
        for row, expected in zip(out.tokens.reshape(-1, case["max_new_tokens"]).tolist(),
                                 case["tokens"], strict=True):
            known = [token for token in expected if token is not None]
            assert row[:len(known)] == known
            assert set(row[len(known):]) <= {case["pad"] or case["eos"][0]}


def test_one_beam_is_greedy(recency, pad_right):
    tokens, lengths = pad_right(recency.prompts)
    request = (recency.step, recency.params, tokens, lengths, recency.empty(range(4), 40))
    greedy = decode.generate(*request, decode.settings(4), decode.keys(range(4)),
                             max_new_tokens=12, eos=[1, 6, -1], pad=10, keep_cache=True)
    beam = decode.search(*request, beams=1, max_new_tokens=12, length_penalty=0.0,
                         early_stopping=True, eos=[1, 6], pad=10)
    assert np.array_equal(beam.tokens[:, 0], greedy.tokens)
    assert np.array_equal(beam.lengths[:, 0], greedy.lengths)
    np.testing.assert_allclose(beam.scores[:, 0], greedy.logprobs.sum(-1), atol=1e-5)


@pytest.mark.parametrize("early_stopping", MODES)
def test_batch_mates_do_not_matter(recency, pad_right, early_stopping):
    """Mixed lengths and sources; and scores are those of the tokens by the uncached model."""
    options = {"beams": 4, "num_return": 4, "max_new_tokens": 8, "length_penalty": 1.0,
               "early_stopping": early_stopping, "eos": [1, 6], "pad": 0}

    def search(prompts, sources):
        tokens, lengths = pad_right(prompts, 4)
        return jax.device_get(decode.search(
            recency.step, recency.params, tokens, lengths, recency.empty(sources, 20),
            **options))

    together = search(recency.prompts, range(4))
    for row, prompt in enumerate(recency.prompts):
        alone = search([prompt], [row])
        assert alone.tokens[0].tolist() == together.tokens[row].tolist()
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-5)
        for tokens, score in zip(sequences(together, row), together.scores[row], strict=True):
            steps = [log_softmax(recency.logits(prompt + tokens[:place], row))[token]
                     for place, token in enumerate(tokens)]
            assert abs(sum(steps) / len(steps) - score) < 1e-5


def test_what_does_not_exist_is_not_returned(markov):
    """Vocabulary 2 with EOS: one sequence of each length, fewer than the beams at first."""
    out = run(markov, markov.tables(0, 1, 2), [[0, 0]], beams=6, num_return=6, max_new_tokens=3,
              early_stopping="never", length_penalty=0.0, pad=9)
    assert sorted(sequences(out, 0)) == [[0, 0, 0], [0, 0, 1], [0, 1], [1]]
    assert out.lengths[0, 4:].tolist() == [0, 0] and np.all(out.scores[0, 4:] == -np.inf)
    assert out.tokens[0, 4:].tolist() == [[9] * 3] * 2


def test_after_the_end_stands_pad_or_eos_where_pad_is_zero(markov):
    options = {"beams": 5, "num_return": 5, "max_new_tokens": 9}
    for pad, filler in ((0, 1), (5, 5)):
        out = run(markov, markov.tables(0, 24, 7), [[2, 3]] * 24, pad=pad, **options)
        after = np.arange(9) >= out.lengths[..., None]
        assert after.any() and np.all(out.tokens[after] == filler)


def test_nothing_compiles_again_when_the_rules_change(markov):
    options = {"beams": 5, "max_new_tokens": 9}
    run(markov, markov.tables(0, 24, 7), [[2, 3]] * 24, **options)
    traces = markov.traces
    for penalty, mode, min_new in itertools.product((0.0, 1, -2.5), MODES, (0, 3)):
        for returned in (1, 3):
            run(markov, markov.tables(1, 24, 7), [[4, 3]] * 24, length_penalty=penalty, pad=3,
                early_stopping=mode, min_new=min_new, num_return=returned, eos=[2, 5], **options)
    assert markov.traces == traces


@pytest.mark.parametrize(("change", "said"), [
    ({"num_return": 4}, "4 sequences of 3 beams"),
    ({"beams": 0}, "1 sequences of 0 beams"),
    ({"early_stopping": "always"}, "early_stopping is 'always', expected False, True or 'never'"),
    ({"early_stopping": 1}, "early_stopping is 1"),
    ({"max_new_tokens": 29}, "a prompt of 2 and 29 new tokens need 31 slots, the cache has 30"),
])
def test_a_request_that_does_not_fit_is_refused(markov, change, said):
    with pytest.raises(ValueError) as error:
        run(markov, markov.tables(0, 1, 7), [[2, 3]], **{"beams": 3, "max_new_tokens": 5, **change})
    assert said in str(error.value)
