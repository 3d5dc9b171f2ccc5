# SPDX-License-Identifier: Apache-2.0
"""Segments of any cuts write what one unbounded loop writes, and end when they are told to."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.decode import sample
from t5tasks.decode.settings import UNLIMITED

SOURCES, NEW, EOS = [0, 1, 2, 3], 12, [1, 6]
GIVEN = {"temperature": [0.0, 1.0, 0.8, 1.5], "top_k": [0, 5, 0, 0], "no_repeat_ngram": [0, 2, 0, 0],
         "min_new": [0, 0, 2, 9], "max_new": [12, 12, 5, 12], "stop": [["xyz"], [], ["a"], []]}
PIECES = [b"%c" % character for character in b"abcdefghijk"]


@pytest.fixture
def begun(recency, pad_right):
    """(logits, state, request) of four prompts, and what `generate` makes of them."""
    tokens, lengths = pad_right(recency.prompts)
    arguments = (tokens, lengths, recency.empty(SOURCES, 20), decode.settings(4, **GIVEN),
                 decode.keys([5, 6, 7, 8]))
    ends, pieces = jnp.asarray(EOS, jnp.int32), decode.pieces(PIECES)
    whole = decode.generate(recency.step, recency.params, *arguments, max_new_tokens=NEW, eos=ends, pad=0,
                            alternatives=2, pieces=pieces, keep_cache=True)
    begin = jax.jit(partial(sample.begin, recency.step, max_new_tokens=NEW, alternatives=2))
    return begin(recency.params, *arguments, ends, 0, pieces), jax.device_get(whole)


@pytest.mark.parametrize("steps", [1, 2, 5, UNLIMITED])
@pytest.mark.parametrize("ends", [1, 2, UNLIMITED])
def test_any_cuts_write_what_one_loop_writes(recency, begun, steps, ends):
    (logits, state, request), whole = begun
    lengths, ended = np.zeros(4, int), np.zeros(4, bool)
    while not ended.all():
        logits, state = sample.advance(recency.step, recency.params, logits, state, request,
                                       steps=np.int32(steps), ends=np.int32(ends))
        added, new = np.asarray(state.written.lengths) - lengths, np.asarray(state.ended) & ~ended
        assert (added <= steps).all() and added[~ended].min() >= 1
        stopped = new.sum() >= ends or added.max() == steps or np.asarray(state.ended).all()
        assert stopped
        lengths, ended = lengths + added, ended | new
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.written), whole)
    assert len(set(whole.lengths.tolist())) > 2  # the rows end apart, so that cuts fall between ends


def test_limits_are_values_and_the_state_is_worked_on_in_place(recency, begun):
    (logits, state, request), _ = begun
    traces = None
    for steps, ends in [(1, UNLIMITED), (2, 1), (UNLIMITED, 1), (UNLIMITED, 2)]:
        given = state
        logits, state = sample.advance(recency.step, recency.params, logits, state, request,
                                       steps=np.int32(steps), ends=np.int32(ends))
        traces = recency.traces if traces is None else traces
        assert given.cache.tokens.is_deleted() and given.written.tokens.is_deleted()
    assert recency.traces == traces
