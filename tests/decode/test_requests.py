# SPDX-License-Identifier: Apache-2.0
"""A thousand requests of random lengths and settings run on as many programs as there are buckets."""

import itertools

import jax
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.decode.prompts import bucket
from t5tasks.decode.tables import BAD_WORDS

WIDTHS, NEW, ROWS, EOS = (4, 8), 6, 4, [1, 6]
COMPILED = "/jax/core/compile/backend_compile_duration"
PIECES = [b"", b"", *(b"%c" % character for character in b"abcdefgh"), b"ij"]


@pytest.fixture
def compilations():
    """A list that grows by one whenever JAX compiles anything."""
    seen = []

    def listen(event, duration, **unused):
        if event == COMPILED:
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def random_request(random):
    """Prompts and every setting, each present or absent by chance."""
    def some(value):
        return [value() if random.rand() < 0.5 else None for _ in range(ROWS)]

    def ids(count):
        return random.randint(0, 11, count).tolist()

    def maybe(values, off):
        return np.where(random.rand(ROWS) < 0.5, values, off)

    prompts = [ids(random.randint(1, WIDTHS[-1] + 1)) for _ in range(ROWS)]
    words = [0, random.randint(1, BAD_WORDS[0] + 1), random.randint(BAD_WORDS[0] + 1, 40)][random.randint(3)]
    minima = random.randint(0, 3, ROWS)
    settings = decode.settings(
        ROWS, temperature=maybe(random.rand(ROWS) * 2, 0), top_k=maybe(random.randint(0, 9, ROWS), 0),
        top_p=maybe(random.rand(ROWS), 1), min_p=maybe(random.rand(ROWS), 0),
        typical_p=maybe(random.rand(ROWS) * 0.9 + 0.1, 1), no_repeat_ngram=maybe(random.randint(1, 5, ROWS), 0),
        repetition_penalty=maybe(random.rand(ROWS) + 0.5, 1), presence_penalty=maybe(random.randn(ROWS), 0),
        frequency_penalty=maybe(random.randn(ROWS), 0), min_new=minima,
        max_new=minima + random.randint(1, 9, ROWS), forced_eos=maybe(random.choice(EOS, ROWS), -1),
        forced=some(lambda: ids(random.randint(0, 4))),
        bad_words=some(lambda: [ids(random.randint(1, 4)) for _ in range(words)]),
        stop=some(lambda: [["a", "bc", "hij"][random.randint(3)]]))
    return prompts, settings, random.randint(0, 2 ** 31, ROWS)


def answer(model, prompts, settings, seeds, table, pad_right):
    tokens, lengths = pad_right(prompts, bucket(max(map(len, prompts)), WIDTHS))
    return decode.generate(
        model.step, model.params, tokens, lengths, model.empty(np.arange(ROWS), 40), settings,
        decode.keys(seeds), max_new_tokens=NEW, eos=EOS, pad=0, pieces=table)


def test_a_thousand_requests_compile_nothing_after_the_first_of_each_bucket(recency, pad_right, compilations):
    table, random = decode.pieces(PIECES), np.random.RandomState(0)
    compiled = None
    for width, words in itertools.product(WIDTHS, BAD_WORDS[:2]):
        made = decode.settings(ROWS, bad_words=[[3]] * words, stop="a")
        before, traces = len(compilations), recency.traces
        jax.block_until_ready(answer(recency, [[3] * width] * ROWS, made, np.arange(ROWS), table, pad_right))
        assert recency.traces > traces  # a program of its own
        compiled = len(compilations) - before
    assert compiled == 1  # all but the last bucket's program was there
    before, traces = len(compilations), recency.traces
    lengths, reasons = [], set()
    for _ in range(1000):
        out = answer(recency, *random_request(random), table, pad_right)
        lengths += np.asarray(out.lengths).tolist()
        reasons |= set(np.asarray(out.reasons).tolist())
    assert len(compilations) == before and recency.traces == traces
    assert set(lengths) == {*range(NEW + 1)} and reasons == {
        decode.AT_LIMIT, decode.AT_EOS, decode.AT_STOP, decode.FORBIDDEN}
