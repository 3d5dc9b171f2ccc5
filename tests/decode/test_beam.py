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
    chosen = {name: options.pop(name) for name in ("min_new", "repetition_penalty") if name in options}
    options["settings"] = decode.settings(len(prompts), **chosen)
    return jax.device_get(decode.search(
        model.step, jax.tree.map(jnp.asarray, params), prompts, lengths,
        model.empty(sources, capacity), **options))


def sequences(out, row):
    return [tokens[:length].tolist() for tokens, length
            in zip(out.tokens[row], out.lengths[row], strict=True) if length]


def plain_search(params, source, prompt, beams, limit, penalty, early_stopping, eos, min_new=0, *,
                 groups=1, diversity=0.0, repetition=1.0, until_4_55=False):
    """Beam search over one prompt with Python lists: [(score, tokens)], the best first.

    until_4_55: as transformers stopped a group until then: whether it could still improve is asked of
    its best candidate, ended or not; and only where it could, beams cut at the limit count as finished.
    """
    size, vocabulary = beams // groups, params["places"].shape[-1]
    running, finished = [[(0.0, [])] for _ in range(groups)], [[] for _ in range(groups)]
    for count in range(1, limit + 1):
        given = np.zeros(vocabulary)
        for group in range(groups):
            grown = []
            for total, tokens in running[group]:
                logprobs = next_logprobs(params, source, prompt + tokens) - diversity * given
                logprobs[sorted({*prompt, *tokens})] *= repetition
                grown += [(total + logprob, [*tokens, token]) for token, logprob in enumerate(logprobs)
                          if not (token in eos and count <= min_new)]
            grown = sorted(grown, key=lambda beam: -beam[0])[:(1 + len(eos)) * size]
            ends = [tokens[-1] in eos or (count == limit and not until_4_55) for _, tokens in grown]
            finished[group] += [(total / count ** penalty, tokens) for (total, tokens), end
                                in zip(grown[:size], ends, strict=False) if end]
            finished[group] = sorted(finished[group], key=lambda beam: -beam[0])[:size]
            running[group] = [beam for beam, end in zip(grown, ends, strict=True) if not end][:size]
            for _, tokens in running[group]:
                given[tokens[-1]] += 1
            if running[group] and len(finished[group]) == size:
                length = limit if early_stopping == "never" and penalty > 0 else count
                best, _ = grown[0] if until_4_55 else running[group][0]
                if early_stopping is True or best / length ** penalty <= finished[group][-1][0]:
                    running[group] = []
    ranking = []
    for beams_cut, group in zip(running, finished, strict=True):
        group += [(total / limit ** penalty, tokens) for total, tokens in beams_cut]
        ranking += sorted(group, key=lambda beam: -beam[0])[:size]
    return sorted(ranking, key=lambda beam: -beam[0])


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


GROUPS = [  # beams, groups, diversity_penalty, length_penalty, early_stopping, eos, repetition_penalty
    (4, 2, 0.4, 1.0, False, [1], 1), (6, 3, 1.5, 0.0, "never", [1, 4], 1), (6, 2, 0.8, -0.7, True, [1], 1),
    (4, 4, 2.5, 1.7, False, [1, 4], 1.3)]


@pytest.mark.parametrize(("beams", "groups", "diversity", "penalty", "early_stopping", "eos", "repetition"), GROUPS)
def test_groups_equal_a_plain_search_row_by_row(
        markov, beams, groups, diversity, penalty, early_stopping, eos, repetition):
    rows, limit, prompt = 24, 9, [2, 3]
    params = markov.tables(beams, rows, 7)
    out = run(markov, params, [prompt] * rows, beams=beams, groups=groups, num_return=beams,
              diversity_penalty=diversity, length_penalty=penalty, early_stopping=early_stopping,
              eos=[*eos, -1][:2], max_new_tokens=limit, repetition_penalty=repetition)
    different = 0
    for row in range(rows):
        request = (params, row, prompt, beams, limit, penalty, early_stopping, eos)
        expected = plain_search(*request, groups=groups, diversity=diversity, repetition=repetition)
        assert same(list(zip(out.scores[row], sequences(out, row), strict=False)), expected)
        whole = plain_search(*request, repetition=repetition)
        different += len({tuple(tokens) for _, tokens in expected} - {tuple(tokens) for _, tokens in whole})
    assert different > rows // 2


