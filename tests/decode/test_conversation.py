# SPDX-License-Identifier: Apache-2.0
"""Every turn has the tokens of a fresh `generate` on the whole prompt, and reads only what is new."""

import jax
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.decode import conversation as conversations

EOS, PAD, NEW, LIMIT, CHUNK, CAPACITY = 1, 0, 6, 90, 20, 110
SAMPLING = {"temperature": 1.2, "top_p": 0.95, "repetition_penalty": 1.4, "no_repeat_ngram": 3}


@pytest.fixture
def begin(recency, monkeypatch):
    """begin(): a dialogue whose cache starts with 32 slots."""
    monkeypatch.setattr(conversations, "SMALLEST", 32)
    return lambda: decode.Conversation(recency.step, recency.params, lambda capacity: recency.empty([1], capacity),
                                       LIMIT, prefill_chunk=CHUNK)


def choice(seed, given=None):
    return decode.settings(1, **(SAMPLING if given is None else given)), decode.keys([seed])


def ask(talk, prompt, seed=0, given=None, stop_after=None, new=NEW):
    """The reply's ids, abandoned after so many where that is given."""
    with talk.reply(prompt, *choice(seed, given), max_new_tokens=new, eos=[EOS], pad=PAD) as reply:
        for _ in reply:
            if len(reply.ids[0]) == stop_after:
                break
    return list(reply.ids[0])


@pytest.fixture
def fresh(recency, pad_right):
    def generate(prompt, seed=0, given=None, new=NEW):
        tokens, lengths = pad_right([prompt], LIMIT)
        out = jax.device_get(decode.generate(
            recency.step, recency.params, tokens, lengths, recency.empty([1], CAPACITY), *choice(seed, given),
            max_new_tokens=new, eos=[EOS], pad=PAD))
        return out.tokens[0, :out.lengths[0]].tolist()

    return generate


@pytest.mark.parametrize("given", [{}, SAMPLING])
def test_turn_n_reads_only_what_is_new(begin, fresh, given):
    talk, random, prompt, held = begin(), np.random.RandomState(0), [], 0
    capacities, ended = [], set()
    for turn in range(7):
        prompt = prompt + random.randint(2, 11, random.randint(1, 9)).tolist()
        reply = ask(talk, prompt, turn, given)
        assert reply == fresh(prompt, turn, given)
        assert (talk.reused, talk.prefilled) == (held, len(prompt) - held)
        at_end = reply[-1] == EOS or len(reply) == NEW
        ended.add(reply[-1] == EOS)
        assert at_end and talk.held == prompt + reply[:-1]  # nothing reads a reply's last token
        held = len(prompt) + len(reply) - 1
        prompt = prompt + reply + ([] if reply[-1] == EOS else [EOS])
        capacities.append(talk.capacity)
    assert capacities[0] == 32 and capacities[-1] > 32 and sorted(capacities) == capacities
    assert len(ended) == 2 or given


def test_edits_resets_cancelled_replies_and_templates_that_drop_the_end(begin, fresh):
    talk = begin()
    first = [3, 4, 5, 6, 7, 8]
    reply = ask(talk, first)
    without_end = first + reply[:-1] + [9, 2]  # the template writes no EOS after a reply
    assert ask(talk, without_end, 1) == fresh(without_end, 1)
    assert talk.reused == len(first) + len(reply) - 1

    edited = [3, 4, 5, 9, 9]
    assert ask(talk, edited, 2) == fresh(edited, 2) and talk.reused == 3
    again = fresh(edited, 3)
    assert ask(talk, edited, 3) == again and (talk.reused, talk.prefilled) == (4, 1)  # the same question

    free = SAMPLING | {"min_new": NEW}
    cancelled = ask(talk, edited, 4, free, stop_after=2)
    assert cancelled == fresh(edited, 4, free)[:2] and talk.held == edited + cancelled
    onwards = edited + cancelled + [7]
    assert ask(talk, onwards, 5) == fresh(onwards, 5)
    assert (talk.reused, talk.prefilled) == (len(edited) + 2, 1)

    abandoned = talk.reply(onwards, *choice(6), max_new_tokens=NEW, eos=[EOS], pad=PAD)  # not a token is read
    assert talk.held == onwards and next(abandoned, None) is None
    talk.reset()
    assert talk.held == [] and ask(talk, edited, 7) == fresh(edited, 7) and talk.reused == 0


def test_a_long_prompt_comes_in_chunks_and_fills_the_cache_to_its_limit(begin, fresh):
    talk, random = begin(), np.random.RandomState(1)
    prompt = random.randint(2, 11, LIMIT - NEW).tolist()
    assert ask(talk, prompt[:70], 1) == fresh(prompt[:70], 1)
    assert ask(talk, prompt, 2) == fresh(prompt, 2) and talk.reused == 70
    assert talk.capacity == LIMIT + CHUNK
    with pytest.raises(ValueError, match="a prompt of 85 and 6 new tokens were asked for, expected .* 90 at most"):
        ask(talk, [*prompt, 3])
    assert talk.held[:70] == prompt[:70]  # as it was


def test_few_programs_serve_all_turns(begin, recency):
    random = np.random.RandomState(2)
    turns = [random.randint(2, 11, length).tolist() for length in (1, 15, 18, 24, 30, 60, 84)]
    for prompt in turns:
        ask(begin(), prompt)
    traces = recency.traces
    for _ in range(30):
        talk = begin()
        for length in sorted(random.randint(1, 85, 3)):
            ask(talk, random.randint(2, 11, length).tolist(), stop_after=random.randint(1, 4))
    assert recency.traces <= traces + 2  # a capacity and a width that had not met


def test_a_cache_that_an_interrupt_has_lost_is_made_anew(begin, fresh):
    talk = begin()
    reply = talk.reply([3, 4, 5], *choice(0), max_new_tokens=NEW, eos=[EOS], pad=PAD)
    next(reply)
    jax.tree.map(lambda array: array.delete(), reply._state.cache)
    assert ask(talk, [3, 4, 5, 6], 1) == fresh([3, 4, 5, 6], 1) and talk.reused == 0


def test_what_holds_no_conversation_is_refused(recency):
    with pytest.raises(ValueError, match="limit is 1"):
        decode.Conversation(recency.step, recency.params, lambda capacity: None, 1)