def same(found, expected):
    """Equal rankings, whatever the order among equal scores (two groups may find the same)."""
    found, expected = ([(round(score, 3), *tokens) for score, tokens in ranking] for ranking in (found, expected))
    return len(found) == len(expected) and all(
        a[1:] == b[1:] and abs(a[0] - b[0]) < 2e-3
        for a, b in zip(sorted(found), sorted(expected), strict=True))


def test_groups_equal_transformers(markov):
    """The plain search by 4.55's rule of stopping finds what 4.55 found; where both rules do, so do we."""
    stored = json.loads((FIXTURES / "groups.json").read_text())
    compared = 0
    for case in stored["cases"]:
        params = markov.tables(case["seed"], 1, stored["vocabulary"])
        pad, repetition = stored["vocabulary"], case.get("repetition_penalty", 1)
        out = run(markov, params, stored["prompts"], [0] * 3, num_return=case["beams"], max_new_tokens=stored["limit"],
                  eos=[*case["eos"], -1][:2], repetition_penalty=repetition,
                  **{name: case[name] for name in ("beams", "groups", "diversity_penalty", "length_penalty",
                                                   "early_stopping")})
        for row, prompt in enumerate(stored["prompts"]):
            part = slice(row * case["beams"], (row + 1) * case["beams"])
            tokens = [[token for token in ids if token not in (None, pad)] for ids in case["tokens"][part]]
            answer = list(zip(case["scores"][part], tokens, strict=True))
            request = (params, 0, prompt, case["beams"], stored["limit"], case["length_penalty"],
                       case["early_stopping"], case["eos"])
            rules = {"groups": case["groups"], "diversity": case["diversity_penalty"], "repetition": repetition}
            found = list(zip(out.scores[row], sequences(out, row), strict=False))
            then, now, ours = ([(score, [*ids[:-1], case["eos"][0] if ids[-1] in case["eos"] else ids[-1]])
                                for score, ids in ranking]  # it writes the first EOS id for any
                               for ranking in (plain_search(*request, **rules, until_4_55=True),
                                               plain_search(*request, **rules), found))
            assert same(then, answer) and same(ours, now), (case, row)
            compared += same(now, answer)
    assert compared > 40  # of 54


def test_groups_without_diversity_are_copies_and_the_first_is_alone(markov):
    rows, options = 24, {"max_new_tokens": 9, "early_stopping": False}
    params = markov.tables(7, rows, 7)
    small = run(markov, params, [[2, 3]] * rows, beams=2, num_return=2, **options)
    copies, diverse = (run(markov, params, [[2, 3]] * rows, beams=6, groups=3, num_return=6,
                           diversity_penalty=penalty, **options) for penalty in (0.0, 5.0))
    np.testing.assert_array_equal(copies.tokens, np.repeat(small.tokens, 3, axis=1))
    np.testing.assert_allclose(copies.scores, np.repeat(small.scores, 3, axis=1), atol=1e-6)
    for row in range(rows):
        found = sequences(diverse, row)
        assert all(tokens in found for tokens in sequences(small, row))
        assert len({tuple(tokens) for tokens in found}) > 2  # and the others find something else


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
    diverse = {"beams": 6, "groups": 3, "max_new_tokens": 9}
    run(markov, markov.tables(7, 24, 7), [[2, 3]] * 24, **diverse)
    traces = markov.traces
    for diversity in (0.0, 0.5, 3):
        run(markov, markov.tables(7, 24, 7), [[2, 3]] * 24, diversity_penalty=diversity, **diverse)
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
    ({"groups": 2}, "3 beams cannot be 2 groups"),
    ({"groups": 3, "diversity_penalty": -0.5}, "diversity_penalty is -0.5, expected a number from 0"),
    ({"diversity_penalty": 0.5}, "acts between groups of beams, and there is 1"),
    ({"max_new_tokens": 29}, "a prompt of 2 and 29 new tokens need 31 slots, the cache has 30"),
])
def test_a_request_that_does_not_fit_is_refused(markov, change, said):
    with pytest.raises(ValueError) as error:
        run(markov, markov.tables(0, 1, 7), [[2, 3]], **{"beams": 3, "max_new_tokens": 5, **change})
    assert said in str(error.value)
